"""A trained run as files that others read: the item matrix, a Hugging Face folder, jax.export."""
