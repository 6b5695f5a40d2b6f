"""What the scripts in launch/ say where they cannot go on; commands that they call are fakes."""
import pathlib
import shutil
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"


@pytest.fixture
def fake(tmp_path):
  """fake(command, lines of sh): puts a command in front of the real ones of `run`."""
  (tmp_path / "bin").mkdir()

  def write(command: str, *lines: str) -> None:
    path = tmp_path / "bin" / command
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)

  return write


def run(tmp_path, script, *arguments, **environment) -> subprocess.CompletedProcess:
  return subprocess.run(
      ["bash", script, *arguments], capture_output=True, text=True, check=False,
      env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path), **environment})


def test_a_python_without_venv_is_quoted(tmp_path, fake):
  (tmp_path / "launch").mkdir()
  shutil.copy(LAUNCH / "_env.sh", tmp_path / "launch")
  fake("python3.13", "echo 'ensurepip is not'", "echo 'available' >&2", "exit 1")
  fake("uv", "echo 'no interpreter found' >&2", "exit 2")
  done = run(tmp_path, tmp_path / "launch/_env.sh", ILM_PYTHON="3.13")
  assert done.returncode == 1
  error = done.stderr.splitlines()[-1]
  assert "'python3.13 -m venv' said 'ensurepip is not available'" in error
  assert "'uv venv --python 3.13' said 'no interpreter found'. Install python3.13" in error
  assert not (tmp_path / ".venv-py313").exists()


def test_a_python_without_pip_is_made_again_and_a_whole_one_is_kept(tmp_path, fake):
  """Ctrl-C while the folder is made leaves such a python."""
  folder = tmp_path / ".venv-py313"
  for name in ("launch/_env.sh", "setup.cfg", "setup.py", "pyproject.toml",
               "requirements-py313.lock"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    shutil.copy(LAUNCH.parent / name, tmp_path / name)
  fake("uv", "exit 1")
  fake("python", f'echo "$@" >> {tmp_path}/called')
  fake("cut", "echo No module named pip >&2", "exit 1")
  fake("python3.13", f'echo made "$@" >> {tmp_path}/called',
       f'mkdir -p "$4/bin"; cp {tmp_path}/bin/python "$4/bin/python"')
  (folder / "bin").mkdir(parents=True)
  (tmp_path / "bin/cut").rename(folder / "bin/python")
  for _ in range(2):
    done = run(tmp_path, tmp_path / "launch/_env.sh", ILM_PYTHON="3.13")
    assert done.returncode == 0, done.stderr
  called = (tmp_path / "called").read_text().splitlines()
  assert called[0] == f"made -m venv --clear {folder}"
  assert [line.split()[:3] for line in called[1:]] == [["-m", "pip", "install"]] * 2
  (folder / "package.stamp").unlink()                # pip is there: nothing is made again
  assert run(tmp_path, tmp_path / "launch/_env.sh", ILM_PYTHON="3.13").returncode == 0
  called = (tmp_path / "called").read_text().splitlines()
  assert [line.split()[:3] for line in called[3:]] == [
      ["-m", "pip", "--version"], ["-m", "pip", "install"]]


@pytest.fixture
def as_root(fake, tmp_path):
  """launch/debian13.sh thinks that it is root, and makes and mounts nothing."""
  fake("id", "echo 0")
  fake("unshare", "shift", 'exec "$@"')
  fake("git", "exit 0")
  fake("mount", f'echo mount "$@" >> {tmp_path}/called')
  fake("chroot", f'echo chroot "$@" >> {tmp_path}/called', "exit 3")
  fake("debootstrap", f'echo debootstrap "$@" >> {tmp_path}/called')


@pytest.mark.usefixtures("as_root")
def test_debian_is_not_made_over_other_files(tmp_path):
  folder = tmp_path / "home"
  folder.mkdir()
  (folder / "letter").touch()
  done = run(tmp_path, LAUNCH / "debian13.sh", folder)
  assert (done.returncode, list(folder.iterdir())) == (1, [folder / "letter"])
  assert done.stderr == (f"error: {folder} holds files that this script did not make: "
                         "name a folder that is empty or absent\n")
  assert not (tmp_path / "called").exists()


@pytest.mark.usefixtures("as_root")
def test_debian_is_made_once_and_the_command_says_how_it_ended(tmp_path):
  for _ in range(2):
    done = run(tmp_path, LAUNCH / "debian13.sh", tmp_path / "d", "true", ILM_SHOW=str(LAUNCH))
    assert done.returncode == 3 and "'true' ended with 3 after 0 min" in done.stderr
  called = (tmp_path / "called").read_text()
  assert called.count("debootstrap") == 1
  assert called.count(f"mount --bind {LAUNCH} {tmp_path}/d{LAUNCH}\n") == 2
  assert f"mount -o remount,bind,ro {tmp_path}/d{LAUNCH}\n" in called


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("arguments, environment, says", [
    ([], {}, "expected a folder, found ''"),
    (["--help"], {}, "expected a folder, found '--help'"),
    (["d"], {"ILM_SHOW": "/no/wheels"}, "ILM_SHOW names /no/wheels, which is not there"),
])
def test_debian_needs(tmp_path, monkeypatch, arguments, environment, says):
  monkeypatch.chdir(tmp_path)
  done = run(tmp_path, LAUNCH / "debian13.sh", *arguments, **environment)
  assert done.returncode == 1 and f"error: {says}" in done.stderr


@pytest.mark.usefixtures("as_root")
def test_debian_needs_root(tmp_path, fake):
  fake("id", 'if [ "$1" = -u ]; then echo 1000; else echo ann; fi')
  done = run(tmp_path, LAUNCH / "debian13.sh", tmp_path / "d")
  assert done.returncode == 1 and "need root, this is user ann: sudo bash" in done.stderr
