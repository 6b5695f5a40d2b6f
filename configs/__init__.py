"""Each file has one short get_config()."""
import ilm_jax

ilm_jax.one_package(__name__)
