"""Stage eval, by prompt: the same users ranked with every wording, those of training and new ones.

OpenP5 reports its first seen template and its unseen one; how far the wording moves a figure, and
what the mean over wordings is, can only be seen beside the others.
"""
import numpy as np

from ilm_jax.evaluation import metrics
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import speaker, text

HITS, NDCGS = (1, 5, 10, 20), (5, 10, 20)
_HITS, _NDCGS = (5, 10), (5, 10)     # a narrower table: it is long


def table(run: context.Run, ilm: speaker.Speaker) -> dict:
  """A row for each template of each recommendation task that is trained, and the seen ones' mean.

  Args:
    run: the run; `eval.prompt_users` users are drawn by its seed.
    ilm: who ranks, by constrained beam search.
  """
  trie, _ = speaker.catalogue(run)
  tasks = [task for task in recipe.HEAD_TASKS if task in recipe.task_names(run.config)]
  rows = [row for task in tasks for row in _rows(run, ilm, task, trie)]
  # The test users of one task are those of every other.
  user_U, target_U, _ = asked(run, _by_text(run, tasks[0])[2][0] if tasks else [])
  return {"title": "Next item by prompt", "rows": rows,
          "note": "The same users with every template of the task; constrained beam search, seen "
                  "items filtered. Mean: of each user's figures over the seen templates. nll: nats "
                  "a token of the target. Intervals: 95 %, bootstrap over users.",
          "protocol": {**text.protocol(run), "split": f"test ({run.rule.meaning})",
                       **filter_protocol(run, user_U, target_U),
                       "index": run.config.tasks.index, "beam width": run.config.eval.beam_width}}


def asked(run: context.Run, examples) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
  """(users from 0, target item rows, item rows to filter) of test examples about a next item.

  What is filtered is the user's history, as `metrics.rows_to_filter` says.
  """
  log = run.data.log
  user_U = np.array([log.rows.user_number(int(e["user"][0])) for e in examples])
  target_U = np.array([int(e["target_entity"][0]) for e in examples])
  return user_U, target_U, metrics.rows_to_filter(list(map(log.before_test, user_U)), target_U)


def filter_protocol(run: context.Run, user_U, target_U) -> dict[str, str]:
  """What the protocol says of the filter of `asked`. Args: as it returns them."""
  return metrics.filter_protocol(list(map(run.data.log.before_test, user_U)), target_U)


def estimates(run: context.Run, rank_U, depth: float, hits=HITS, ndcgs=NDCGS) -> dict:
  """Metric -> estimate of ranks that are known up to `depth`."""
  found = metrics.rank_estimates(
      rank_U, hits=hits, ndcgs=ndcgs, depth=depth, resamples=run.config.eval.bootstrap,
      seed=run.config.seed)
  return {name: estimate._asdict() for name, estimate in found.items()}


def _by_text(run: context.Run, task: str) -> tuple[list[str], int, list[list[dict]]]:
  """(templates, how many of them are seen in training, the drawn users' examples by template)."""
  stored = run.prepared(f"{task}_prompts", "test")
  texts = stored.manifest["templates"]
  users = text.drawn(run, len(stored) // len(texts), run.config.eval.prompt_users)
  return texts, stored.manifest["seen"], [
      [stored[int(u) * len(texts) + n] for u in users] for n in range(len(texts))]


def _rows(run: context.Run, ilm, task: str, trie) -> list[dict]:
  texts, seen, by_text = _by_text(run, task)
  spec = text.spec(run, by_text)              # one shape for all: each is compiled
  _, target_U, blocked = asked(run, by_text[0])
  rows, ranks = [], []
  for number, (template, examples) in enumerate(zip(texts, by_text)):
    beam_UW = ilm.rank(examples, spec, trie, width=run.config.eval.beam_width, blocked=blocked)
    ranks.append(metrics.ranks_from_items(beam_UW, target_U))
    nll, count = ilm.losses(examples, spec)
    kind = f"seen {number}" if number < seen else f"unseen {number - seen}"
    rows.append({"name": f"{task}, {kind}: {template}", "metrics": {
        **estimates(run, ranks[-1], run.config.eval.beam_width, _HITS, _NDCGS),
        "nll": text.bootstrap(run, nll, count)}})
  return rows + [{"name": f"{task}, mean of {seen} seen", "metrics": _means(run, ranks[:seen])}]


def _means(run: context.Run, ranks: list[np.ndarray]) -> dict:
  """HR and NDCG of each user averaged over rankings, then over users."""
  of = {**{f"hr@{k}": (metrics.hit_rate, k) for k in _HITS},
        **{f"ndcg@{k}": (metrics.ndcg, k) for k in _NDCGS}}
  return {name: text.bootstrap(run, np.mean([value(r, k) for r in ranks], axis=0))
          for name, (value, k) in of.items()}
