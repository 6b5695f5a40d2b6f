"""A batch of prompts: where all decoding starts."""
from typing import NamedTuple

import jax

from ilm_jax.models import decoder as decoder_lib


class Prompt(NamedTuple):
  """Prompts as embeddings, soft tokens already in their slots, padded on the right."""
  embeds_BLD: jax.Array
  position_BL: jax.Array    # int, from 0 in every row
  valid_BL: jax.Array       # bool, true at the prompt's own places; at least one a row

  def run(self, model, extra: int) -> decoder_lib.Prefilled:
    """Runs the prompts once through a language model; what follows attends to its cache."""
    return model.prefill(*self, extra)
