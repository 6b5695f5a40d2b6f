"""Draws a step's items from the catalogue, each with its weight in sums over all items."""
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Drawn(NamedTuple):
  """K different items. A sum over them, weighted by `stands_K`, is unbiased for that over all."""
  item_K: jax.Array         # int, entity rows
  stands_K: jax.Array       # float32, 1 / probability of being drawn


def items(key, num_items: int, count: int, log_weight_I=None) -> Drawn:
  """Draws `count` different items of 1..num_items; 0, or at least num_items: all of them.

  Each item's log weight gets Gumbel noise and the largest are drawn: this is drawing one by one, by
  weight, without replacement. Drawn uniformly, each has probability count / I. Drawn by weight, an
  item has probability 1 - exp(-exp(log weight - t)), with t the noisy log weight of the best item
  that was not drawn; sums weighted by the inverse are unbiased (Duffield et al., "Priority sampling
  for estimation of arbitrary subset sums", JACM 2007; Kool et al., "Stochastic beams and where to
  find them", ICML 2019, section 4.2). The draw depends on the key alone, so every process and
  device draws the same items.

  Args:
    key: of the step. The draw always uses threefry, whichever generator dropout uses: numbers of
      other generators depend on the mesh. None: a fixed key.
    num_items: I.
    count: number of items.
    log_weight_I: float [I]: draws by weight; None: uniformly.
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
