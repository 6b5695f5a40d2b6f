"""Compares two finished workdirs bit by bit.

    python -m benchmarks.workdirs runs/one runs/two          # prints the differences

Checkpoints are compared by their restored arrays and their `meta`, since Orbax uses new file names
at each save. Answers of a teacher are compared by key, since a resumed run splits its batches
differently. MAY_DIFFER lists what may differ between two equal runs.
"""
import fnmatch
import gzip
import hashlib
import json
import os
import pathlib
import re
import sys

MAY_DIFFER = {
    "tensorboard/*": "times and rates",
    "heartbeat.*.json": "times, rates, pid",
    ".*.lock": "pid",
    "tfds/*": "TFDS's cache, from which data/ is made; it keeps its own times",
    "profile/*": "a trace",
    "targets/*/report.json": "counts of what was asked",
    "report.html": "plots; report.json beside it is compared",
    "compiled/*": "compiled programs",
    "export/*.pdf": "times",
}
# Names of files being written; a job that has ended leaves none.
TEMPORARY = re.compile(r"(^|/)\.[^/]*(\.[0-9a-f]{8,12}(\.old)?|\.writing|\.kept)(/|$)"
                       r"|\.orbax-checkpoint-tmp|\.incomplete|\.tmp\b")
_CHECKPOINT = re.compile(r"(.*/checkpoints/\d+)/.*")


def temporaries(workdir) -> list[str]:
  """Names of half-written files and folders below `workdir`."""
  root = pathlib.Path(workdir)
  names = (str(path.relative_to(root)) for path in root.rglob("*"))
  return sorted(name for name in names if TEMPORARY.search(name))


def content(workdir) -> dict[str, str]:
  """{name: sha256 of its content} for everything that two equal runs share."""
  root, digests, answers = pathlib.Path(workdir), {}, {}
  for path in sorted(root.rglob("*")):
    name = str(path.relative_to(root))
    if not path.is_file() or TEMPORARY.search(name) or may_differ(name):
      continue
    if match := _CHECKPOINT.fullmatch(name):
      if match[1] not in digests:
        digests[match[1]] = of_checkpoint(root / match[1])
    elif re.fullmatch(r"targets/\w+/[0-9a-f]{64}\.jsonl", name):
      answers.setdefault(path.parent.name, set()).update(path.read_text().split("\n"))
    else:
      data = path.read_bytes()
      if name == "report.json":         # it contains the workdir's name
        data = data.replace(os.path.dirname(json.loads(data)["summary"]["report"]).encode(), b"")
      digests[name] = _sha256(gzip.decompress(data) if name.endswith(".gz") else data)
  for teacher, lines in answers.items():
    digests[f"targets/{teacher}"] = _sha256("\n".join(sorted(lines)).encode())
  return digests


def differences(one: dict[str, str], two: dict[str, str]) -> list[str]:
  """Names that are in one of two `content`s only, or differ in both."""
  return sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))


def may_differ(name: str) -> bool:
  return any(fnmatch.fnmatch(name, pattern) for pattern in MAY_DIFFER)


def of_checkpoint(folder: pathlib.Path) -> str:
  """sha256 over the paths, dtypes, shapes and bytes of a checkpoint's arrays, and over its meta."""
  import jax
  import numpy as np
  import orbax.checkpoint as ocp
  reader, path = ocp.PyTreeCheckpointer(), folder.absolute() / "state"
  host = ocp.RestoreArgs(restore_type=np.ndarray)      # independent of the number of devices
  state = reader.restore(path, restore_args=jax.tree.map(
      lambda _: host, reader.metadata(path).item_metadata.tree))
  digest = hashlib.sha256((folder / "meta" / "metadata").read_bytes())
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    array = np.ascontiguousarray(leaf)
    digest.update(f"{path} {array.dtype} {array.shape}".encode() + array.tobytes())
  return digest.hexdigest()


def _sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def main() -> int:
  contents = [content(folder) for folder in sys.argv[1:]]
  if len(contents) == 1:
    print(json.dumps(contents[0]))
    return 0
  names = differences(*contents)
  print("\n".join(names) or "equal")
  return 1 if names else 0


if __name__ == "__main__":
  sys.exit(main())
