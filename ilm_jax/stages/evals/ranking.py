"""Stage eval, recommendation: the next item among the full catalogue, by every way to rank."""
import dataclasses
import gzip
import io
import json

import numpy as np

from ilm_jax.data import splits
from ilm_jax.evaluation import dot_scores, metrics, rows
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import common, methods, rivals, speaker, trained


@dataclasses.dataclass(frozen=True)
class Ranking:
  """Ranks of the targets of the first len(rank_U) users, by one method."""
  method: str
  rank_U: np.ndarray
  depth: float = np.inf     # length of the lists the ranks come from
  by: str = ""

  @property
  def label(self) -> str:
    return rows.label({"method": self.method, "by": self.by})


@dataclasses.dataclass(frozen=True)
class Questions:
  """Test users whose next item is asked for."""
  examples: list
  user_U: np.ndarray
  target_U: np.ndarray
  filtered: list[np.ndarray]       # item rows that each user is not recommended
  blocked_UI: np.ndarray           # the same as bool [U, I + 1]
  protocol: dict[str, str]         # of the filter
  histories: list[np.ndarray] = ()   # item rows of each user before the target, oldest first


def recommendation(run: context.Run, compared: list[methods.Method]
                   ) -> tuple[dict, bytes, bytes, dict]:
  """HR, NDCG and MRR over the full catalogue, the user's history filtered.

  Args:
    run: the run.
    compared: ILM first, then what `phase2.compare` names.

  Returns:
    The table; the lists of ILM; the ranks by all methods, for `compare`; examples to read.
  """
  task = ranked_task(run.config)
  trie, names = speaker.catalogue(run)
  asked_for = questions(run, task)
  trained_models = compared[:1 + len(run.config.phase2.compare)]
  rankings, beam_UW = _by_beam(run, trained_models, asked_for, trie)
  rankings += _exact(run, compared[0], asked_for, trie, rankings[0])
  rankings += _by_head(run, trained_models, asked_for)
  rankings += _by_dot_product(run, asked_for)
  rankings += [Ranking(name, rank_U) for name, rank_U in rivals.ranks(
      run, asked_for.user_U, asked_for.target_U, asked_for.blocked_UI).items()]
  table = _table(run, task, asked_for, rankings)
  n = len(beam_UW)
  lists = {"user": asked_for.user_U[:n], "target": asked_for.target_U[:n], "items": beam_UW,
           "rank": rankings[0].rank_U}
  return (table, _predictions(lists, run.data.log),
          _ranks(run, table["protocol"], asked_for, rankings),
          _recommended(lists, names, run.data.log))


def ranked_task(config) -> str:
  """The task whose prompts rank: OpenP5's sequential one, else `next_item`."""
  return next((task for task in ("sequential", "next_item") if task in recipe.task_names(config)),
              "sequential")


def blocked(filtered: list, num_items: int) -> np.ndarray:
  """bool [U, num_items + 1]: true at the item rows that are filtered of each user."""
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


def _by_beam(run: context.Run, models: list[methods.Method], asked_for: Questions, trie):
  """(rankings by beam search, ILM's lists [U, W]); of all trained with eval.rank_compared."""
  width, users = run.config.eval.beam_width, run.config.eval.beam_users
  examples, target_U = asked_for.examples[:users], asked_for.target_U
  spec = common.spec(run, [examples])
  lists = {method.label: method.model.rank(
      examples, spec, trie, width=width, blocked=asked_for.filtered)
           for method in (models if run.config.eval.rank_compared else models[:1])}
  n = len(examples)
  by = f"beam {width}" + f", first {n} users" * (n < len(target_U))
  return [Ranking(label, metrics.ranks_from_items(beam_UW, target_U[:n]), width, by)
          for label, beam_UW in lists.items()], lists[models[0].label]


def _exact(run: context.Run, ilm: methods.Method, asked_for: Questions, trie, beam: Ranking
           ) -> list[Ranking]:
  """ILM by scoring every title, and its beams for the same users."""
  if not (n := run.config.eval.exact_users):
    return []
  # One user a batch: exact scoring is bound by arithmetic, and padded rows would be scored too.
  spec = dataclasses.replace(common.spec(run, [asked_for.examples]), rows=1)
  score_UI = ilm.model.score(asked_for.examples[:n], spec, trie)
  return [Ranking(ilm.label, metrics.ranks_from_scores(
              score_UI, asked_for.target_U[:n], asked_for.blocked_UI[:n]),
                  by=f"exact, first {n} users"),
          Ranking(ilm.label, beam.rank_U[:n], beam.depth,
                  f"beam {run.config.eval.beam_width}, these {n} users")]


def head_scores(run: context.Run, models: list[methods.Method], examples: list):
  """Yields (label, float32 [U, I + 1]) of each model's item head; nothing where there is none."""
  if run.config.phase2.head.weight:
    spec = common.spec(run, [examples])
    for method in models:
      yield method.label, method.model.head_score(examples, spec)


def _by_head(run: context.Run, models: list[methods.Method], asked_for: Questions
             ) -> list[Ranking]:
  return [Ranking(label, metrics.ranks_from_scores(
              score_UI, asked_for.target_U, asked_for.blocked_UI), by="item head")
          for label, score_UI in head_scores(run, models, asked_for.examples)]


def _by_dot_product(run: context.Run, asked_for: Questions) -> list[Ranking]:
  """In the space that phase 1's user-item loss made; no language model."""
  if not (run.config.phase1.losses.ui and recipe.has_phase1(run.config)):
    return []
  graphdef, params = trained.phase1(run, run.config.phase2.init_from or run.workdir)
  entity_rows = run.data.log.rows
  score_UI = dot_scores.score(graphdef, params, recipe.entity_arrays(run),
                              entity_rows.user(asked_for.user_U), entity_rows.num_items)
  return [Ranking("Q-Former", metrics.ranks_from_scores(
      score_UI, asked_for.target_U, asked_for.blocked_UI), by="dot product")]


def _table(run: context.Run, task: str, asked_for: Questions, rankings: list[Ranking]) -> dict:
  users, bootstrap = len(asked_for.examples), common.bootstrap(run)
  return {
      "title": f"Next item, full catalogue of {run.data.log.num_items} ({users} users)",
      "note": f"{run.rule.name}, one target a user; intervals: 95 %, bootstrap over users.",
      "protocol": {**common.protocol(run), "split": f"test ({run.rule.meaning})",
                   "task": task, "prompt": "seen template 0", "tie rule": "lower item row first",
                   **asked_for.protocol,
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


def _recommended(lists: dict, names: list[str], log) -> dict:
  examples = []
  for u in range(min(5, len(lists["user"]))):
    history = log.before_test(lists["user"][u])
    examples.append({
        "last seen": "; ".join(names[i] for i in history[-5:]),
        "recommended": "; ".join(names[i] for i in lists["items"][u][:10] if i),
        "next (the target)": names[lists["target"][u]]})
  return {"title": "Recommendations", "note": "First ten by constrained beam search.",
          "examples": examples}


def _predictions(lists: dict, log) -> bytes:
  """One JSON line per user, gzipped: the list, the target, its rank."""
  buffer = io.BytesIO()
  with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as out:
    for user, target, items, rank in zip(*lists.values()):
      line = {"user": log.user_ids[user], "target": int(target),
              "items": [int(i) for i in items if i],
              "rank": int(rank) if np.isfinite(rank) else None}
      out.write((json.dumps(line) + "\n").encode())
  return buffer.getvalue()
