"""A child that tries a stretch of the inputs of one reader; the parent watches its marks.

    python -m benchmarks.garbage.worker READER SEED FIRST STOP FOLDER

FOLDER/marks has six numbers: the input being tried, accepted, refused, broken, the slowest (CPU
seconds), the most memory (bytes). FOLDER/broken.jsonl has a line for each that is broken.
"""
import json
import os
import pathlib
import random
import resource
import shutil
import sys
import time

import numpy as np

from benchmarks.garbage import mutate, reader, readers

NAMES = ("number", "accepted", "refused", "broken", "seconds", "grown")
_ADDRESSES = 4 << 30         # bytes of address space beside what the imports have taken
_HANDLES = 40                # more open files than this after a stretch are a leak


def marks(folder, mode: str = "r+") -> np.memmap:
  """The numbers of `NAMES`, shared with the parent."""
  return np.memmap(pathlib.Path(folder) / "marks", np.float64, mode, shape=(len(NAMES),))


def made(name: str, seed: int, number: int) -> dict[str, bytes]:
  """The files of one input; number 0 is a valid one."""
  seeds = readers.ALL[name].seeds()
  rng = random.Random(f"{seed} {name} {number}")
  return seeds[number] if number < len(seeds) else mutate.folder(rng, seeds)


def main(name: str, seed: str, first: str, stop: str, folder: str) -> None:
  of, at = readers.ALL[name], marks(folder)
  seeds = of.seeds()
  work = pathlib.Path(folder, "work")
  empty = pathlib.Path(folder, "empty")
  empty.mkdir(exist_ok=True)
  os.chdir(empty)
  for _ in range(2):                # what is imported, compiled or cached at first is not counted
    for files in seeds:
      _fresh(work, files)
      if (warm := reader.tried(of, work, 1 << 40)).kind != "accepted" and "slow" not in warm.about:
        raise RuntimeError(f"{name}: a valid seed is {warm.kind}: {warm.about}")
  for number in range(20):
    mutate.odd(random.Random(number))
  with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
  resource.setrlimit(resource.RLIMIT_AS, (taken + _ADDRESSES, resource.RLIM_INFINITY))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  opened = len(os.listdir("/proc/self/fd"))
  with open(pathlib.Path(folder, "broken.jsonl"), "a") as broken:
    for number in range(int(first), int(stop)):
      files = seeds[number] if number < len(seeds) else mutate.folder(
          random.Random(f"{seed} {name} {number}"), seeds)
      at[0] = number
      _fresh(work, files)
      done = reader.tried(of, work, sum(map(len, files.values())))
      if done.kind == "accepted" and len(os.listdir("/proc/self/fd")) > opened + _HANDLES:
        done = reader.Tried("broken", "handles: files stay open")
      at[NAMES.index(done.kind)] += 1
      at[4], at[5] = max(at[4], done.seconds), max(at[5], done.grown)
      if done.kind == "broken":
        broken.write(json.dumps({"number": number, "about": done.about}) + "\n")
        broken.flush()
    at[0] = int(stop)


def _fresh(work: pathlib.Path, files: dict[str, bytes]) -> None:
  shutil.rmtree(work, ignore_errors=True)
  work.mkdir()
  reader.write(work, files)
  now = time.time() - 10
  for root, _, names in os.walk(work):
    for name in names:
      os.utime(f"{root}/{name}", (now, now))


if __name__ == "__main__":
  main(*sys.argv[1:])
