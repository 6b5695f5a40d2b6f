"""Items drawn in a step in place of a whole catalogue, each with how many it stands for."""
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Drawn(NamedTuple):
  """K different items. A sum over them, each times `stands_K`, is on average that over all."""
  item_K: jax.Array         # int, entity rows
  stands_K: jax.Array       # float32, 1 / the chance of being drawn


def items(key, num_items: int, count: int, log_weight_I=None) -> Drawn:
  """`count` different ones of the items 1..num_items; 0, or at least num_items: all of them.

  Each item's log weight gets Gumbel noise, and the largest are drawn: as if one by one, by weight.
  Evenly, the chance of each is count / I. By weight, with t what the next one has, an item was to
  be drawn with chance 1 - exp(-exp(log weight - t)), and sums weighted by the inverse are unbiased
  (Duffield et al., "Priority sampling for estimation of arbitrary subset sums", JACM 2007; Kool et
  al., "Stochastic beams and where to find them", ICML 2019, section 4.2). The draw hangs on the key
  alone: every process and device makes the same.

  Args:
    key: of the step; its numbers are drawn by threefry, whatever draws the dropout, as those of
      other generators hang on the mesh. None: a fixed one.
    num_items: I.
    count: how many.
    log_weight_I: [I], draws by weight; None: evenly.
  """
  if not 0 < count < num_items:
    return Drawn(jnp.arange(1, num_items + 1), jnp.ones(num_items))
  seed = jax.random.key_data(jax.random.key(0) if key is None else key).reshape(-1)[-2:]
  noise_I = jax.random.gumbel(jax.random.wrap_key_data(seed, impl="threefry2x32"), (num_items,))
  if log_weight_I is None:
    at_K = jax.lax.top_k(noise_I, count)[1]
    return Drawn(at_K + 1, jnp.full(count, num_items / count))
  noisy_K1, at_K1 = jax.lax.top_k(log_weight_I + noise_I, count + 1)
  chance_K = -jnp.expm1(-jnp.exp(log_weight_I[at_K1[:-1]] - noisy_K1[-1]))
  return Drawn(at_K1[:-1] + 1, 1.0 / chance_K)
