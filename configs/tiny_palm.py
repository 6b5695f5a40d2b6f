"""Every stage once with a PaLM-style decoder of random weights, for tests.
Expect: under a minute.

    python tests/random_lm.py palm runs/random_palm
    python -m ilm_jax.main --config=configs/tiny_palm.py --workdir=runs/tiny_palm --stage=all

Any other language model needs the same two lines: a path, and a tokenizer if the model has none.
"""
import ml_collections

from ilm_jax.configs import tiny


def get_config() -> ml_collections.ConfigDict:
  c = tiny.get_config()
  c.lm.update(asset="runs/random_palm", tokenizer="smollm2-135m-instruct")
  return c
