"""A batch of prompts, the input of all decoding."""
from typing import NamedTuple

import jax

from ilm_jax.models import decoder as decoder_lib


class Prompt(NamedTuple):
  """Prompts as embeddings, soft tokens already in their slots, padded on the right."""
  embeds_BLD: jax.Array
  position_BL: jax.Array    # int, from 0 in every row
  valid_BL: jax.Array       # bool, true at the prompt, false at padding; at least one per row

  def run(self, model, extra: int) -> decoder_lib.Prefilled:
    """Runs the prompts through a language model; its cache has `extra` free places."""
    return model.prefill(*self, extra)
