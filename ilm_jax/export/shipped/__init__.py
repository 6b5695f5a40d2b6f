"""Programs that are copied into an export: they run there without ilm_jax."""
