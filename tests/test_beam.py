"""Data sets and tasks prepared by Apache Beam equal those prepared without it.

Needs requirements-beam.lock, which neither `launch/test.sh` nor CI installs; skipped without. What
Beam only hands around is tested without it in test_pieces.py.
"""
import functools
import pathlib
import re

import pytest
from test_pieces import definition, files_of
from test_tasks import ITEMS, characters, config, log

from ilm_jax import errors
from ilm_jax.data import interactions, store
from tasks import beam_options, catalog, pieces, prepare
from tasks.datasets import builder, registry

pytest.importorskip("apache_beam", reason="Apache Beam: pip install -r requirements-beam.lock")

BEAM = ("--runner=DirectRunner",)


def found(folder, text):
  """A MovieLens set of ten users, whose numbers are not in alphabetical order, with ties."""
  (folder / "u.data").write_text(text)
  (folder / "u.item").write_bytes(b"".join(
      b"|".join([str(n).encode(), b"Film (1999)", b"", b"", b"", *[b"1"] * 19]) + b"\n"
      for n in range(1, 9)))
  about = registry.DATASETS["ml-latest-small"]
  paths = {name: folder / name for name in ("u.data", "u.item")}
  return registry.Found("ml-latest-small", about, paths, "0123" * 16,
                        functools.partial(about.read_log, paths),
                        functools.partial(about.read_items, paths))


def test_a_data_set_read_in_parts(tmp_path, monkeypatch):
  from tasks.datasets import beam_log
  monkeypatch.setattr(beam_log, "_PART", 50)
  rows = [(10 * n % 97 % 11, 1 + n * n % 8, 1 + n % 5, 1000 - n // 7) for n in range(120)]
  made = found(tmp_path, "".join("\t".join(map(str, row)) + "\n" for row in rows))
  assert len(made.log_readers(50)) > 20
  for name in ("interactions", "items"):
    once = builder._read(made, name, tmp_path / "once")
    by_beam = builder._read(made, name, tmp_path / "beam", BEAM)
    assert len(once) == (11 if name == "interactions" else 8)
    assert str(once) == str(by_beam)
  loaded = [builder.load(made, tmp_path / f"load{n}", 2, beam=beam) for n, beam in
            enumerate(((), BEAM))]
  prints = [interactions.save(tmp_path / f"data{n}", log, items, {})
            for n, (log, items, _) in enumerate(loaded)]
  assert prints[0] == prints[1]


def test_options_on_the_page_are_beams():
  """No runner complains of an option that it does not know: it leaves it out."""
  page = (pathlib.Path(__file__).parents[1] / "docs" / "prepare_at_scale.md").read_text()
  found = re.findall(r"--beam_runner=(\w+)\s+(?:\\\n\s*)?--beam_options=(\S+)", page)
  assert [runner for runner, _ in found] == ["DataflowRunner", "FlinkRunner", "SparkRunner"]
  for runner, joined in found:
    options = joined.split(",")
    known = beam_options.parsed((f"--runner={runner}", *options)).get_all_options(drop_default=True)
    assert known.keys() >= {option[2:].split("=")[0] for option in options}, runner


def test_a_wrong_line_is_told_as_without_beam(tmp_path):
  made = found(tmp_path, "1\t2\t3\t90\n1\t2\t3\n")
  with pytest.raises(errors.UserError, match=r"^\S*u.data from byte 0, line 2: found 3 fields, ex"):
    builder._read(made, "interactions", tmp_path / "beam", BEAM)


def test_prepared_by_beam_is_the_same_files(tmp_path, monkeypatch):
  """Several tasks in one pipeline, in pieces, in shards; one whose examples are partly left out."""
  monkeypatch.setattr(pieces, "_PIECE", 3)
  monkeypatch.setattr(store, "_SHARD", 4)
  words, all_of_them = characters(), catalog.definitions
  odd = [lambda dataset: dataset.filter(lambda e: e["number"] % 3 == 1)]
  monkeypatch.setattr(catalog, "definitions", lambda m: {
      "odd": definition(words, preprocessors=odd),
      **{k: v for k, v in all_of_them(m).items() if k in ("sequential", "elm_title")}})
  for folder, beam in (("once", ()), ("beam", BEAM)):
    interactions.save(tmp_path / folder / "data", log(), ITEMS, {"toy": 1})
    prepare.prepare(tmp_path / folder, words, words, config(), beam=beam)
  once, by_beam = (files_of(tmp_path / folder / "prepared") for folder in ("once", "beam"))
  assert once == by_beam
  assert {name[-18:-13] for name in once if "shard" in name} == {f"{n:05d}" for n in (1, 2, 3, 4)}
  assert len(store.Prepared(tmp_path / "beam" / "prepared" / "toy5_odd" / "train")) == 4
