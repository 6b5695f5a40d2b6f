"""The item matrix: keys and biases of the item head, and states of users, as safetensors and JSON.

The scores of all items are state @ keys.T + bias: any vector index with inner products makes lists.
"""
import json
import pathlib
from collections.abc import Iterator

import numpy as np

from ilm_jax.data import interactions as interactions_lib
from ilm_jax.weights import tensor_file


def write(folder: pathlib.Path, key_IP, bias_I, query_DP, items: interactions_lib.Items) -> None:
  """items.safetensors (keys [I, P], bias [I], query [D, P]) and items.json (ids, titles).

  Args:
    folder: of the export.
    key_IP, bias_I: float32, from `dot_scores.head_items`.
    query_DP: float32 kernel: a state is a hidden state @ query.
    items: of the data, in the order of the rows.
  """
  _tensors(folder / "items.safetensors", {
      "keys": np.asarray(key_IP, np.float32), "bias": np.asarray(bias_I, np.float32),
      "query": np.asarray(query_DP, np.float32)})
  titles = [interactions_lib.full_title(items, n + 1) for n in range(len(items))]
  _json(folder / "items.json", {"ids": items.ids, "titles": titles})


def write_users(folder: pathlib.Path, states: Iterator[np.ndarray], width: int, offsets_U1, item_N,
                ids: list[str]) -> None:
  """users.safetensors (state [U, P], int64 offsets [U + 1] into int32 items [N]) and users.json.

  Args:
    folder: of the export.
    states: float32 [.., P] of a few users at a time, in order, so that memory never holds all.
    width: P.
    offsets_U1: user u has the items offsets[u]..offsets[u + 1] - 1 of item_N.
    item_N: entity rows (1..I), history after history; the file has numbers from 0.
    ids: of the users.
  """
  state = tensor_file.Entry("state", (len(ids), width), np.dtype(np.float32), lambda: states)
  _write(folder / "users.safetensors", [
      state, tensor_file.of("offsets", np.asarray(offsets_U1, np.int64)),
      tensor_file.of("items", np.asarray(item_N, np.int32) - 1)])
  _json(folder / "users.json", {"ids": list(ids)})


def _tensors(path, arrays: dict) -> None:
  _write(path, [tensor_file.of(*entry) for entry in arrays.items()])


def _write(path, entries: list[tensor_file.Entry]) -> None:
  with open(path, "wb") as file:
    tensor_file.write(file, entries, {"format": "np"})


def _json(path, fields: dict) -> None:
  with open(path, "w", encoding="utf-8") as file:
    json.dump(fields, file, ensure_ascii=False, indent=1)      # piece by piece
