"""Ranks items by inner products: one matmul scores the whole catalogue.

Phase 1's user-item loss (UI) puts users and items into one space, where items are scored for a user
without the language model. The similarity is the one that UI trains: the cosine of the two, or,
with `qformer.query_pool="nearest"`, the largest over all pairs of a user's query and an item's.

Phase 2's item head (`ilm.ItemHead`) scores items from the language model's hidden state at the end
of a history.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ilm_jax import losses
from ilm_jax.objectives import inputs
from ilm_jax.runtime import placement


def items(graphdef, params, frozen: dict, num_items: int, batch: int = 256) -> jax.Array:
  """float32 [I, Q, P]: unit vectors of the whole catalogue, for any number of calls of `score`.

  Args: see `score`.
  """
  return _project(graphdef, params, frozen, np.arange(1, num_items + 1), batch)


def score(graphdef, params, frozen: dict, user_U, num_items: int, batch: int = 256,
          items: jax.Array | None = None) -> np.ndarray:
  """float32 [U, num_items + 1] similarities; column 0 is -inf.

  Args:
    graphdef: of the Q-Former (`phase1.build_phase1`).
    params: its parameters.
    frozen: vectors and present, by name, of all entities.
    user_U: int, entity rows of users.
    num_items: I; items are the entity rows 1..I.
    batch: entities per call of the Q-Former.
    items: from `items`, with the same parameters; None: computed here.
  """
  item_IQP = items
  if item_IQP is None:
    item_IQP = _project(graphdef, params, frozen, np.arange(1, num_items + 1), batch)
  user_UQP = _project(graphdef, params, frozen, np.asarray(user_U), batch, users=True)
  # A similarity is the largest of Q * Q products; about 2^24 products are in memory at once.
  users = max(1, 2 ** 24 // (num_items * item_IQP.shape[1] ** 2))
  score_parts = [placement.fetch(_similarity(user_UQP[first:first + users], item_IQP))
           for first in range(0, len(user_UQP), users)]
  return np.pad(np.concatenate(score_parts), ((0, 0), (1, 0)), constant_values=-np.inf)


class HeadItems(NamedTuple):
  """Keys and biases of the catalogue for an item head; index i is the entity row i + 1."""
  key_IP: jax.Array
  bias_I: jax.Array


def head_items(graphdef, params, frozen: dict, num_items: int, batch: int = 256) -> HeadItems:
  """Keys and biases of all items, computed once for any number of prompts.

  Args:
    graphdef: of an ILM with a head (`phase2.build_phase2`).
    params: its parameters.
    frozen: vectors, present, log_draws of all entities.
    num_items: I; items are the entity rows 1..I.
    batch: entities per call of the model.
  """
  rows = np.pad(np.arange(1, num_items + 1), (0, -num_items % batch)).reshape(-1, batch)
  parts = [_head_items(graphdef, params, frozen, part) for part in rows]
  return HeadItems(*(jnp.concatenate(x)[:num_items] for x in zip(*parts)))


@functools.partial(jax.jit, static_argnums=0)
def head_score(graphdef, params, hidden_BD, items: HeadItems) -> jax.Array:
  """float32 [B, I + 1]: scores from the hidden states at histories' ends; column 0 is -inf."""
  query_BP = nnx.merge(graphdef, params).head.query(hidden_BD.astype(jnp.float32))
  # For one row XLA for CPU would fuse the product into what follows: ten times as slow.
  product_BI = jax.lax.optimization_barrier(query_BP @ items.key_IP.T)
  return jnp.pad(product_BI + items.bias_I[None], ((0, 0), (1, 0)), constant_values=-jnp.inf)


@functools.partial(jax.jit, static_argnums=0)
def _head_items(graphdef, params, frozen, rows_B):
  model = nnx.merge(graphdef, params)
  features = model.features(*inputs.entity_inputs(frozen, rows_B))
  return model.head.items(features, frozen["log_draws"][rows_B])


def _project(graphdef, params, frozen, rows_N, batch: int, users: bool = False) -> jax.Array:
  """[N, Q, P]: unit vectors of entity rows; rows are padded so that one shape is compiled."""
  padded = np.pad(rows_N, (0, -len(rows_N) % batch)).reshape(-1, batch)
  parts = [_queries(graphdef, users, params, frozen, rows) for rows in padded]
  return jnp.concatenate(parts)[:len(rows_N)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _queries(graphdef, users, params, frozen, rows_B):
  qformer = nnx.merge(graphdef, params)
  return qformer.project_queries(qformer.queries(*inputs.entity_inputs(frozen, rows_B)), users)


_similarity = jax.jit(losses.bag_similarity)
