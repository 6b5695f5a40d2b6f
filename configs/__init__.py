"""One short get_config() a file."""
import ilm_jax

ilm_jax.one_package(__name__)
