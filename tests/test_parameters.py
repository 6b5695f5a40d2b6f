"""The table of what a phase trains and reads."""
import jax
import jax.numpy as jnp
import test_train

from ilm_jax.monitoring import parameters
from ilm_jax.runtime import axes


def found():
  mesh = test_train.mesh_of(data=2, fsdp=2, tensor=2)
  trained = {"qformer": {"query": {"kernel": jnp.zeros((4, 6))}, "norm": {"scale": jnp.ones(3)}}}
  frozen = {"lm": {"layers": {"query": jnp.zeros((5, 8, 2), jnp.bfloat16),
                              "key": jnp.zeros((5, 8, 2), jnp.bfloat16)}}}
  return parameters.rows(axes.place(mesh, trained), axes.place(mesh, frozen))


def test_rows_by_hand():
  """fsdp and tensor halve an axis each; a norm lies on every device in full."""
  rows = {r.path: r for r in found()}
  kernel = rows["qformer/query/kernel"]
  assert (kernel.group, kernel.shape, kernel.dtype) == ("trained", "4 x 6", "float32")
  assert (kernel.placement, kernel.bytes, kernel.on_device) == ("fsdp, tensor", 96, 24)
  norm = rows["qformer/norm/scale"]
  assert (norm.placement, norm.bytes, norm.on_device) == ("", 12, 12)
  stacked = rows["lm/layers/query"]
  assert (stacked.group, stacked.placement, stacked.bytes, stacked.on_device) == (
      "frozen", "-, fsdp, tensor", 160, 40)


def test_totals_and_the_folded_table():
  rows = found()
  assert parameters.totals(rows) == (
      "trained 27 numbers in 108 B, frozen 160 numbers in 320 B; 116 B on each device")
  folded = {r.path: r for r in parameters.folded(rows)}
  assert set(folded) == {"qformer/query/kernel", "qformer/norm/scale", "lm/layers/.."}
  both = folded["lm/layers/.."]
  assert (both.shape, both.dtype, both.bytes, both.on_device) == ("2 arrays", "bfloat16", 320, 80)


def test_the_file_has_every_array_and_a_log_a_short_table(tmp_path, capsys, monkeypatch):
  rows, path = found(), tmp_path / "parameters.phase2.txt"
  monkeypatch.setattr(parameters, "_SHOWN", 3)
  parameters.report(rows, path, "phase2")
  written, said = path.read_text(), capsys.readouterr().out
  assert written == parameters.to_text(rows) and written.count("\n") == 6
  assert "phase2: trained 27 numbers in 108 B, frozen 160 numbers in 320 B; 116 B" in said
  assert "lm/layers/.." in said and "lm/layers/key" not in said and str(path) in said


def test_a_table_in_a_log_fits_80_columns():
  """These are the widest rows of phase 1 of configs/tiny.py."""
  rows = [parameters.Row("trained", "qformer/embed_norm/..", "2 arrays", "float32", "", 9, 3072,
                         3072),
          parameters.Row("frozen", "vectors/behavioral", "2293 x 8", "float32", "data*fsdp", 18344,
                         73376, 73376)]
  assert max(map(len, parameters._lines(rows))) <= 80
  assert "float32   " in parameters._lines(rows[:1])[1]       # two spaces where they fit


def test_a_table_prints_a_path_as_it_is(tmp_path, capsys, monkeypatch):
  console = parameters.rich_console.Console
  monkeypatch.setattr(parameters.rich_console, "Console",
                      lambda **more: console(force_terminal=True, width=400, **more))
  folder = tmp_path / "[" / "odd]"
  folder.mkdir(parents=True)
  monkeypatch.setattr(parameters, "_SHOWN", 0)      # its title names the file
  parameters.report(found(), folder / "parameters.txt", "phase1")
  assert "[/odd]/parameters.txt" in capsys.readouterr().out


def test_amounts():
  assert [parameters.amount(n) for n in (0, 1023, 1024, 1.5 * 2 ** 30, 2 ** 41)] == [
      "0 B", "1023 B", "1.0 KiB", "1.5 GiB", "2.0 TiB"]
  assert jax.device_count() == 8
