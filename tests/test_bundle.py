"""Bundles for machines without a network: parts, what goes in, and every fault in one line."""
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest

from ilm_jax import errors
from ilm_jax.config import reading
from ilm_jax.configs import base
from launch import bundle, bundle_run, parts, wheels

ROOT = pathlib.Path(__file__).parents[1]
PART = 64 * 2 ** 10
FILES = {"a/long": bytes(range(256)) * 700, "a/empty": b"", "program": b"#!/bin/sh\n"}


@pytest.fixture
def packed(tmp_path):
  """(folder of parts, manifest) of FILES."""
  folder = tmp_path / "bundle"
  return folder, parts.write(folder, FILES, PART, {"holds": "bundle", "requires": []}, {})


def content(folder):
  return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*")
          if p.is_file()}


def test_what_is_packed_is_unpacked_from_parts_of_the_size(packed, tmp_path):
  folder, manifest = packed
  sizes = [p["size"] for p in manifest["parts"]]
  assert sizes[:-1] == [PART] * (len(sizes) - 1) and len(sizes) == 3 and 0 < sizes[-1] <= PART
  assert all(hashlib.sha256((folder / p["name"]).read_bytes()).hexdigest() == p["sha256"]
             for p in manifest["parts"])
  parts.check(folder, parts.read(folder))
  parts.unpack(folder, manifest, tmp_path / "into", {"mark": b"1"})
  assert content(tmp_path / "into") == {**FILES, "mark": b"1"}


def test_the_same_files_give_the_same_parts(packed, tmp_path):
  (tmp_path / "long").write_bytes(FILES["a/long"])
  os.utime(tmp_path / "long", (1, 1))
  again = parts.write(tmp_path / "again", {**FILES, "a/long": tmp_path / "long"}, PART, {}, {})
  assert again["parts"] == packed[1]["parts"]


def damage(folder, name, data):
  (folder / name).write_bytes(data((folder / name).read_bytes()))


@pytest.mark.parametrize(("fault", "says"), [
    (lambda f: (f / "part-0002").unlink(), r"lacks part-0002 \(1 of 3 parts\): copy"),
    (lambda f: damage(f, "part-0001", lambda b: b[:-1]), "part-0001 has 65535 bytes, expected"),
    (lambda f: damage(f, "part-0001", lambda b: b[:-1] + b"!"), "part-0001 has sha256 .* copy it"),
    (lambda f: (f / "manifest.json").unlink(), "manifest.json does not exist"),
    (lambda f: damage(f, "manifest.json", lambda b: b[:9]), "manifest.json is damaged"),
    (lambda f: damage(f, "manifest.json", lambda b: b.replace(b"part-0001", b"../../up")),
     "expected 1, with parts called part-0001"),
    (lambda f: damage(f, "manifest.json", lambda b: b.replace(b'"format": 1', b'"format": 2')),
     "has format 2, expected 1")])
def test_a_fault_in_the_parts_is_one_line(packed, tmp_path, fault, says):
  folder, _ = packed
  fault(folder)
  with pytest.raises(errors.UserError, match=says) as e:
    bundle_run.ready(folder, tmp_path / "into")
  assert "\n" not in str(e.value) and not (tmp_path / "into").exists()


def tar_of(*members):
  """Parts whose tar holds these members, as nobody who is honest writes them."""
  data = io.BytesIO()
  with tarfile.open(fileobj=data, mode="w") as tar:
    for name, kind, target in members:
      info = tarfile.TarInfo(name)
      info.type, info.linkname = kind, target
      tar.addfile(info)
  return data.getvalue()


@pytest.mark.parametrize("member", [
    ("../up", tarfile.REGTYPE, ""), ("/tmp/up", tarfile.REGTYPE, ""), ("a/../../up",
                                                                     tarfile.REGTYPE, ""),
    ("link", tarfile.SYMTYPE, "/etc"), ("hard", tarfile.LNKTYPE, "../up"),
    ("pipe", tarfile.FIFOTYPE, ""), ("a\\..\\up", tarfile.REGTYPE, "")])
def test_nothing_leaves_the_folder(tmp_path, member):
  folder, data = tmp_path / "b", tar_of(("fine", tarfile.REGTYPE, ""), member)
  folder.mkdir()
  (folder / "part-0001").write_bytes(data)
  manifest = {"parts": [{"name": "part-0001"}], "bytes": 0}
  with pytest.raises(errors.UserError, match="use none of it"):
    parts.unpack(folder, manifest, tmp_path / "x" / "into", {})
  assert content(tmp_path) == {"b/part-0001": data}


@pytest.mark.parametrize("name", ["../up", "/up", "a//b", ""])
def test_no_such_name_is_packed(tmp_path, name):
  with pytest.raises(errors.UserError, match="lies outside the folder"):
    parts.write(tmp_path / "b", {name: b"1"}, PART, {}, {})
  assert not content(tmp_path)


def test_too_little_room_is_known_before_anything_is_written(packed, tmp_path, monkeypatch):
  monkeypatch.setattr(parts.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 9))
  for write in (lambda f: parts.unpack(*packed, f, {}),
                lambda f: parts.write(f, FILES, PART, {}, {})):
    with pytest.raises(errors.UserError, match="into needs .* its disk has 0.0 MiB free"):
      write(tmp_path / "into")
  assert not (tmp_path / "into").exists()


def test_a_folder_that_holds_something_is_left_alone(packed, tmp_path):
  (tmp_path / "into").mkdir()
  (tmp_path / "into" / "mine").touch()
  with pytest.raises(errors.UserError, match="holds something else"):
    bundle_run.ready(packed[0], tmp_path / "into")
  with pytest.raises(errors.UserError, match="is there already"):
    parts.write(packed[0], FILES, PART, {}, {})


def test_links_are_refused_but_in_a_cache_of_models(tmp_path):
  (tmp_path / "f").mkdir()
  (tmp_path / "secret").write_text("1")
  (tmp_path / "f" / "link").symlink_to(tmp_path / "secret")
  with pytest.raises(errors.UserError, match="link is a link"):
    parts.walk(tmp_path / "f", "f")
  assert list(parts.walk(tmp_path / "f", "f", links=True)) == ["f/link"]


@pytest.mark.parametrize("text", ["60", "1KiB", "60MB", "-1MiB", "MiB"])
def test_a_size_that_is_none(text):
  with pytest.raises(errors.UserError, match="e.g. 60MiB"):
    parts.size(text)
  assert parts.size("60MiB") == 60 * 2 ** 20


@pytest.mark.parametrize(("words", "says"), [
    ([], "name the folder"), (["f"], "expected --stage"), (["f", "--parts=1GiB"], "expected --sta"),
    (["f", "--pack=o", "--stage=eval"], "--stage=eval does not go with --pack"),
    (["f", "--pack=o"], "f is no unpacked bundle"), (["a/f", "--stage=eval"], "manifest.json"),
    (["file/f", "--stage=eval"], "file/f cannot be made"),
    (["f", "--stage=eval"], "manifest.json does")])
def test_words_that_say_nothing(tmp_path, monkeypatch, words, says):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "file").touch()
  with pytest.raises(errors.UserError, match=says):
    bundle_run.main([str(tmp_path / "here"), *words])


@pytest.mark.parametrize(("have", "present"), [
    ([], set()), ([""], set()), (["Flax"], {"flax"}),
    (["jax"], {"jax", "jaxlib", "ml-dtypes", "numpy", "opt-einsum", "scipy"})])
def test_what_jax_brings_is_left_out_only_where_jax_is_there(have, present):
  """Else a bundle for a bare interpreter lacks jaxlib and numpy."""
  assert wheels.present(have) == present


def test_wheels_are_of_one_python_and_machine():
  bundle_run.check_python({})
  with pytest.raises(errors.UserError, match="for python 3.1, this is 3"):
    bundle_run.check_python({"python": "3.1", "machine": "x86_64"})


def test_the_shell_says_in_one_line_that_python_is_missing(tmp_path):
  done = subprocess.run(["bash", ROOT / "launch/bundle_run.sh", "f"], capture_output=True,
                        text=True, env={**os.environ, "PYTHON": "python-none"}, check=False)
  assert done.returncode == 1 and done.stderr == (
      "error: python-none is not on the PATH: set PYTHON to the interpreter that has JAX\n")


def test_what_is_lacking_is_named(tmp_path):
  with pytest.raises(errors.UserError, match="lacks no-such-package: make .* --wheels=yes"):
    bundle_run.install(tmp_path, {"requires": ["jax", "No_such.package"]})


def test_older_platforms_count():
  tags = wheels.platforms("manylinux_2_17_x86_64")
  assert tags[:2] == ["manylinux_2_17_x86_64", "manylinux_2_16_x86_64"]
  assert "manylinux2014_x86_64" in tags and "manylinux_2_18_x86_64" not in tags
  assert wheels.platforms("win_amd64") == ["win_amd64"]
  assert wheels.name("etils[epath]>=1") == "etils" and "grain" in wheels.required()
  for python, platform, says in (("py3", "manylinux_2_28_x86_64", "--python=py3"),
                                 ("3.12", "vax", "--platform=vax")):
    with pytest.raises(errors.UserError, match=says):
      wheels.download(python, platform, [])


def test_the_code_is_what_git_tracks_or_all_files_of_the_packages(tmp_path, monkeypatch):
  tracked = bundle.code()
  assert {"ilm_jax/main.py", "launch/bundle_run.sh", "setup.cfg", "setup.py",
          "tasks/prompts/sequential.json", "ilm_jax/serving/page/index.html"} <= tracked.keys()
  assert not any(name.startswith(("tests/", "docs/")) for name in tracked)
  monkeypatch.setattr(bundle, "ROOT", tmp_path)
  for name in ("ilm_jax/a.py", "ilm_jax/__pycache__/a.pyc", "secret.txt", "tasks/t.json"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  assert list(bundle.code()) == ["ilm_jax/a.py", "tasks/t.json"]


def test_paths_of_the_config_are_carried_and_named_anew(tmp_path, monkeypatch):
  monkeypatch.setattr("ilm_jax.assets.pinned.fetch", lambda name: {"f": tmp_path / name})
  for name in ("lm/config.json", "log/secret.csv", "a/phase1/x", "talk.jsonl", "mine.py"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("MIXTURE = {'mine': 1.0}")
  monkeypatch.syspath_prepend(tmp_path)
  c = base.get_config()
  with c.unlocked():
    c.lm.asset, c.data.path = str(tmp_path / "lm"), str(tmp_path / "log")
    c.phase2.init_from, c.tasks.module = str(tmp_path / "a"), "mine"
    c.tasks.dialogs = f"synthetic,{tmp_path}/talk.jsonl"
  there, files, licences = bundle._needed(c)
  assert (there.lm.asset, there.phase2.init_from) == ("files/lm.asset/lm", "files/phase2.init_from")
  assert there.tasks.dialogs == "synthetic,files/tasks.dialogs/1/talk.jsonl"
  assert set(files) == {
      "files/lm.asset/lm/config.json", "files/phase2.init_from/phase1/x", "source/mine.py",
      "files/tasks.dialogs/1/talk.jsonl", "files/data.path/README", "assets/minilm-l6/f"}
  assert licences == {"minilm-l6": "Apache-2.0"} and c.lm.asset == str(tmp_path / "lm")
  (tmp_path / "lm" / "config.json").unlink()
  (tmp_path / "lm").rmdir()
  with pytest.raises(errors.UserError, match="lm.asset=.*/lm does not exist"):
    bundle._needed(c)


def test_a_linked_file_keeps_its_name(tmp_path, monkeypatch):
  monkeypatch.setattr("ilm_jax.assets.pinned.fetch", lambda name: {})
  (tmp_path / "blob").write_text("weights")
  (tmp_path / "model.gguf").symlink_to(tmp_path / "blob")
  c = base.get_config()
  with c.unlocked():
    c.lm.asset = str(tmp_path / "model.gguf")
  there, files, _ = bundle._needed(c)
  assert there.lm.asset == "files/lm.asset/model.gguf" and there.lm.asset in files


def test_the_newest_record_is_the_config(tmp_path):
  for at, (stage, steps) in enumerate((("eval", 5), ("cf", 9))):
    c = base.get_config()
    c.phase2.steps = steps
    path = tmp_path / f"config.{stage}.json"
    path.write_text(json.dumps(c.to_dict()))
    os.utime(path, (at, at))
  assert bundle._config("", tmp_path).phase2.steps == 9


def test_a_record_is_a_config_to_start_from(tmp_path):
  c = base.get_config()
  c.phase2.steps, c.vectors = 7, ("semantic",)
  with c.unlocked():
    c.tasks.mixture.mine = 2.0
  record = c.to_dict()
  del record["lm"]["lora_rank"]           # of a run before the field was there
  (tmp_path / "config.json").write_text(json.dumps(record))
  again = reading.load(f"{ROOT}/configs/recorded.py:{tmp_path}/config.json")
  assert again == c and again.is_locked
  (tmp_path / "config.json").write_text("[")
  with pytest.raises(errors.UserError, match="is no recorded config"):
    reading.load(f"{ROOT}/configs/recorded.py:{tmp_path}/config.json")


def test_a_workdir_that_is_not_prepared_is_refused(tmp_path):
  for words, says in ((f"--workdir={tmp_path} --out=x", "run --stage=prepare first"),
                      (f"--workdir={tmp_path}/no --out=x", "no is no local folder"),
                      (f"--workdir={tmp_path}", "expected --out=FOLDER")):
    with pytest.raises(errors.UserError, match=says):
      bundle.act(bundle.parse(words.split()))


@pytest.mark.parametrize("name", ["bundle", "bundle_run"])
def test_bundles_start_with_the_standard_library_alone(name):
  done = subprocess.run([sys.executable, "-S", "-m", f"launch.{name}", "--help"], cwd=ROOT,
                        capture_output=True, text=True, check=False)
  assert done.returncode in (0, 1) and "Traceback" not in done.stderr


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_damaged_data_are_one_line(tmp_path, content):
  for name in ("data", "prepared", "entities"):
    (tmp_path / name).mkdir()
  (tmp_path / "data" / "manifest.json").write_text(content)
  with pytest.raises(errors.UserError, match="manifest.json is missing or damaged"):
    bundle.act(bundle.parse([f"--workdir={tmp_path}", "--out=x"]))


def test_a_module_of_tasks_is_carried_to_where_it_is_found(monkeypatch, tmp_path):
  package = tmp_path / "mine" / "deep"
  package.mkdir(parents=True)
  for path in (tmp_path / "mine", package):
    (path / "__init__.py").touch()
  (package / "more.py").touch()
  (tmp_path / "alone.py").touch()
  monkeypatch.syspath_prepend(str(tmp_path))
  assert bundle._module("mine") == {f"mine/{name}": tmp_path / "mine" / name for name in (
      "__init__.py", "deep/__init__.py", "deep/more.py")}
  assert bundle._module("alone") == {"alone.py": tmp_path / "alone.py"}
  for name in ("ilm_jax.tasks.openp5", "tasks.openp5"):      # ilm_jax/tasks would hide tasks/
    assert bundle._module(name) == {"tasks/openp5.py": bundle.ROOT / "tasks" / "openp5.py"}


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_results_replace_old_ones_by_renames_and_outlive_a_kill(tmp_path, monkeypatch, kind):
  def make(path, text):
    if kind == "folder":
      path.mkdir()
    (path / "a" if kind == "folder" else path).write_text(text)

  def text(path):
    return (path / "a" if kind == "folder" else path).read_text()
  make(tmp_path / "new", "new")
  make(tmp_path / "phase1", "old")
  real, there = pathlib.Path.rename, []

  def rename(self, target):
    if self.name == "new":
      there.append(sorted(p.name for p in tmp_path.iterdir()))
      raise KeyboardInterrupt                    # the worst moment
    return real(self, target)
  with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
    m.setattr(pathlib.Path, "rename", rename)
    bundle._swap(tmp_path / "new", tmp_path / "phase1")
  assert there == [[".old.phase1", "new"]] and text(tmp_path / ".old.phase1") == "old"
  bundle._swap(tmp_path / "new", tmp_path / "phase1")
  assert [p.name for p in tmp_path.iterdir()] == ["phase1"] and text(tmp_path / "phase1") == "new"
