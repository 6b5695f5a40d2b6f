"""Feeds damaged files to every reader of files from outside; exit code 1 if a reader breaks.

    python -m benchmarks.garbage --inputs=100000 --seed=0
    python -m benchmarks.garbage --quick
    python -m benchmarks.garbage --readers=gguf,pth --keep=broken/ --json=garbage.json
    python -m benchmarks.garbage --show=pth:0:1234
    python -m benchmarks.garbage --guided --readers=csv        # inputs that atheris chooses

Inputs are valid files, made here and then damaged (`mutate`). A reader must read each input or
refuse it with a UserError of one line; use at most 5 s of CPU time; grow in resident memory (VmHWM
of the child) by at most 48 MiB plus 64 times the file's size; and write nothing. Readers run in
child processes; a child that crashes or hangs (60 s without a finished input) is restarted after
that input. Address space is limited too, so that a claim of 2^60 elements cannot hurt the machine.
"""
import argparse
import base64
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time

from benchmarks.garbage import reader, readers, worker

_HANGS = 60.0            # seconds of wall time without a finished input
_STARTS = 300.0          # seconds within which a child must be ready
_QUICK = 60.0            # seconds for all readers with --quick, without starting children
# To name the places of a panic, Rust would read 50 MiB of symbols.
_ENV = {**os.environ, "RUST_BACKTRACE": "0"}
HEAD = ("| reader | inputs | accepted | refused | broken | slowest, s | memory, MiB |\n"
        "|---|---|---|---|---|---|---|")


def campaign(name: str, inputs: int, seed: int, seconds: float, shm: str | None,
             guided: bool = False) -> dict:
  """The results of a reader: counts, slowest input, largest memory, and the inputs that broke it.

  Args:
    name: of a reader in `readers.ALL`.
    inputs: number of inputs.
    seed: for the damage.
    seconds: after which no new input is started.
    shm: a folder in memory for the files; None: the default temporary folder.
    guided: atheris chooses the inputs by the code that they reach.
  """
  with tempfile.TemporaryDirectory(dir=shm) as folder:
    marks = worker.marks(folder, "w+")
    first, ends, crashes, spent = 0, None, [], 0.0
    while first < inputs and (ends is None or time.monotonic() < ends):
      with open(pathlib.Path(folder, "log"), "w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.garbage.{'guided' if guided else 'worker'}", name,
             str(seed), str(first), str(inputs), folder], stdout=log, stderr=log, env=_ENV)
      marks[0] = first - 1
      began, ends, why = _watched(child, marks, first, ends, seconds)
      spent += time.monotonic() - began
      log = pathlib.Path(folder, "log").read_text(errors="replace")
      if int(marks[0]) < first:
        raise RuntimeError(f"{name}: the child did not start ({why}): {log[-2000:]}")
      if why:
        crashes.append({"number": int(marks[0]), "about": f"{why}: {' '.join(log.split())[-200:]}"})
      first = int(marks[0]) + 1 if why else inputs
    path = pathlib.Path(folder, "broken.jsonl")
    broken = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    counts = {what: int(marks[worker.NAMES.index(what)]) for what in ("accepted", "refused")}
    broken += crashes
    return {"reader": name, "inputs": sum(counts.values()) + len(broken), **counts,
            "broken": len(broken), "slowest_s": round(float(marks[4]), 3),
            "memory_MiB": round(float(marks[5]) / (1 << 20), 1), "seconds": round(spent, 1),
            "found": _kinds(broken)}


def _watched(child, marks, first: int, ends, seconds: float):
  """(when inputs began, when they are to end, why the child ended early, "" for no reason)."""
  started, last, moved = time.monotonic(), first - 1, time.monotonic()
  began = None
  while True:
    code, now = child.poll(), time.monotonic()
    if began is None and marks[0] >= first:
      began, ends = now, ends or now + seconds
    if marks[0] != last:
      last, moved = marks[0], now
    if code is not None:
      by = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
      return began or now, ends, by if code else ""
    if began is None and now - started > _STARTS:
      child.kill()
    elif began is not None and now - moved > _HANGS:
      child.kill()
      child.wait()
      return began, ends, f"hangs: {_HANGS:g} s"
    elif ends is not None and now > ends:
      child.kill()             # its counts are in the marks
      child.wait()
      return began or now, ends, ""
    time.sleep(0.05)


def _kinds(broken: list[dict]) -> list[dict]:
  """The failures, grouped: {"about", "count", "numbers"}; "files" too if the inputs are guided."""
  kinds: dict[str, dict] = {}
  for each in broken:
    kind, _, place = each["about"].partition(" at ")
    key = f"{kind.split(':')[0]} {place or kind}"
    of = kinds.setdefault(key, {**each, "count": 0, "numbers": []})
    of.pop("number", None)
    of["count"] += 1
    of["numbers"] = [*of["numbers"], each["number"]][:5]
  return sorted(kinds.values(), key=lambda of: -of["count"])


def _row(of: dict) -> str:
  return (f"| {of['reader']} | {of['inputs']:,} | {of['accepted']:,} | {of['refused']:,} | "
          f"{of['broken']:,} | {of['slowest_s']:.2f} | {of['memory_MiB']:.0f} |")


def _keep(folder: pathlib.Path, seed: int, of: dict) -> None:
  """The first input of each kind that breaks a reader, as files."""
  for kind in of["found"]:
    number = kind["numbers"][0]
    here = folder / f"{of['reader']}-{seed}-{number}"
    here.mkdir(parents=True, exist_ok=True)
    reader.write(here, {name: base64.b64decode(data) for name, data in kind["files"].items()}
                 if "files" in kind else worker.made(of["reader"], seed, number))


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--inputs", type=int, default=100_000, help="inputs per reader")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--readers", default="", help=f"of {', '.join(readers.ALL)}; all")
  parser.add_argument("--guided", action="store_true",
                      help="atheris chooses the inputs (pip install atheris)")
  parser.add_argument("--seconds", type=float, default=1e9, help="most seconds per reader")
  parser.add_argument("--quick", action="store_true", help="about a minute, plus starting children")
  parser.add_argument("--keep", type=pathlib.Path, help="a folder for inputs that break a reader")
  parser.add_argument("--json", type=pathlib.Path, help="a file for the figures")
  parser.add_argument("--show", default="", help="READER:SEED:NUMBER: prints an input")
  args = parser.parse_args()
  if args.show:
    name, seed, number = args.show.split(":")
    for file, data in worker.made(name, int(seed), int(number)).items():
      print(f"{file} ({len(data)} bytes): {data[:2000]!r}")
    return 0
  names = [name for name in args.readers.split(",") if name] or list(readers.ALL)
  if unknown := [name for name in names if name not in readers.ALL]:
    parser.error(f"no reader {unknown[0]!r}, expected one of {', '.join(readers.ALL)}")
  seconds = _QUICK / len(names) if args.quick else args.seconds
  shm = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None
  print(HEAD, flush=True)
  results = []
  for name in names:
    results.append(campaign(name, args.inputs, args.seed, seconds, shm, args.guided))
    print(_row(results[-1]), flush=True)
    if args.keep:
      _keep(args.keep, args.seed, results[-1])
    if args.json:
      args.json.parent.mkdir(parents=True, exist_ok=True)
      args.json.write_text(json.dumps({
          "seed": args.seed, "python": platform.python_version(), "machine": platform.machine(),
          "results": results}, indent=1))
  for of in results:
    for kind in of["found"]:
      print(f"{of['reader']} {kind['count']} x {kind['about']} (inputs {kind['numbers']})")
  return int(any(of["broken"] for of in results))


if __name__ == "__main__":
  sys.exit(main())
