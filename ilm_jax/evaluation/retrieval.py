"""Measures phase 1: does an item's vector find its text among all texts, and a text its item?

Measured on held-out items, whose texts phase 1 never trains on. The floor is a linear map under the
same protocol: ridge regression from the same vectors to the text encoder's vectors, fitted on
training items alone.
"""
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ilm_jax import losses
from ilm_jax.evaluation import metrics, paired
from ilm_jax.evaluation import ridge as ridge_lib
from ilm_jax.evaluation import rows as rows_lib
from ilm_jax.objectives import inputs
from ilm_jax.runtime import placement

TIE_RULE = "lower item row first"
_MEASURED = 2000          # most held-out items that are measured
_FITTED = 50_000          # most items that the floor learns from
_TOGETHER = 1 << 14       # items that the floor maps at a time


class Space(NamedTuple):
  """Items and their texts as unit vectors; entry i belongs to item row i + 1."""
  item_IQP: np.ndarray
  text_IP: np.ndarray


def qformer_space(graphdef, params, frozen: dict, batches, mesh, items: int) -> Space:
  """Items and texts as a trained Q-Former projects them for ITC.

  Args:
    graphdef: of the Q-Former (`phase1.build_phase1`).
    params: its parameters.
    frozen: vectors and present, by name, of all entities.
    batches: text_entities int [B], text int [B, T], text_mask bool [B, T], with every item once and
      all of one shape; entity 0 pads a batch.
    mesh: of params and frozen.
    items: number of items.

  Raises:
    ValueError: an item's text is missing.
  """
  there_I, space = np.zeros(items, bool), Space(*(np.empty((items, 0)),) * 2)
  for batch in batches:
    query_BQP, text_BP = map(placement.fetch, _project(
        graphdef, params, frozen, placement.over_rows(mesh, batch)))
    if not there_I.any():
      space = Space(*(np.empty((items, *x.shape[1:]), x.dtype) for x in (query_BQP, text_BP)))
    given_B = batch["text_entities"] > 0
    row_N = batch["text_entities"][given_B] - 1
    there_I[row_N] = True
    space.item_IQP[row_N], space.text_IP[row_N] = query_BQP[given_B], text_BP[given_B]
  if not there_I.all():
    raise ValueError(f"batches: texts of {there_I.sum()} items, expected one for each of "
                     f"{items} items")
  return space


@functools.partial(jax.jit, static_argnums=0)
def _project(graphdef, params, frozen, batch):
  qformer = nnx.merge(graphdef, params)
  query_BQW = qformer.queries(*inputs.entity_inputs(frozen, batch["text_entities"]))
  text_BTW = qformer.text(batch["text"], batch["text_mask"])
  return qformer.project_queries(query_BQW), qformer.project_text(text_BTW, batch["text_mask"])


# The floor.


def ridge_space(item_IC, text_IP, held_I, *, seed: int) -> tuple[Space, float]:
  """(items and texts as unit vectors around the mean text vector, the chosen regularisation).

  Centring on the mean of the training texts gives a stronger floor on MovieLens-100K than cosines
  of the vectors themselves.

  Args:
    item_IC: for items 1..I the vectors that the Q-Former reads, concatenated.
    text_IP: the text encoder's vectors of their texts.
    held_I: bool; true: held out, used neither for the map nor to choose its regularisation. Of
      very many other items `_FITTED` are used.
    seed: for the folds.
  """
  known_N = _drawn(np.flatnonzero(~held_I), _FITTED, seed)
  x_NC, y_NP = item_IC[known_N].astype(np.float64), text_IP[known_N].astype(np.float64)
  regularisation = ridge_lib.choose(x_NC, y_NP, seed=seed)
  ridge = ridge_lib.fit(x_NC, y_NP, regularisation)
  item_IP = np.empty(text_IP.shape, np.float32)
  around_IP = np.empty_like(item_IP)
  for first in range(0, len(item_IP), _TOGETHER):        # float64 of a few items at a time
    some = slice(first, first + _TOGETHER)
    item_IP[some] = _unit(ridge.predict(item_IC[some].astype(np.float64)))
    around_IP[some] = _unit(text_IP[some] - ridge.mean_P)
  return Space(item_IP[:, None], around_IP), regularisation


def _unit(x_NP) -> np.ndarray:
  return x_NP / np.maximum(np.linalg.norm(x_NP, axis=1, keepdims=True), 1e-12)


def _drawn(rows_N, most: int, seed: int) -> np.ndarray:
  """`most` of the rows, in order; all, if there are no more."""
  if len(rows_N) <= most:
    return rows_N
  return np.sort(np.random.default_rng(seed).permutation(rows_N)[:most])


# Measuring.


def ranks(space: Space, rows, among, block: int = 64) -> dict[str, np.ndarray]:
  """Ranks of the true partners; on a tie the lower item row comes first.

  Args:
    space: unit vectors.
    rows: indices 0..I-1 of the items to rank.
    among: indices, ascending, of the candidates; they include `rows`.
    block: rows per call.

  Returns:
    {"item to text", "text to item"}: float64 [len(rows)].
  """
  rows, among = np.asarray(rows), np.asarray(among)
  chosen = slice(None) if len(among) == len(space.text_IP) else among        # no copy of all
  item_IQP, text_IP = map(jnp.asarray, (space.item_IQP[chosen], space.text_IP[chosen]))
  by_direction = {"item to text": [], "text to item": []}
  for start in range(0, len(rows), block):
    target = np.searchsorted(among, rows[start:start + block])
    for name, score in (
        ("item to text", losses.item_text_similarity(item_IQP[target], text_IP)),
        ("text to item", losses.item_text_similarity(item_IQP, text_IP[target]).T)):
      by_direction[name].append(metrics.ranks_from_scores(np.asarray(score), target))
  return {name: np.concatenate(parts) for name, parts in by_direction.items()}


def table(spaces: dict[str, Space], held_I, *, vectors: tuple[str, ...], ks=(1, 5, 10),
          resamples: int, seed: int, protocol: dict) -> dict:
  """The retrieval table of the report.

  Args:
    spaces: name of the system -> its vectors. Paired differences compare the first with each other
      system.
    held_I: bool over items 1..I; true: held out. `_MEASURED` of them are measured, drawn by the
      seed; all are candidates.
    vectors: names of the input vectors.
    ks: depths of the recalls.
    resamples: of the bootstrap over held-out items.
    seed: of the bootstrap, and of the items that are measured.
    protocol: further fields of the table's protocol.
  """
  held = np.flatnonzero(held_I)
  rows = _drawn(held, _MEASURED, seed)
  pools = {f"all {len(held_I)} items": np.arange(len(held_I)),
           f"the {len(held)} held-out": held}
  bootstrap, made = paired.Bootstrap(resamples, seed), []
  first = next(iter(spaces), "")
  for pool, among in pools.items():
    hits = {name: {f"{direction} R@{k}": metrics.hit_rate(rank, k)
                   for direction, rank in ranks(space, rows, among).items() for k in ks}
            for name, space in spaces.items()}
    differences = {name: {column: hits[first][column] - hit_N for column, hit_N in of.items()}
                   for name, of in hits.items() if name != first}
    of_pool = [({"method": name}, of) for name, of in hits.items()]
    of_pool += [({"method": first, "minus": name}, of) for name, of in differences.items()]
    by = f"among {pool}"
    made += [rows_lib.row({column: bootstrap.mean(hit_N) for column, hit_N in of.items()},
                          **fields, by=by) for fields, of in of_pool]
    made.append(rows_lib.row({f"{direction} R@{k}": {"value": min(1.0, k / len(among))}
                              for direction in ("item to text", "text to item") for k in ks},
                             method="chance", by=by))
  return {"title": f"Retrieval of held-out items from {' + '.join(vectors)} vectors",
          "note": _note(vectors), "rows": made,
          "protocol": {"split": "items whose text was never trained on", "items": len(rows),
                       "vectors": ", ".join(vectors), "tie rule": TIE_RULE, "seed": seed,
                       "intervals": f"95 %, bootstrap over items (of a difference: paired), "
                                    f"{resamples} resamples",
                       **protocol}}


def _note(vectors: tuple[str, ...]) -> str:
  note = ("R@k: the partner is among the first k. Ridge: linear map from the same vectors to the "
          "text encoder's, regularisation cross-validated on training items.")
  if "semantic" in vectors:
    note += (" The input holds the text encoder's own vector of the same text: this retrieval is "
             "near trivial and says nothing about behaviour.")
  return note
