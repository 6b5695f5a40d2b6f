"""Interaction arrays, the entity table, prepared examples and batches."""
