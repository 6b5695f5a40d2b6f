"""Injects faults (full disks, lost permissions, flipped bits, hangs) and checks message and data.

    python -m benchmarks.faults --workdir=runs/faults --out=faults.json
    python -m benchmarks.faults --workdir=runs/faults --quick
    python -m benchmarks.faults --workdir=runs/faults --finished=runs/kills/run --cases=flips,nan

A small model (`jobs.SMALL`) runs through all stages once, or --finished names such a workdir. Each
case works on a copy of it without the outputs of one stage. Expected: exit code 1 and one line on
stderr that names the thing and the cure, without a traceback. After the fault is over, the same
command must end with 0 and give the same bits as the run without a fault.

Full and read-only disks are tmpfs mounts of falling size if this process may mount (root), else a
limit on file sizes (RLIMIT_FSIZE); the table says which. File modes apply to root, too: the job
gives up CAP_DAC_OVERRIDE. A bucket is reached by its real client through a proxy that refuses,
stalls or cuts answers off. Exit code 1: a case fails.
"""
import argparse
import json
import pathlib
import shutil
import sys
import time

from benchmarks import fault_bench, fault_bits, fault_bucket, fault_disks, fault_jobs, jobs

CASES = {case.__name__: case for case in (
    fault_bits.flips, fault_bits.checkpoints, fault_jobs.nan, fault_jobs.two_jobs,
    fault_disks.full_disk, fault_disks.read_only, fault_disks.permission, fault_jobs.clock,
    fault_jobs.notice, fault_jobs.hang, fault_jobs.coordinator, fault_bucket.bucket)}
QUICK = ("flips", "checkpoints", "nan", "two_jobs")


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  names = lambda text: tuple(text.split(","))                             # noqa: E731
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--finished", type=pathlib.Path, help="of benchmarks.kills; unchanged")
  parser.add_argument("--cases", type=names, default=tuple(CASES))
  parser.add_argument("--stages", type=names, default=tuple(fault_bench.OUTPUTS),
                      help="stages for the cases about disks")
  parser.add_argument("--flips", type=int, default=500)
  parser.add_argument("--sizes", type=int, default=8, help="disk sizes per stage")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--quick", action="store_true", help=f"{','.join(QUICK)} with 60 flips")
  parser.add_argument("--out", type=pathlib.Path, help="JSON file")
  args = parser.parse_args()
  if unknown := set(args.cases) - set(CASES):
    parser.error(f"--cases: {','.join(unknown)} unknown, expected some of "
                 f"{','.join(CASES)}")
  if args.quick:
    args.cases, args.flips = QUICK, 60
  return args


def main() -> int:
  args, began = arguments(), time.monotonic()
  root = args.workdir.absolute()
  root.mkdir(parents=True, exist_ok=True)
  jobs.configure(root)
  flags = (f"--config={jobs.ROOT / 'configs' / 'tiny.py'}",
           *jobs.small_model(args.finished.absolute().parent if args.finished else root))
  jobs.load()
  finished = root / "finished" / "run"      # the report contains the folder's name
  shutil.rmtree(finished.parent, ignore_errors=True)
  if args.finished:
    shutil.copytree(args.finished, finished, symlinks=True)
  else:
    for stage in fault_bench.OUTPUTS:
      job = jobs.Job((*flags, f"--workdir={finished}", f"--stage={stage}"), root / "job.log")
      if job.wait() != 0:
        raise SystemExit(f"faults: stage {stage} does not run:\n{job.said()[-3000:]}")
  bench = fault_bench.Bench(root, finished, flags, args)
  rows = []
  print(f"{'case':<34}{'tried':>7}{'right':>7}  how", flush=True)
  for name in args.cases:
    for row in CASES[name](bench):
      rows.append(row)
      print(f"{row['case']:<34}{row['tried']:>7}{row['right']:>7}  {row['how']}", flush=True)
      for wrong in row["wrong"][:5]:
        print(f"  failed: {wrong}", flush=True)
  broken = sorted({row["case"] for row in rows if row["wrong"]})
  if args.out:
    args.out.write_text(json.dumps({
        "seed": args.seed, "rows": rows, "broken": broken,
        "seconds": round(time.monotonic() - began)}, indent=1))
  print(f"{time.monotonic() - began:.0f} s, {len(broken)} failed cases")
  return 1 if broken else 0


if __name__ == "__main__":
  sys.exit(main())
