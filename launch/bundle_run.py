"""Checks, unpacks, runs and resumes a bundle on the target machine, and packs its results.

`bundle_run.sh` starts it with only the standard library; `launch.bundle` wrote both. In FOLDER:

  source/  assets/  files/  wheels/  config.json  bundle.json     as they were packed
  run/                                                            the workdir
  packages/                                                       installed from the wheels
  cache/                                                          compiled programs
"""
import contextlib
import fcntl
import fnmatch
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys

from ilm_jax import errors
from launch import closure, parts

MARK = "bundle.json"            # the manifest of what was unpacked
# In a workdir, the outputs of the stages before training, and those of training and later stages.
INPUTS = ("data", "dialogs", "entities", "factors.npz", "prepared", "sasrec", "targets")
_RESULTS = ("phase1", "phase2*", "eval", "report.*", "config.*", "parameters.*", "heartbeat.*",
            "tensorboard", "wandb", "mlflow", "trackio", "plan.json")
_WHEELS = ".wheels.json"        # in packages/: the wheels from which it was installed
_FLAG = re.compile(r"--(pack|parts)=(.*)")


def main(argv: list[str]) -> int:
  """Runs the arguments of `bundle_run.sh`; returns only if it starts no program.

  Raises:
    UserError: a part is missing or damaged, no room, another Python, packages that are missing.
  """
  here, *words = argv
  if not words or words[0].startswith("-"):
    raise errors.UserError("name the folder to unpack into and a stage: bash bundle_run.sh FOLDER "
                           "--stage=phase1")
  folder, ours = pathlib.Path(words[0]).absolute(), {}
  theirs = []
  for word in words[1:]:
    m = _FLAG.fullmatch(word)
    if m:
      ours[m[1]] = m[2]
    else:
      theirs.append(word)
  if "pack" in ours:
    return pack(folder, pathlib.Path(ours["pack"]), parts.size(ours.get("parts", "60MiB")), theirs)
  if "parts" in ours or not any(word.startswith("--stage") for word in theirs):
    raise errors.UserError(f"expected --stage=.. or --pack=FOLDER after {words[0]}, e.g. "
                           "--stage=phase1,phase2")
  with _alone(folder):
    manifest = ready(pathlib.Path(here), folder)
    check_python(manifest)
    install(folder, manifest)
  os.chdir(folder)
  os.execve(sys.executable, command(theirs), environment(pathlib.Path(here), folder))
  return 0


@contextlib.contextmanager
def _alone(folder: pathlib.Path):
  """Lets one process at a time unpack and install; the others wait and then find it done."""
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock").open("w")
  except OSError as e:
    raise errors.UserError(f"{folder} cannot be made ({e.strerror}): name a folder that you may "
                           "write in") from e
  with lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def ready(bundle: pathlib.Path, folder: pathlib.Path) -> dict:
  """Unpacks the bundle unless that is done already; returns its manifest.

  Raises:
    UserError: the folder holds another bundle; see `parts.check` and `parts.unpack`.
  """
  if (folder / MARK).exists():
    inside = _unpacked(folder)
    if (bundle / parts.MANIFEST).exists() and (
        parts.read(bundle)["parts"] != inside["parts"]):
      raise errors.UserError(f"{folder} was unpacked from another bundle than {bundle}: name "
                             "another folder, or use that bundle's bundle_run.sh")
    return inside
  manifest = parts.read(bundle)
  if manifest.get("holds") != "bundle":
    raise errors.UserError(f"{bundle} holds results: put them into the workdir at home with "
                           "python -m launch.bundle --workdir=W --results=FOLDER")
  check_python(manifest)
  parts.check(bundle, manifest)
  print(f"unpacking {manifest['files']} files, {parts.words(manifest['bytes'])}, into {folder}",
        flush=True)
  parts.unpack(bundle, manifest, folder, {MARK: json.dumps(manifest, indent=1).encode()})
  return manifest


def _unpacked(folder: pathlib.Path) -> dict:
  """The manifest of the bundle that was unpacked into a folder."""
  path = folder / MARK
  try:
    manifest = json.loads(path.read_text())
    if isinstance(manifest["parts"], list) and isinstance(manifest["data"], str):
      return manifest
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    pass
  raise errors.UserError(f"{path} is damaged: copy {parts.MANIFEST} of the bundle that was "
                         f"unpacked there to {path}; the run is kept")


def check_python(manifest: dict) -> None:
  """Raises a UserError if the wheels of the bundle are for another Python than this one."""
  for what, here in (("python", ".".join(platform.python_version_tuple()[:2])),
                     ("machine", platform.machine())):
    if (wanted := manifest.get(what, "")) and wanted != here:
      raise errors.UserError(f"the wheels of this bundle are for {what} {wanted}, this is {here}: "
                             f"set PYTHON to Python {manifest['python']} on {manifest['machine']}, "
                             f"or make the bundle with --{what}={here}")


def install(folder: pathlib.Path, manifest: dict) -> None:
  """Makes packages/ from the wheels that this Python needs: of packages that it lacks or has in
  another version than they ask of each other. An older packages/ of other wheels is replaced.

  Raises:
    UserError: a package is lacking, or a wheel cannot be installed.
  """
  by_name = {closure.canonical(wheel.name.split("-")[0]): wheel
             for wheel in sorted((folder / "wheels").glob("*.whl"))}
  there = closure.installed(importlib.metadata.distributions())
  chosen, unmet = closure.plan(manifest["requires"], there,
                               closure.of_wheels(list(by_name.values())))
  if lacking := [u for u in unmet if not u.found]:
    more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
    raise errors.UserError(f"{sys.executable} lacks {', '.join(map(str, lacking[:5]))}{more}: make "
                           "the bundle with --wheels=yes (with --have= where JAX is not there), or "
                           "install them")
  for u in unmet:      # it may work nevertheless
    print(f"warning: expected {u}", file=sys.stderr)
  packages, wheels = folder / "packages", [by_name[name] for name in sorted(chosen)]
  names = [wheel.name for wheel in wheels]
  if wheels and _list_of(packages) != names:
    _pip(wheels, folder / ".packages")
    (folder / ".packages" / _WHEELS).write_text(json.dumps(names))
    shutil.rmtree(packages, ignore_errors=True)
    (folder / ".packages").rename(packages)


def _list_of(packages: pathlib.Path) -> list[str] | None:
  """Names of the wheels from which packages/ was made; None: it is missing or incomplete."""
  try:
    return json.loads((packages / _WHEELS).read_text())
  except (OSError, ValueError):
    return None


def _pip(wheels: list[pathlib.Path], into: pathlib.Path) -> None:
  """Installs wheels into a new folder."""
  shutil.rmtree(into, ignore_errors=True)
  print(f"installing {len(wheels)} wheels, "
        f"{parts.words(sum(wheel.stat().st_size for wheel in wheels))}, into "
        f"{into.with_name('packages')}", flush=True)
  done = subprocess.run(
      [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
       "--disable-pip-version-check", "--no-warn-script-location", f"--target={into}",
       *map(str, wheels)], capture_output=True, text=True, check=False)
  if done.returncode:
    said = done.stderr.strip().splitlines() or ["no reason"]
    raise errors.UserError(f"the wheels of the bundle cannot be installed ({said[-1]}): is pip "
                           "there, and is this the machine that they are for?")


def command(words: list[str]) -> list[str]:
  """The command that runs in the folder; paths are relative, like those of the config."""
  return [sys.executable, "-P", "-m", "ilm_jax.main",
          "--config=source/configs/recorded.py:config.json", "--workdir=run", *words]


def environment(bundle: pathlib.Path, folder: pathlib.Path) -> dict[str, str]:
  """The run's variables: our code and packages first, assets from the bundle, no network."""
  before = os.environ.get("PYTHONPATH", "").split(os.pathsep)[1:]    # without program/
  python_path = [str(folder / "source"), str(folder / "packages"), *filter(None, before)]
  return {**os.environ, "PYTHONPATH": os.pathsep.join(python_path),
          "ILM_ASSETS_DIR": str(folder / "assets"), "PIP_NO_INDEX": "1",
          "ILM_CACHE": os.environ.get("ILM_CACHE", str(folder / "cache")),
          "ILM_TYPED": os.environ.get(
              "ILM_TYPED", shlex.join(["bash", str(bundle / "bundle_run.sh"), str(folder)]))}


def pack(folder: pathlib.Path, out: pathlib.Path, part: int, rest: list[str]) -> int:
  """Writes the results of the run into parts: checkpoints, eval, report, records.

  Raises:
    UserError: there is nothing to pack, or the parts cannot be written.
  """
  if rest:
    raise errors.UserError(f"{rest[0]} does not go with --pack: pack in a call of its own")
  if not (folder / MARK).exists():
    raise errors.UserError(f"{folder} is no unpacked bundle: run a stage into it first")
  files = results(folder / "run")
  if not files:
    raise errors.UserError(f"{folder}/run has no results yet: run a stage first")
  inside = _unpacked(folder)
  manifest = parts.write(out, files, part, {"holds": "results", "data": inside["data"]}, {})
  print(f"{out}: {manifest['files']} files, {parts.words(manifest['bytes'])}, in "
        f"{len(manifest['parts'])} parts")
  return 0


def results(workdir: pathlib.Path) -> dict[str, pathlib.Path]:
  """{name in the tar: file} of the outputs of training and later stages in a workdir."""
  files = {}
  for path in sorted(workdir.iterdir()):
    if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in _RESULTS):
      files |= parts.walk(path, path.name) if path.is_dir() else {path.name: path}
  return files


if __name__ == "__main__":
  sys.exit(errors.exit_code(lambda: main(sys.argv[1:])))
