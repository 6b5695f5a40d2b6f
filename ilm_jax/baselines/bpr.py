"""Matrix factorisation by Bayesian personalised ranking (Rendle et al. 2009, arXiv 1205.2618)."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax


def bpr(histories: list, num_items: int, width: int, *, reg: float = 1e-4,
        learning_rate: float = 0.01, epochs: int = 60, batch_size: int = 4096, seed: int = 0):
  """Factors whose inner products rank the items that a user chose above all others.

  Args:
    histories: item rows (1..I) of each user's training interactions.
    num_items: I.
    width: C.
    reg: weight of the squared factors that a pair touches.
    learning_rate: learning rate of Adam.
    epochs: passes over the interactions.
    batch_size: pairs in a step; a negative is drawn uniformly for each.
    seed: seed of the initial factors, the order and the negatives.

  Returns:
    (user_UC, item_IC1): float32 [users, C] and [I + 1, C + 1]. The items carry a bias in their last
    column and users a 1 there, so the inner product is the score; row 0 of the items is 0.
  """
  user_N = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
  item_N = np.concatenate([np.zeros(0, np.int64), *histories]).astype(np.int32)
  key_user, key_item, key = jax.random.split(jax.random.key(seed), 3)
  params = {"user": 0.1 * jax.random.normal(key_user, (len(histories), width)),
            "item": 0.1 * jax.random.normal(key_item, (num_items + 1, width)),
            "bias": jnp.zeros(num_items + 1)}
  tx = optax.adam(learning_rate)
  state, rng = (params, tx.init(params)), np.random.default_rng(seed)
  steps = max(len(user_N) // batch_size, 1)
  size = min(batch_size, len(user_N))
  epoch = jax.jit(functools.partial(_epoch, tx, reg, num_items))
  for number in range(epochs):
    order = rng.permutation(len(user_N))[:steps * size].reshape(steps, size)
    state = epoch(state, user_N[order].astype(np.int32), item_N[order],
                  jax.random.fold_in(key, number))
  tables = jax.device_get(state[0])
  user_UC = np.concatenate([tables["user"], np.ones((len(histories), 1), np.float32)], axis=1)
  item_IC = np.concatenate([tables["item"], tables["bias"][:, None]], axis=1)
  item_IC[0] = 0
  return user_UC, item_IC


def _epoch(tx, reg: float, num_items: int, state, user_SB, item_SB, key):
  def loss_fn(params, user_B, item_B, other_B):
    user_BC, item_BC, other_BC = (
        params["user"][user_B], params["item"][item_B], params["item"][other_B])
    ahead_B = (jnp.sum(user_BC * (item_BC - other_BC), axis=1)
               + params["bias"][item_B] - params["bias"][other_B])
    squared = sum(jnp.sum(x * x) for x in (user_BC, item_BC, other_BC))
    return jnp.sum(jax.nn.softplus(-ahead_B)) + reg * squared

  def step(state, xs):
    params, slots = state
    user_B, item_B, number = xs
    other_B = jax.random.randint(jax.random.fold_in(key, number), item_B.shape, 1, num_items + 1)
    grads = jax.grad(loss_fn)(params, user_B, item_B, other_B)
    updates, slots = tx.update(grads, slots, params)
    return (optax.apply_updates(params, updates), slots), None

  return jax.lax.scan(step, state, (user_SB, item_SB, jnp.arange(len(user_SB))))[0]
