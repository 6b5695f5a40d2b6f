"""Recommends items to users of the log and to new users, from the items that they liked.

    recommender = recommender.Recommender(context.Run(config, workdir))
    items_NK, score_NK = recommender.top([[50, 7, 181]], 10)     # item rows, oldest first

`way` says how a list is made; prompts are those of the run's ranking task. If a prompt or the space
of phase 1's user-item loss needs a user, the user's vector is folded in from the given history.
This holds for users of the log too, because their trained vector does not know the interactions
that were held out for testing.
"""
import dataclasses
import functools

import numpy as np

from ilm_jax import errors
from ilm_jax.config import variants
from ilm_jax.data import history_prompt
from ilm_jax.evaluation import dot_scores, lists
from ilm_jax.runtime import axes, placement
from ilm_jax.stages import context, factor_scores, newcomers, recipe
from ilm_jax.stages.evals import common, ranking, speaker, trained

HEAD, DOT, BEAMS = factor_scores.HEAD, "dot product", "beams"
_TOGETHER = 1024         # most users scored in one batch,
_SCORES = 1 << 26        # and most scores


def way(config) -> str:
  """How a run of `config` ranks: HEAD; without an item head DOT; BEAMS if phase 1 has no user-item
  loss either, because the dot product is many times faster than beams.

  Raises:
    UserError: nothing in the run ranks; or its prompts name users, and a new user has no name.
  """
  if config.tasks.entities != "slots":
    raise errors.UserError(f"tasks.entities={config.tasks.entities!r}: prompts of this run name "
                           "users, and a new user has no name: recommendations need a run with "
                           "tasks.entities='slots'")
  if config.phase2.head.weight:
    return HEAD
  if recipe.joins_users(config):
    return DOT
  if ranking.ranked_task(config) in recipe.said_tasks(config):
    return BEAMS
  raise errors.UserError("nothing in this run ranks items: it has no item head "
                         "(phase2.head.weight), no loss of users (phase1.losses.ui, .cf) and no "
                         "ranking task (tasks.mixture.sequential, tasks.mixture.next_item)")


class Recommender:
  """Recommends with a trained run. It loads what it needs on first use.

  Args:
    run: after the stages that train the ranking model.
    variant: which model of phase 2 ranks.

  Attributes:
    by: `way` of its config.
    variant: as given.
    method: what ranks, in words: "ILM, item head"; with `phase2.head.factors`, "ILM, item head with
      iALS".

  Raises:
    UserError: as `way`; the run ranks by dot product and the variant has none. Its methods raise it
      if a file is missing or does not fit the config.
  """

  def __init__(self, run: context.Run, variant: variants.Variant = variants.ILM):
    self.run, self.by, self.variant = run, way(run.config), variant
    self.method = f"{variant.label}, {factor_scores.named(run.config, self.by)}"
    if self.by == DOT and variant != variants.ILM:
      raise errors.UserError(f"--model={variant.key}: this run has no item head and ranks by phase "
                             "1's dot product, which is ILM's: leave --model out")
    self.together = max(1, min(_TOGETHER, _SCORES // (run.data.log.num_items + 1)))

  @property
  def reads(self) -> int:
    """How many of the last items of a history a prompt shows; 0: there is no prompt, all count."""
    return 0 if self.by == DOT else self.run.config.tasks.history

  def top(self, histories, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(items_NK, score_NK): for each of N users the best items that are not in the history.

    Args:
      histories: for each of N >= 1 users the entity rows (1..I) of its items, oldest first, at
        least one.
      k: length of the lists.

    Returns:
      int32 entity rows, best first, 0 where no item is left; float32 scores, -inf there. A score is
      a logit of the item head (with `phase2.head.factors` plus the factorisation's score), a
      cosine, or the log-probability of an item's index; it compares items for one user.
    """
    parts = [self._top([np.asarray(h, np.int32) for h in histories[first:first + self.together]], k)
             for first in range(0, len(histories), self.together)]
    items, scores = zip(*parts)
    return np.concatenate(items), np.concatenate(scores)

  def _top(self, histories, k: int):
    if self.by == BEAMS:
      return self._by_beams(histories, k)
    score_NI = self.scores(histories)
    blocked_NI = ranking.blocked(histories, self.run.data.log.num_items)
    items_NK = lists.top_items(score_NI, blocked_NI, k)
    return items_NK, np.take_along_axis(np.asarray(score_NI, np.float32), items_NK, axis=1)

  def scores(self, histories) -> np.ndarray:
    """float32 [N, I + 1]: the score of every item, also of those in the history, for each of at
    most `together` users; see `top`. Needs `by` HEAD or DOT: beams do not score the catalogue."""
    return (self._by_head if self.by == HEAD else self._by_dot_product)(histories)

  def states(self, histories) -> np.ndarray:
    """float32 [N, P]: the state of each history: the scores of items are its product with `keys`,
    plus their biases. For any number of histories. Needs `by` HEAD.

    With `phase2.head.factors` the last numbers of a state are the folded-in user, scaled, and those
    of a key the item's factors.
    """
    parts = []
    for first in range(0, len(histories), self.together):
      asked, examples, longest = self._ask(histories[first:first + self.together])
      parts.append(asked.head_states(
          examples, self._shape(common.head_spec(self.run, [longest]), len(examples))))
    state_NP = np.concatenate(parts)
    if self._factors:
      head = self.speaker.head_items
      key_IP, bias_I = placement.fetch(head.key_IP), placement.fetch(head.bias_I)
      more = [self._factors.users(histories[at:at + self.together], np.pad(
                  state_NP[at:at + self.together] @ key_IP.T + bias_I, ((0, 0), (1, 0))))
              for at in range(0, len(histories), self.together)]
      state_NP = np.concatenate([state_NP, np.concatenate(more)], axis=1)
    return state_NP

  def keys(self) -> np.ndarray:
    """float32 [I, P]: what `states` are multiplied with. Needs `by` HEAD."""
    key_IP = placement.fetch(self.speaker.head_items.key_IP)
    if self._factors:
      key_IP = np.concatenate([key_IP, self._factors.item_I1C[1:]], axis=1)
    return key_IP

  def item_vectors(self) -> np.ndarray:
    """float32 [I, E] vectors that say which items are similar: the item head's keys, or the outputs
    of all queries in the space of phase 1's user-item loss.

    Raises:
      UserError: the run ranks by beams, which have no vectors.
    """
    if self.by == BEAMS:
      raise errors.UserError("this run ranks by beams, where items have no vectors: neighbours "
                             "need an item head (phase2.head.weight) or a loss of users "
                             "(phase1.losses.ui, .cf)")
    vectors = self.speaker.head_items.key_IP if self.by == HEAD else self._items
    return placement.fetch(vectors).reshape(self.run.data.log.num_items, -1)

  def _by_head(self, histories) -> np.ndarray:
    _ = self.speaker.head_items       # made here, so that copies with more users share it
    asked, examples, longest = self._ask(histories)
    score_NI = asked.head_score(
        examples, self._shape(common.head_spec(self.run, [longest]), len(examples)))
    return score_NI + self._factors.scores(histories, score_NI) if self._factors else score_NI

  def _by_beams(self, histories, k: int):
    trie, _ = self._catalogue
    asked, examples, longest = self._ask(histories)
    width = max(k, self.run.config.eval.beam_width)
    items_NW, score_NW = asked.rank_scored(
        examples, self._shape(common.spec(self.run, [longest]), len(examples)), trie,
        width=width, blocked=histories)
    return items_NW[:, :k], score_NW[:, :k]

  def _by_dot_product(self, histories) -> np.ndarray:
    arrays = speaker.with_more(self.run, self._entities, *self._folded_in(histories))
    rows = self.run.data.log.rows.total + np.arange(len(histories))
    graphdef, params = self._phase1
    return dot_scores.score(
        graphdef, params, arrays, rows, self.run.data.log.num_items, items=self._items)

  def _ask(self, histories):
    """(the speaker, an example for each history, [an example of the greatest length], so that one
    shape is compiled)."""
    prompt, end = self.prompt, self.run.lm_tokenizer.eos_id
    asked, rows = self.speaker, np.zeros(len(histories), np.int32)
    if prompt.has_user:
      asked, rows = self.speaker.knowing(*self._folded_in(histories))
    examples = self.examples(histories, rows)
    return asked, examples, [prompt.example(np.ones(self.reads, np.int32), 0, end)]

  def examples(self, histories, rows=None) -> list[dict]:
    """The prompt of each history; `rows`: of the users in the entity table, for prompts that show
    the user."""
    rows = np.zeros(len(histories), np.int32) if rows is None else rows
    return [self.prompt.example(history[-self.reads:], int(row), self.run.lm_tokenizer.eos_id)
            for history, row in zip(histories, rows)]

  def _shape(self, spec, count: int):
    """`spec` with as many rows as `count` examples need: a power of two per device, so that a
    single user does not wait for a whole batch, and few shapes are compiled."""
    rows = axes.ways(self.run.mesh, "batch")
    while rows < min(count, spec.rows):
      rows *= 2
    return dataclasses.replace(spec, rows=min(rows, spec.rows))

  def _folded_in(self, histories):
    """(vectors, members) of users, filled up to `together`, so that one shape is compiled."""
    spare = self.together - len(histories)
    vectors, members = self._users.vectors(histories), self._users.members(histories)
    if members is not None:
      members = np.pad(members, ((0, spare), (0, 0)))
    return vectors + [{}] * spare, members

  @functools.cached_property
  def _users(self) -> newcomers.Users:
    return newcomers.Users(self.run)

  @functools.cached_property
  def speaker(self) -> speaker.Speaker:
    return speaker.Speaker(self.run, self.variant)

  @functools.cached_property
  def _factors(self) -> factor_scores.FactorScores | None:
    return factor_scores.of(self.run)

  @functools.cached_property
  def _catalogue(self):
    return speaker.catalogue(self.run)

  @functools.cached_property
  def _phase1(self):
    trained.first_meta(self.run)             # UserError if it has other inputs or settings
    return trained.phase1(self.run, self.run.config.phase2.init_from or self.run.workdir)

  @functools.cached_property
  def _entities(self):
    return recipe.entity_arrays(self.run)

  @functools.cached_property
  def _items(self):
    """The catalogue in the space of phase 1's user-item loss."""
    return dot_scores.items(*self._phase1, self._entities, self.run.data.log.num_items)

  @functools.cached_property
  def prompt(self) -> history_prompt.HistoryPrompt:
    """The prompt of the ranking task, as in stage eval."""
    task = ranking.ranked_task(self.run.config)
    stored = self.run.prepared(task, "test")
    prompt = history_prompt.of(stored, self.run.lm_tokenizer.slot_id)
    if prompt is None:
      raise errors.UserError(f"the {len(stored)} test prompts of task {task} show no history: "
                             "recommendations need one with a place for it")
    return prompt
