"""Kills every stage at random times (SIGKILL), restarts it, and compares the results bit by bit.

    python -m benchmarks.kills --workdir=runs/kills --kills=100 --seed=0 --out=kills.json
    python -m benchmarks.kills --workdir=runs/kills --kills=200 --minutes=60      # continues
    python -m benchmarks.kills --workdir=runs/quick --quick

A stage of a small model (`jobs.SMALL`) runs twice undisturbed. The first run compiles its
programs; the second finds them compiled, as the killed ones will, and gives the duration. Their
results must be equal. Then the stage runs from the same start and is killed at a uniformly drawn
moment of that duration: either its main process or all its processes. Durations are processor time
of all its processes, so that other work on the machine does not matter. The same command follows at
once and may be killed, too, at most PER_ROUND times in all. When it ends by itself, its result is
compared (`workdirs.content`; `workdirs.MAY_DIFFER` lists what may differ): this is one round. The
stages take turns, one round each, until --kills kills have hit or --minutes are over.

Every round is appended to outcomes.jsonl in the workdir, and the starts and ends of the stages are
kept: the same command with a higher --kills or --minutes continues with the next draw. Kill
`number` of a stage depends on (seed, stage, number) alone. The code must not change meanwhile.

With --processes=2 a stage is a job of two processes (launch/local_pod.py), and the first process,
the second, both or the launcher is killed. --resume trains on 1, 2, 4 and 1 processes, and on 8, 4
and 1 devices, each from the previous checkpoint, and compares batches and losses
(benchmarks.equality).

Exit code 1: bits differ, a half-written file is left, a restart fails, or a process outlives its
job. docs/results/reliability.md has the figures.
"""
import argparse
import collections
import itertools
import json
import pathlib
import random
import shutil
import subprocess
import sys
import time

from benchmarks import jobs, workdirs
from ilm_jax import files

STAGES = ("targets", "prepare", "cf", "phase1", "phase2", "eval", "report", "export")
ALONE = ("export",)            # in one process, even with --processes=2
TARGETS = {1: ("main", "all"), 2: ("0", "1", "all", "main")}
TOLERANCE = 1e-6               # relative difference of losses on other processes and devices
RESUMED = ("1, 2, 4, 1 processes", "8, 4, 1 devices")
_LIMIT = 1800.0                # most seconds for one run of a stage
PER_ROUND = 3                  # most kills before the stage may finish


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  names = lambda text: tuple(text.split(","))                             # noqa: E731
  parser.add_argument("--workdir", type=pathlib.Path, required=True, help="kept, to continue from")
  parser.add_argument("--kills", type=int, default=100,
                      help="total over all stages and all calls")
  parser.add_argument("--minutes", type=float, default=float("inf"), help="then start no round")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--stages", type=names, default=STAGES, help="stages to kill")
  parser.add_argument("--processes", type=int, choices=(1, 2), default=1, help="processes per job")
  parser.add_argument("--cold", action="store_true", help="a new interpreter for each job")
  parser.add_argument("--resume", action="store_true", help="also resume across processes, devices")
  parser.add_argument("--quick", action="store_true", help="6 kills in cf, phase1 and phase2")
  parser.add_argument("--out", type=pathlib.Path, help="JSON file")
  args = parser.parse_args()
  if unknown := set(args.stages) - set(STAGES):
    parser.error(f"--stages: {','.join(unknown)} unknown, expected some of {','.join(STAGES)}")
  if args.quick:
    args.kills, args.stages = 6, ("cf", "phase1", "phase2")
  return args


class Campaign:
  """Kills the stages of one workdir in turn.

  Args:
    args: of the command line.
    flags: of the program, config and model.

  Raises:
    SystemExit: the workdir belongs to a campaign with another seed or number of processes.
  """

  def __init__(self, args: argparse.Namespace, flags: tuple[str, ...]):
    self._args, self._root = args, args.workdir
    self.run, self._log = self._root / "run", self._root / "outcomes.jsonl"
    self._flags = (f"--workdir={self.run}", *flags)
    self.rounds = [json.loads(line) for line in
                   (self._log.read_text().splitlines() if self._log.exists() else [])]
    self._whole: dict[str, dict] = {}       # by stage: duration and result without kills
    other = {(one["seed"], one["processes"]) for one in self.rounds} - {
        (args.seed, args.processes)}
    if other:
      raise SystemExit(f"kills: {self._log} has (seed, processes) {sorted(other)}, expected "
                       f"{(args.seed, args.processes)}: name another --workdir")

  def undisturbed(self, name: str, before: str | None) -> None:
    """Runs a stage twice from the end of the stage `before`, unless an earlier call did.

    Raises:
      SystemExit: the stage fails, or its two results differ.
    """
    folder = self._root / "stages" / name
    record = folder / "whole.json"
    if not record.exists():
      shutil.rmtree(self.run, ignore_errors=True)
      if before:
        _copy(self._root / "stages" / before / "after", self.run)
      else:
        self.run.mkdir()
      _copy(self.run, folder / "before")
      self._to_its_end(name)
      compiled = jobs.call(workdirs.content, self.run)
      _copy(folder / "before", self.run)
      seconds = self._to_its_end(name)
      content = jobs.call(workdirs.content, self.run)
      if differ := workdirs.differences(compiled, content):
        raise SystemExit(f"kills: two undisturbed runs of stage {name} differ: {differ}")
      _copy(self.run, folder / "after")
      files.write_text(record, json.dumps({"seconds": seconds, "content": content}))
    self._whole[name] = json.loads(record.read_text())

  def round(self, name: str) -> None:
    """One round: kills the stage until it ends by itself, compares, and records the outcome."""
    one = {"stage": name, "seed": self._args.seed, "processes": self._args.processes, "draws": [],
           "wrong": [], "left": [], "refused": [], "outlived": []}
    number = sum(len(other["draws"]) for other in self.rounds if other["stage"] == name)
    _copy(self._root / "stages" / name / "before", self.run)
    while len(one["draws"]) < PER_ROUND and self._killed(name, number + len(one["draws"]), one):
      pass
    if one["draws"][-1]["ended"] == "killed":
      self._finish(name, one)
    one["wrong"] = workdirs.differences(self._whole[name]["content"],
                                        jobs.call(workdirs.content, self.run))
    one["left"] = workdirs.temporaries(self.run)
    if one["wrong"] or one["left"]:
      shutil.copytree(self.run, self._root / f"wrong.{name}.{number}", dirs_exist_ok=True)
    self.rounds.append(one)
    with self._log.open("a") as log:
      log.write(json.dumps(one) + "\n")
    print(f"  {json.dumps(one)}", flush=True)

  def rows(self) -> list[dict]:
    """The table: the sums over all rounds of each stage."""
    return [_row(name, whole["seconds"], [one for one in self.rounds if one["stage"] == name])
            for name, whole in self._whole.items()]

  def kills(self) -> int:
    return sum(row["kills"] for row in self.rows())

  def _killed(self, name: str, number: int, one: dict) -> bool:
    """Starts the stage and kills it; False if it ended before the kill."""
    draw = random.Random(f"{self._args.seed} {name} {number}")
    at = draw.random() * self._whole[name]["seconds"]
    target = draw.choice(TARGETS[self._processes(name)])
    job = self._start(name)
    code = job.wait_worked(at)
    names = {pid: jobs.named(pid) for pid in (job.pid, *jobs.descendants(job.pid))}
    if code is None:
      job.kill(target)
      job.wait(60)
    elif code:
      one["refused"].append(f"exit code {code}: {job.said()[-400:]}")
    one["outlived"] += [names[pid] for pid in jobs.lingering(names, 5.0)]
    one["draws"].append({"number": number, "at": round(at, 3), "target": target,
                         "ended": "killed" if code is None else f"exit code {code}"})
    return code is None

  def _finish(self, name: str, one: dict) -> None:
    job = self._start(name)
    if code := job.wait(_LIMIT):
      one["refused"].append(f"exit code {code}: {job.said()[-400:]}")
    elif code is None:
      job.kill()
      one["refused"].append(f"no end within {_LIMIT:g} s")

  def _to_its_end(self, name: str) -> float:
    """Processor seconds of the stage."""
    job, seconds = self._start(name), 0.0
    while (code := job.wait(0.2)) is None:
      seconds = max(seconds, jobs.processor_seconds(job.pid))
    if code:
      raise SystemExit(f"kills: stage {name} does not run undisturbed:\n{job.said()[-3000:]}")
    return seconds

  def _start(self, name: str) -> jobs.Job:
    mesh = ("--config.mesh.data=1",) if self._processes(name) < self._args.processes else ()
    return jobs.Job((*self._flags, *mesh, f"--stage={name}"), self._root / "job.log",
                    processes=self._processes(name), cold=self._args.cold)

  def _processes(self, name: str) -> int:
    return 1 if name in ALONE else self._args.processes


def _row(name: str, seconds: float, rounds: list[dict]) -> dict:
  killed = [draw for one in rounds for draw in one["draws"] if draw["ended"] == "killed"]
  row = {"stage": name, "seconds": round(seconds, 2), "kills": len(killed), "rounds": len(rounds)}
  for key in BROKEN:
    # Until 2026-11 a round had the number of outlived processes, not their names.
    row[key] = [text for one in rounds for text in (
        one[key] if isinstance(one[key], list) else ["?"] * one[key])]
  return row


def main() -> int:
  args = arguments()
  args.workdir = args.workdir.absolute()
  args.workdir.mkdir(parents=True, exist_ok=True)
  jobs.configure(args.workdir)
  began = time.monotonic()
  flags = (f"--config={jobs.ROOT / 'configs' / 'tiny.py'}", *jobs.small_model(args.workdir))
  if args.processes > 1:
    flags += ("--config.mesh.data=2", "--config.phase2.rows=4")
  jobs.load()
  campaign = Campaign(args, flags)
  killed = [name for name in STAGES if name in args.stages]
  before = None
  for name in STAGES[:STAGES.index(killed[-1]) + 1]:
    campaign.undisturbed(name, before)
    before = name
  for name in itertools.cycle(killed):
    if campaign.kills() >= args.kills or time.monotonic() - began > 60 * args.minutes:
      break
    campaign.round(name)
  _copy(args.workdir / "stages" / before / "after", campaign.run)      # for other benchmarks
  rows = campaign.rows()
  resumed = resume(args.workdir / "resume") if args.resume else {}
  broken = [row["stage"] for row in rows if any(map(row.get, BROKEN))]
  broken += [name for name, value in resumed.items() if not 0 <= value <= TOLERANCE]
  result = {"seed": args.seed, "processes": args.processes, "rows": rows, "resumed": resumed,
            "rounds": campaign.rounds, "seconds": round(time.monotonic() - began),
            "broken": broken}
  if args.out:
    args.out.write_text(json.dumps(result, indent=1))
  show(result)
  return 1 if broken else 0


BROKEN = ("wrong", "left", "refused", "outlived")


def line(row: dict) -> str:
  return (f"{row['stage']:<10}{row['seconds']:>9.1f}{row['kills']:>7}{row['rounds']:>8}"
          f"{len(row['wrong']):>12}{len(row['left']):>12}{len(row['refused']):>10}"
          f"{len(row['outlived']):>10}")


def show(result: dict) -> None:
  """The table and the failures."""
  rows = result["rows"]
  print(f"\n{'stage':<10}{'seconds':>9}{'kills':>7}{'rounds':>8}{'wrong bits':>12}"
        f"{'left files':>12}{'refused':>10}{'outlived':>10}")
  print("\n".join(map(line, rows)))
  total = collections.Counter()
  for row in rows:
    total.update({key: len(value) if isinstance(value, list) else value
                  for key, value in row.items() if key != "stage"})
  print(f"{'all':<10}{total['seconds']:>9.1f}{total['kills']:>7}{total['rounds']:>8}"
        f"{total['wrong']:>12}{total['left']:>12}{total['refused']:>10}{total['outlived']:>10}")
  for row in rows:
    for key in BROKEN:
      for text, count in collections.Counter(row[key]).items():
        print(f"{row['stage']}: {key}: {count} times {text}")
  for name, value in result["resumed"].items():
    print(f"resumed on {name}: {value:.1e}")
  print(f"{result['seconds']} s, seed {result['seed']}, {result['processes']} processes")


def resume(root: pathlib.Path) -> dict[str, float]:
  """{how it was resumed: largest relative difference of a loss}, and {"batches that differ": n}."""
  shutil.rmtree(root, ignore_errors=True)
  root.mkdir()
  out = root / "equality.json"
  done = subprocess.run(
      [sys.executable, "-m", "benchmarks.equality", f"--workdir={root}", f"--out={out}",
       f"--cases={';'.join(RESUMED)}"], cwd=jobs.ROOT, check=False)
  if done.returncode:
    return dict.fromkeys(RESUMED, float("inf"))
  table = json.loads(out.read_text())
  losses = {name: max(table[name].values()) for name in RESUMED}
  return {**losses, "batches that differ": float(jobs.call(_other_batches, root))}


def _other_batches(root: pathlib.Path) -> int:
  """Number of batches of 1 process that differ from the joined batches of 2 or 4 processes."""
  import jax
  import numpy as np

  from benchmarks import equality
  wrong = 0
  for phase in ("phase1", "phase2"):
    whole = list(equality.feeds(root, 0, 1)[phase].iterate(0, 12))
    for shares in (2, 4):
      parts = zip(*(equality.feeds(root, share, shares)[phase].iterate(0, 12)
                    for share in range(shares)), strict=True)
      for step, part in enumerate(parts):
        joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *part)
        equal = jax.tree.map(np.array_equal, joined, whole[step])
        wrong += not all(jax.tree.leaves(equal))
  return wrong


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
  shutil.rmtree(target, ignore_errors=True)
  shutil.copytree(source, target, symlinks=True)


if __name__ == "__main__":
  sys.exit(main())
