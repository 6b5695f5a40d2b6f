"""A trained run as files for other programs: item matrix, Hugging Face folder, jax.export."""
