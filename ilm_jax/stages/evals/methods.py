"""The methods that answer ELM's tasks: ILM, the models of phase2.compare, untrained references.

  title as text  upper bound: the frozen language model alone reads titles in place of soft tokens
  no slots       lower bound: the frozen language model alone, without entities
  shuffled       ILM with the vector of another entity: shows what style alone reaches
  shuffled_mlp   the same for the MLP projector, to which it is compared

Nothing here trains: a reference changes the examples, or the model that reads them.
"""
import dataclasses
from collections.abc import Callable

import numpy as np

from ilm_jax import elm
from ilm_jax.config import variants
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import speaker

OF_ELM = (*elm.KNOWN, *elm.WRITTEN)
_LIKED = 10              # titles in place of a user's vector, as in a teacher's prompt


@dataclasses.dataclass(frozen=True)
class Method:
  """One row of the tables."""
  label: str
  model: speaker.Speaker
  baseline: "Method | None"      # the difference row is `baseline - this`; None for ILM itself
  change: Callable[[dict], dict] = lambda example: example     # example -> what the model reads
  queries: int | None = None                                   # 0: slots are left out
  tasks: tuple[str, ...] | None = None                         # None: it answers all tasks

  def answers(self, task: str) -> bool:
    return self.tasks is None or task in self.tasks


def baselines(compared: list[Method]) -> dict[str, str]:
  """Label -> label of the method from which it is subtracted, for methods with a baseline."""
  return {method.label: method.baseline.label for method in compared if method.baseline}


def methods(run: context.Run, speaker_of_ilm: speaker.Speaker) -> list[Method]:
  """ILM first, then `phase2.compare`, "no slots", and `eval.references`, in their order."""
  alone = speaker.Speaker(run, None)
  ilm = Method(variants.ILM.label, speaker_of_ilm, None)
  trained = {variant.key: Method(variant.label, speaker.Speaker(run, variant), ilm)
             for variant in variants.trained(run.config)[1:]}
  compared = [ilm, *trained.values(), Method("no slots", alone, ilm, queries=0)]
  if not set(OF_ELM) & set(recipe.task_names(run.config)):
    return compared                  # the references would have no task
  references = {"title": lambda: Method("title as text", alone, ilm, _titles(run), 0, OF_ELM),
                "shuffled": lambda: _other_vectors(run, ilm),
                # Before the last step --watch measures ILM without the compared models.
                **({"shuffled_mlp": lambda: _other_vectors(run, trained["mlp"])}
                   if "mlp" in trained else {})}
  return compared + [references[name]() for name in run.config.eval.references
                     if name in references]


def _other_vectors(run: context.Run, method: Method) -> Method:
  return Method(f"{method.label}, vectors shuffled", method.model, method, _shuffled(run),
                tasks=OF_ELM)


def with_titles(example: dict, slot_id: int, said: Callable[[int], list[int]]) -> dict:
  """The example with words in place of its prompt's slots.

  Args:
    example: its `inputs` have as many slots as `entities` has rows; other fields stay.
    slot_id: of the tokenizer.
    said: entity row -> token ids.
  """
  rows, inputs = iter(example["entities"]), []
  for token in example["inputs"]:
    inputs += said(int(next(rows))) if token == slot_id else [int(token)]
  return {**example, "inputs": np.array(inputs, np.int32), "entities": np.zeros(0, np.int32)}


def exchanged(groups, rows: int, seed: int) -> np.ndarray:
  """int32 [rows]: for each entity row another row of its group.

  Args:
    groups: int arrays of entity rows, disjoint; a row alone in its group, or in none, stays.
    rows: of the entity table.
    seed: of the draw.
  """
  to_R, rng = np.arange(rows, dtype=np.int32), np.random.default_rng(seed)
  for group in groups:
    order = rng.permutation(group)
    to_R[order] = np.roll(order, 1)
  return to_R


def _titles(run: context.Run):
  tokenizer, (log, items, _), word = run.lm_tokenizer, run.data, elm.words(run.config.data)
  histories = interactions_lib.train_histories(log)

  def said(row: int) -> list[int]:
    if not log.rows.is_user(row):
      return tokenizer.encode(" " + interactions_lib.full_title(items, row))
    history = histories[log.rows.user_number(row)]
    liked = [row for row in history if not run.heldout[row]][-_LIKED:]
    titles = "; ".join(interactions_lib.full_title(items, row) for row in liked)
    return tokenizer.encode(f" a {word.person} of {titles}")

  return lambda example: with_titles(example, tokenizer.slot_id, said)


def _shuffled(run: context.Run):
  table = run.entities
  kind_R = np.full(table.rows.total, 3)            # held-out items among themselves, and so on
  kind_R[table.rows.items] = run.heldout[1:]
  kind_R[0] = -1
  to_R = exchanged([np.flatnonzero(kind_R == kind) for kind in (0, 1, 3)], table.rows.total,
                   run.config.seed)
  return lambda example: {**example, "entities": to_R[example["entities"]]}
