"""A batch of prompts and its place in the cache: where all decoding starts."""
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ilm_jax.models import decoder as decoder_lib


class Prompt(NamedTuple):
  """Prompts as embeddings, soft tokens already in their slots, padded on the right."""
  embeds_BLD: jax.Array
  position_BL: jax.Array    # int, from 0 in every row
  valid_BL: jax.Array       # bool, true at the prompt's own places; at least one a row


class Prefilled(NamedTuple):
  """A prompt that has been run. `extra` free places follow it in the cache."""
  cache: decoder_lib.Cache  # M = L + extra places
  last_BD: jax.Array        # hidden state of each prompt's last token
  next_B: jax.Array         # rotary position of the first token after the prompt
  valid_BL: jax.Array


def prefill(decoder: decoder_lib.Decoder, prompt: Prompt, extra: int) -> Prefilled:
  """Runs the prompts once; whatever follows attends to them in the cache."""
  B, L = prompt.valid_BL.shape
  cache = decoder.init_cache(B, L + extra)
  causal_BLL = prompt.valid_BL[:, None, :] & jnp.tri(L, dtype=bool)[None]
  mask_BLM = jnp.pad(causal_BLL, ((0, 0), (0, 0), (0, extra)))
  hidden_BLD, cache = decoder.extend(prompt.embeds_BLD, prompt.position_BL, mask_BLM, cache, 0)
  last_B = jnp.sum(prompt.valid_BL, axis=1) - 1
  row_B = jnp.arange(B)
  return Prefilled(cache, hidden_BLD[row_B, last_B], prompt.position_BL[row_B, last_B] + 1,
                   prompt.valid_BL)
