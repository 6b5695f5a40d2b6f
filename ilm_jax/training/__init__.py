"""The training step, the loop that feeds it, and its checkpoints."""
