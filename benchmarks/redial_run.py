"""The rows of `benchmarks.redial` for trained runs: their item heads on the same instances.

The examples come from stage prepare (task `redial_recommend`, test): a dialog up to a turn that
names a film of the run's catalogue for the first time. The run cannot rank films outside its
catalogue: as targets they count as missed.
"""
import pathlib

import numpy as np

from benchmarks import redial_tables
from ilm_jax import errors
from ilm_jax.config import reading, settings, variants
from ilm_jax.conversation import dialogs, instances, redial
from ilm_jax.evaluation import metrics
from ilm_jax.stages import context, factor_scores
from ilm_jax.stages.evals import common, methods, speaker, talks
from ilm_jax.training import provenance

TASK, ILM = "redial_recommend", "ILM"
ADDED, FOLDED = "ILM and its factorisation's scores", "its factorisation's scores alone"
SHUFFLED, NO_VECTORS, NO_WORDS = (
    f"ILM, {change}" for change in ("vectors shuffled", "vectors left out", "words left out"))


class Trained:
  """A run whose item head ranks the turns of ReDial's test dialogs."""

  def __init__(self, workdir: pathlib.Path):
    self.run = context.Run(
        reading.load(f"configs/recorded.py:{workdir}/config.phase2.json"), workdir)
    stored = self.run.prepared(TASK, "test")
    self.examples = [stored[n] for n in range(len(stored))]
    self._by_head: dict[str, np.ndarray] = {}

  def scores(self, name: str, factors: float = 0.0) -> np.ndarray:
    """float32 [examples, I + 1]: scores of the run's items in each example's context; -inf for
    items that the context names.

    Args:
      name: the row: ILM, SHUFFLED, NO_VECTORS, NO_WORDS, ADDED or FOLDED.
      factors: for ADDED, the weight of the factorisation's scores.
    """
    log, prompt = self.run.data.log, ILM if name in (ADDED, FOLDED) else name
    if prompt not in self._by_head:
      self._by_head[prompt] = self._head_scores(prompt)
    score_NI = self._by_head[prompt].copy()
    if name in (ADDED, FOLDED):
      weight = factors if name == ADDED else 1.0
      added_NI = factor_scores.FactorScores(self.run, weight).scores(
          [talks.items_of(e, log.num_items) for e in self.examples], score_NI)
      score_NI = score_NI + added_NI if name == ADDED else self._behind(added_NI)
    score_NI[talks.shown(self.examples, log.num_items)] = -np.inf
    return score_NI

  def _behind(self, score_NI) -> np.ndarray:
    """Popularity breaks ties: all items are equal where a context names no item with factors."""
    count_I1 = self.run.data.log.train_counts[:score_NI.shape[1]]
    return score_NI + 1e-6 * (count_I1 / count_I1.max())

  def _head_scores(self, name: str) -> np.ndarray:
    asked, log = self.examples, self.run.data.log
    if name == SHUFFLED:
      to_R = methods.exchanged([np.arange(1, log.num_items + 1)], log.rows.total,
                               self.run.config.seed)
      asked = [{**e, "entities": to_R[e["entities"]]} for e in asked]
    elif name in (NO_VECTORS, NO_WORDS):
      asked = [talks.part_alone(e, self.run.lm_tokenizer.slot_id, name == NO_WORDS) for e in asked]
    model = speaker.Speaker(self.run, variants.ILM)
    return np.array(model.head_score(asked, common.head_spec(self.run, [asked])))

  def ranks(self, read: dict[str, list[redial.Talk]], name: str, factors: float = 0.0
            ) -> tuple[list[np.ndarray], np.ndarray]:
    """(ranks of each instance's targets, the dialog of each instance), by turns, fresh.

    Args:
      read: ReDial's dialogs by part, for the parts that the run has read.
      name, factors: see `scores`. SHUFFLED: every slot holds another item's vectors; NO_VECTORS:
        the prompt has no slots; NO_WORDS: it has nothing but slots.

    Raises:
      UserError: the run's examples come from other dialogs.
    """
    every = instances.instances([dialogs.joined(talk) for talk in read["test"]], fresh=True)
    _, row_of = redial.catalogue([talk for part in read.values() for talk in part],
                                 self.run.data.items)
    asked = to_find(every, row_of, self.run.data.log.num_items)
    mine = [sorted(e["ask_item"]) for e in self.examples]
    if [rows for rows in asked if rows] != mine:
      raise errors.UserError(
          f"{self.run.workdir} has {len(mine)} test examples of {TASK}, which are not the "
          f"{sum(map(bool, asked))} of these dialogs: name the ReDial that tasks.dialogs had")
    return placed(every, row_of, asked, self.scores(name, factors)), np.array(
        [each.dialog for each in every])


def to_find(every: list[instances.Instance], row_of: dict[str, int], num_items: int
            ) -> list[list[int]]:
  """For each instance the rows of its targets within a catalogue of `num_items` items.

  A film that was named before under another of ReDial's ids is not fresh.
  """
  return [sorted({row for row in map(row_of.get, each.targets) if row <= num_items}
                 - {row_of[film] for film in each.named}) for each in every]


def placed(every: list[instances.Instance], row_of: dict[str, int], asked: list[list[int]],
           score_NI: np.ndarray) -> list[np.ndarray]:
  """For each instance the ranks of its targets; infinite for targets outside the catalogue.

  Args:
    every: the instances.
    row_of: film -> item row.
    asked: from `to_find`.
    score_NI: float [N, I + 1], scores of the instances that have a target to find, in order.
  """
  ranks, scores = [], iter(score_NI)
  for each, rows in zip(every, asked):
    row_T = np.array([row_of[film] for film in each.targets])
    there_T, rank_T = np.isin(row_T, rows), np.full(len(row_T), np.inf)
    if rows:
      score_I = np.repeat(next(scores)[None], there_T.sum(), axis=0)
      rank_T[there_T] = metrics.ranks_from_scores(score_I, row_T[there_T])
    ranks.append(rank_T)
  return ranks


def rows(workdirs: list[pathlib.Path], read: dict[str, list[redial.Talk]], factors: list[float],
         prompts: bool) -> list[dict]:
  """The rows of trained runs, seeds of one config: by turns, fresh.

  Intervals are over dialogs, of the mean of the seeds; "seeds" has the figure of each.

  Args:
    workdirs: of the runs.
    read: see `Trained.ranks`.
    factors, prompts: see the flags.

  Raises:
    UserError: the runs differ in more than the seed; see also `Trained.ranks`.
  """
  models, made = [Trained(workdir) for workdir in workdirs], []
  check_seeds([model.run for model in models])
  asked = [(ILM, 0.0), *[(ADDED, weight) for weight in factors],
           *[(name, 0.0) for name in (SHUFFLED, NO_VECTORS, NO_WORDS) if prompts], (FOLDED, 0.0)]
  for name, weight in asked:
    (ranks, of_dialog), *more = [model.ranks(read, name, weight) for model in models]
    label = f"{name} x {weight:g}" if name == ADDED and len(factors) > 1 else name
    made.append(redial_tables.measured(label, {}, ranks, of_dialog, by="turns", targets="fresh",
                                       more=[each for each, _ in more]))
    print("  R@10 of the seeds:", *(f"{of:.4f}" for of in made[-1]["seeds"]), flush=True)
  return made


def check_seeds(runs: list[context.Run]) -> None:
  """Raises UserError if runs differ in other settings than the seed, or two have the same seed."""
  first, *others = [settings.of_phase1(run.config) | settings.of_phase2(run.config, variants.ILM)
                    for run in runs]
  for run, other in zip(runs[1:], others):
    differences = provenance.changed(first, other | {"seed": first["seed"]})
    if differences:
      raise errors.UserError(
          f"{run.workdir} has other settings than {runs[0].workdir} "
          f"({provenance.words(differences)}): give --run runs that differ only in the seed")
  if len({run.config.seed for run in runs}) < len(runs):
    raise errors.UserError(f"--run has two runs with the same seed (seeds: "
                           f"{', '.join(str(run.config.seed) for run in runs)})")


