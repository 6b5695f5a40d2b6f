"""What a phase logged, across restarts and a full disk."""
import errno
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from etils import epath

from ilm_jax import errors, files
from ilm_jax.monitoring import scalars

ROOT = pathlib.Path(__file__).parents[1]


def test_a_restart_forgets_what_it_will_write_again(tmp_path):
  path = tmp_path / "metrics.jsonl"
  writer = scalars.Writer(path)
  writer.resume(0)
  for step in (4, 8, 12):
    writer.write(step, {"loss": 1 / step}, {"steps_per_second": 3.0})

  again = scalars.Writer(path)
  again.resume(10)                  # the newest checkpoint was of step 10
  assert scalars.read(path) == [{"step": 4, "loss": 0.25}, {"step": 8, "loss": 0.125}]
  again.write(12, {"loss": 7.0}, {})
  assert [r["loss"] for r in scalars.read(path)] == [0.25, 0.125, 7.0]


@pytest.mark.parametrize("damage", [
    lambda text: text.replace("0.125", "0.135"), lambda text: text.replace("check", "chdck"),
    lambda text: text[:-9]])
def test_a_damaged_line_is_named_and_one_of_before_digests_is_read(tmp_path, damage):
  path = tmp_path / "metrics.jsonl"
  writer = scalars.Writer(path)
  for step in (4, 8):
    writer.write(step, {"loss": 1 / step}, {})
  first, second = path.read_text().splitlines()
  path.write_text(f"{first}\n{damage(second)}")
  with pytest.raises(errors.UserError, match="damaged in line 2 .*delete it and run"):
    scalars.Writer(path).resume(8)
  path.write_text('{"step": 4, "loss": 0.25}\n')
  assert scalars.read(path) == [{"step": 4, "loss": 0.25}]


def test_each_record_gets_its_digest_once(tmp_path, monkeypatch):
  """Not again with every later record: the training thread waits for it."""
  expected = [json.dumps(files.stamped({"step": step, "loss": 1 / step})) + "\n"
              for step in range(1, 7)]
  path, stamped, stamps = tmp_path / "metrics.jsonl", files.stamped, []
  monkeypatch.setattr(files, "stamped", lambda r: stamps.append(r["step"]) or stamped(r))
  writer = scalars.Writer(path)
  writer.resume(0)
  for step in range(1, 7):
    writer.write(step, {"loss": 1 / step}, {"steps_per_second": 3.0})
    assert path.read_text() == "".join(expected[:step])
  assert stamps == [1, 2, 3, 4, 5, 6]

  again = scalars.Writer(path)
  again.resume(4)
  assert path.read_text() == "".join(expected[:4])
  again.write(5, {"loss": 1 / 5}, {})
  assert path.read_text() == "".join(expected[:5])
  assert stamps[6:] == [1, 2, 3, 4, 5]


def test_no_file_no_records(tmp_path):
  assert scalars.read(tmp_path / "none.jsonl") == []
  scalars.Writer(tmp_path / "none.jsonl").resume(3)
  assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize("number, error", [
    (errno.ENOSPC, errors.UserError), (errno.EACCES, PermissionError)])
def test_no_room_for_the_log(tmp_path, monkeypatch, number, error):
  def refuse(*_):
    raise OSError(number, "refused")

  writer = scalars.Writer(tmp_path / "metrics.jsonl")
  writer.resume(0)
  monkeypatch.setattr(files, "write_text", refuse)
  with pytest.raises(error, match="refused"):
    writer.write(1, {"loss": 1.0}, {})


def by_library(text):
  """What TensorFlow and ArrayRecord raise: no OSError, and the disk in words."""
  return RuntimeError(f"Failed to close: write() failed: {text}; at byte 57344")


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EFBIG, "File too large"),
    OSError(errno.EDQUOT, "Disk quota exceeded"), by_library("No space left on device"),
    OSError("Not enough disk space. Needed: Unknown size")])       # TFDS, before it begins
def test_a_full_disk_is_one_line_whoever_met_it(tmp_path, error):
  outer = ValueError("cannot finish the split\nfor reasons")
  outer.__cause__ = error
  for met in (error, outer):
    message = str(files.write_error(met, tmp_path))
    assert message.startswith(f"no room to write in {tmp_path}") and "\n" not in message


def test_a_full_disk_names_the_file_what_it_needs_and_what_is_free(tmp_path, monkeypatch):
  path = tmp_path / "eval" / "table.json"

  class Full(io.BytesIO):
    def write(self, data):
      raise OSError(errno.ENOSPC, "No space left on device")
  opened = lambda self, mode: Full() if self.name.startswith(".table.json") else None  # noqa: E731
  monkeypatch.setattr(type(epath.Path(path)), "open", opened)
  with pytest.raises(OSError) as e:
    files.write_bytes(path, b"12345")
  assert re.match(rf"no room to write in {tmp_path} \(.*No space left on device.*{path}.*; "
                  r"it needs 5 bytes, [\d,]+ are free\): free some space",
                  str(files.write_error(e.value, tmp_path)))
  assert not list(path.parent.iterdir())


@pytest.mark.parametrize("number, text", [
    (errno.EACCES, "Permission denied"), (errno.EROFS, "Read-only"), (errno.EEXIST, "File exists"),
    (errno.ENOTDIR, "Not a directory")])
def test_a_workdir_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, number, text):
  monkeypatch.chdir(tmp_path)
  for name in (tmp_path / "run", "run/eval/table.json"):
    message = str(files.write_error(OSError(number, text, name), "run"))
    assert message.startswith(f"{name} cannot be made or written ({text}): give another --workdir")
  for other in (OSError(number, text, "running"), OSError(number, text, 7), OSError(number, text)):
    assert files.write_error(other, "run") is None


def test_a_fault_of_the_program_stays_one(tmp_path):
  for error in (KeyError("x"), OSError(errno.ENOENT, "No such file", str(tmp_path / "x"))):
    assert files.write_error(error, tmp_path) is None


@pytest.mark.parametrize("below, stage", [("", "prepare"), ("run", "report")])
def test_a_workdir_that_is_a_file_ends_the_program_with_one_line(tmp_path, below, stage):
  (tmp_path / "file").write_text("")
  done = subprocess.run(
      [sys.executable, "-m", "ilm_jax.main", f"--config={ROOT}/configs/tiny.py",
       f"--workdir={tmp_path / 'file' / below}", f"--stage={stage}"],
      capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
  assert done.returncode == 1
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
