"""Stage eval, second half: does the frozen language model recommend and describe from vectors?

Tables of the log perplexity of held-back targets, of recommendation over the full catalogue, and of
the meaning of what is said of items never described in training (`text`); texts and lists to
read.
"""
import dataclasses
import gzip
import io
import json

import numpy as np

from ilm_jax import elm, files
from ilm_jax.config import variants
from ilm_jax.evaluation import dot_scores, measured, metrics
from ilm_jax.runtime import distributed
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import (
    between,
    made_from,
    methods,
    prompts,
    rivals,
    speaker,
    text,
    trained,
)


def run(run: context.Run) -> None:
  """Writes eval/phase2/<step>/ for the newest checkpoint; tables of the same settings stay.

  All processes of a job measure, and process 0 writes.
  """
  made = made_from.of_phase2(run)
  folder = run.workdir / "eval" / "phase2" / str(made["checkpoints"]["phase2"]["step"])
  if measured.done(folder, made):
    return
  ilm = speaker.Speaker(run, variants.ILM)
  measured.begin(folder)
  if distributed.is_main():
    run.record("eval")

  def write_bytes(name, data):
    if distributed.is_main():
      files.write_bytes(folder / name, data)

  def write(name, part):
    write_bytes(f"{name}.json", json.dumps(part, indent=1).encode())

  asked = methods.methods(run, ilm)
  write("loss", losses(run, asked))
  behaviour = text.behaviour(run)
  for name, part in text.generations(run, asked, behaviour).items():
    write(name, part)
  if run.config.eval.interpolations and (part := between.table(run, ilm, behaviour)):
    write("between", part)
  if run.config.eval.prompt_users:
    write("prompts", prompts.table(run, ilm))
  table, predictions, ranks, shown = recommendation(run, asked)
  write("examples", shown)
  write_bytes("predictions.jsonl.gz", predictions)
  write_bytes("ranks.json.gz", ranks)
  write("recommendation", table)
  measured.mark(folder, made)


# Log perplexity.


def losses(run: context.Run, asked: list[methods.Method]) -> dict:
  """Mean negative log likelihood of test targets: ILM, its rivals and its references."""
  examples = {task: found for task in recipe.task_names(run.config)
              if (found := text.sample(run, task, run.config.eval.loss_examples))}
  sums = {method.name: _sums(run, method, examples) for method in asked}
  differences = {f"{method.beside} minus {method.name}": {
      task: (sums[method.beside][task][0] - nll, count)
      for task, (nll, count) in sums[method.name].items()} for method in asked[1:]}
  rows = [{"name": name, "metrics": _loss_metrics(run, own, examples)}
          for name, own in (sums | differences).items()]
  return {"title": "Loss on test targets (nats per token; lower is better)",
          "note": "ILM-rand: the same steps without phase 1. MLP projector: the same steps with "
                  "an mlp in the Q-Former's place. ILM without vectors: the same steps with every "
                  "vector taken away. No slots: the frozen language model "
                  "alone. Title as text: the same, with titles where soft tokens stand. Vectors "
                  "shuffled: it is shown another item. Test split: next items never trained on, "
                  "and held-out items for the elm tasks. The mean of ELM's tasks is that of their "
                  "log perplexities. Intervals: 95 %, bootstrap over examples, of that mean over "
                  "items; of a difference, paired.",
          "protocol": {**text.protocol(run), "split": "test",
                       "examples per task": run.config.eval.loss_examples},
          "rows": rows}


def _sums(run: context.Run, method: methods.Method, examples: dict) -> dict:
  """Task -> (nll, tokens) of each example; "all" too, of a method that answers all tasks."""
  shown = {task: [method.change(e) for e in found] for task, found in examples.items()
           if method.answers(task)}
  # Two shapes, not one a task: each is compiled for each method.
  short = text.spec(run, [e for task, e in shown.items() if task != "sequential"] or [[]])
  own = {}
  for task, found in shown.items():
    spec = text.spec(run, [found]) if task == "sequential" else short
    if method.queries is not None:
      spec = dataclasses.replace(spec, queries=method.queries)
    own[task] = method.model.losses(found, spec)
  if shown.keys() == examples.keys():
    own["all"] = tuple(np.concatenate(parts) for parts in zip(*own.values()))
  return own


def _loss_metrics(run: context.Run, own: dict, examples: dict) -> dict:
  """Task -> estimate, with the mean over those of ELM's 24 tasks that there are."""
  found = {task: text.bootstrap(run, nll, count) for task, (nll, count) in own.items()}
  of_elm = {task: ([int(e["target_entity"][0]) for e in examples[task]], *own[task])
            for task in elm.ELM_24 if task in own}
  if len(of_elm) > 1:
    found[f"mean of {len(of_elm)} ELM tasks"] = text.mean_over_tasks(run, of_elm)
  return found


# Recommendation.


@dataclasses.dataclass
class Ranking:
  """Ranks of the targets of the first len(rank_U) users, by one method."""
  name: str
  rank_U: np.ndarray
  depth: float = np.inf


def recommendation(run: context.Run, asked: list[methods.Method]
                   ) -> tuple[dict, bytes, bytes, dict]:
  """HR, NDCG and MRR over the full catalogue, seen items filtered.

  Args:
    run: the run.
    asked: ILM first, then what `phase2.compare` names.

  Returns:
    The table; the lists of ILM; the ranks by all methods, for `compare`; examples to read.
  """
  c, interactions, task = run.config.eval, run.data.log, ranked_task(run)
  stored = run.prepared(task, "test")
  _, names = catalogue = speaker.catalogue(run)
  users = text.drawn(run, len(stored), c.users)
  examples = [stored[u] for u in users]
  user_U, target_U, seen = prompts.asked(run, examples)
  blocked_UI = _blocked(seen, interactions.num_items)
  ours = asked[:1 + len(run.config.phase2.compare)]
  found, beam_UW = _by_beam(run, ours, examples[:c.beam_users], target_U, seen, catalogue[0])
  if n := c.exact_users:
    # One user a batch: exact scoring is bound by arithmetic, and padded rows would be scored too.
    spec = dataclasses.replace(text.spec(run, [examples]), rows=1)
    score_UI = asked[0].model.score(examples[:n], spec, catalogue[0])
    found += [Ranking(f"ILM, exact, first {n} users", metrics.ranks_from_scores(
                  score_UI, target_U[:n], blocked_UI[:n])),
              Ranking(f"ILM, beam {c.beam_width}, these {n} users", found[0].rank_U[:n],
                      c.beam_width)]
  if run.config.phase2.head.weight:
    shape = text.spec(run, [examples])
    found += [Ranking(f"{method.name}, item head", metrics.ranks_from_scores(
                  method.model.head_score(examples, shape), target_U, blocked_UI))
              for method in ours]
  if run.config.phase1.losses.ui and recipe.has_phase1(run.config):
    found.append(Ranking("Q-Former, dot product", metrics.ranks_from_scores(
        _dot(run, user_U), target_U, blocked_UI)))
  found += [Ranking(name, rank_U)
            for name, rank_U in rivals.ranks(run, user_U, target_U, blocked_UI).items()]
  rows = [{"name": r.name, "metrics": prompts.estimates(run, r.rank_U, r.depth)}
          for r in found]
  table = {
      "title": f"Next item, full catalogue of {interactions.num_items} ({len(users)} users)",
      "note": f"{run.rule.name}, one target a user; intervals: 95 %, bootstrap over users.",
      "protocol": {**text.protocol(run), "split": f"test ({run.rule.meaning})",
                   "task": task, "prompt": "seen template 0", "tie rule": "lower item row first",
                   **prompts.filter_protocol(run, user_U, target_U),
                   "index": run.config.tasks.index, "beam": "constrained to the catalogue, no "
                   "length penalty",
                   "users": f"{len(users)} drawn with seed {run.config.seed}"},
      "rows": rows}
  lists = {"user": user_U[:len(beam_UW)], "target": target_U[:len(beam_UW)], "items": beam_UW,
           "rank": found[0].rank_U}
  ranks = {"protocol": table["protocol"], "users": [interactions.user_ids[u] for u in user_U],
           "targets": [run.data.items.ids[t - 1] for t in target_U],
           "ranks": {r.name: [int(x) if np.isfinite(x) else None for x in r.rank_U]
                     for r in found}}
  return (table, _predictions(lists, interactions),
          gzip.compress(json.dumps(ranks).encode(), mtime=0),
          _recommended(lists, seen, names, interactions))


def ranked_task(run: context.Run) -> str:
  """The task whose prompts rank: OpenP5's sequential one, else `next_item`."""
  return next((t for t in ("sequential", "next_item") if t in recipe.task_names(run.config)),
              "sequential")


def _by_beam(run: context.Run, ours, examples, target_U, seen, trie):
  """(rankings by beam search, ILM's lists [U, W]); of all trained with eval.rank_compared."""
  width, spec = run.config.eval.beam_width, text.spec(run, [examples])
  lists = {method.name: method.model.rank(examples, spec, trie, width=width, blocked=seen)
           for method in (ours if run.config.eval.rank_compared else ours[:1])}
  n, some = len(examples), f", first {len(examples)} users" * (len(examples) < len(target_U))
  return [Ranking(f"{name}, beam {width}{some}", metrics.ranks_from_items(beam_UW, target_U[:n]),
                  width) for name, beam_UW in lists.items()], lists[ours[0].name]


def _dot(run: context.Run, user_U) -> np.ndarray:
  """[U, I + 1] scores of the space that phase 1's user-item loss made; no language model."""
  graphdef, params = trained.phase1(run, run.config.phase2.init_from or run.workdir)
  rows = run.data.log.rows
  return dot_scores.score(graphdef, params, recipe.entity_arrays(run), rows.user(user_U),
                          rows.num_items)


def _recommended(lists, seen, names, interactions) -> dict:
  examples = []
  for u in range(min(5, len(lists["user"]))):
    history = interactions.before_test(lists["user"][u])
    examples.append({
        "last seen": "; ".join(names[i] for i in history[-5:]),
        "recommended": "; ".join(names[i] for i in lists["items"][u][:10] if i),
        "next (the target)": names[lists["target"][u]]})
  return {"title": "Recommendations", "note": "First ten by constrained beam search.",
          "examples": examples}


def _predictions(lists, interactions) -> bytes:
  """One JSON line per user, gzipped: the list, the target, its rank."""
  buffer = io.BytesIO()
  with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as out:
    for user, target, items, rank in zip(*lists.values()):
      line = {"user": interactions.user_ids[user], "target": int(target),
              "items": [int(i) for i in items if i],
              "rank": int(rank) if np.isfinite(rank) else None}
      out.write((json.dumps(line) + "\n").encode())
  return buffer.getvalue()


# Small parts.


def _blocked(seen, num_items: int) -> np.ndarray:
  blocked_UI = np.zeros((len(seen), num_items + 1), bool)
  for blocked_I, rows in zip(blocked_UI, seen):
    blocked_I[rows] = True
  return blocked_UI
