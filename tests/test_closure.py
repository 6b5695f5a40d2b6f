"""Which wheels of a bundle are installed, and what is said to be lacking before any import."""
import zipfile

import pytest

from ilm_jax import errors
from launch import bundle_run, closure
from launch.closure import Package


def unmet(requires, there, wheels=None):
  chosen, left = closure.plan(requires, there, wheels or {})
  return chosen, [str(u) for u in left]


def test_a_requirement_of_a_requirement_is_found():
  there = {"flax": Package("1.0", ("orbax>=0.1",)), "orbax": Package("0.2", ("Uv_loop", "a>2"))}
  assert unmet(["flax"], there) == (set(), ["uv-loop for orbax", "a>2 for orbax"])


def test_wheels_are_taken_for_what_lacks_and_for_what_they_need_in_turn():
  wheels = {"a": Package("1.0", ("b>=2",)), "b": Package("2.1", ("c",)), "c": Package("1"),
            "unused": Package("1")}
  assert unmet(["a"], {}, wheels) == ({"a", "b", "c"}, [])
  assert unmet(["a"], {"b": Package("2.0"), "c": Package("0")}, wheels) == ({"a"}, [])


def test_an_installed_version_that_is_too_old_is_replaced_or_named():
  there, wheel = {"b": Package("1.9", ("gone",))}, {"a": Package("1.0", ("b>=2",))}
  assert unmet(["a"], there, {**wheel, "b": Package("2.0")}) == ({"a", "b"}, [])
  assert unmet(["a"], {**there, "gone": Package("1")}, wheel) == ({"a"}, ["b>=2 for a (has 1.9)"])


def test_markers_and_extras_decide():
  there = {"etils": Package("1.0", ("fsspec; extra == 'epath'", "x; python_version < '3'",
                                    "y; extra == 'epy'", "not a requirement"))}
  assert unmet(["etils"], there) == (set(), [])
  assert unmet(["etils[epath]"], there) == (set(), ["fsspec for etils"])


def test_packages_that_need_each_other_end():
  there = {"a": Package("1", ("b",)), "b": Package("1", ("a",))}
  assert unmet(["a"], there) == (set(), [])


def wheel(folder, name, version, *requires):
  path = folder / f"{name}-{version}-py3-none-any.whl"
  path.parent.mkdir(exist_ok=True)
  info = f"{name}-{version}.dist-info"
  with zipfile.ZipFile(path, "w") as file:
    file.writestr(f"{name}/__init__.py", f"VERSION = {version!r}\n")
    file.writestr(f"{info}/METADATA", "\n".join([
        "Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires)]) + "\n")
    file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    file.writestr(f"{info}/RECORD", "")
  return path


def test_wheels_are_read_without_being_installed(tmp_path):
  path = wheel(tmp_path, "Mine_too", "1.5", "numpy>=1", "x; extra == 'y'")
  assert closure.of_wheels([path]) == {
      "mine-too": Package("1.5", ("numpy>=1", "x; extra == 'y'"))}
  path.write_bytes(path.read_bytes()[:50])
  with pytest.raises(errors.UserError, match="is no wheel"):
    closure.of_wheels([path])


def test_a_bundle_installs_the_closure_once_and_anew_after_a_kill(tmp_path, capsys):
  """One wheel is needed by another wheel alone; one is there already; one is not needed."""
  wheels = tmp_path / "wheels"
  wheel(wheels, "ilm_first", "1.0", "ilm-second", "pytest")
  wheel(wheels, "ilm_second", "2.0")
  wheel(wheels, "ilm_other", "1.0")
  wheel(wheels, "pytest", "1.0")
  manifest = {"requires": ["ilm_first"]}
  bundle_run.install(tmp_path, manifest)
  packages = tmp_path / "packages"
  assert sorted(p.name for p in packages.iterdir() if "." not in p.name) == [
      "ilm_first", "ilm_second"]
  assert "installing 2 wheels, 0.0 MiB" in capsys.readouterr().out
  bundle_run.install(tmp_path, manifest)
  assert not capsys.readouterr().out
  (packages / ".wheels.json").unlink()           # as a kill leaves it
  (packages / "ilm_first" / "__init__.py").unlink()
  bundle_run.install(tmp_path, manifest)
  assert (packages / "ilm_first" / "__init__.py").exists()


def test_what_a_wheel_needs_and_is_nowhere_is_said_before_pip_runs(tmp_path, monkeypatch):
  wheel(tmp_path / "wheels", "ilm_first", "1.0", "no-such-package>=3")
  monkeypatch.setattr(bundle_run.subprocess, "run", None)
  with pytest.raises(errors.UserError, match="lacks no-such-package>=3 for ilm-first: make the"):
    bundle_run.install(tmp_path, {"requires": ["ilm_first"]})


def test_another_version_than_is_asked_for_is_a_warning(tmp_path, capsys):
  bundle_run.install(tmp_path, {"requires": ["pytest<1"]})
  assert capsys.readouterr().err.startswith("warning: expected pytest<1 (has ")
