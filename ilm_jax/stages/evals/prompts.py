"""Stage eval, by prompt: rankings for the same users with every template, seen and unseen ones.

OpenP5 reports its first seen template and its unseen one. Only the results of all templates show
how much the wording changes a result, and the mean over wordings.
"""
import numpy as np

from ilm_jax.config import mixture
from ilm_jax.evaluation import metrics, paired, rows
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import common, ranking, speaker

_HITS, _NDCGS = (5, 10), (5, 10)     # few columns, because the table has many rows


def table(run: context.Run, ilm: speaker.Speaker) -> dict:
  """A row for each template of each trained recommendation task, and the mean of seen templates.

  Args:
    run: the run; `eval.prompt_users` users are drawn by its seed.
    ilm: the model that ranks, by its item head, or without one by constrained beam search.
  """
  asked = tasks(run.config)
  trie = None if run.config.phase2.head.weight else speaker.catalogue(run)[0]
  made = [row for task in asked for row in _rows(run, ilm, task, trie)]
  # All tasks have the same test users.
  examples = _by_template(run, asked[0])[2][0] if asked else []
  *_, filter_protocol = common.users_and_filter(run, examples)
  return {"title": "Next item by prompt", "rows": made,
          "note": "The same users with every template of the task; ranked by the item head alone, "
                  "without one by constrained beam search; seen items filtered. Mean: over the "
                  "seen templates, for each user. nll: nats per token of the target. Intervals: "
                  "95 %, bootstrap over users.",
          "protocol": {**common.protocol(run), "split": f"test ({run.rule.meaning})",
                       **filter_protocol,
                       "index": run.config.tasks.index, "beam width": run.config.eval.beam_width}}


def tasks(config) -> list[str]:
  """The trained recommendation tasks."""
  return [task for task in mixture.HISTORY_TASKS if task in recipe.task_names(config)]


def means(bootstrap: paired.Bootstrap, ranks: list) -> dict:
  """HR and NDCG of each user averaged over rankings, then over users.

  Args:
    bootstrap: of the intervals.
    ranks: float [U] ranks for the same users, one array per ranking.
  """
  return {**{f"hr@{k}": bootstrap.mean(paired.mean_over_rankings(metrics.hit_rate, ranks, k))
             for k in _HITS},
          **{f"ndcg@{k}": bootstrap.mean(paired.mean_over_rankings(metrics.ndcg, ranks, k))
             for k in _NDCGS}}


def _by_template(run: context.Run, task: str) -> tuple[list[str], int, list[list[dict]]]:
  """(templates, how many are seen in training, for each template the drawn users' examples)."""
  stored = run.prepared(f"{task}_prompts", "test")
  templates = stored.manifest["templates"]
  users = common.drawn(len(stored) // len(templates), run.config.eval.prompt_users,
                       run.config.seed)
  return templates, stored.manifest["seen"], [
      [stored[int(u) * len(templates) + n] for u in users] for n in range(len(templates))]


def _rows(run: context.Run, ilm: speaker.Speaker, task: str, trie) -> list[dict]:
  """`trie`: the catalogue's indices; None: the item head ranks."""
  templates, num_seen, by_template = _by_template(run, task)
  spec = common.spec(run, by_template)         # one shape for all: each is compiled
  _, target_U, filtered, _ = common.users_and_filter(run, by_template[0])
  bootstrap, width = common.bootstrap(run), run.config.eval.beam_width
  head = trie is None
  made, ranks = [], []
  for number, (template, examples) in enumerate(zip(templates, by_template)):
    if head:
      score_UI = ilm.head_score(examples, common.head_spec(run, by_template))
      ranks.append(metrics.ranks_from_scores(
          score_UI, target_U, ranking.blocked(filtered, run.data.log.num_items)))
    else:
      beam_UW = ilm.rank(examples, spec, trie, width=width, blocked=filtered)
      ranks.append(metrics.ranks_from_items(beam_UW, target_U))
    kind = f"seen {number}" if number < num_seen else f"unseen {number - num_seen}"
    said = task in recipe.said_tasks(run.config)
    made.append(rows.row(
        {**bootstrap.ranks(ranks[-1], hits=_HITS, ndcgs=_NDCGS, depth=np.inf if head else width),
         **({"nll": bootstrap.mean(*ilm.losses(examples, spec))} if said else {})},
        task=task, by=f"{kind}: {template}"))
  return [*made, rows.row(means(bootstrap, ranks[:num_seen]), task=task,
                          by=f"mean of {num_seen} seen")]
