"""Indices, the names that a language model uses for items: titles, numbers, or codes of numbers.

    title          the item's title; see `titles`
    random         numbers from 1001 up, shuffled
    sequential     numbers from 1001 up, in the order in which training histories show the items,
                   user after user; items outside training histories come last
    collaborative  recursive spectral clusters of training co-occurrence
    semantic       residual k-means of sentence vectors of the item's text

Random, sequential and collaborative are OpenP5's (Hua et al., arXiv 2305.06569), made here only
from training interactions and a seed. A code is spelled " 12-5-3", or with words that were added to
the vocabulary, "<index_12><index_5><index_3>".
"""
import collections
import dataclasses

import numpy as np

from ilm_jax import errors
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import tokenizer as tokenizer_lib
from ilm_jax.tasks import clustering

_FIRST = 1001      # OpenP5's first number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme:
  """How items are named: a kind and the sizes of its code."""
  kind: str = "title"
  words: bool = False      # codes spelled with <index_0>, <index_1>, ..
  apart: bool = False      # each word belongs to one prefix of codes only
  clusters: int = 20       # collaborative: clusters of a group
  size: int = 500          # collaborative: the largest group that is not clustered
  levels: int = 3          # semantic: numbers of a code, before one that tells equal codes apart
  codes: int = 256         # semantic: centres of a level


def names(scheme: Scheme, items: interactions_lib.Items, histories: list, vectors,
          seed: int) -> list[str]:
  """The index of every item row, with its leading space; row 0 is empty.

  Args:
    scheme: how items are named.
    items: the items.
    histories: item rows of each user's training interactions, in time order.
    vectors: () -> float [I, W], sentence vectors of the items' texts; called for "semantic" only.
    seed: of the shuffle and the clusters.
  """
  if scheme.kind == "title":
    return ["", *(f" {title}" for title in titles(items)[1:])]
  code_of = codes(scheme, len(items), histories, vectors, seed)
  if scheme.apart:
    code_of = _apart(code_of)
  if scheme.words:
    return ["", *("".join(f"<index_{n}>" for n in code) for code in code_of)]
  return ["", *(" " + "-".join(map(str, code)) for code in code_of)]


def codes(scheme: Scheme, num_items: int, histories: list, vectors,
          seed: int) -> list[tuple[int, ...]]:
  """A different code for each of item rows 1..I; see `names`.

  With added words, the numbers of random and sequential count from 0, and each level of semantic
  has its own numbers.
  """
  if scheme.kind == "semantic":
    semantic = clustering.told_apart(clustering.residual_kmeans(
        vectors(), scheme.levels, scheme.codes, seed))
    step = scheme.codes * scheme.words
    return [tuple(n + step * level for level, n in enumerate(code)) for code in semantic]
  if scheme.kind == "collaborative":
    return clustering.collaborative(
        clustering.co_occurrence(histories, num_items), scheme.clusters, scheme.size, seed)
  if scheme.kind == "random":
    place_I = np.random.default_rng(seed).permutation(num_items)
  else:
    place_I = np.argsort(_order_met(histories, num_items), kind="stable")
  first = 0 if scheme.words else _FIRST
  return [(first + int(place),) for place in place_I]


def _apart(code_of: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
  """Codes in which the n-th number stands for the first n numbers, counted level by level."""
  number: dict[tuple[int, ...], int] = {}
  for depth in range(1, 1 + max(map(len, code_of))):
    for beginning in sorted({code[:depth] for code in code_of if len(code) >= depth}):
      number[beginning] = len(number)
  return [tuple(number[code[:n + 1]] for n in range(len(code))) for code in code_of]


def _order_met(histories: list, num_items: int) -> np.ndarray:
  """int [I]: items (row - 1) in the order in which histories show them, then all others."""
  met = np.concatenate([*histories, np.arange(1, num_items + 1)]).astype(np.int64)
  _, first = np.unique(met, return_index=True)
  return met[np.sort(first)] - 1


def titles(items: interactions_lib.Items) -> list[str]:
  """A different title for every item row; row 0 has the empty name.

  The title alone: with a tokenizer that splits digits, years would more than double the catalogue's
  trie. Items that share a title get their year, "Hamlet (1996)"; of those that share both, all but
  the first get a number after it: "Heat (1995) #2".
  """
  short = [tokenizer_lib.escape(title) for title in items.titles]
  shared = {title for title, count in collections.Counter(short).items() if count > 1}
  plain = [tokenizer_lib.escape(interactions_lib.full_title(items, row + 1))
           if title in shared else title for row, title in enumerate(short)]
  titled, taken, spoken_for = [""], set(), set(plain)
  last: dict[str, int] = {}       # the number of the last item of that name
  for name in plain:
    number, chosen = last.get(name, 1), name
    while chosen in taken or (number > 1 and chosen in spoken_for):
      number += 1
      chosen = f"{name} #{number}"
    last[name] = number
    taken.add(chosen)
    titled.append(chosen)
  return titled


def report(spoken: list[str], tokenizer: tokenizer_lib.Tokenizer) -> dict:
  """{"items", "mean_tokens", "longest", "prefixes"}: the size of a catalogue of `names`.

  prefixes: items whose index is a prefix of another's (EOS separates them).

  Raises:
    UserError: two names have the same tokens (a lower-casing tokenizer), or a word of a code is
      not in the vocabulary.
  """
  rows: dict[tuple, int] = {}
  for row, name in enumerate(spoken[1:], 1):
    ids = tuple(tokenizer.encode(name))
    if name.startswith("<index_") and len(ids) != name.count("<"):
      raise errors.UserError(
          f"index {name} of item row {row} is not made of the vocabulary's added words: the "
          f"catalogue needs lm.new_tokens={words_needed(spoken)}, set that or "
          "tasks.index_words=False")
    if ids in rows:
      raise errors.UserError(
          f"items {rows[ids]} and {row}, {spoken[rows[ids]].strip()!r} and {name.strip()!r}, have "
          "the same tokens: choose a language model that tells them apart")
    rows[ids] = row
  lengths = [len(ids) for ids in rows]
  beginnings = {ids[:n] for ids in rows for n in range(1, len(ids))}
  return {"items": len(rows), "mean_tokens": float(np.mean(lengths)), "longest": max(lengths),
          "prefixes": sum(ids in beginnings for ids in rows)}


def words_needed(spoken: list[str]) -> int:
  """The number of words <index_0>, .. that the names need."""
  return 1 + max((int(part.split(">")[0]) for name in spoken for part in name.split("<index_")[1:]),
                 default=-1)
