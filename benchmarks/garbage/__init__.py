"""Feeds damaged files to every reader of files from outside; see docs/results/garbage.md."""
