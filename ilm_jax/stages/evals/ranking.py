"""Stage eval, recommendation: the next item in the full catalogue, by every way to rank."""
import dataclasses
import gzip
import io
import json
from collections.abc import Sequence

import numpy as np

from ilm_jax import elm
from ilm_jax.config import names as known_names
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import splits
from ilm_jax.evaluation import dot_scores, lists, metrics, rows
from ilm_jax.stages import context, factor_scores, recipe
from ilm_jax.stages.evals import common, methods, rivals, speaker, trained

_ALONE = f"{factor_scores.HEAD} alone"       # without `phase2.head.factors`
_SHOWN = 5               # users whose lists are shown


@dataclasses.dataclass(frozen=True)
class Ranking:
  """Ranks of the targets of the first len(rank_U) users, by one method."""
  method: str
  rank_U: np.ndarray
  depth: float = np.inf     # length of the lists the ranks come from
  by: str = ""
  items_UK: np.ndarray | None = None     # item rows of each user's list, best first; 0: none

  @property
  def label(self) -> str:
    return rows.label({"method": self.method, "by": self.by})


@dataclasses.dataclass(frozen=True)
class Questions:
  """Users whose next item is to be predicted."""
  examples: list
  user_U: np.ndarray
  target_U: np.ndarray
  filtered: list[np.ndarray]       # item rows that each user is not recommended
  blocked_UI: np.ndarray           # the same as bool [U, I + 1]
  protocol: dict[str, str]         # of the filter
  histories: Sequence[np.ndarray] = ()   # item rows of each user before the target, oldest first


def recommendation(run: context.Run, compared: list[methods.Method]
                   ) -> tuple[dict[str, dict], dict[str, bytes]]:
  """HR, NDCG and MRR over the full catalogue, the user's history filtered.

  Args:
    run: the run.
    compared: ILM first, then the models of `phase2.compare`.

  Returns:
    Tables and examples by name: "recommendation", "lists" (how similar users' lists are) and
    "examples" (ILM's lists, if it made any). Files by name: ILM's lists, and the ranks by all
    methods, for `compare`.
  """
  task = ranked_task(run.config)
  asked_for = questions(run, task)
  trained_models = compared[:1 + len(run.config.phase2.compare)]
  rankings = _by_words(run, trained_models, asked_for)
  rankings += _by_head(run, trained_models, asked_for)
  rankings += _by_dot_product(run, asked_for)
  rankings += [_by_scores(name, score_UI, asked_for)
               for name, score_UI in rivals.scores(run, asked_for.user_U)]
  table = _table(run, task, asked_for, rankings)
  parts = {"recommendation": table, "lists": _alike(rankings, table["protocol"])}
  files = {"ranks.json.gz": _ranks(run, table["protocol"], asked_for, rankings)}
  shown = listed(rankings, compared[0].label)
  if shown is not None and shown.items_UK is not None:
    by = factor_scores.named(run.config, shown.by)
    parts["examples"] = _recommended(run, by, shown.items_UK, asked_for)
    files["predictions.jsonl.gz"] = _predictions(run, shown.rank_U, shown.items_UK, asked_for)
  return parts, files


def listed(rankings: list[Ranking], method: str) -> Ranking | None:
  """The ranking of a method to show: its item head's, else its beams'; None if it made no lists."""
  made = [r for r in rankings if r.method == method and r.items_UK is not None]
  return next((r for r in made if r.by == factor_scores.HEAD), made[0] if made else None)


def ranked_task(config) -> str:
  """The task whose prompts rank: OpenP5's sequential one, else `next_item`."""
  return next((task for task in ("sequential", "next_item") if task in recipe.task_names(config)),
              "sequential")


def blocked(filtered: list, num_items: int) -> np.ndarray:
  """bool [U, num_items + 1]: true at the item rows that are filtered for each user."""
  blocked_UI = np.zeros((len(filtered), num_items + 1), bool)
  for blocked_I, item_rows in zip(blocked_UI, filtered):
    blocked_I[item_rows] = True
  return blocked_UI


def questions(run: context.Run, task: str, split: str = "test") -> Questions:
  """`eval.users` targets of a task's prepared split, "validation" or "test"."""
  stored = run.prepared(task, split)
  examples = [stored[u] for u in common.drawn(
      len(stored), run.config.eval.users, run.config.seed)]
  part = {"validation": splits.VALID, "test": splits.TEST}[split]
  user_U, target_U, filtered, protocol = common.users_and_filter(run, examples, part)
  return Questions(examples, user_U, target_U, filtered,
                   blocked(filtered, run.data.log.num_items), protocol,
                   [run.data.log.before_target(user, part) for user in user_U])


def _by_scores(method: str, score_UI, asked_for: Questions, by: str = "") -> Ranking:
  """The ranking of all users by scores of all items."""
  return Ranking(
      method, metrics.ranks_from_scores(score_UI, asked_for.target_U, asked_for.blocked_UI), by=by,
      items_UK=lists.top_items(score_UI, asked_for.blocked_UI, known_names.LARGEST_CUTOFF))


def _by_words(run: context.Run, models: list[methods.Method], asked_for: Questions
              ) -> list[Ranking]:
  """By the items' indices: beams and exact scores; [] with no beam_users."""
  if not run.config.eval.beam_users:
    return []
  trie, _ = speaker.catalogue(run)
  rankings = _by_beam(run, models, asked_for, trie)
  return rankings + _exact(run, models[0], asked_for, trie, rankings[0])


def _by_beam(run: context.Run, models: list[methods.Method], asked_for: Questions, trie
             ) -> list[Ranking]:
  """ILM by beam search, with eval.rank_compared also the compared models."""
  width, users = run.config.eval.beam_width, run.config.eval.beam_users
  examples, target_U = asked_for.examples[:users], asked_for.target_U
  spec = common.spec(run, [examples])
  n = len(examples)
  by = f"beam {width}" + f", first {n} users" * (n < len(target_U))
  made = []
  for method in (models if run.config.eval.rank_compared else models[:1]):
    beam_UW = method.model.rank(examples, spec, trie, width=width, blocked=asked_for.filtered)
    made.append(Ranking(method.label, metrics.ranks_from_items(beam_UW, target_U[:n]), width, by,
                        beam_UW))
  return made


def _exact(run: context.Run, ilm: methods.Method, asked_for: Questions, trie, beam: Ranking
           ) -> list[Ranking]:
  """ILM by scoring every item's index, and its beams for the same users."""
  if not (n := run.config.eval.exact_users):
    return []
  # One user per batch: exact scoring is bound by arithmetic, and would also score padded rows.
  spec = dataclasses.replace(common.spec(run, [asked_for.examples]), rows=1)
  score_UI = ilm.model.score(asked_for.examples[:n], spec, trie)
  return [Ranking(ilm.label, metrics.ranks_from_scores(
              score_UI, asked_for.target_U[:n], asked_for.blocked_UI[:n]),
                  by=f"exact, first {n} users"),
          Ranking(ilm.label, beam.rank_U[:n], beam.depth,
                  f"beam {run.config.eval.beam_width}, these {n} users")]


def head_scores(run: context.Run, models: list[methods.Method], examples: list):
  """Yields (label, float32 [U, I + 1]) of each model's item head; nothing without item heads."""
  if run.config.phase2.head.weight:
    spec = common.head_spec(run, [examples])
    for method in models:
      yield method.label, method.model.head_score(examples, spec)


def _by_head(run: context.Run, models: list[methods.Method], asked_for: Questions
             ) -> list[Ranking]:
  factors, made = factor_scores.of(run), []
  for label, score_UI in head_scores(run, models, asked_for.examples):
    alone = [_by_scores(label, score_UI, asked_for, _ALONE)] if factors else []
    if factors:
      score_UI += factors.scores(asked_for.histories, score_UI)    # the array may be gigabytes
    made += [_by_scores(label, score_UI, asked_for, factor_scores.HEAD), *alone]
  return made


def _by_dot_product(run: context.Run, asked_for: Questions) -> list[Ranking]:
  """In the space of phase 1's user-item loss, without the language model."""
  if not recipe.joins_users(run.config):
    return []
  graphdef, params = trained.phase1(run, run.config.phase2.init_from or run.workdir)
  entity_rows = run.data.log.rows
  score_UI = dot_scores.score(graphdef, params, recipe.entity_arrays(run),
                              entity_rows.user(asked_for.user_U), entity_rows.num_items)
  return [_by_scores("Q-Former", score_UI, asked_for, "dot product")]


def _table(run: context.Run, task: str, asked_for: Questions, rankings: list[Ranking]) -> dict:
  users, bootstrap = len(asked_for.examples), common.bootstrap(run)
  return {
      "title": f"Next item, full catalogue of {run.data.log.num_items} ({users} users)",
      "note": f"{run.rule.name}, one target per user; intervals: 95 %, bootstrap over users.",
      "protocol": {**common.protocol(run), "split": f"test ({run.rule.meaning})",
                   "task": task, "prompt": "seen template 0", "tie rule": "lower item row first",
                   **asked_for.protocol, **common.added_scores(run),
                   "index": run.config.tasks.index, "beam": "constrained to the catalogue, no "
                   "length penalty", "users": f"{users} drawn with seed {run.config.seed}"},
      "rows": [rows.row(bootstrap.ranks(r.rank_U, hits=common.HITS, ndcgs=common.NDCGS,
                                        depth=r.depth), method=r.method, by=r.by)
               for r in rankings]}


def _ranks(run: context.Run, protocol: dict, asked_for: Questions, rankings: list[Ranking]
           ) -> bytes:
  """The rank of every target by every method, as gzipped JSON; null: missed."""
  return gzip.compress(json.dumps({
      "protocol": protocol, "users": [run.data.log.user_ids[u] for u in asked_for.user_U],
      "targets": [run.data.items.ids[t - 1] for t in asked_for.target_U],
      "ranks": {r.label: [int(x) if np.isfinite(x) else None for x in r.rank_U]
                for r in rankings}}).encode(), mtime=0)


def _alike(rankings: list[Ranking], protocol: dict) -> dict:
  """How similar the lists of different users are, for each method that made lists."""
  return {"title": f"How alike the lists of different users are (first {lists.TOP})",
          "note": f"Shared by two users: items that two users' first {lists.TOP} have in common, "
                  f"as a share of {lists.TOP}, mean over all pairs; 1: all users get the same "
                  "list. Distinct items: in the lists of all users together.",
          "protocol": protocol,
          "rows": [rows.row(lists.alike(r.items_UK), method=r.method, by=r.by)
                   for r in rankings if r.items_UK is not None]}


def _recommended(run: context.Run, by: str, items_UK: np.ndarray, asked_for: Questions) -> dict:
  """The lists of the first users, with their last items and the target, by full title."""
  log, items, word = run.data.log, run.data.items, elm.words(run.config.data)
  names = ["", *(interactions_lib.full_title(items, row) for row in range(1, len(items) + 1))]
  examples = [{
      "user": log.user_ids[user],
      f"last {word.done}": [names[i] for i in log.before_target(user)[-5:]],
      "recommended": [names[i] for i in items_K[:lists.TOP] if i],
      "next (the target)": names[target]}
      for user, target, items_K in zip(asked_for.user_U[:_SHOWN], asked_for.target_U, items_UK)]
  return {"title": "Recommendations", "examples": examples,
          "note": f"ILM's first {lists.TOP} by {by}, without items of the user's history."}


def _predictions(run: context.Run, rank_U: np.ndarray, items_UK: np.ndarray,
                 asked_for: Questions) -> bytes:
  """One JSON line per user, gzipped: the list, the target, its rank."""
  buffer = io.BytesIO()
  with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as out:
    for user, target, items_K, rank in zip(asked_for.user_U, asked_for.target_U, items_UK, rank_U):
      line = {"user": run.data.log.user_ids[user], "target": int(target),
              "items": [int(i) for i in items_K if i],
              "rank": int(rank) if np.isfinite(rank) else None}
      out.write((json.dumps(line) + "\n").encode())
  return buffer.getvalue()
