"""A child process that tries a range of one reader's inputs; the parent watches its marks.

    python -m benchmarks.garbage.worker READER SEED FIRST STOP FOLDER

FOLDER/marks holds six numbers: the current input; counts of accepted, refused and broken inputs;
the slowest input (CPU seconds); the most memory (bytes). FOLDER/broken.jsonl has a line for each
input that broke the reader.
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
_ADDRESSES = 4 << 30         # bytes of address space beyond that of the imports
_HANDLES = 40                # more open files than this at the end are a leak


def marks(folder, mode: str = "r+") -> np.memmap:
  """The numbers named in `NAMES`, shared with the parent."""
  return np.memmap(pathlib.Path(folder) / "marks", np.float64, mode, shape=(len(NAMES),))


def made(name: str, seed: int, number: int) -> dict[str, bytes]:
  """The files of one input; number 0 is a valid one."""
  seeds = readers.ALL[name].seeds()
  rng = random.Random(f"{seed} {name} {number}")
  return seeds[number] if number < len(seeds) else mutate.folder(rng, seeds)


class Trial:
  """Tries one input after another and updates the marks.

  Args:
    of: the reader.
    folder: with the marks.

  Attributes:
    number: of the next input.
    seeds: the reader's valid inputs.

  Raises:
    RuntimeError: a valid input is refused.
  """

  def __init__(self, of: reader.Reader, folder: str):
    self.seeds, self.number = of.seeds(), 0
    self._of, self._at, self._work = of, marks(folder), pathlib.Path(folder, "work")
    self._broken = pathlib.Path(folder, "broken.jsonl")
    empty = pathlib.Path(folder, "empty")
    empty.mkdir(exist_ok=True)
    os.chdir(empty)
    for _ in range(2):              # imports, compilation and caches are not counted
      for files in self.seeds:
        _fresh(self._work, files)
        if (warm := reader.tried(of, self._work, 1 << 40)).kind != "accepted" and (
            "slow" not in warm.about):
          raise RuntimeError(f"{of.name}: a valid seed is {warm.kind}: {warm.about}")
    for number in range(20):
      mutate.odd(random.Random(number))
    with open("/proc/self/statm") as file:
      taken = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + _ADDRESSES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    self._opened = len(os.listdir("/proc/self/fd"))

  def __call__(self, files: dict[str, bytes], note: dict | None = None) -> None:
    """Tries the files of an input; if it breaks the reader, `note` is stored with it."""
    self._at[0] = self.number
    _fresh(self._work, files)
    done = reader.tried(self._of, self._work, sum(map(len, files.values())))
    if done.kind == "accepted" and len(os.listdir("/proc/self/fd")) > self._opened + _HANDLES:
      done = reader.Tried("broken", "handles: files stay open")
    self._at[NAMES.index(done.kind)] += 1
    self._at[4], self._at[5] = max(self._at[4], done.seconds), max(self._at[5], done.grown)
    if done.kind == "broken":
      with open(self._broken, "a") as broken:
        broken.write(json.dumps({"number": self.number, "about": done.about, **(note or {})}))
        broken.write("\n")
    self.number += 1

  def ends(self) -> None:
    """Marks that no input is left."""
    self._at[0] = self.number


def main(name: str, seed: str, first: str, stop: str, folder: str) -> None:
  trial = Trial(readers.ALL[name], folder)
  for trial.number in range(int(first), int(stop)):
    number = trial.number
    trial(trial.seeds[number] if number < len(trial.seeds) else mutate.folder(
        random.Random(f"{seed} {name} {number}"), trial.seeds))
  trial.ends()


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
