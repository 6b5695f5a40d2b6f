"""A run as files for a machine without a network: code, prepared data, weights, wheels.

    python -m launch.bundle --workdir=runs/a --out=bundle --parts=60MiB [--wheels=yes]
    bash bundle/bundle_run.sh FOLDER --stage=phase1,phase2 --config.phase2.steps=400     # there
    bash bundle/bundle_run.sh FOLDER --pack=results                                      # there
    python -m launch.bundle --workdir=runs/a --results=results                           # at home

Stages prepare and cf must have run in the workdir. Its checkpoints and tables are carried, too, and
resumed there (--trained=no leaves them out). The config is the newest that the workdir recorded, or
--config. Files that it names by path are carried and get new paths. Code: the files that git
tracks, or in a folder without git all files of the packages.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys

from ilm_jax import errors
from launch import bundle_run, parts, shell, wheels

ROOT = pathlib.Path(__file__).parents[1]
_CODE = ("ilm_jax", "tasks", "configs", "launch", "setup.py", "setup.cfg", "pyproject.toml",
         "LICENSE", "README.md")
_PROGRAM = ("ilm_jax/__init__.py", "ilm_jax/errors.py", "launch/closure.py",
            "launch/parts.py", "launch/bundle_run.py")
_LEFT_HERE = b"The log lies where the run was prepared; nothing is prepared from this folder.\n"


def make(c) -> dict:
  """Writes the bundle and returns its manifest.

  Args:
    c: workdir, out, parts, config, trained, wheels, python, platform, have.

  Raises:
    UserError: the workdir is not prepared, a config or a file of it is missing, an asset or a wheel
      cannot be fetched, no room. Nothing is left in `out` then.
  """
  part, workdir = parts.size(c.parts), pathlib.Path(c.workdir).expanduser()
  data = _data_of(workdir)
  config = _config(c.config, workdir)
  config, files, licences = _needed(config)
  files |= {f"source/{name}": path for name, path in code().items()}
  files |= {f"run/{name}": path for name, path in prepared(workdir).items()}
  if c.trained == "yes":
    files |= {f"run/{name}": path for name, path in bundle_run.results(workdir).items()}
  from ilm_jax.config import reading
  files["config.json"] = reading.to_json(config).encode()
  about = {"holds": "bundle", "data": data, "licences": licences,
           "requires": sorted(wheels.required())}
  if c.wheels == "yes":
    files |= {f"wheels/{name}": content for name, content in
              wheels.download(c.python, c.platform, c.have.split(",")).items()}
    about |= {"python": c.python, "machine": wheels.machine(c.platform)}
  program = {f"program/{name}": (ROOT / name).read_bytes() for name in _PROGRAM}
  program["bundle_run.sh"] = (ROOT / "launch" / "bundle_run.sh").read_bytes()
  manifest = parts.write(pathlib.Path(c.out).expanduser(), files, part, about, program)
  print(f"{c.out}: {manifest['files']} files, {parts.words(manifest['bytes'])}, in "
        f"{len(manifest['parts'])} parts; there: bash bundle_run.sh FOLDER --stage=phase1,phase2")
  return manifest


def take(c) -> None:
  """Puts packed results into the workdir; each file or folder replaces the old one.

  Raises:
    UserError: the parts are damaged, or come from a run on other data.
  """
  folder, workdir = pathlib.Path(c.results).expanduser(), pathlib.Path(c.workdir).expanduser()
  manifest = parts.read(folder)
  if manifest.get("holds") != "results":
    raise errors.UserError(f"--results={folder} holds a bundle: pack what it made with bash "
                           "bundle_run.sh FOLDER --pack=RESULTS")
  if manifest["data"] != (data := _data_of(workdir)):
    was, now = errors.short(manifest["data"], data)
    raise errors.UserError(f"--results={folder} are of data {was}, --workdir={workdir} has {now}: "
                           "name the workdir that was bundled")
  parts.check(folder, manifest)
  fresh = workdir / ".results"
  shutil.rmtree(fresh, ignore_errors=True)
  parts.unpack(folder, manifest, fresh, {})
  for path in sorted(fresh.iterdir()):
    _swap(path, workdir / path.name)
  fresh.rmdir()
  print(f"{workdir}: {manifest['files']} files, {parts.words(manifest['bytes'])}")


def _swap(new: pathlib.Path, place: pathlib.Path) -> None:
  """Replaces a file or folder by two renames. A kill between them leaves the old one next to it,
  under a name that begins with ".old."."""
  aside = place.with_name(f".old.{place.name}")
  if aside.exists() and not place.exists():
    aside.rename(place)                      # an earlier call was killed here
  _remove(aside)
  if place.exists():
    place.rename(aside)
  new.rename(place)
  _remove(aside)


def _remove(path: pathlib.Path) -> None:
  shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def code() -> dict[str, pathlib.Path]:
  """{relative name: file} of the code: the files that git tracks, with their content on disk."""
  names = _tracked()
  if names is None:
    names = [path.relative_to(ROOT).as_posix() for top in _CODE for path in (
        sorted((ROOT / top).rglob("*")) if (ROOT / top).is_dir() else [ROOT / top])
             if path.is_file() and path.suffix not in (".pyc", ".so")]
  return {name: ROOT / name for name in names
          if name.split("/")[0] in _CODE and (ROOT / name).is_file()}


def _tracked() -> list[str] | None:
  """Names that git tracks; None if the code is not a checkout of its own."""
  if not (ROOT / ".git").exists():
    return None
  try:
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True,
                          text=True, check=True)
  except (OSError, subprocess.CalledProcessError):
    return None
  return [name for name in done.stdout.split("\0") if name]


def prepared(workdir: pathlib.Path) -> dict[str, pathlib.Path]:
  """{relative name: file} of the outputs of stages prepare and cf in a workdir."""
  files = {}
  for name in (*bundle_run.INPUTS, *(f"config.{s}.json" for s in ("targets", "prepare", "cf"))):
    path = workdir / name
    files |= parts.walk(path, name) if path.is_dir() else {name: path} if path.exists() else {}
  return files


def _data_of(workdir: pathlib.Path) -> str:
  """The fingerprint of the workdir's data; UserError if it is not prepared."""
  from ilm_jax.data import store
  if not workdir.is_dir():
    raise errors.UserError(f"--workdir={workdir} is no local folder: name the folder of a run")
  for name, stage in (("data", "prepare"), ("prepared", "prepare"), ("entities", "cf")):
    if not (workdir / name).is_dir():
      raise errors.UserError(f"{workdir}/{name} does not exist: a bundle carries what stages "
                             f"prepare and cf made, run --stage={stage} first")
  fingerprint = (store.read_manifest(workdir / "data") or {}).get("fingerprint")
  if not fingerprint:
    raise errors.UserError(f"{workdir}/data/manifest.json is missing or damaged: run "
                           "--stage=prepare again")
  return fingerprint


def _config(path: str, workdir: pathlib.Path):
  """The config of a file, or else the one that the last stage in the workdir recorded."""
  from ilm_jax.config import reading, stages
  from ilm_jax.configs import recorded
  if path:
    return reading.load(path)
  records = [workdir / f"config.{name}.json" for name in stages.ALL]
  there = sorted((record for record in records if record.exists()),
                 key=lambda record: record.stat().st_mtime_ns)
  if not there:
    raise errors.UserError(f"{workdir} has no config.<stage>.json: name a config by --config, or "
                           "run --stage=prepare,cf")
  return recorded.get_config(str(there[-1])).lock()


def _needed(config) -> tuple:
  """(the config with its new paths, {name in the tar: file}, {asset: licence})."""
  from ilm_jax.assets import pinned
  from ilm_jax.config import names
  c, files, licences = config.copy_and_resolve_references(), {}, {}
  assets = {c.text_encoder.asset}
  for field in names.PATHS:
    section, name = field.rsplit(".", 1)
    section = c[section]
    value = str(section.get(name) or "")
    if field == "data.path" and value:
      files["files/data.path/README"] = _LEFT_HERE
      section[name] = "files/data.path"
    elif value in pinned.ASSETS:
      assets.add(value)
    elif value and (there := pathlib.Path(value).expanduser()).exists():
      if field == "phase2.init_from":
        there, section[name] = there / "phase1", f"files/{field}"
        files |= parts.walk(there, f"files/{field}/phase1")
      else:
        section[name] = f"files/{field}/{pathlib.Path(os.path.abspath(there)).name}"
        files |= (parts.walk(there, section[name], links=True) if there.is_dir()
                  else {section[name]: there})
    elif "/" in value:
      raise errors.UserError(f"{field}={value} does not exist: correct the path, or name another "
                             "--config")
  if dialogs := c.tasks.dialogs:
    c.tasks.dialogs = _dialogs(dialogs, files)
  if module := c.tasks.module:
    files |= {f"source/{name}": path for name, path in _module(module).items()}
  for asset in sorted(assets):
    licences[asset] = pinned.ASSETS[asset].licence
    for name, path in pinned.fetch(asset).items():
      files[f"assets/{asset}/{name}"] = path
  return c, files, licences


def _module(name: str) -> dict[str, pathlib.Path]:
  """{relative name: file} of a module of tasks, or of all modules of a package; for a module in the
  carried code, with its name there."""
  from ilm_jax.config import own_tasks
  path = own_tasks.file_of(name).resolve()
  if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in _CODE:
    return {path.relative_to(ROOT).as_posix(): path}
  place = name.replace(".", "/")
  if path.name != "__init__.py":
    return {f"{place}.py": path}
  return {f"{place}/{part.relative_to(path.parent).as_posix()}": part
          for part in sorted(path.parent.rglob("*.py"))}


def _dialogs(text: str, files: dict) -> str:
  """`tasks.dialogs` with the new paths of its files, which are carried, too."""
  from ilm_jax.config import dialog_sources
  words = []
  for n, source in enumerate(dialog_sources.parse(text)):
    if source.kind == dialog_sources.SYNTHETIC:
      words.append(source.kind)
      continue
    there = pathlib.Path(source.path).expanduser()
    if not there.exists():
      raise errors.UserError(f"tasks.dialogs: {there} does not exist: correct the path")
    name = f"files/tasks.dialogs/{n}/{there.name}"
    files |= parts.walk(there, name, links=True) if there.is_dir() else {name: there}
    words.append(f"{source.kind}:{name}" if source.kind == dialog_sources.REDIAL else name)
  return ",".join(words)


def parse(argv: list[str] | None) -> argparse.Namespace:
  p = argparse.ArgumentParser(description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
  yes = {"choices": ("yes", "no")}
  p.add_argument("--workdir", required=True, help="a local one, after --stage=prepare,cf")
  p.add_argument("--out", default="", help="folder for the bundle, absent or empty")
  p.add_argument("--results", default="", help="packed results to put into the workdir")
  p.add_argument("--parts", default="60MiB", help="size of a part (60MiB)")
  p.add_argument("--config", default="", help="default: the newest that the workdir recorded")
  p.add_argument("--trained", default="yes", help="carry checkpoints and tables, too (yes)", **yes)
  p.add_argument("--wheels", default="no", help="carry packages that are missing (no)", **yes)
  p.add_argument("--python", default="3.12", help="of the wheels (3.12)")
  p.add_argument("--platform", default="manylinux_2_28_x86_64",
                 help="of the wheels (manylinux_2_28_x86_64)")
  p.add_argument("--have", default=",".join(wheels.HAVE),
                 help="packages that the machine has; with jax, also what JAX needs; '': "
                      f"none, a bare interpreter ({','.join(wheels.HAVE)})")
  return p.parse_args(argv)


def act(c) -> None:
  """Makes a bundle, or puts results into a workdir."""
  if bool(c.out) == bool(c.results):
    raise errors.UserError("expected --out=FOLDER to make a bundle, or --results=FOLDER to take "
                           "what one has made")
  take(c) if c.results else make(c)


if __name__ == "__main__":
  sys.exit(shell.main(lambda: act(parse(None))))
