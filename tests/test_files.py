"""Writing whole or not at all, and digests in JSON."""
import gzip
import json
import os
import pathlib
import subprocess
import sys
import types

import pytest

from ilm_jax import errors, files
from ilm_jax.export import cards
from ilm_jax.stages import list_parts
from launch import bundle_run

KILLED = """
import os, pathlib, sys
from ilm_jax import files
folder = pathlib.Path(sys.argv[1])
with files.writing(folder / "table.json") as file, files.writing_folder(folder / "export") as out:
  file.write(b"half")
  (out / "part").write_text("half")
  os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
  """Another file's, and what a process that runs is writing, stay."""
  root = pathlib.Path(__file__).parents[1]
  subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False,
                 env={**os.environ, "PYTHONPATH": str(root)})
  left = sorted(path.name for path in tmp_path.iterdir())
  assert [name.split(".")[1] for name in left] == ["export", "table"]
  files.write_text(tmp_path / "other.json", "{}")
  with files.writing(tmp_path / "table.json"):
    assert len(list(tmp_path.glob(".table.json.*"))) == 1
    files.write_text(tmp_path / "table.json", "{}")
    assert len(list(tmp_path.glob(".table.json.*"))) == 1
  with files.writing_folder(tmp_path / "export") as export:
    (export / "part").write_text("whole")
  assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "other.json", "table.json"]


def test_no_flipped_bit_of_stamped_json_is_read_as_another_value(tmp_path):
  value = {"names": {"1": "Heat (1995)"}, "share": 0.25, "check it": [None, True]}
  path = tmp_path / "index.json"
  data = json.dumps(files.stamped(value)).encode()
  for bit in range(8 * len(data)):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    try:
      assert files.read_stamped(path, "make it again") == value
    except errors.UserError as e:
      assert str(path) in str(e) and str(e).endswith("make it again")
  path.write_text(json.dumps(value))          # of a version without digests
  assert files.read_stamped(path, "") == value
  with pytest.raises(errors.UserError, match="make it again"):
    files.read_stamped(tmp_path / "none.json", "make it again")


class HttpError(Exception):
  """As gcsfs raises one."""
  __module__ = "gcsfs.retry"


@pytest.mark.parametrize("error", [
    OSError(5, "half an answer"), TimeoutError("no answer"), HttpError("503,\n unavailable")])
def test_what_a_bucket_refuses_for_good_is_one_line(tmp_path, error):
  outer = RuntimeError("a save failed")
  outer.__cause__ = error
  says = str(files.write_error(outer, "gs://bucket/run"))
  assert says.startswith("gs://bucket/run cannot be read or written (") and "\n" not in says
  assert type(error).__name__ in says and "run the same command again" in says
  assert files.write_error(outer, tmp_path) is None          # of this machine: a fault of ours
  assert files.write_error(ValueError("ours"), "gs://bucket/run") is None


def test_a_digest_outlives_json():
  for value in ({"steps": {2: (1, 2), 10: 0.1}}, {}, {"loss": float("nan")}):
    read = json.loads(json.dumps(files.stamped(value)))
    assert json.dumps(files.unstamped(read)) == json.dumps(value)


def test_a_stamped_value_may_look_like_a_digest():
  value = {"id": "0123456789abcdef"}
  assert files.unstamped(files.stamped(value)) == value


@pytest.mark.parametrize("name, data", [
    ("t.json", b"[1"), ("t.json", b"\xff"), ("r.json.gz", b"no gzip"), ("t.json", b"[" * 100_000),
    ("r.json.gz", gzip.compress(b'{"a": 1}', mtime=0)[:-9])])
def test_damaged_json_of_a_run_is_one_line(tmp_path, name, data):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(errors.UserError, match=f"{name} cannot be read or is damaged .*: make it"):
    files.read_json(tmp_path / name, "make it again")


def test_json_of_a_run_is_read_packed_or_not(tmp_path):
  (tmp_path / "t.json").write_text('{"a": [1]}')
  (tmp_path / "t.json.gz").write_bytes(gzip.compress(b'{"a": [1]}'))
  assert files.read_json(tmp_path / "t.json", "") == files.read_json(
      tmp_path / "t.json.gz", "") == {"a": [1]}


def test_those_who_read_json_of_a_run_name_file_and_cure(tmp_path):
  """Cards of an export, lists that are gone on with, a bundle that was unpacked."""
  for name in ("report.json", "made_from.json", "bundle.json"):
    (tmp_path / name).write_text('{"tables": ')
  for read, words in (
      (lambda: cards.write(tmp_path, types.SimpleNamespace(workdir=tmp_path), {}, []),
       "report.json .*run --stage=report again"),
      (lambda: list_parts.claim(tmp_path, {"of": 1}, "lists", True),
       "made_from.json .*name another folder, or delete"),
      (lambda: bundle_run.ready(tmp_path, tmp_path), "bundle.json is damaged: copy manifest.json")):
    with pytest.raises(errors.UserError, match=words):
      read()
