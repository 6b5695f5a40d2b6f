"""Definition and preparation of data: the only package that imports TensorFlow."""
import ilm_jax

ilm_jax.one_package(__name__)
