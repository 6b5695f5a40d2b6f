"""Flips single bits of a finished workdir and checks whether stage audit reports them."""
import collections
import gzip
import json
import pathlib
import random
import re

import numpy as np

from benchmarks import workdirs
from ilm_jax.monitoring import heartbeat
from ilm_jax.stages import damage

# Files without our digest: nothing reads them, or the reader has its own check.
NOT_READ = {"report": r"report\.(html|json)", "parameters": r"parameters\..*\.txt",
            "TensorBoard": r"tensorboard/.*", "TFDS's cache": r"tfds/.*", "locks": r"\..*\.lock",
            "requests": r"targets/requests.jsonl", "counts": r"targets/\w+/report.json",
            "export": r"export/.*"}
KINDS = {
    "data": r"data/.*", "entities": r"entities/.*", "factors": r"factors\.npz",
    "prepared shards": r"prepared/.*\.array_record",
    "prepared manifests": r"prepared/.*/manifest\.json",
    "prepared lengths": r"prepared/.*\.npz", "index": r"prepared/index\.json",
    "dialogs": r"dialogs/.*", "targets": r"targets/\w+/[0-9a-f]+\.jsonl",
    "checkpoint arrays": r".*/checkpoints/\d+/.*/d/.*",
    "checkpoint meta": r".*/checkpoints/\d+/meta/metadata",
    "checkpoint, of Orbax": r".*/checkpoints/.*", "curves": r".*/metrics\.jsonl",
    "tables": r"eval/.*", "configs": r"config\..*", "heartbeats": r"heartbeat\..*",
}


def run(workdir, flips: int, seed: int) -> list[dict]:
  """Flips bits in place, one at a time, and restores each; a row per kind of file.

  Returns:
    [{"kind", "flips", "named", "same", "unnoticed": [..]}]: "named" counts reported flips, "same"
    flips that do not change the file's content (a space in JSON, padding); "unnoticed" lists file
    and bit of the others.
  """
  workdir, rng = pathlib.Path(workdir), random.Random(seed)
  by_kind = _files(workdir)
  readers = dict(damage.readers(workdir))
  values: dict = {}
  rows = {kind: {"kind": kind, "flips": 0, "named": 0, "same": 0, "unnoticed": []}
          for kind in by_kind}
  kinds = list(by_kind)
  for number in range(flips):
    kind = kinds[number % len(kinds)]
    path = rng.choice(by_kind[kind])
    data = path.read_bytes()
    if not data:
      continue
    bit = rng.randrange(8 * len(data))
    if path not in values:
      values[path] = _value(workdir, path)
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    try:
      verdict = _verdict(workdir, path, readers, values[path])
    finally:
      path.write_bytes(data)
    rows[kind]["flips"] += 1
    if verdict in ("named", "same"):
      rows[kind][verdict] += 1
    else:
      rows[kind]["unnoticed"].append(f"{path.relative_to(workdir)} bit {bit}: {verdict}")
  return list(rows.values())


def not_read(workdir) -> dict[str, int]:
  """{kind: files} for files without a digest."""
  names = [str(p.relative_to(workdir)) for p in pathlib.Path(workdir).rglob("*") if p.is_file()]
  return dict(collections.Counter(
      kind for name in names for kind, pattern in NOT_READ.items() if re.fullmatch(pattern, name)))


def _files(workdir) -> dict[str, list[pathlib.Path]]:
  by_kind: dict[str, list] = {}
  for path in sorted(workdir.rglob("*")):
    name = str(path.relative_to(workdir))
    if not path.is_file() or any(re.fullmatch(p, name) for p in NOT_READ.values()):
      continue
    kind = next((k for k, pattern in KINDS.items() if re.fullmatch(pattern, name)), "others")
    by_kind.setdefault(kind, []).append(path)
  return by_kind


def _verdict(workdir, path, readers, value) -> str:
  """"named", "same", or why it is neither."""
  name = str(path.relative_to(workdir))
  if name.startswith("heartbeat."):
    beat = heartbeat.read(workdir, name.split(".")[1])
    return "named" if beat is None else "same" if beat == value else "believed"
  record = re.sub(r"(config\..*)\.gin", r"\1.json", name)
  unit = next((u for u in sorted(readers, key=len, reverse=True)
               if record == u or record.startswith(f"{u}/")), None)
  if unit is None:
    return "nothing reads it"
  try:
    wrong = [text for _, texts in damage.checks(workdir, only=unit) for text in texts]
  except Exception as e:                # a traceback is a bug of the program
    return f"{type(e).__name__}: {e}"[:200]
  if wrong:
    cured = str(workdir) in wrong[0] and re.search(r"run|delete|Delete", wrong[0])
    return "named" if cured else f"without name or cure: {wrong[0]}"
  try:
    return "same" if _value(workdir, path) == value else "unnoticed"
  except Exception as e:
    return f"unnoticed, {type(e).__name__}"


def _value(workdir, path):
  """The content of a file, by readers other than the program's."""
  name = str(path.relative_to(workdir))
  if match := re.match(r"(.*/checkpoints/\d+)/", name):
    return workdirs.of_checkpoint(workdir / match[1])
  data = path.read_bytes()
  if name.endswith(".gz"):
    return gzip.decompress(data)
  if name.endswith(".npz"):
    with np.load(path) as arrays:
      return {key: (a.dtype.str, a.shape, a.tobytes()) for key, a in arrays.items()}
  if name.endswith(".json"):
    value = json.loads(data)
    return {k: v for k, v in value.items() if k != "check"} if isinstance(value, dict) else value
  if name.endswith(".jsonl"):
    return [{k: v for k, v in json.loads(line).items() if k != "check"}
            for line in data.decode().splitlines()]
  return data
