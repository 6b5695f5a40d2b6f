"""Trains a small model for 10,000 steps and checks memory, open files and the heartbeat.

    python -m benchmarks.long_run --workdir=runs/long --finished=runs/kills/run --steps=10000

Trains phase 1 of `jobs.SMALL` from the data and vectors of a finished workdir (--finished, made by
benchmarks.kills), with a checkpoint and a log record every 100 steps. A second job evaluates each
new checkpoint (--watch). Once a second the memory (RSS) and open files of both jobs are read from
/proc, and the heartbeat is compared with the existing checkpoints.

Exit code 1: memory grows by more than --slope MiB per 1,000 steps after the first fifth; more files
are open at the end than after the first fifth; the heartbeat's step is below that of an existing
checkpoint or above the last step; or the second job ends before the first.
"""
import argparse
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import sys
import time

import numpy as np

from benchmarks import jobs

_MARGIN = 4          # tolerance in open files, for a checkpoint that is being written


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", type=pathlib.Path, required=True, help="made anew")
  parser.add_argument("--finished", type=pathlib.Path, required=True)
  parser.add_argument("--steps", type=int, default=10_000)
  parser.add_argument("--every", type=int, default=100, help="steps between checkpoints")
  parser.add_argument("--slope", type=float, default=5.0, help="MiB per 1,000 steps at most")
  parser.add_argument("--no_watch", action="store_true", help="no second job")
  parser.add_argument("--out", type=pathlib.Path, help="JSON file")
  return parser.parse_args()


def sample(pid: int, workdir: pathlib.Path) -> dict | None:
  """{"time", "step", "rss" in MiB, "files", "newest"} of a job now; None once it has ended."""
  try:
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    opened = len(os.listdir(f"/proc/{pid}/fd"))
  except OSError:
    return None
  if not pages:
    return None        # it has ended and was not waited for
  beat = {}
  newest = max([int(p.name) for p in (workdir / "phase1" / "checkpoints").glob("[0-9]*")
                if p.name.isdigit()], default=0)
  with contextlib.suppress(OSError, ValueError):
    beat = json.loads((workdir / "heartbeat.phase1.json").read_text())
  return {"time": time.time(), "step": beat.get("step", 0), "beat": beat.get("time", 0.0),
          "rss": pages * os.sysconf("SC_PAGE_SIZE") / 2**20, "files": opened, "newest": newest}


def verdict(samples: list[dict], steps: int, most: float) -> dict:
  """Growth after the first fifth of the steps, and wrong heartbeats, from the samples."""
  late = [s for s in samples if s["step"] >= steps / 5] or samples
  step, rss = (np.array([s[key] for s in late], float) for key in ("step", "rss"))
  slope = float(np.polyfit(step, rss, 1)[0] * 1000) if len(set(step)) > 1 else 0.0
  # A beat comes every 5 s: it may lag behind the newest checkpoint, never exceed the last step.
  lies = [s for one, s in itertools.pairwise(samples)
          if s["step"] > steps or (s["beat"] > one["beat"] and s["step"] < one["newest"])]
  opened = [late[0]["files"], late[-1]["files"]]
  return {"slope": slope, "files": opened, "lies": len(lies), "samples": len(samples),
          "rss": [late[0]["rss"], late[-1]["rss"]], "medians": medians(samples),
          "broken": [name for name, wrong in (
              ("memory", slope > most), ("open files", opened[1] > opened[0] + _MARGIN),
              ("heartbeat", bool(lies))) if wrong]}


def medians(samples: list[dict], every: int = 1000) -> list[float]:
  """The median memory in MiB of each thousand steps: a leak goes on, a heap's growth ends."""
  of_step: dict[int, list[float]] = {}
  for one in samples:
    of_step.setdefault(one["step"] // every, []).append(one["rss"])
  return [round(float(np.median(of_step[n])), 1) for n in sorted(of_step)]


def stopped(watching: jobs.Job | None) -> list[str]:
  """Stops the second job, which waits for a phase 2 that is not trained here.

  Returns:
    What is wrong: that it had ended by itself.
  """
  if watching is None:
    return []
  if (ended := watching.wait(0)) is not None:
    return [f"the second job ended early, exit code {ended}: {watching.said()[-500:]}"]
  watching.kill()
  watching.wait(60)
  return []


def main() -> int:
  args = arguments()
  root = args.workdir.absolute()
  root.mkdir(parents=True, exist_ok=True)
  jobs.configure(root)
  run = root / "run"
  shutil.rmtree(run, ignore_errors=True)
  shutil.copytree(args.finished, run, symlinks=True)
  for name in ("phase1", "phase2", "phase2_mlp", "eval"):
    shutil.rmtree(run / name, ignore_errors=True)
  for path in run.glob("heartbeat.*"):
    path.unlink()
  flags = (f"--config={jobs.ROOT / 'configs' / 'tiny.py'}",
           *jobs.small_model(args.finished.absolute().parent), f"--workdir={run}",
           f"--config.phase1.steps={args.steps}", f"--config.phase1.log_every={args.every}",
           f"--config.phase1.checkpoint_every={args.every}")
  jobs.load()
  began = time.monotonic()
  training = jobs.Job((*flags, "--stage=phase1"), root / "training.log")
  watching = None if args.no_watch else jobs.Job(
      (*flags, "--stage=eval", "--watch=2"), root / "watching.log")
  samples: dict[str, list] = {"training": [], "watching": []}
  while training.wait(1.0) is None:
    for name, job in (("training", training), ("watching", watching)):
      if job and (one := sample(job.pid, run)):
        samples[name].append(one)
  broken = stopped(watching)
  result = {"steps": args.steps, "seconds": round(time.monotonic() - began),
            "exit code": training.wait()}
  for name, of_job in samples.items():
    if len(of_job) > 2:
      result[name] = verdict(of_job, args.steps, args.slope)
      of = result[name]
      print(f"{name}: {of['slope']:+.2f} MiB per 1,000 steps ({of['rss'][0]:.0f} to "
            f"{of['rss'][1]:.0f} MiB), open files {of['files'][0]} to {of['files'][1]}, "
            f"{of['lies']} lies in {of['samples']} looks at the heartbeat; median MiB of each "
            f"1,000 steps: {', '.join(f'{m:.0f}' for m in of['medians'])}")
  broken += [f"{name}: {what}" for name in samples
             for what in result.get(name, {}).get("broken", ())]
  if result["exit code"]:
    broken.append(f"exit code {result['exit code']}: {training.said()[-500:]}")
  print(f"{args.steps} steps in {result['seconds']} s; not right: {', '.join(broken) or 'nothing'}")
  if args.out:
    args.out.write_text(json.dumps({**result, "broken": broken}, indent=1))
  return 1 if broken else 0


if __name__ == "__main__":
  sys.exit(main())
