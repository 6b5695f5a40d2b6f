"""Gin over a config: what is taken, what is refused with which words, and what is written."""
import pathlib
import re
import subprocess
import sys

import gin
import pytest

from ilm_jax import errors
from ilm_jax.config import gin_overlay, reading
from ilm_jax.models import ilm

ROOT = pathlib.Path(__file__).parents[1]
TINY = ROOT / "configs" / "tiny.py"
FILES = sorted((ROOT / "configs" / "gin").glob("*.gin"))


def laid_over(text="", folder=None, **options):
  return gin_overlay.overlay(reading.load(TINY), bindings=[text], **options)


def error_of(text, **options) -> str:
  with pytest.raises(errors.UserError) as e:
    laid_over(text, **options)
  assert "\n" not in str(e.value)
  return str(e.value)


def test_bindings_macros_blocks_and_types():
  c = laid_over("""
    STEPS = 7
    NAMES = ['semantic', 'behavioral']
    config.seed = 3
    config.phase2.steps = %STEPS
    config.phase2.learning_rate = 1
    config.vectors = %NAMES
    config.phase1.losses:
      itc = 2.0
    config.cf = {'width': %STEPS, 'reg': 1.5}
    STEPS = 9
  """)
  assert (c.seed, c.phase2.steps, c.cf.width, c.cf.reg) == (3, 9, 9, 1.5)   # macros: the last one
  assert c.vectors == ("semantic", "behavioral") and c.phase1.losses.itc == 2.0
  assert c.phase2.learning_rate == 1.0 and isinstance(c.phase2.learning_rate, float)
  assert c.cf.iterations == 2 and c.is_locked                    # what is not bound stays


def test_files_include_each_other_and_the_last_word_is_the_command_lines(tmp_path):
  (tmp_path / "lib").mkdir()
  (tmp_path / "lib" / "base.gin").write_text("include 'beside.gin'\nconfig.seed = 1\nN = 4\n")
  (tmp_path / "lib" / "beside.gin").write_text("config.cf.width = %N\nconfig.phase2.steps = 8\n")
  (tmp_path / "top.gin").write_text("include 'base.gin'\nconfig.seed = 2\n")
  c = gin_overlay.overlay(
      reading.load(TINY), [str(tmp_path / "top.gin")], ["N = 5", "config.cf.reg = 2.0"],
      [str(tmp_path / "lib")], last={"phase2.steps": 11})
  assert (c.seed, c.cf.width, c.cf.reg, c.phase2.steps) == (2, 5, 2.0, 11)


@pytest.mark.parametrize("text, words", [
    ("config.phase2.step = 1",
     "line 1: config has no field phase2.step: did you mean phase2.steps"),
    ("config.fase2.steps = 1", "did you mean phase2?"),
    ("config.zzz = 1", "config has no field zzz: it has cf, data"),
    ("config.cf = {'widht': 3}", "did you mean cf.width?"),
    ("train.total_steps = 1", "train.total_steps is not known: the one configurable is config"),
    ("a/config.seed = 1", "without scopes"),
    ("config.phase2.steps = 'many'", "config.phase2.steps = 'many': expected int, e.g. 2"),
    ("config.phase2 = 3", "phase2 is a section; bind its fields"),
    ("S = 1\nconfig.seed = %SS", "macro %SS is bound nowhere: did you mean %S?"),
    ("A = %B\nB = %A\nconfig.seed = %A", "refers to itself"),
    ("config.seed = @f()", "@f: values are literals"),
    ("config.seed = ", "not readable as gin"),
    ("import t5.data.mixtures", "import t5.data.mixtures: only config can be configured"),
    ("include 'none.gin'", "gin file none.gin is in none of"),
])
def test_a_mistake_is_one_line(text, words):
  assert words in error_of(text)


def test_a_file_that_includes_itself(tmp_path):
  (tmp_path / "a.gin").write_text("include 'b.gin'\n")
  (tmp_path / "b.gin").write_text("include 'a.gin'\n")
  with pytest.raises(errors.UserError, match="a.gin includes itself"):
    gin_overlay.overlay(reading.load(TINY), [str(tmp_path / "a.gin")])


def test_a_file_that_is_no_text(tmp_path):
  (tmp_path / "a.gin").write_bytes(b"config.seed = 1  # caf\xe9")
  with pytest.raises(errors.UserError, match=r"a.gin: not readable as gin: byte 22 is no UTF-8"):
    gin_overlay.overlay(reading.load(TINY), [str(tmp_path / "a.gin")])


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "a.gin").write_text("config.seed = 7")
  assert gin_overlay.overlay(reading.load(TINY), ["~/a.gin"]).seed == 7
  assert gin_overlay.overlay(reading.load(TINY), ["a.gin"], search_paths=["~"]).seed == 7


def test_written_and_read_back():
  c = laid_over("config.phase2.steps = 77\nconfig.vectors = ('semantic',)")
  text = gin_overlay.to_gin(c)
  assert "config.phase2.steps = 77\n" in text and "config.vectors = ('semantic',)\n" in text
  assert gin_overlay.overlay(reading.load(TINY), bindings=[text]) == c
  with pytest.raises(ValueError, match="config"):
    gin.parse_config(text)       # gin's own syntax: it fails at the name, not at the grammar


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_gin_config_builds_and_tells_its_command(path, tmp_path):
  c = gin_overlay.overlay(reading.load(ROOT / "configs" / "base.py"), [str(path)],
                         [f"DATA = '{tmp_path}'"])
  reading.validate(c, c.mesh.data * c.mesh.fsdp * c.mesh.tensor)
  if path.stem != "paper_form":
    assert c.data.name == "ml-1m" and c.data.path == str(tmp_path)
  assert f"--gin_file=configs/gin/{path.name}" in path.read_text()


def test_there_are_three_gin_configs():
  assert {p.stem for p in FILES} == {"ml1m", "paper_form", "pod"}


def test_the_papers_form_takes_everything_of_ours_away():
  c = reading.load(ROOT / "configs" / "ml100k_head.py")
  assert c.phase2.skip and c.qformer.cross_init == "width" and c.phase1.losses.cf
  gin_overlay.overlay(c, [str(ROOT / "configs" / "gin" / "paper_form.gin")], [])
  reading.validate(c, 1)
  assert not any(ilm.Form.of(c.phase2).__dict__.values()) and c.phase2.spread
  assert (c.qformer.cross_init, c.qformer.cross_every, c.phase1.candidates) == ("bert", 2, "batch")
  assert {name for name, weight in c.phase1.losses.items() if weight} == {"itc", "ii", "ui"}


def main(tmp_path, *flags):
  return subprocess.run(
      [sys.executable, "-m", "ilm_jax.main", f"--config={TINY}", f"--workdir={tmp_path}/run",
       *flags], cwd=ROOT, capture_output=True, text=True, check=False)


def test_main_prints_and_saves_both_forms(tmp_path):
  """Printed at the start, saved when a stage has run; stage targets has nothing to write here."""
  (tmp_path / "my.gin").write_text("N = 3\nconfig.cf.iterations = %N\nconfig.cf.width = 9\n")
  done = main(tmp_path, "--stage=targets", "--gin_file=my.gin", f"--gin_search_paths=x,{tmp_path}",
              "--gin_bindings=N = 5", "--gin_bindings=config.seed = 4", "--config.cf.width=16")
  assert done.returncode == 0, done.stderr
  saved = reading.from_json((tmp_path / "run" / "config.targets.json").read_text())
  assert (saved.cf.iterations, saved.seed, saved.cf.width) == (5, 4, 16)
  written = (tmp_path / "run" / "config.targets.gin").read_text()
  assert "config.lm.dtype = 'float32'" in written      # what "auto" is on a CPU
  printed = written.replace("config.lm.dtype = 'float32'", "config.lm.dtype = 'auto'")
  assert printed.strip() in done.stdout and re.search(r"^config.seed = 4$", written, re.M)


def test_main_names_the_nearest_field(tmp_path):
  done = main(tmp_path, "--gin_bindings=config.phase1.step = 4")
  assert done.returncode == 1 and not list(tmp_path.iterdir())
  assert "did you mean phase1.steps?" in done.stderr and len(done.stderr.splitlines()) == 1
