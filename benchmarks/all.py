"""Runs all benchmarks of speed and scale and prints one table with goals and verdicts.

    python -m benchmarks.all --quick --out=runs/benchmarks
    python -m benchmarks.all --out=runs/benchmarks --workdir=runs/quickstart

--quick: fewer rounds and smaller sizes, about ten minutes on two quiet cores. --workdir: a finished
quickstart; without it the programs that measure a trained run are left out. Each program writes its
own JSON into --out; a program whose JSON exists is not run again (unless with --again). A figure is
a ratio to a peer or to a lower bound, with a goal from `RUNS`. A program that cannot run here, for
lack of a peer or data, says why. Exit code 1 if a goal is missed.

Figures depend on the machine: the processor is named above the table. Run nothing else meanwhile.
"""
import argparse
import dataclasses
import json
import math
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[1]
BEAUTY = ROOT.parent / "shared" / "data" / "amazon-beauty-openp5"
AT_LEAST, AT_MOST = ">=", "<="


@dataclasses.dataclass(frozen=True)
class Figure:
  name: str
  value: float
  sense: str = AT_LEAST
  goal: float | None = None             # None: shown without a verdict

  @property
  def verdict(self) -> str:
    if self.goal is None:
      return ""
    reached = self.value >= self.goal if self.sense == AT_LEAST else self.value <= self.goal
    return "reached" if reached else "missed"


@dataclasses.dataclass(frozen=True)
class Run:
  program: str                          # a module of benchmarks/
  figures: Callable[[dict], list[Figure]]
  flags: tuple[str, ...] = ()
  quick: tuple[str, ...] = ()           # replace the last arguments with --quick
  needs: tuple[str, ...] = ()           # packages, "workdir", or "avx512_bf16" of the processor
  data: pathlib.Path | None = None


def lm_step(told: dict) -> list[Figure]:
  """Tokens per second / transformers'; rate of the backward pass / rate of the forward pass."""
  rows = {(row["what"], row["peer"]): row for row in told["results"]}
  dtype = told.get("dtype", "float32")
  goals = {"forward+backward": 2.0 if dtype == "float32" else 1.15, "forward": None,
           "prefill": None, "prefill+decode": None}
  out = [Figure(f"{what} in {dtype}, times transformers", rows[what, "ilm_jax"]["tokens_per_second"]
                / rows[what, "transformers"]["tokens_per_second"], goal=goal)
         for what, goal in goals.items()]
  forward, both = rows["forward", "ilm_jax"], rows["forward+backward", "ilm_jax"]
  backward = both["seconds"] - forward["seconds"]        # as many FLOPs as forward
  return [*out, Figure(f"GFLOP/s backward in {dtype}, of forward's",
                       forward["seconds"] / backward, goal=0.9)]


def beams(told: dict) -> list[Figure]:
  goals = {10: 20.0, 20: 25.0}
  return [Figure(f"beam of {row['width']}, times transformers", row["ratio"],
                 goal=goals.get(row["width"])) for row in told["beside"]]


def search_growth(told: dict) -> list[Figure]:
  rows = told["growing"]
  return [Figure(f"{what}, exponent in items", exponent(
      [row["items"] for row in rows], [row[key] for row in rows]), AT_MOST, 1.1)
      for what, key in (("search", "seconds"), ("building the trie", "build_seconds"))]


def exponent(sizes: list[float], costs: list[float]) -> float:
  """The exponent b in cost = a * size^b, from the first and the last size."""
  return math.log(costs[-1] / costs[0]) / math.log(sizes[-1] / sizes[0])


def reader(told: dict) -> list[Figure]:
  rates = {(row["batches"], row["reader"]): row["examples_per_second"] for row in told["rows"]}
  return [Figure(f"examples read ({way}), times SeqIO",
                 rates[way, "prepared"] / rates[way, "SeqIO"], goal=10.0)
          for way, name in rates if name == "prepared"]


def sweeps(told: list) -> list[Figure]:
  median = {row["name"]: row["median"] for row in told}
  return [Figure(f"iALS sweep ({solver}), times implicit",
                 median[f"implicit, {solver}"] / median[f"ours, {solver}, float32"],
                 goal=1.0) for solver in ("cholesky", "cg")]


def weights(told: dict) -> list[Figure]:
  return [Figure("host memory to read weights, largest tensors",
                 told["extra"] / told["largest_tensor"], AT_MOST, 2.0)]


def flops(told: dict) -> list[Figure]:
  return [Figure("FLOPs of the frozen step, times the least", told["ratio"], AT_MOST, 1.1)]


def served(told: list) -> list[Figure]:
  rates = {row["route"]: row["requests_per_second"] for row in told}
  return [Figure("recommend, requests/s, times a plain loop",
                 rates["/v1/recommend"] / rates["plain loop"], goal=10.0),
          Figure("errors other than 429", sum(row["errors"] for row in told), AT_MOST, 0.0)]


RUNS = (
    Run("lm_step", lm_step, quick=("--rounds=2",), needs=("torch", "transformers")),
    Run("lm_step", lm_step, ("--dtype=bfloat16",), ("--dtype=bfloat16", "--rounds=2"),
        needs=("torch", "transformers", "avx512_bf16")),
    Run("ranking", beams, (f"--data={BEAUTY}", "--only=beside"),
        (f"--data={BEAUTY}", "--only=beside", "--users=4", "--rounds=1"),
        needs=("torch", "transformers"), data=BEAUTY),
    Run("ranking", search_growth, ("--only=growing",),
        ("--only=growing", "--sizes=10000,1000000", "--rounds=1")),
    Run("input", reader, ("--workdir={workdir}",),
        ("--workdir={workdir}", "--rounds=2", "--seconds=1"), needs=("seqio", "workdir")),
    Run("ials", sweeps, (f"--data={BEAUTY.parent / 'ml-1m'}", "--sweeps=5"),
        (f"--data={BEAUTY.parent / 'ml-1m'}", "--sweeps=3"), needs=("implicit",),
        data=BEAUTY.parent / "ml-1m"),
    Run("read_weights", weights, quick=("--gb=.5",)),
    Run("step_flops", flops),
    Run("serving", served, ("--workdir={workdir}", "--seconds=60"),
        ("--workdir={workdir}", "--seconds=10"), needs=("fastapi", "transformers", "workdir")),
)


def missing(run: Run, workdir: str) -> str:
  """Why a program cannot run here; "" if it can."""
  import importlib.util
  for name in run.needs:
    if name == "workdir":
      if not workdir:
        return "needs --workdir, a finished quickstart"
    elif name == "avx512_bf16":
      if name not in pathlib.Path("/proc/cpuinfo").read_text():
        return f"the processor has no {name}"
    elif importlib.util.find_spec(name) is None:
      return f"{name} is not installed"
  return f"{run.data} is not there" if run.data and not run.data.exists() else ""


def measured(run: Run, at: int, args: argparse.Namespace) -> list[Figure] | str:
  """A program's figures, or why there are none."""
  if why := missing(run, args.workdir):
    return why
  out = args.out / f"{at}_{run.program}{'_quick' if args.quick else ''}.json"
  if args.again or not out.exists():
    flags = run.quick if args.quick and run.quick else run.flags
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{run.program}", f"--out={out}",
         *(flag.format(workdir=args.workdir) for flag in flags)],
        cwd=ROOT, capture_output=True, text=True, check=False)
    out.with_suffix(".log").write_text(done.stdout + done.stderr)
    if done.returncode or not out.exists():
      return f"failed, see {out.with_suffix('.log')}"
  return run.figures(json.loads(out.read_text()))


def processor() -> str:
  names = [line.split(":", 1)[1].strip() for line in
           pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
  return f"{len(names)} x {names[0]}" if names else "unknown processor"


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/benchmarks"))
  parser.add_argument("--workdir", default="", help="a finished quickstart")
  parser.add_argument("--quick", action="store_true")
  parser.add_argument("--again", action="store_true", help="also run programs that have figures")
  parser.add_argument("--only", type=lambda text: text.split(","), default=None)
  args = parser.parse_args()
  args.out = args.out.absolute()
  args.workdir = str(pathlib.Path(args.workdir).absolute()) if args.workdir else ""
  args.out.mkdir(parents=True, exist_ok=True)
  print(processor())
  print(f"{'benchmark':13}{'figure':48}{'here':>8}{'goal':>9}  verdict")
  failed = False
  for at, run in enumerate(RUNS):
    if args.only and run.program not in args.only:
      continue
    start, told = time.perf_counter(), measured(run, at, args)
    if isinstance(told, str):
      print(f"{run.program:13}not run: {told}", flush=True)
      failed |= told.startswith("failed")
      continue
    for figure in told:
      goal = "" if figure.goal is None else f"{figure.sense} {figure.goal:g}"
      print(f"{run.program:13}{figure.name:48}{figure.value:8.2f}{goal:>9}  {figure.verdict}")
      failed |= figure.verdict == "missed"
    print(f"{'':13}({time.perf_counter() - start:.0f} s)", flush=True)
  return int(failed)


if __name__ == "__main__":
  sys.exit(main())
