"""The Item-Language Model in JAX."""

__version__ = "0.1.0"
