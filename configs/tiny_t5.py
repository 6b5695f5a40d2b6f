"""Every stage once with an encoder-decoder (T5) of random weights, for tests.
Expect: under a minute.

    python tests/random_lm.py t5 runs/random_t5
    python -m ilm_jax.main --config=configs/tiny_t5.py --workdir=runs/tiny_t5 --stage=all

Any other language model needs the same two lines: a path, and a tokenizer if the model has none.
"""
import ml_collections

from ilm_jax.configs import tiny


def get_config() -> ml_collections.ConfigDict:
  c = tiny.get_config()
  c.lm.update(asset="runs/random_t5", tokenizer="smollm2-135m-instruct")
  c.phase2.head.weight = 0.0       # the item head needs a decoder
  return c
