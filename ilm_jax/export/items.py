"""The item matrix: keys and biases of the item head, and states of users, as safetensors and JSON.

A list is state @ keys.T + bias: any vector index with inner products serves it.
"""
import json
import pathlib

import numpy as np

from ilm_jax.data import interactions as interactions_lib
from ilm_jax.weights import tensor_file


def write(folder: pathlib.Path, key_IP, bias_I, query_DP, items: interactions_lib.Items) -> None:
  """items.safetensors (keys [I, P], bias [I], query [D, P]) and items.json (ids, titles).

  Args:
    folder: of the export.
    key_IP, bias_I: float32, of `dot_scores.head_items`.
    query_DP: float32 kernel: a state is a hidden state @ query.
    items: of the data, in the order of the rows.
  """
  _tensors(folder / "items.safetensors", {
      "keys": np.asarray(key_IP, np.float32), "bias": np.asarray(bias_I, np.float32),
      "query": np.asarray(query_DP, np.float32)})
  titles = [interactions_lib.full_title(items, n + 1) for n in range(len(items))]
  _json(folder / "items.json", {"ids": items.ids, "titles": titles})


def write_users(folder: pathlib.Path, state_UP, histories, ids: list[str]) -> None:
  """users.safetensors (state [U, P], and as int32 offsets [U + 1] into items [N]) and users.json.

  Args:
    folder: of the export.
    state_UP: float32.
    histories: of each user the entity rows (1..I) of its items; written are numbers from 0.
    ids: of the users.
  """
  offsets_U1 = np.cumsum([0, *map(len, histories)])
  items_N = np.concatenate([*histories, np.zeros(0, np.int32)]) - 1
  _tensors(folder / "users.safetensors", {
      "state": np.asarray(state_UP, np.float32), "offsets": offsets_U1.astype(np.int64),
      "items": items_N.astype(np.int32)})
  _json(folder / "users.json", {"ids": list(ids)})


def _tensors(path, arrays: dict) -> None:
  with open(path, "wb") as file:
    tensor_file.write(file, [tensor_file.of(*entry) for entry in arrays.items()],
                      {"format": "np"})


def _json(path, fields: dict) -> None:
  path.write_text(json.dumps(fields, ensure_ascii=False, indent=1), encoding="utf-8")
