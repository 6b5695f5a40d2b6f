"""Losses of both phases: (trainable, frozen, batch, rng) -> loss, metrics."""
