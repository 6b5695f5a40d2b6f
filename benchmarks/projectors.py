"""Ablates ranking: the parts of the projector, of phase 1 and of the language model.

    python -m benchmarks.projectors --out=runs/projectors --arms=mlp,cross,skip --seeds=0,1,2
    python -m benchmarks.projectors --out=runs/projectors --arms=mlp,cross,skip --seeds=0,1,2 \\
        --test --against=mlp

The first command trains each arm with each seed (every seed has its own vectors and windows) and
ranks the validation items; finished runs are not repeated. The second command also shows the ranks
of the test items: choose by the first, use the second once. An arm is a model of phase 2, or phase
1 with its dot product, under changes of the config (`projector_arms`). <out>/log.jsonl gets a line
per run: arm, seed, changes, figures.

With --set data.split="'loo_last'" validation items are learnt, and there is no first table.
Intervals are over users, for the mean of all seeds; "seeds" is the standard deviation over seeds
(with n - 1).
"""
import argparse
import ast
import functools
import gzip
import json
import pathlib
import sys
import time

import numpy as np

from benchmarks.projector_arms import ARMS, COMMON, Arm, configured
from ilm_jax import errors
from ilm_jax.config import settings, variants
from ilm_jax.evaluation import dot_scores, metrics, paired
from ilm_jax.monitoring import utilization
from ilm_jax.runtime import locks
from ilm_jax.stages import context, phases, recipe
from ilm_jax.stages import run as stages
from ilm_jax.stages.evals import common, ranking, speaker, trained
from ilm_jax.training import provenance

_PARTS = {"validation": "valid", "test": "test"}
_PREPARED, _OF_CF = ("data", "prepared", "tfds"), ("entities", "factors.npz", "sasrec")


def train(args, name: str, seed: int) -> None:
  """Trains an arm; writes ranks.npz into its folder and a line into the log.

  Raises:
    UserError: another job trains it.
  """
  folder = args.out / name / str(seed)
  with locks.held(folder, ["projectors"]):
    if (folder / "ranks.npz").exists():
      _check_same(args, name, seed)
    else:
      _train(args, name, seed, folder)


def _check_same(args, name: str, seed: int) -> None:
  """Refuses an arm that was trained with other settings."""
  was, arm = _line(args.out, name, seed), ARMS[name]
  now = {"config": args.config, **_changes(args, arm)}
  if differences := provenance.changed({"config": was["config"], **was["changes"]}, now):
    raise errors.UserError(f"{args.out / name / str(seed)} was trained with other settings "
                           f"({provenance.words(differences)}): name another --out")


def _changes(args, arm: Arm) -> dict:
  return {**COMMON, **arm.changes, **args.set}


def _line(out: pathlib.Path, name: str, seed: int) -> dict:
  """The last line of the log about an arm."""
  lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
  return [x for x in lines if (x["arm"], x["seed"]) == (name, seed)][-1]


def _train(args, name: str, seed: int, folder: pathlib.Path) -> None:
  arm = ARMS[name]
  base = args.out / "base" / str(seed)
  config = configured(args.config, seed, arm, args.set)
  stages.run(config, base, ("prepare",))        # finds the shared files, or refuses
  _link(folder, base, _PREPARED)
  _vectors(config, configured(args.config, seed, Arm("", {}), args.set), base, folder)
  run, began = context.Run(config, folder), time.time()
  variant = variants.COMPARED.get(arm.variant, variants.ILM)
  if variant.from_phase1:
    phases.phase1(run)
  if arm.variant != "phase1":
    phases.phase2(run, variant)
  seconds = time.time() - began
  by = by_head if config.phase2.head.weight else by_words
  score = dot_product if arm.variant == "phase1" else functools.partial(by, variant=variant)
  ranks = {split: rank(run, split, score) for split in ("validation", "test")
           if getattr(run.data.log.split, _PARTS[split]).any()}
  line = {"arm": name, "seed": seed, "config": args.config, "variant": arm.variant,
          "changes": _changes(args, arm), "seconds": round(seconds),
          **(costs(run, variant) if arm.variant != "phase1" else {})}
  if "validation" in ranks:
    line |= {**{f"validation hr@{k}": float(metrics.hit_rate(ranks["validation"], k).mean())
                for k in (5, 10)},
             "validation ndcg@10": float(metrics.ndcg(ranks["validation"], 10).mean())}
  with (args.out / "log.jsonl").open("a") as log:
    log.write(json.dumps(line) + "\n")
  np.savez(folder / "ranks.npz", **ranks)         # last: where it is, the arm has its line
  print(json.dumps(line), flush=True)


def trained_arm(out: pathlib.Path, name: str, seed: int
                ) -> tuple[context.Run, variants.Variant]:
  """(the run, the model) of a trained arm."""
  line = _line(out, name, seed)
  arm = Arm(line["variant"], line["changes"])
  config = configured(line["config"], seed, arm, {})
  return (context.Run(config, out / name / str(seed)),
          variants.COMPARED.get(arm.variant, variants.ILM))


def _vectors(config, shared, base: pathlib.Path, folder: pathlib.Path) -> None:
  """Makes stage cf's files for an arm; arms with the common entity table link those in `base`."""
  same = settings.of_entities(config) == settings.of_entities(shared)
  where = base if same else folder
  wanted = ["entities"] + ["sasrec"] * settings.needs_sasrec(config)
  if not all((where / name / "manifest.json").exists() for name in wanted):
    stages.run(config, where, ("cf",))
  if same:
    _link(folder, base, _OF_CF)


def _link(folder: pathlib.Path, base: pathlib.Path, names) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  for name in names:
    if (base / name).exists() and not (folder / name).exists():
      (folder / name).symlink_to((base / name).absolute())


def rank(run: context.Run, split: str, score) -> np.ndarray:
  """float64 [U]: ranks of the users' targets in a split, items of the history filtered."""
  asked = ranking.questions(run, ranking.ranked_task(run.config), split)
  return metrics.ranks_from_scores(
      score(run, asked.examples, asked.user_U), asked.target_U, asked.blocked_UI)


def by_head(run: context.Run, examples, user_U, variant) -> np.ndarray:
  """[U, I + 1] scores by the item head."""
  return speaker.Speaker(run, variant).head_score(examples, common.head_spec(run, [examples]))


def by_words(run: context.Run, examples, user_U, variant) -> np.ndarray:
  """[U, I + 1]: log-probabilities of all items' indices, by exact scoring."""
  return speaker.Speaker(run, variant).score(
      examples, common.spec(run, [examples]), speaker.catalogue(run)[0])


def dot_product(run: context.Run, examples, user_U) -> np.ndarray:
  """[U, I + 1] scores in phase 1's space of users and items."""
  rows = run.data.log.rows
  return dot_scores.score(*trained.phase1(run, run.workdir), recipe.entity_arrays(run),
                          np.array([rows.user(u) for u in user_U]), rows.num_items)


def costs(run: context.Run, variant) -> dict:
  """Number of trained parameters, and useful FLOPs per step."""
  built = recipe.phase2(run, variant, fresh=False)
  batch = next(phases.phase2_batches(run).iterate(0, 1))
  import jax

  from ilm_jax.objectives import phase2 as phase2_lib
  loss = phase2_lib.phase2_loss(built.graphdef, run.lm.config, recipe.said_tasks(run.config),
                                recipe.head_config(run))
  return {"parameters": sum(int(np.prod(x.shape)) for x in jax.tree.leaves(built.trainable)),
          "gflops": round(utilization.useful_flops(
              loss, built.trainable, built.frozen, batch) / 1e9, 1)}


def table(args, split: str) -> str:
  """A table of all arms, in Markdown."""
  bootstrap = paired.Bootstrap(2000, 0)
  hits = {name: [metrics.hit_rate(_ranks(args, name, seed, split), 10) for seed in args.seeds]
          for name in {*args.arms, args.against}}
  ndcg = {name: np.mean([metrics.ndcg(_ranks(args, name, seed, split), 10).mean()
                         for seed in args.seeds]) for name in args.arms}
  out = [f"| {split}, HR@10 | 95 % | seeds | minus {args.against} | NDCG@10 | parameters "
         "| GFLOPs a step | seconds |", "|" + "---|" * 8]
  for name in args.arms:
    mean_U, line = np.mean(hits[name], axis=0), _line(args.out, name, args.seeds[0])
    e, d = bootstrap.mean(mean_U), bootstrap.mean(mean_U - np.mean(hits[args.against], axis=0))
    out.append(
        f"| {name} {e['value']:.4f} | [{e['lo']:.3f}, {e['hi']:.3f}] "
        f"| {_spread([h.mean() for h in hits[name]])} "
        f"| {d['value']:+.4f} [{d['lo']:+.3f}, {d['hi']:+.3f}] | {ndcg[name]:.4f} "
        f"| {line.get('parameters', 0) / 1e6:.2f} M | {line.get('gflops', '')} "
        f"| {line['seconds']} |")
  return "\n".join(out)


def _spread(means: list[float]) -> str:
  return f"{np.std(means, ddof=1):.4f}" if len(means) > 1 else ""


def beside(args) -> str:
  """The arms' lead on test over the methods of another run that rank all users, in Markdown."""
  paths = [*args.beside.glob("eval/phase2/*/ranks.json.gz"),
           *args.beside.glob("baselines_ranks.json.gz")]
  if len(paths) != 1:
    raise errors.UserError(f"--beside={args.beside}: found {len(paths)} files of ranks, expected "
                           "one (eval/phase2/<step>/ranks.json.gz or baselines_ranks.json.gz)")
  stored, bootstrap = json.loads(gzip.decompress(paths[0].read_bytes())), paired.Bootstrap(2000, 0)
  stored["ranks"] = {method: ranks for method, ranks in stored["ranks"].items()
                     if np.shape(ranks)[-1] == len(stored["users"])}
  out = ["| test, HR@10 | " + " | ".join(stored["ranks"]) + " |", "|" + "---|" * (
      len(stored["ranks"]) + 1)]
  for name in args.arms:
    hits_U = np.mean([metrics.hit_rate(_of_users(args, name, seed, stored["users"]), 10)
                      for seed in args.seeds], axis=0)
    cells = []
    for ranks in stored["ranks"].values():            # [users] or [seeds, users]
      rank_SU = np.array(ranks if isinstance(ranks[0], list) else [ranks], float)
      rank_SU[rank_SU == 0] = np.inf
      theirs_U = np.mean([metrics.hit_rate(rank_U, 10) for rank_U in rank_SU], axis=0)
      e = bootstrap.mean(hits_U - theirs_U)
      cells.append(f"{e['value']:+.3f} [{e['lo']:+.3f}, {e['hi']:+.3f}]")
    out.append(f"| {name} minus | {' | '.join(cells)} |")
  return "\n".join(out)


def _of_users(args, name: str, seed: int, users: list) -> np.ndarray:
  """[U] test ranks of users by their raw ids."""
  config = configured(args.config, seed, ARMS[name], args.set)
  run = context.Run(config, args.out / name / str(seed))
  stored, log = run.prepared(ranking.ranked_task(run.config), "test"), run.data.log
  place = {log.user_ids[log.rows.user_number(int(stored[i]["user"][0]))]: i
           for i in range(len(stored))}
  return _ranks(args, name, seed, "test")[[place[user] for user in users]]


def _ranks(args, name: str, seed: int, split: str) -> np.ndarray:
  return _ranks_file(args, name, seed)[split]


def _ranks_file(args, name: str, seed: int):
  return np.load(args.out / name / str(seed) / "ranks.npz")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  names = lambda text: text.split(",")  # noqa: E731
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--config", default="configs/ml100k_head.py")
  parser.add_argument("--arms", type=names, default=list(ARMS), help=f"of {', '.join(ARMS)}")
  parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")],
                      default=[0, 1, 2])
  parser.add_argument("--set", action="append", default=[], help="name=value for all arms")
  parser.add_argument("--against", help="the arm to subtract; by default mlp if it is among "
                      "--arms, else the first")
  parser.add_argument("--test", action="store_true", help="also show ranks of the test items")
  parser.add_argument("--beside", type=pathlib.Path,
                      help="with --test: workdir of a run, or of benchmarks.baselines, on the same "
                      "data, over whose methods the arms' leads are shown")
  args = parser.parse_args()
  args.against = args.against or ("mlp" if "mlp" in args.arms else args.arms[0])
  if unknown := [a for a in (*args.arms, args.against) if a not in ARMS]:
    parser.error(f"--arms: unknown {unknown}; expected some of {', '.join(ARMS)}")
  absent = [seed for seed in args.seeds if args.against not in args.arms
            and not (args.out / args.against / str(seed) / "ranks.npz").exists()]
  if absent:
    parser.error(f"--against={args.against} is not trained with seeds {absent} in {args.out}: add "
                 "it to --arms, or name one of these")
  pairs = [text.split("=", 1) for text in args.set]
  args.set = {name: ast.literal_eval(value) for name, value in pairs}
  for seed in args.seeds:
    for name in args.arms:
      train(args, name, seed)
  shown = ("validation", *(("test",) if args.test else ()))
  for split in filter(_ranks_file(args, args.arms[0], args.seeds[0]).files.__contains__, shown):
    print(table(args, split), flush=True)
  if args.beside and args.test:
    print(beside(args))


if __name__ == "__main__":
  sys.exit(errors.exit_code(main))
