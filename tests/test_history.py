"""What a phase logged, across restarts and a full disk."""
import errno

import pytest

from ilm_jax import errors, files
from ilm_jax.monitoring import scalars


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
