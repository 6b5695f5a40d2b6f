"""A child that lets atheris choose the inputs of one reader by the lines of ilm_jax they reach.

    python -m benchmarks.garbage.guided READER SEED FIRST STOP FOLDER      # `--guided` starts it

An input is one byte, which selects a valid folder and a file in it, followed by that file's new
bytes. FOLDER gets the marks and the list of failures, as in `worker`. The list also holds the
inputs themselves, since no number reproduces them.
"""
import base64
import os
import pathlib
import sys

try:
  import atheris
except ImportError:
  atheris = None


def main(name: str, seed: str, first: str, stop: str, folder: str) -> None:
  if atheris is None:
    raise SystemExit("--guided needs atheris: pip install atheris")
  with atheris.instrument_imports(include=["ilm_jax"]):
    from benchmarks.garbage import mutate, readers, worker
    trial = worker.Trial(readers.ALL[name], folder)      # instruments also what this imports
  trial.number = int(first)
  places = [(files, file) for files in trial.seeds for file in sorted(files)][:256]
  corpus = pathlib.Path(folder, f"corpus.{first}")
  corpus.mkdir()
  for n, (files, file) in enumerate(places):
    (corpus / str(n)).write_bytes(bytes([n]) + files[file])

  def one(data: bytes) -> None:
    files, file = places[data[0] % len(places)] if data else places[0]
    files = {**files, file: data[1:]}
    trial(files, {"files": {at: base64.b64encode(its).decode() for at, its in files.items()}})
    if trial.number == int(stop):
      trial.ends()
      os._exit(0)        # libFuzzer's own count includes runs of the seeds
  atheris.Setup([name, f"-seed={int(seed) + int(first) + 1}", f"-max_len={mutate.LONGEST}",
                 "-rss_limit_mb=0", "-timeout=600", "-len_control=0", str(corpus)], one)
  atheris.Fuzz()


if __name__ == "__main__":
  main(*sys.argv[1:])
