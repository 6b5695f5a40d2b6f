"""The stages: one job each, connected only by files in the workdir."""
