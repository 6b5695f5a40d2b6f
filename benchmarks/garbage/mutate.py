"""Makes damaged and hostile copies of valid files: bytes, text, JSON, and members of archives.

    damaged = mutate.folder(random.Random(7), seeds)      # {file name: bytes}

Everything depends on the generator alone, so reader, seed and number identify an input.
"""
import gzip
import io
import json
import random
import struct
import zipfile

LONGEST = 1 << 19           # most bytes of a damaged file: keeps the memory bound small
_NUMBERS = (0, 1, -1, 2, 127, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53,
            2**60, 2**63 - 1, 2**63, 2**64 - 1, -2**31, -2**63)
_BYTES = (b"\0", b"\xe9", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n", b'"', b'""', b"'",
          b"\x1b[31m", b"\xed\xa0\x80", b"\xe2\x80\xae", b"\\ud800", b"NaN", b"-Infinity", b"1e999",
          b"9" * 400, b"9" * 5000, b"null", b"true", b"-1", b"[" * 300, b"[" * 20_000,
          b'{"a":' * 3000, b"(" * 300, b"-" * 9000, b"%n%s", b"../../x", b"<script>", b"=cmd()",
          b"{{ 7 }}", b"0001-01-01", b"9999-12-31T23:59:59", b"1" * 30, b"1.5", b"\t", b",", b"::",
          b"|", b"<slot>", b"@0", b"inf", b"0x10", b"1_000", b"include 'x'", b"%a", b"@b()",
          "\u0663".encode(), "\u00b2".encode())
_VALUES = (None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, -2**63, 10**400, 1e308,
           float("nan"), float("inf"), "", " ", "\0", "\ud800", "\x1b]0;x\x07", "x" * 3000, "nan",
           "1e999", "-1", "../../x", "<slot>", "<script>", [], {}, [[]], [None], {"": None},
           [1, 2, 3], ["a"], {"a": {"b": []}}, [0] * 500)


def folder(rng: random.Random, seeds: list[dict[str, bytes]]) -> dict[str, bytes]:
  """One of the seeds with some of its files damaged; sometimes an undamaged seed."""
  made = dict(rng.choice(seeds))
  if rng.random() < 0.01:
    return made
  for _ in range(rng.choice((1, 1, 1, 2))):
    name = rng.choice(sorted(made))
    others = [seed[name] for seed in seeds if name in seed]
    made[name] = _file(rng, name, made[name], others)[:LONGEST]
  if len(made) > 2 and rng.random() < 0.02:
    made.pop(rng.choice(sorted(made)))
  return made


def _file(rng, name: str, data: bytes, others: list[bytes]) -> bytes:
  """A damaged file; half of the time its packed content is damaged and packed again."""
  if rng.random() < 0.6:
    try:
      if name.endswith(".gz"):
        return gzip.compress(_part(rng, gzip.decompress(data)), 1, mtime=0)
      if name.endswith((".zip", ".pth")):
        return _zip(rng, data)
      if name.endswith(".safetensors"):
        length = struct.unpack("<Q", data[:8])[0]
        header = _part(rng, data[8:8 + length])
        return struct.pack("<Q", len(header)) + header + data[8 + length:]
    except Exception:              # already damaged
      pass
  if rng.random() < 0.05:
    other = rng.choice(others)
    return data[:rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1):]
  return _part(rng, data)


def _part(rng, data: bytes) -> bytes:
  """JSON as a value, or a line of it, or bytes."""
  if data[:1] in (b"{", b"[") and rng.random() < 0.6:
    try:
      if rng.random() < 0.15:
        return _twice(rng, data)
      return dumps(_value(rng, json.loads(data)))
    except (ValueError, RecursionError):
      pass
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    try:
      lines[at] = dumps(_value(rng, json.loads(lines[at]))) + b"\n"
      return b"".join(lines)
    except (ValueError, RecursionError):
      pass
  for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
    data = _bytes(rng, data)
  return data


def dumps(value) -> bytes:
  """JSON with all that Python's writer accepts: NaN, half surrogate pairs, huge numbers."""
  import sys
  sys.set_int_max_str_digits(0)
  try:
    return json.dumps(value).encode("utf-8", "surrogatepass")
  except RecursionError:
    return b"[" * 5000
  finally:
    sys.set_int_max_str_digits(4300)


def _twice(rng, data: bytes) -> bytes:
  """An object with a key given twice."""
  places = [n for n, byte in enumerate(data) if byte == ord("{")]
  at = rng.choice(places or [0]) + 1
  names = data.split(b'"')[1::2] or [b"a"]
  return data[:at] + b'"' + rng.choice(names) + b'": ' + dumps(odd(rng)) + b", " + data[at:]


def odd(rng):
  """An unusual value; some are drawn by hypothesis."""
  return _drawn(rng) if rng.random() < 0.2 else rng.choice(_VALUES)


def _drawn(rng):
  """A JSON value from hypothesis, which knows edge cases of texts and numbers."""
  try:
    return _strategy()(rng.randbytes(256))
  except ImportError:
    return rng.choice(_VALUES)


_MADE = []


def _strategy():
  """The function bytes -> value; created once."""
  if not _MADE:
    import hypothesis
    from hypothesis import strategies as st
    leaves = (st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
              | st.dates().map(str))
    values = st.recursive(leaves, lambda of: st.lists(of, max_size=4)
                          | st.dictionaries(st.text(max_size=5), of, max_size=4), max_leaves=8)
    kept = []

    @hypothesis.settings(database=None, deadline=None,
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(values)
    def take(value):
      kept.append(value)

    def drawn(data: bytes):
      kept.clear()
      take.hypothesis.fuzz_one_input(data)
      return kept[-1] if kept else None
    _MADE.append(drawn)
  return _MADE[0]


def _value(rng, value):
  """A JSON value with one place in it changed."""
  if isinstance(value, dict | list) and value and rng.random() < 0.85:
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    kind = rng.random()
    if kind < 0.75:
      value[key] = _value(rng, value[key])
    elif kind < 0.82:
      del value[key]
    elif kind < 0.88 and isinstance(value, dict):
      value[rng.choice(("", "x", "id", str(key) + "s", "\ud800", "__class__"))] = value.pop(key)
    elif isinstance(value, list):
      value.insert(key, rng.choice((value[key], odd(rng))))
    else:
      value[rng.choice(("x", "a" * 300, "id"))] = odd(rng)
    return value
  if isinstance(value, int | float) and rng.random() < 0.5:
    return rng.choice(_NUMBERS)
  if isinstance(value, str) and rng.random() < 0.4:
    return _bytes(rng, value.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
  if rng.random() < 0.1:
    for _ in range(rng.choice((3, 80, 400, 950))):
      value = [value] if rng.random() < 0.5 else {"a": value}
    return value
  return odd(rng)


def _bytes(rng, data: bytes) -> bytes:
  """The bytes with one change."""
  size, at = len(data), rng.randrange(len(data) + 1)
  kind = rng.randrange(11)
  if kind == 0 and size:
    at %= size
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]
  if kind == 1 and size:
    at %= size
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1:]
  if kind == 2:
    return data[:at]
  if kind == 3:
    return data[:at] + data[min(size, at + rng.choice((1, 2, 8, 64, 1000))):]
  if kind == 4:
    part = data[at:at + rng.choice((1, 4, 32, 500))]
    return data[:at] + part * rng.choice((2, 3, 50)) + data[at:]
  if kind == 5:
    part = data[at:at + rng.choice((4, 32, 500))]
    there = rng.randrange(size + 1)
    return data[:there] + part + data[there:]
  if kind == 6:
    wide, order = rng.choice((2, 4, 8)), rng.choice(("<", ">"))
    number = rng.choice(_NUMBERS) % (1 << 8 * wide)
    packed = struct.pack(order + {2: "H", 4: "I", 8: "Q"}[wide], number)
    return data[:at] + packed + data[at + wide:]
  if kind == 7:
    return _number(rng, data)
  if kind == 8:
    lines = data.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one] = lines[other]
    return b"\n".join(lines)
  word = rng.choice(_BYTES)
  return data[:at] + word + data[at + (len(word) if kind == 9 else 0):]


def _number(rng, data: bytes) -> bytes:
  """The text with one of its decimal numbers replaced."""
  digits = [n for n, byte in enumerate(data[:20_000]) if 48 <= byte <= 57]
  if not digits:
    return data + b"7"
  start = rng.choice(digits)
  stop = start
  while stop < len(data) and 48 <= data[stop] <= 57:
    stop += 1
  return data[:start] + str(rng.choice(_NUMBERS)).encode() + data[stop:]


def _zip(rng, data: bytes) -> bytes:
  """A zip with one member damaged, missing, duplicated, compressed differently, or oddly named."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    stored = archive.infolist()[0].compress_type
  at, kind = rng.randrange(len(members)), rng.randrange(10)
  name, content = members[at]
  if kind == 0:
    members.pop(at)
  elif kind == 1:
    members.append((name, content))
  elif kind == 2:
    members[at] = rng.choice(("/etc/x", "../../x", "", "a/" * 90, name + "\0x")), content
  elif kind == 3:
    stored = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
  elif kind == 4:
    members[at] = name, content + b"\0" * rng.choice((1 << 10, 1 << 20, 1 << 24))
    stored = zipfile.ZIP_DEFLATED
  else:
    members[at] = name, _part(rng, content)
  out = io.BytesIO()
  import warnings
  with zipfile.ZipFile(out, "w", stored) as archive, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for member, content in members:
      archive.writestr(zipfile.ZipInfo(member), content, stored)
  return out.getvalue()
