"""Ranks test targets by methods without language, each tuned with the same number of trials.

    python -m ilm_jax.main --config=configs/ml100k_head.py --workdir=W --stage=prepare
    python -m benchmarks.baselines --config=configs/ml100k_head.py --workdir=W --trials=8 \\
        --seeds=0,1,2

For each method --trials settings are drawn from its space (`SPACES`; all settings of a smaller
space), trained on the training interactions with the first seed, and ranked on the validation
targets. The setting with the best NDCG@10 is trained with every seed and ranked once on the test
targets. All methods rank the full catalogue without the items of the user's history; the history
before a test target includes the validation item. iALS and BPR-MF have one vector per user, from
training interactions alone.

After each method it writes baselines.json, baselines.md and baselines_ranks.json.gz (for
`benchmarks.projectors --beside`) into the workdir; a method that is already there with the same
data, space, trials and seeds is not run again. Results: docs/results/.
"""
import argparse
import functools
import gzip
import itertools
import json
import pathlib
import time

import numpy as np

from ilm_jax import errors
from ilm_jax.baselines import bpr, ease, neighbours, popularity, sasrec
from ilm_jax.cf import ials
from ilm_jax.config import reading
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import metrics
from ilm_jax.stages import context
from ilm_jax.stages.evals import rivals

TRANSFORMER = {"num_layers": (1, 2), "num_heads": (1, 2), "dropout": (0.2, 0.3, 0.5),
               "learning_rate": (1e-3, 2e-3, 4e-3), "batch_size": (64, 128)}
SPACES = {
    "popularity": {},
    "ials": {"width": (16, 32, 64, 128), "reg": (5.0, 10.0, 20.0, 40.0, 80.0),
             "alpha": (0.5, 1.0, 2.0, 5.0, 10.0)},
    "item_knn": {"neighbours": (20, 50, 100, 200, 500),
                 "shrinkage": (0.0, 10.0, 30.0, 100.0, 300.0)},
    "transition": {"last": (1, 2, 3, 5, 10, 20), "decay": (0.3, 0.5, 0.7, 0.8, 0.9),
                   "smoothing": (0.0, 1.0, 5.0, 20.0)},
    "ease": {"reg": (10.0, 30.0, 100.0, 200.0, 300.0, 500.0, 1000.0, 2000.0, 5000.0)},
    "bpr": {"width": (16, 32, 64), "reg": (1e-4, 1e-3, 1e-2, 3e-2), "epochs": (30, 60),
            "learning_rate": (3e-3, 1e-2, 3e-2)},
    "sasrec_full": TRANSFORMER,
    "sasrec_gbce": {**TRANSFORMER, "calibration": (0.5, 0.75, 1.0), "negatives": (64, 256)},
    "esasrec": {**TRANSFORMER, "negatives": (64, 256)},
}
SEEDED = ("ials", "bpr", "sasrec_full", "sasrec_gbce", "esasrec")
METRICS = {"hr@10": metrics.hit_rate, "ndcg@10": metrics.ndcg}


def draw(space: dict, trials: int, seed: int = 0) -> list[dict]:
  """`trials` different settings out of the product of a space's values; all if there are fewer."""
  every = [dict(zip(space, values)) for values in itertools.product(*space.values())]
  order = np.random.default_rng(seed).permutation(len(every))
  return [every[i] for i in order[:trials]]


def train(name: str, log, setting: dict, seed: int, epochs: int, patience: int):
  """Fits a method on training interactions; returns (histories, users) -> scores [users, I + 1]."""
  learned, items = interactions_lib.train_histories(log), log.num_items
  if name == "popularity":
    count_I = popularity.popularity(learned, items)
    return lambda histories, user_U: np.broadcast_to(count_I, (len(user_U), items + 1))
  if name in ("ials", "bpr"):
    fit = functools.partial(ials.ials, iterations=15) if name == "ials" else bpr.bpr
    user_UC, item_I1C = fit(learned, items, seed=seed, **setting)
    return lambda histories, user_U: popularity.factors(user_UC[user_U], item_I1C)
  counts = {"item_knn": neighbours.item_knn, "transition": neighbours.transition,
            "ease": ease.ease}
  if name in counts:
    return lambda histories, user_U: counts[name](learned, items, histories, **setting)
  config = sasrec.Config(**rivals.SASREC[name], **setting, seed=seed, epochs=epochs,
                         evaluate_every=2, patience=patience)
  params = sasrec.train(learned, items, config, interactions_lib.validation_targets(log))
  return lambda histories, user_U: np.concatenate(list(sasrec.scores(params, config, histories)))


def ranks(scorer, histories: list, user_U, target_U) -> np.ndarray:
  """float64 [users] ranks among all items that `metrics.rows_to_filter` leaves."""
  score_UI = np.array(scorer(histories, user_U))
  for score_I, rows in zip(score_UI, metrics.rows_to_filter(histories, target_U)):
    score_I[rows] = -np.inf
  return metrics.ranks_from_scores(score_UI, target_U)


def targets(log):
  """((histories, users, targets) of validation, likewise of test)."""
  learned = interactions_lib.train_histories(log)
  valid_U = interactions_lib.validation_targets(log)
  user_V = np.flatnonzero(valid_U)
  test_N = log.split.test
  return (([learned[u] for u in user_V], user_V, valid_U[user_V]),
          ([log.before_target(u) for u in log.user_N[test_N]], log.user_N[test_N],
           log.item_N[test_N]))


def measure(name: str, log, args) -> tuple[dict, list[np.ndarray]]:
  """Tunes a method on validation and ranks its best setting on test.

  Returns:
    A row of the table, and float64 [users] test ranks for each seed, users in the log's order.
  """
  start, (validation, test) = time.perf_counter(), targets(log)
  if not len(validation[1]):
    raise errors.UserError("the run has no validation targets to tune on (data.split): prepare one "
                           "with --config.data.split=loo_stable")
  fit = functools.partial(train, name, log, epochs=args.epochs, patience=args.patience)
  best, tried = None, []
  for setting in draw(SPACES[name], args.trials):
    scorer = fit(setting, args.seeds[0])
    ndcg = float(metrics.ndcg(ranks(scorer, *validation), 10).mean())
    tried.append({"setting": setting, "validation ndcg@10": ndcg})
    print(f"{name}: {ndcg:.4f} {setting}  {time.perf_counter() - start:.0f} s", flush=True)
    if best is None or ndcg > best[0]:
      best = ndcg, setting, scorer
  ndcg, setting, scorer = best                # already trained with the first seed
  seeds = args.seeds if name in SEEDED else args.seeds[:1]
  ranked = [ranks(scorer if seed == args.seeds[0] else fit(setting, seed), *test)
            for seed in seeds]
  figures = {}
  for metric, value in METRICS.items():
    by_seed = [value(rank_U, 10) for rank_U in ranked]
    estimate = metrics.bootstrap(np.mean(by_seed, axis=0), resamples=1000, seed=0)
    means = [float(values_U.mean()) for values_U in by_seed]
    figures[metric] = {**estimate._asdict(), "by seed": means,
                       "spread": float(np.std(means, ddof=1)) if len(means) > 1 else 0.0}
  return {"method": rivals.NAMES[name], "setting": setting, "validation ndcg@10": ndcg, **figures,
          "seeds": list(seeds), "trials": tried,
          "seconds": time.perf_counter() - start}, ranked


def write_ranks(path: pathlib.Path, log, method: str, ranked: list[np.ndarray]) -> None:
  """Adds a method's test ranks to the file that `benchmarks.projectors --beside` reads."""
  stored = json.loads(gzip.decompress(path.read_bytes())) if path.exists() else {"ranks": {}}
  stored["users"] = [log.user_ids[u] for u in log.user_N[log.split.test]]
  stored["ranks"][method] = [
      [int(rank) if np.isfinite(rank) else 0 for rank in rank_U] for rank_U in ranked]
  path.write_bytes(gzip.compress(json.dumps(stored).encode()))


def table(rows: dict) -> str:
  """Markdown, the best HR@10 first."""
  lines = ["| method | HR@10 | over seeds | NDCG@10 | over seeds | validation NDCG@10 | trials "
           "| setting | seconds |", "|---|---|---|---|---|---|---|---|---|"]
  cell = lambda m: f"{m['value']:.4f} [{m['lo']:.4f}, {m['hi']:.4f}]"  # noqa: E731
  spread = lambda row, m: (  # noqa: E731
      f"+- {row[m]['spread']:.4f}" if len(row["seeds"]) > 1 else "no seed")
  for row in sorted(rows.values(), key=lambda row: -row["hr@10"]["value"]):
    setting = ", ".join(f"{k} {v:g}" for k, v in row["setting"].items()) or "none"
    lines.append(f"| {row['method']} | {cell(row['hr@10'])} | {spread(row, 'hr@10')} | "
                 f"{cell(row['ndcg@10'])} | {spread(row, 'ndcg@10')} | "
                 f"{row['validation ndcg@10']:.4f} | {len(row['trials'])} | {setting} | "
                 f"{row['seconds']:.0f} |")
  return "\n".join(lines) + "\n"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="configs/ml100k_head.py")
  parser.add_argument("--workdir", type=pathlib.Path, required=True, help="after stage prepare")
  parser.add_argument("--trials", type=int, default=8, help="settings per method")
  parser.add_argument("--seeds", type=lambda text: [int(s) for s in text.split(",")],
                      default=[0, 1, 2])
  parser.add_argument("--methods", type=lambda text: text.split(","), default=list(SPACES),
                      help=f"some of {', '.join(SPACES)}")
  parser.add_argument("--epochs", type=int, default=40, help="most epochs of a SASRec variant")
  parser.add_argument("--patience", type=int, default=3,
                      help="evaluations (every 2 epochs) without improvement before it stops")
  args = parser.parse_args()
  if unknown := [m for m in args.methods if m not in SPACES]:
    parser.error(f"--methods: unknown {unknown}; expected some of {', '.join(SPACES)}")
  if args.trials < 1:
    parser.error(f"--trials={args.trials}, expected 1 or more")
  data = context.Run(reading.load(args.config), args.workdir).data
  path = args.workdir / "baselines.json"
  rows = json.loads(path.read_text()) if path.exists() else {}
  for name in args.methods:
    stops = ({"epochs": args.epochs, "patience": args.patience} if name in rivals.SASREC else {})
    made_from = json.loads(json.dumps({
        "data": data.fingerprint, "space": SPACES[name], "trials": args.trials,
        "seeds": args.seeds, **stops}))
    if rows.get(name, {}).get("made_from") == made_from:
      continue
    row, ranked = measure(name, data.log, args)
    rows[name] = {**row, "made_from": made_from}
    write_ranks(args.workdir / "baselines_ranks.json.gz", data.log, rows[name]["method"], ranked)
    path.write_text(json.dumps(rows, indent=1))
    path.with_suffix(".md").write_text(table(rows))
  print(table(rows))


if __name__ == "__main__":
  main()
