"""Garbage for every reader of other people's files; see docs/results/garbage.md."""
