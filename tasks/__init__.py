"""Definition and preparation of data: the only package that imports TensorFlow."""
