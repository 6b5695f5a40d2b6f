"""Measures how long a warm recommendation takes, from a history to ten items of the catalogue.

    python -m benchmarks.latency --config=configs/quickstart.py --workdir=runs/quickstart

It measures all ways of ranking that the run has (docs/results/speed.md): the item heads of ILM and
of models from `phase2.compare`, and phase 1's dot product. Histories are those of the log's users;
the catalogue is projected once, before the clock starts. Prints the median and the 90th percentile
of a call, and users per second.

    python -m benchmarks.latency --items=1000000 --width=64 --of_users=1000 --of_items=10000

Measures time and memory of writing lists (`--users=all`, `--items=all` of stage recommend) for a
synthetic catalogue. Keys, states and histories are drawn and no language model runs; all else is
the stage's own code. Memory is the peak of the process so far, libraries included. With --workdir
it also sets the time of ranking the synthetic catalogue beside the time of one forward pass, which
gives the states of as many of the run's histories.
"""
import argparse
import functools
import importlib
import pathlib
import tempfile
import time
import types

import jax
import numpy as np
from flax import nnx

from benchmarks import index
from configs import quickstart
from ilm_jax.config import variants
from ilm_jax.data import interactions
from ilm_jax.evaluation import dot_scores
from ilm_jax.runtime import placement
from ilm_jax.stages import context, neighbours, recipe, recommend, recommender

_HISTORY, _K = 20, 10      # items of a random user's history; of a list


def ways(config) -> list[tuple[str, variants.Variant]]:
  """(`by` of a Recommender, variant) for every way of ranking that a run of `config` has."""
  by = recommender.way(config)
  models = variants.trained(config) if by != recommender.DOT else (variants.ILM,)
  found = [(by, variant) for variant in models]
  if by != recommender.DOT and recipe.joins_users(config):
    found.append((recommender.DOT, variants.ILM))
  return found


def seconds(call, histories: list, users: int, calls: int) -> np.ndarray:
  """[calls] seconds of `call` on so many users' histories, after two warm-up calls."""
  taken = []
  for n in range(calls + 2):
    some = [histories[(n * users + u) % len(histories)] for u in range(users)]
    began = time.perf_counter()
    call(some)
    taken.append(time.perf_counter() - began)
  return np.array(taken[2:])


def histories_of(run) -> list[np.ndarray]:
  log = run.data.log
  return [log.item_N[log.of_user(user)] for user in range(log.num_users)]


class _Query(nnx.Module):
  """The part of an item head that makes states."""

  def __init__(self, width: int):
    self.query = nnx.Linear(width, width, use_bias=False, rngs=nnx.Rngs(0))


class _Model(nnx.Module):
  """The part of a model that `dot_scores.head_score` uses."""

  def __init__(self, width: int):
    self.head = _Query(width)


class MadeUp(recommender.Recommender):
  """Ranks a random catalogue by an item head, from random hidden states."""

  def __init__(self, items: int, users: int, width: int):
    names = [str(n) for n in range(1, items + 1)]
    log = interactions.Interactions(
        [str(user) for user in range(users)], items,
        np.repeat(np.arange(users, dtype=np.int32), _HISTORY),
        np.concatenate(index.log(items, users, _HISTORY)).astype(np.int32),
        np.zeros(users * _HISTORY, np.int64), np.ones(users * _HISTORY, np.float32))
    data = interactions.Data(
        log, interactions.Items(names, [f"Item {name}" for name in names], [None] * items,
                                [[]] * items), "made up")
    super().__init__(types.SimpleNamespace(config=quickstart.get_config(), data=data))
    self._random, self._width = np.random.default_rng(0), width
    self._graphdef, state = nnx.split(_Model(width))
    self._params = nnx.to_pure_dict(state)
    self._made = jax.device_put(dot_scores.HeadItems(
        self._random.normal(size=(items, width)).astype(np.float32), np.zeros(items, np.float32)))

  def scores(self, histories) -> np.ndarray:
    hidden_ND = self._random.normal(size=(len(histories), self._width)).astype(np.float32)
    return placement.fetch(dot_scores.head_score(
        self._graphdef, self._params, hidden_ND, self._made))

  def item_vectors(self) -> np.ndarray:
    return placement.fetch(self._made.key_IP)


def files(items: int, width: int, users: int, of_items: int) -> MadeUp:
  """Prints seconds and peak memory of writing users' lists and items' neighbours; returns what made
  them."""
  began = time.perf_counter()

  def row(name):
    nonlocal began
    print(f"| {name} | {time.perf_counter() - began:.1f} | {index.peak():.2f} |", flush=True)
    began = time.perf_counter()

  print(f"{items:,} items x {width}\n| | s | peak, GB |\n|---|---|---|\n"
        f"| libraries | | {index.peak():.2f} |")
  makes = MadeUp(items, users, width)
  row("catalogue and log are there")
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder)
    recommend._write(makes, str(out / "lists.parquet"), range(users), _K)
    row(f"lists of {users:,} users, {makes.together} at a time")
    neighbours._write(str(out / "near.parquet"), makes.item_vectors(), makes.run.data.items,
                      range(of_items), _K)
    row(f"neighbours of {of_items:,} items")
  return makes


def beside_forward(makes: MadeUp, run: context.Run, users: list[int], calls: int) -> None:
  """Prints the time of ranking all items exactly beside that of the run's forward pass."""
  read = recommender.Recommender(run)
  print("| users in a call | forward pass, ms | ranking, ms | ranking, of a forward pass |\n"
        "|---|---|---|---|")
  for count in users:
    forward = np.median(seconds(read.states, histories_of(run), count, calls))
    ranked = np.median(seconds(functools.partial(makes.top, k=_K), histories_of(makes.run), count,
                               calls))
    print(f"| {count} | {1e3 * forward:.0f} | {1e3 * ranked:.0f} | {ranked / forward:.2f} |",
          flush=True)


def of_run(run: context.Run, users: list[int], calls: int) -> None:
  """Prints the time of a call for every way of ranking that the run has."""
  print("| by | users in a call | median, ms | 90 %, ms | users a second |\n|---|---|---|---|---|")
  for by, variant in ways(run.config):
    makes = recommender.Recommender(run, variant)
    makes.by = by
    for count in users:
      taken_C = seconds(functools.partial(makes.top, k=_K), histories_of(run), count, calls)
      print(f"| {variant.label}, {by} | {count} | {1e3 * np.median(taken_C):.0f} "
            f"| {1e3 * np.quantile(taken_C, 0.9):.0f} | {count / np.median(taken_C):.0f} |",
            flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", default="configs/quickstart.py")
  parser.add_argument("--workdir")
  parser.add_argument("--users", type=lambda text: [int(n) for n in text.split(",")],
                      default=[1, 16, 256])
  parser.add_argument("--calls", type=int, default=20)
  for name, default in (("items", 0), ("width", 64), ("of_users", 1000), ("of_items", 10_000)):
    parser.add_argument(f"--{name}", type=int, default=default)
  args = parser.parse_args()
  if not args.items and not args.workdir:
    parser.error("expected --workdir of a finished run, or --items of a synthetic catalogue")
  made_up = files(args.items, args.width, args.of_users, args.of_items) if args.items else None
  if not args.workdir:
    return
  module = importlib.import_module(args.config.removesuffix(".py").replace("/", "."))
  run = context.Run(module.get_config(), args.workdir)
  if made_up:
    beside_forward(made_up, run, args.users, args.calls)
  else:
    of_run(run, args.users, args.calls)


if __name__ == "__main__":
  main()
