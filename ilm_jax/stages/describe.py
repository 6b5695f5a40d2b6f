"""Stage describe: what the model says of any vector, also of one that belongs to no entity.

    python -m ilm_jax.main --config=.. --workdir=W --stage=describe \\
        --items='Heat (1995)' --towards='Toy Story (1995)' --steps=5

goes from one item to another; of several --items or --towards it takes the mean. With --concept it
goes from the items in the direction that separates the items of the concept from all others. The
same in Python, for any vectors:

    describer = describe.Describer(context.Run(config, workdir))
    heat, user = describer.mean(["Heat (1995)"]), describer.mean(["user:405"])
    texts = describer.say(describe.between(heat, user, 5))

A *vector* is a dict, name -> float32 [C], with some or all names of `config.vectors`.
"""
import difflib
import functools
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from ilm_jax import elm, errors
from ilm_jax.cf import activation
from ilm_jax.config import variants
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import tokenizer as tokenizer_lib
from ilm_jax.runtime import distributed
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import common, speaker

_COMPARED = 10_000       # names that a wrong one is compared with, at most
_ASKED = (*elm.OF_ONE, *elm.KNOWN)       # the first trained one gives the prompt, if none is given


class Wish(NamedTuple):
  """What the command line asks for; names as in `Describer.row`."""
  items: tuple[str, ...]
  towards: tuple[str, ...] = ()
  concept: tuple[str, ...] = ()
  steps: int = 5
  prompt: str = ""
  model: str = "ilm"            # key of the model that answers, see `variants.named`


def run(run: context.Run, wish: Wish) -> None:
  """Prints a text for each step on the way.

  Raises:
    UserError: an unknown name, no --items, or both --towards and --concept.
  """
  _check(wish)
  describer = Describer(run, variants.named(run.config, wish.model))
  start = describer.mean(wish.items)
  if wish.towards:
    path = between(start, describer.mean(wish.towards), wish.steps)
  elif wish.concept:
    way = describer.direction([describer.row(name) for name in wish.concept])
    path = [moved(start, way, amount) for amount in np.linspace(0, 1, wish.steps)]
  else:
    path = [start]
  said = describer.say(path, wish.prompt)
  if not distributed.is_main():
    return
  goal = f" -> {' + '.join(wish.towards or wish.concept)}" if len(path) > 1 else ""
  print(errors.plain(f"{' + '.join(wish.items)}{goal}"))
  for amount, answer in zip(np.linspace(0, 1, len(path)), said):
    print(errors.plain(f"{amount:.2f}  {' '.join(answer.split())}"))


def between(start: dict, end: dict, steps: int) -> list[dict]:
  """`steps` vectors from `start` to `end`, both included, at equal distances on the line.

  Raises:
    UserError: they have no kind of vector in common, e.g. a user and an item with only a text.
  """
  names = [name for name in start if name in end]
  if not names:
    raise errors.UserError(f"no line from vectors {sorted(start)} to vectors {sorted(end)}: they "
                           "need a kind in common, e.g. config.vectors=('behavioral',)")
  return [{n: (1 - t) * start[n] + t * end[n] for n in names} for t in np.linspace(0, 1, steps)]


def moved(vector: dict, direction: dict, amount: float) -> dict:
  """The vector plus `amount` times the direction."""
  return {n: x + amount * direction[n] if n in direction else x for n, x in vector.items()}


def _alike(name: str, names: Collection[str], least: float) -> list[str]:
  """Up to three names that are spelt like `name`, the nearest first.

  Of many names those that begin alike are compared, `_COMPARED` at most: a comparison takes 25 us.
  """
  for letters in range(len(name)):
    if len(names) <= _COMPARED:
      break
    names = [other for other in names if other[:letters + 1] == name[:letters + 1]]
  return difflib.get_close_matches(name, names, 3, least) if len(names) <= _COMPARED else []


class Describer:
  """A trained ILM that describes vectors.

  Args:
    run: the run.
    variant: which model of phase 2 speaks.
    load: returns its speaker, to share one that is loaded already; None: it is loaded here.
  """

  def __init__(self, run: context.Run, variant: variants.Variant = variants.ILM,
               load: Callable[[], speaker.Speaker] | None = None):
    self.run, self._load = run, load or functools.partial(speaker.Speaker, run, variant)

  @functools.cached_property
  def _speaker(self) -> speaker.Speaker:
    """Loaded when first used, so an unknown name is reported before the model is loaded."""
    return self._load()

  def row(self, name: str) -> int:
    """The entity row of "Heat (1995)", of a title that only one item has, or of "item:ID" or
    "user:ID" with a raw id of the data.

    Raises:
      UserError: there is none (the message has similar names), or there are several.
    """
    log, items, _ = self.run.data
    kind, colon, raw = name.partition(":")
    ids = {"item": items.ids, "user": log.user_ids}.get(kind, [])
    if raw in ids:
      return log.rows.user(ids.index(raw)) if kind == "user" else ids.index(raw) + 1
    if colon and ids and not any(title.casefold() == name.casefold() for title in items.titles):
      near = _alike(raw, ids, 0.6)
      hint = f"; near it: {', '.join(f'{kind}:{x}' for x in near)}" if near else ""
      raise errors.UserError(f"{name!r}: none of the {len(ids)} {kind}s of the data has the id "
                             f"{raw!r}{hint}")
    full = self._full_titles
    for titles in (full, items.titles):
      matches = [row + 1 for row, title in enumerate(titles) if title.casefold() == name.casefold()]
      if len(matches) == 1:
        return matches[0]
      if matches:
        several = ", ".join(f"item:{items.ids[row - 1]} ({full[row - 1]})" for row in matches)
        raise errors.UserError(f"{name!r} is the title of several items: say which of {several}")
    if colon and ids:
      raise errors.UserError(f"{name!r}: none of the {len(ids)} {kind}s of the data has the id "
                             f"{raw!r}")
    lower = {title.casefold(): title for title in full}
    near = _alike(name.casefold(), lower, 0.4)
    hint = f"; near it: {', '.join(repr(lower[title]) for title in near)}" if near else ""
    raise errors.UserError(f"no item is called {name!r}{hint}. A name is a title with its year, "
                           "item:ID or user:ID")

  @functools.cached_property
  def _full_titles(self) -> list[str]:
    items = self.run.data.items
    return [interactions_lib.full_title(items, row + 1) for row in range(len(items))]

  def vectors(self, row: int) -> dict:
    """The vectors of an entity row that the Q-Former reads."""
    table = self.run.entities
    return {n: table.vectors[n][row] for n in self.run.config.vectors if table.present[n][row]}

  def mean(self, names: Sequence[str]) -> dict:
    """The mean vector of entities; names as in `row`."""
    each = [self.vectors(self.row(name)) for name in names]
    common = [n for n in each[0] if all(n in vectors for vectors in each)]
    return {n: np.mean([vectors[n] for vectors in each], axis=0) for n in common}

  def direction(self, with_rows: Sequence[int], without_rows: Sequence[int] = ()) -> dict:
    """The direction from items without a concept to items with it, for each kind of vector.

    Args:
      with_rows: item rows that have the concept.
      without_rows: item rows that do not have it; (): all other items.

    Returns:
      name -> float32 [C], for each kind of vector that items of both sets have; an item counts for
      the kinds that it has.

    Raises:
      UserError: there is no such kind.
    """
    table, names = self.run.entities, self.run.config.vectors
    rows = range(1, len(self.run.data.items) + 1)
    without_rows = without_rows or [row for row in rows if row not in set(with_rows)]
    sets = {n: [[row for row in of if table.present[n][row]] for of in (with_rows, without_rows)]
            for n in names}
    ways = {n: activation.between(table.vectors[n][having], table.vectors[n][lacking])
            for n, (having, lacking) in sets.items() if having and lacking}
    if not ways:
      raise errors.UserError(
          f"no direction for item rows {list(map(int, with_rows))}: they and the other items have "
          f"none of config.vectors={tuple(names)} in common; name items with training interactions")
    return ways

  def say(self, vectors: Sequence[dict], prompt: str = "", max_new: int = 0) -> list[str]:
    """The greedy answer about each vector.

    Args:
      vectors: from `between` or `mean`, or any others.
      prompt: a text with one <slot>; "": the first prompt of the first task that was trained.
      max_new: tokens of an answer; 0: `targets.max_tokens`.

    Raises:
      UserError: the prompt has not exactly one <slot>; or no task about one item was trained.
    """
    inputs = self._inputs(prompt)
    grown, rows = self._speaker.knowing(vectors)
    end = np.array([self.run.lm_tokenizer.eos_id], np.int32)
    examples = [{"inputs": inputs, "entities": np.array([row], np.int32), "targets": end}
                for row in rows]
    return grown.say(examples, common.spec(self.run, [examples]),
                     max_new=max_new or self.run.config.targets.max_tokens)

  def _inputs(self, prompt: str) -> np.ndarray:
    if prompt:
      if prompt.count(tokenizer_lib.SLOT) != 1:
        raise errors.UserError(f"prompt {prompt!r}: expected one {tokenizer_lib.SLOT} in place of "
                               "the vector, e.g. 'Summary of the film<slot>:'")
      return np.array(self.run.lm_tokenizer.encode(prompt), np.int32)
    trained = recipe.task_names(self.run.config)
    task = next((task for task in _ASKED if task in trained), None)
    if task is None:
      raise errors.UserError("tasks.mixture has no task about one item: give --prompt")
    return self.run.prepared(task, "test")[0]["inputs"]


def _check(wish: Wish) -> None:
  if not wish.items:
    raise errors.UserError("--stage=describe needs --items, e.g. --items='Heat (1995)'")
  if wish.towards and wish.concept:
    raise errors.UserError("--towards and --concept are different directions: give one")
  if (wish.towards or wish.concept) and wish.steps < 2:
    raise errors.UserError(f"--steps={wish.steps}: expected 2 or more, with both ends")
