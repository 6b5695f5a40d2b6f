"""The best items of an exported run, with numpy alone.

    python top_k.py --user=405 --k=10         a user of the export (made with --users=all)
    python top_k.py --like=50 --k=10          items whose keys point the same way as this item's

The scores of all items are state @ keys.T + bias; of equal scores the earlier item comes first. A
state is `query` applied to the language model's hidden state of a history, see README.md; where
export.json names "factors", `folded_in` of the history follows.
"""
import argparse
import json
import pathlib
import sys

import numpy as np

_DTYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "I64": np.int64,
           "BF16": np.uint16}      # the bits: numpy has no bfloat16


def read(path) -> dict[str, np.ndarray]:
  """The tensors of a safetensors file, memory-mapped.

  The file is [8 bytes: length of the header][JSON header][data].

  Raises:
    OSError, ValueError, KeyError: it cannot be read, or has another dtype than `_DTYPES`.
  """
  path = pathlib.Path(path)
  with open(path, "rb") as file:
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= path.stat().st_size - 8:
      raise ValueError(f"{path} is no safetensors file, or an incomplete one")
    header = json.loads(file.read(length))
  header.pop("__metadata__", None)
  tensors = {}
  for name, entry in header.items():
    start, end = entry["data_offsets"]
    if 0 in entry["shape"][1:] and entry["shape"][0]:
      raise ValueError(f"{path}: {name} has {entry['shape'][0]:,} rows without a number")
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    flat = (np.memmap(path, dtype, "r", 8 + length + start, ((end - start) // dtype.itemsize,))
            if end > start else np.zeros(0, dtype))
    tensors[name] = flat.reshape(entry["shape"])
  return tensors


def top_k(state_NP, keys_IP, bias_I, k: int, seen=None) -> tuple[np.ndarray, np.ndarray]:
  """(items, scores), each [N, min(k, I)]: item numbers from 0 in the order of items.json.

  Args:
    state_NP: float32, the states of N histories.
    keys_IP, bias_I: float32, from items.safetensors.
    k: length of the lists.
    seen: for each history the item numbers to leave out; None: none. If fewer than k items are
      left, -1 fills the list, with scores of -inf.
  """
  score_NI = state_NP @ keys_IP.T + bias_I
  if seen is not None:
    for score_I, items in zip(score_NI, seen):
      score_I[items] = -np.inf
  k = min(k, score_NI.shape[1])
  best_NK = np.zeros((len(score_NI), k), np.int64)
  for n, score_I in enumerate(score_NI):
    least = np.partition(score_I, len(score_I) - k)[len(score_I) - k]
    rows = np.flatnonzero(score_I >= least)              # at least k, more where scores are equal
    best_NK[n] = rows[np.argsort(-score_I[rows], kind="stable")[:k]]
  score_NK = np.take_along_axis(score_NI, best_NK, axis=1)
  return np.where(np.isneginf(score_NK), -1, best_NK), score_NK


def folded_in(histories, head_NI, factors_IC, weight: float, reg: float, alpha: float):
  """float32 [N, C]: the users of implicit ALS with these items, scaled as in the run.

  Args:
    histories: for each of N users the item numbers of its history.
    head_NI: the head's own scores: of a state without this part and the keys' first columns.
    factors_IC: the last columns of `keys`, after those of `query`.
    weight, reg, alpha: from export.json, "factors".
  """
  item_IC = np.asarray(factors_IC, np.float64)
  met_I = np.any(item_IC != 0, axis=1)
  gram_CC = item_IC.T @ item_IC + reg * np.eye(item_IC.shape[1])
  user_NC = np.zeros((len(histories), item_IC.shape[1]), np.float32)
  for user_C, history in zip(user_NC, histories):
    met_TC = item_IC[history]
    user_C[:] = np.linalg.solve(gram_CC + alpha * met_TC.T @ met_TC,
                                (1.0 + alpha) * met_TC.sum(axis=0))
  has_N = (user_NC @ item_IC.T)[:, met_I].std(axis=1)
  scale_N = weight * np.asarray(head_NI)[:, met_I].std(axis=1) / np.where(has_N > 0, has_N, np.inf)
  return (user_NC * scale_N[:, None]).astype(np.float32)


def users(folder) -> tuple[list[str], np.ndarray, list[np.ndarray]]:
  """(ids, states [U, P], item numbers of each history) of users.safetensors and users.json."""
  folder = pathlib.Path(folder)
  tensors = read(folder / "users.safetensors")
  histories = np.split(tensors["items"], tensors["offsets"][1:-1])
  return json.loads((folder / "users.json").read_text())["ids"], tensors["state"], histories


def letters(text: str) -> str:
  """The text with "?" for control characters, which could move a terminal's cursor or rename it."""
  return "".join(c if c.isprintable() else "?" for c in text)


def main(argv=None) -> int:
  """Prints a list and returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--folder", default=pathlib.Path(__file__).parent)
  parser.add_argument("--user", default="", help="id of a user")
  parser.add_argument("--like", default="", help="id of an item")
  parser.add_argument("--k", type=int, default=10)
  args = parser.parse_args(argv)
  if args.k < 1 or not (args.user or args.like):
    print("error: expected --user=ID or --like=ID, and --k of 1 or more", file=sys.stderr)
    return 1
  try:
    return _list(args)
  except Exception as e:       # a damaged file may fail in any way
    print(f"error: {args.folder} cannot be read ({type(e).__name__}: "
          f"{letters(' '.join(str(e).split())[:200])}): export again", file=sys.stderr)
    return 1


def _list(args) -> int:
  folder = pathlib.Path(args.folder)
  items, names = read(folder / "items.safetensors"), json.loads((folder / "items.json").read_text())
  if args.like:
    if args.like not in names["ids"]:
      print(f"error: --like={args.like}: no such id in items.json", file=sys.stderr)
      return 1
    at = names["ids"].index(args.like)
    keys = np.asarray(items["keys"])[:, :items["query"].shape[1]]
    keys = keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-12)
    best, score = top_k(keys[at:at + 1], keys, np.float32(0), args.k, [[at]])
  else:
    if not (folder / "users.json").exists():
      print("error: the export holds no users: export again with --users=all", file=sys.stderr)
      return 1
    ids, states, histories = users(folder)
    if args.user not in ids:
      print(f"error: --user={args.user}: no such id in users.json", file=sys.stderr)
      return 1
    at = ids.index(args.user)
    best, score = top_k(states[at:at + 1], items["keys"], items["bias"], args.k, [histories[at]])
  for place, (item, value) in enumerate(zip(best[0], score[0]), 1):
    if item >= 0:
      raw, title = (letters(names[kind][item]) for kind in ("ids", "titles"))
      print(f"{place:3}  {raw:>8}  {title:40}  {value:8.3f}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
