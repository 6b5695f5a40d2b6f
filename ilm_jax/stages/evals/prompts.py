"""Stage eval, by prompt: the same users ranked with every wording, those of training and new ones.

OpenP5 reports its first seen template and its unseen one; how far the wording moves a figure, and
what the mean over wordings is, can only be seen beside the others.
"""
import numpy as np

from ilm_jax.evaluation import metrics
from ilm_jax.stages import context, phases
from ilm_jax.stages.evals import speaker, text

HITS, NDCGS = (1, 5, 10, 20), (5, 10, 20)
_HITS, _NDCGS = (5, 10), (5, 10)     # a narrower table: it is long


def table(this: context.Run, ilm: speaker.Speaker) -> dict:
  """A row for each template of each recommendation task that is trained, and the seen ones' mean.

  Args:
    this: the run; `eval.prompt_users` users are drawn by its seed.
    ilm: who ranks, by constrained beam search.
  """
  trie, _ = speaker.catalogue(this)
  rows = [row for task in phases.HEAD_TASKS if task in phases.task_names(this)
          for row in _rows(this, ilm, task, trie)]
  return {"title": "Next item by prompt", "rows": rows,
          "note": "The same users with every template of the task; constrained beam search, seen "
                  "items filtered. Mean: of each user's figures over the seen templates. nll: nats "
                  "a token of the target. Intervals: 95 %, bootstrap over users.",
          "protocol": {**text.protocol(this), "split": f"test ({this.rule.meaning})",
                       "filter": "items of the user's history are taken out",
                       "index": this.config.tasks.index, "beam width": this.config.eval.beam_width}}


def asked(this: context.Run, examples) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
  """(users from 0, target item rows, item rows to filter) of test examples about a next item.

  What is filtered is the user's history; it never holds the target.
  """
  log = this.data[0]
  user_U = np.array([log.rows.user_number(int(e["user"][0])) for e in examples])
  target_U = np.array([int(e["target_entity"][0]) for e in examples])
  return user_U, target_U, [np.setdiff1d(log.before_test(u), [t])
                            for u, t in zip(user_U, target_U)]


def estimates(this: context.Run, rank_U, depth: float, hits=HITS, ndcgs=NDCGS) -> dict:
  """Metric -> estimate of ranks that are known up to `depth`."""
  found = metrics.rank_estimates(
      rank_U, hits=hits, ndcgs=ndcgs, depth=depth, resamples=this.config.eval.bootstrap,
      seed=this.config.seed)
  return {name: estimate._asdict() for name, estimate in found.items()}


def _rows(this: context.Run, ilm, task: str, trie) -> list[dict]:
  stored = this.prepared(f"{task}_prompts", "test")
  texts, seen = stored.manifest["templates"], stored.manifest["seen"]
  users = text.drawn(this, len(stored) // len(texts), this.config.eval.prompt_users)
  by_text = [[stored[int(u) * len(texts) + n] for u in users] for n in range(len(texts))]
  spec = text.spec(this, by_text)              # one shape for all: each is compiled
  _, target_U, blocked = asked(this, by_text[0])
  rows, ranks = [], []
  for number, (template, examples) in enumerate(zip(texts, by_text)):
    beam_UW = ilm.rank(examples, spec, trie, width=this.config.eval.beam_width, blocked=blocked)
    ranks.append(metrics.ranks_from_items(beam_UW, target_U))
    nll, count = ilm.losses(examples, spec)
    kind = f"seen {number}" if number < seen else f"unseen {number - seen}"
    rows.append({"name": f"{task}, {kind}: {template}", "metrics": {
        **estimates(this, ranks[-1], this.config.eval.beam_width, _HITS, _NDCGS),
        "nll": text.bootstrap(this, nll, count)}})
  return rows + [{"name": f"{task}, mean of {seen} seen", "metrics": _means(this, ranks[:seen])}]


def _means(this: context.Run, ranks: list[np.ndarray]) -> dict:
  """HR and NDCG of each user averaged over rankings, then over users."""
  of = {**{f"hr@{k}": (metrics.hit_rate, k) for k in _HITS},
        **{f"ndcg@{k}": (metrics.ndcg, k) for k in _NDCGS}}
  return {name: text.bootstrap(this, np.mean([value(r, k) for r in ranks], axis=0))
          for name, (value, k) in of.items()}
