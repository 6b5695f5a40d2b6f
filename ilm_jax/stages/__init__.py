"""The stages: one job each, which meet only in files of the workdir."""
