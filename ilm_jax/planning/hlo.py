"""Reads the collectives of a compiled program from its text: kinds, counts and bytes.

The text holds the body of a loop once; here each instruction counts once per turn of its loop.
A TPU's compiler cuts a collective that runs beside computation into a chain: its start, a part
inside each fusion that runs meanwhile, its end. Each part is written like the whole; here a chain
counts once.
"""
import collections
import dataclasses
import math
import re

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "collective-permute", "all-to-all")

_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_COLLECTIVE = re.compile(rf" = (.*?) (?:ragged-)?({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b(pred|token|bf16|[a-z]+\d+(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_WHILE = re.compile(r" while\(.*?condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_CALLED_SET = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count\D*?(\d+)')
_COMPUTES = re.compile(r" (?:fusion|dot|convolution|while|conditional|custom-call)\(")
_CHAIN = re.compile(r'\bchannel_id=(\d+).*\bchain_id="(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
  """One instruction, with all its runs in a step.

  bytes: of its result on one chip (of its operand for a reduce-scatter), summed over all runs.
  sent: the least bytes that one chip must send around a ring: (n - 1) / n of `bytes`, twice that
    for an all-reduce, all of them for a permutation.
  """
  kind: str
  count: int
  bytes: float
  sent: float
  group: int                # number of chips that communicate with each other
  name: str                 # the op_name of its metadata
  overlaps: bool            # as compiled, computation runs between its start and its end


def collectives(text: str, chips: int) -> list[Collective]:
  """All collectives of a compiled program.

  Args:
    text: `compiled.as_text()`.
    chips: number of chips of the program; the group size of an instruction that names no group.
  """
  bodies, entry = _computations(text)
  times = _times(bodies, entry)
  listed, chains = [], {}
  for name, lines in bodies.items():
    for at, line in enumerate(lines):
      if times[name] and (m := _COLLECTIVE.search(line)):
        one = _read(line, m, name, times[name], chips)
        if m[3]:
          one = dataclasses.replace(one, overlaps=_computes_before_its_end(lines, at))
        if chain := _CHAIN.search(line):
          chains.setdefault(chain.groups(), []).append(one)
        else:
          listed.append(one)
  # Parts run equally often, unless a loop begins a chain in the turn before.
  return listed + [dataclasses.replace(max(parts, key=lambda part: part.count),
                                       overlaps=len(parts) > 2) for parts in chains.values()]


def _computes_before_its_end(lines: list[str], at: int) -> bool:
  """Whether a computation is scheduled between the instruction at `at` and its -done."""
  name = lines[at].split(" = ")[0].strip().removeprefix("ROOT ")
  for line in lines[at + 1:]:
    if re.search(rf"-done\(.*{re.escape(name)}(?![\w.\-])", line):
      return False
    if _COMPUTES.search(line):
      return True
  return False


def totals(listed: list[Collective]) -> dict[str, dict[str, float]]:
  """{kind: {"count", "bytes", "sent_bytes"}} for all kinds that occur, in the order of KINDS."""
  sums = {kind: {"count": 0, "bytes": 0.0, "sent_bytes": 0.0} for kind in KINDS}
  for c in listed:
    sums[c.kind]["count"] += c.count
    sums[c.kind]["bytes"] += c.bytes
    sums[c.kind]["sent_bytes"] += c.sent
  return {kind: s for kind, s in sums.items() if s["count"]}


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """({computation: its lines}, the name of the entry)."""
  bodies, entry, lines = {}, "", None
  for line in text.splitlines():
    if lines is None:
      if m := _HEADER.match(line):
        lines = bodies.setdefault(m[1], [])
        entry = m[1] if line.startswith("ENTRY") else entry
    elif line.startswith("}"):
      lines = None
    else:
      lines.append(line)
  return bodies, entry


def _times(bodies: dict[str, list[str]], entry: str) -> collections.Counter:
  """How often each computation runs in one run of the entry."""
  calls = {name: list(_calls(lines, bodies)) for name, lines in bodies.items()}
  order, visited = [], set()

  def visit(name):
    if name not in visited:
      visited.add(name)
      for callee, _ in calls.get(name, ()):
        visit(callee)
      order.append(name)

  visit(entry)
  times = collections.Counter({entry: 1})
  for name in reversed(order):             # callers before what they call
    for callee, turns in calls.get(name, ()):
      times[callee] += times[name] * turns
  return times


def _calls(lines: list[str], bodies):
  """(computation called, turns) of every call in `lines`."""
  for line in lines:
    if m := _WHILE.search(line):
      yield m[2], _turns(line, m[1], bodies)
      continue
    for callee in _CALLED.findall(line):
      yield callee, 1
    for callees in _CALLED_SET.findall(line):
      for callee in callees.split(","):
        yield callee.strip().lstrip("%"), 1


def _turns(line: str, condition: str, bodies) -> int:
  """Turns of a while loop: XLA's known_trip_count, or the constant in its condition."""
  if m := _TRIPS.search(line):
    return int(m[1])
  lines = list(bodies.get(condition, ()))
  for callee, _ in _calls(lines, {}):
    lines += bodies.get(callee, ())
  limits = [int(n) for n in re.findall(r"= s(?:32|64)\[\]\S* constant\((\d+)\)", "\n".join(lines))]
  return max(limits, default=1)


def _read(line: str, m, computation: str, times: int, chips: int) -> Collective:
  kind, starts = m[2], bool(m[3])
  shapes = [x for x in _SHAPE.findall(m[1]) if not starts or x != ("u32", "")]  # u32[]: a flag
  if starts and kind in ("all-gather", "collective-permute") and len(shapes) > 1:
    shapes = shapes[len(shapes) // 2:]     # (operands, results)
  size = float(sum(_size(t) * math.prod(map(int, filter(None, dims.split(","))))
                   for t, dims in shapes))
  group = _group(line, chips)
  if computation.startswith("all-reduce-scatter"):
    kind = "reduce-scatter"                # on TPU it is a fusion of all-reduce and slice
  elif kind == "reduce-scatter":
    size *= group
  part = (group - 1) / group
  sent = {"all-reduce": 2 * part, "collective-permute": 1.0}.get(kind, part) * size
  op = re.search(r'op_name="([^"]*)"', line)
  return Collective(kind, times, times * size, times * sent, group, op[1] if op else "", False)


def _size(dtype: str) -> float:
  """Bytes of one number of an HLO type."""
  if dtype in ("pred", "token"):
    return float(dtype == "pred")
  return int(re.search(r"\d+", dtype)[0]) / 8


def _group(line: str, chips: int) -> int:
  """Number of chips in a collective's group; reads the four notations of groups."""
  if m := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\S+)? \{([^}]*)\}", line):
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", m[1]))
    parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", m[2])     # an axis, or a part of one
    return math.prod(int(part or sizes[axis]) for axis, part in parts)
  if m := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line):
    return int(m[2])
  if m := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
    return len(m[1].split(","))
  if re.search(r"replica_groups=(?!\{\})", line):
    raise ValueError(f"unknown notation of replica_groups in {line[:300]}")
  return chips
