"""Measures what a compiled step costs a chip: memory, FLOPs, bytes, collectives and time.

XLA counts the body of a loop once. FLOPs, bytes and time therefore come from unrolled programs,
compiled at two depths and extrapolated linearly to the real depth. Memory and collectives come from
the real program; a collective in a loop counts once per turn.
"""
import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable

import jax
from jax.experimental.compilation_cache import compilation_cache

from ilm_jax.config import mixture
from ilm_jax.models import language_model
from ilm_jax.planning import hlo, programs, shapes
from ilm_jax.runtime import chips

DEPTHS = (1, 2)              # groups of layers in the two programs to extrapolate from
_UNIT = {"": 1.0, "K": 2.0 ** 10, "M": 2.0 ** 20, "G": 2.0 ** 30, "T": 2.0 ** 40}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on one chip. The peak is from XLA: measured, or what its error message says it needs."""
  fits: bool
  weights: int              # frozen and trained, the entity table included
  optimizer: int
  activations: int          # temporaries: stored activations, gradients, gathered weights
  peak: int
  said: str = ""            # XLA's error message if the program does not fit


@dataclasses.dataclass(frozen=True)
class Costs:
  """Costs of one step on one chip."""
  flops: float
  bytes: float              # read from and written to memory
  optimal_seconds: float    # XLA's own estimate of the time; 0: it has none


@dataclasses.dataclass(frozen=True)
class Measured:
  """A step: its memory, costs, collectives, and useful FLOPs (those that any program needs)."""
  memory: Memory
  useful_flops: float       # of all chips together, like compiled_flops
  costs: Costs | None       # None: it does not fit
  collectives: tuple[hlo.Collective, ...]


def measure(c, lm: language_model.Config | None, mesh, topology: chips.Topology) -> Measured:
  """Compiles the step of `c.plan.phase` and reads its costs; nothing is run.

  Args:
    c: config of the run.
    lm: language model of phase 2; None for phase 1.
    mesh: over devices from `chips.devices`.
    topology: of these devices.
  """
  program = _program(c, lm, mesh)
  compiled, said = compile_or_say(program)
  memory = _memory(program, compiled, said, topology.chip.memory)
  useful = program.useful_flops()
  if compiled is None:
    return Measured(memory, useful, None, ())
  collectives = tuple(hlo.collectives(compiled.as_text(), topology.chips))
  of_step = _drawn_out(c, lm, mesh, topology.chip)
  if of_step is not None:
    of_step = dataclasses.replace(
        of_step, flops=of_step.flops + program.again_flops() / topology.chips)
  return Measured(memory, useful, of_step, collectives)


def compile_or_say(program: programs.Program):
  """(compiled, ""), or (None, XLA's message) for a program that needs more memory than there is."""
  try:
    with _unkept():
      return program.lower().compile(), ""
  except jax.errors.JaxRuntimeError as e:
    if "RESOURCE_EXHAUSTED" not in str(e):
      raise
    return None, " ".join(str(e).split())


@contextlib.contextmanager
def _unkept():
  """Turns the persistent cache off: jax cannot read programs back for chips that do not exist."""
  before = jax.config.jax_enable_compilation_cache
  try:
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()      # the cache reads the flag only once
    yield
  finally:
    jax.config.update("jax_enable_compilation_cache", before)
    compilation_cache.reset_cache()


def needed_bytes(said: str) -> int:
  """The bytes that XLA's out-of-memory message says it needs; 0 if it names none."""
  for pattern in (r"required for HLO temporaries \(([\d.]+)([KMGT]?)\)",
                  r"Used ([\d.]+)([KMGT]?)i?B? of [\d.]+[KMGT]?i?B? hbm",
                  r"Total hbm usage >= ([\d.]+)([KMGT]?)"):
    if m := re.search(pattern, said):
      return int(float(m[1]) * _UNIT[m[2]])
  return 0


def extrapolate(at: dict[int, Costs], depth: int) -> Costs:
  """Costs at `depth` on the line through the costs at two other depths."""
  (a, low), (b, high) = sorted(at.items())
  costs = Costs(*(x + (y - x) * (depth - a) / (b - a)
                  for x, y in zip(dataclasses.astuple(low), dataclasses.astuple(high))))
  return costs if low.optimal_seconds and high.optimal_seconds else dataclasses.replace(
      costs, optimal_seconds=0.0)


def _program(c, lm, mesh) -> programs.Program:
  return programs.phase1(c, mesh) if lm is None else programs.phase2(c, lm, mesh)


def _memory(program, compiled, said: str, capacity: float) -> Memory:
  weights = programs.bytes_per_chip((program.state.trainable, program.frozen))
  optimizer = programs.bytes_per_chip(program.state.opt_state)
  if compiled is None:
    peak = needed_bytes(said)
    return Memory(False, weights, optimizer, max(peak - weights - optimizer, 0), peak, said)
  m = compiled.memory_analysis()
  peak = (m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
          + m.temp_size_in_bytes + m.generated_code_size_in_bytes)
  return Memory(peak <= capacity, weights, optimizer, m.temp_size_in_bytes, peak)


def _drawn_out(c, lm, mesh, chip: chips.Chip) -> Costs | None:
  """Costs at the real depth, from unrolled programs with few layers."""
  if lm is None:
    return drawn_out(lambda n: _costs(programs.phase1(c, mesh, unroll=True, num_layers=n), chip),
                     c.qformer.cross_every, c.qformer.num_layers)

  @functools.cache
  def at(n: int, rank_layers: int | None) -> Costs | None:
    model = shapes.with_layers(lm, n, unroll=True)
    return _costs(programs.phase2(c, model, mesh, unroll=True, rank_layers=rank_layers), chip)

  layer = c.phase2.head.layer if mixture.rank_tasks(c) else -1
  if not 0 <= layer < lm.num_layers:       # all rows run all layers
    return drawn_out(lambda n: at(n, None), 1, lm.num_layers)
  few = min(layer, 1)
  whole = drawn_out(lambda n: at(n, few), 1, lm.num_layers)
  if layer <= 1 or whole is None:
    return whole
  # Rows that only rank run fewer layers: their depth gets its own line.
  ranked = drawn_out(lambda n: at(2, n), 1, layer)
  return ranked and Costs(*(x + y - z for x, y, z in zip(
      *map(dataclasses.astuple, (whole, ranked, at(2, 1))))))


def _costs(program: programs.Program, chip: chips.Chip) -> Costs | None:
  """Costs of a program without loops; None: it does not fit."""
  compiled, _ = compile_or_say(program)
  if compiled is None:
    return None
  # XLA counts the bytes of a kernel, but not its FLOPs.
  analysis, kernels = compiled.cost_analysis(), program.kernel_flops()
  seconds = analysis.get("optimal_seconds", 0.0)
  if seconds > 0:                   # XLA adds -1 for an operation whose time it does not know
    seconds += kernels / chip.flops
  return Costs(analysis["flops"] + kernels, analysis["bytes accessed"], max(seconds, 0.0))


def drawn_out(at: Callable[[int], Costs | None], group: int, depth: int) -> Costs | None:
  """Costs at `depth` layers, extrapolated from `at`; None: one of its programs does not fit.

  Args:
    at: number of layers -> costs, or None for a program that does not fit.
    group: layers that repeat together.
    depth: layers to extrapolate to.
  """
  few = {n: at(n) for n in sorted({min(n * group, depth) for n in DEPTHS})}
  if None in few.values():
    return None
  return next(iter(few.values())) if len(few) == 1 else extrapolate(few, depth)
