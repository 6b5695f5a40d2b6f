"""Configs: reading, every mistake at once with its cure, gin over the fields."""
