"""What a compiled step costs a chip: memory, FLOPs, bytes, collectives, and how long that takes.

XLA counts the body of a loop once, so FLOPs, bytes and time come from programs whose layers stand
one after the other, compiled at two depths and drawn out on a line to the real one. Memory and
collectives come from the real program, its loops multiplied out.
"""
import contextlib
import dataclasses
import re
from collections.abc import Callable

import jax
from jax.experimental.compilation_cache import compilation_cache

from ilm_jax.models import language_model
from ilm_jax.planning import hlo, programs, shapes
from ilm_jax.runtime import chips

DEPTHS = (1, 2)              # groups of layers in the two programs of which costs are drawn out
_UNIT = {"": 1.0, "K": 2.0 ** 10, "M": 2.0 ** 20, "G": 2.0 ** 30, "T": 2.0 ** 40}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on one chip. Peak is XLA's; of a program that does not fit, what XLA says it needs."""
  fits: bool
  weights: int              # frozen and trained, the entity table included
  optimizer: int
  activations: int          # temporaries: activations kept, gradients, gathered weights
  peak: int
  said: str = ""            # XLA's words where it does not fit


@dataclasses.dataclass(frozen=True)
class Costs:
  """Of one step on one chip."""
  flops: float
  bytes: float
  optimal_seconds: float    # XLA's model of the time


@dataclasses.dataclass(frozen=True)
class Measured:
  """A step: its memory, its costs and collectives, and the FLOPs that no step can do without."""
  memory: Memory
  useful_flops: float       # of all chips together, as compiled_flops
  costs: Costs | None       # None: it does not fit
  collectives: tuple[hlo.Collective, ...]


def measure(c, lm: language_model.Config | None, mesh, topology: chips.Topology) -> Measured:
  """Compiles the step of `c.plan.phase` and reads what it costs; nothing is run.

  Args:
    c: config of the run.
    lm: language model of phase 2; phase 1 has none.
    mesh: over devices of `chips.devices`.
    topology: theirs.
  """
  program = _program(c, lm, mesh)
  compiled, said = compile_or_say(program)
  memory = _memory(program, compiled, said, topology.chip.memory)
  useful = useful_flops(c, lm, program)
  if compiled is None:
    return Measured(memory, useful, None, ())
  collectives = tuple(hlo.collectives(compiled.as_text(), topology.chips))
  return Measured(memory, useful, _drawn_out(c, lm, mesh), collectives)


def compile_or_say(program: programs.Program):
  """(compiled, "") or, of a program that needs more memory than there is, (None, XLA's words)."""
  try:
    with _unkept():
      return program.lower().compile(), ""
  except jax.errors.JaxRuntimeError as e:
    if "RESOURCE_EXHAUSTED" not in str(e):
      raise
    return None, " ".join(str(e).split())


@contextlib.contextmanager
def _unkept():
  """Past the persistent cache: jax cannot read a program back for chips that are not there."""
  before = jax.config.jax_enable_compilation_cache
  try:
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()      # it decides once whether it is used
    yield
  finally:
    jax.config.update("jax_enable_compilation_cache", before)
    compilation_cache.reset_cache()


def needed_bytes(said: str) -> int:
  """The bytes that XLA's words on running out of memory ask for; 0 if they name none."""
  for pattern in (r"required for HLO temporaries \(([\d.]+)([KMGT]?)\)",
                  r"Used ([\d.]+)([KMGT]?)i?B? of [\d.]+[KMGT]?i?B? hbm",
                  r"Total hbm usage >= ([\d.]+)([KMGT]?)"):
    if m := re.search(pattern, said):
      return int(float(m[1]) * _UNIT[m[2]])
  return 0


def extrapolate(at: dict[int, Costs], depth: int) -> Costs:
  """Costs at `depth` on the line through those at two others."""
  (a, low), (b, high) = sorted(at.items())
  return Costs(*(x + (y - x) * (depth - a) / (b - a)
                 for x, y in zip(dataclasses.astuple(low), dataclasses.astuple(high))))


def useful_flops(c, lm: language_model.Config | None, program: programs.Program) -> float:
  """FLOPs of all chips that the step cannot do without: 4 F + 6 T.

  A frozen weight is used twice a token that passes through it, forward and for the gradient of its
  input, at 2 FLOPs each: 4 F. A trained one three times: 6 T. Only matmuls count: no look-up of
  embeddings, no attention scores, and the head only where a target is predicted.
  """
  trained = matmul_weights(program.state.trainable.get("qformer", {}))
  if lm is None:
    return 6.0 * _phase1_uses(c, trained)
  p = c.phase2
  factor = 6 if c.lm.train == "all" else 4
  layers = language_model.abstract_params(lm)["layers"]
  frozen = sum(x.size for x in layers.values() if len(x.shape) == 3) * p.rows * p.length
  frozen += (lm.vocab_size + lm.new_tokens) * lm.width * p.rows * p.targets
  trained_weights = sum(trained.values()) + c.qformer.width * lm.width
  return float(factor * frozen + 6 * trained_weights * p.rows * p.slots * c.qformer.num_queries)


def matmul_weights(tree) -> dict[str, int]:
  """{path: numbers} of the kernels in a tree of parameters: what rows are multiplied with."""
  paths = jax.tree_util.tree_leaves_with_path(tree)
  named = {programs.axes.path_name(path): x for path, x in paths}
  return {name: x.size for name, x in named.items() if name.endswith("kernel")}


def _phase1_uses(c, weights: dict[str, int]) -> float:
  """Sum over phase 1's weights of numbers times the rows that pass through them."""
  p, q, T = c.phase1, c.qformer, c.qformer.max_text
  on = p.losses
  B, pairs = p.batch_size, 2 * p.pair_batch_size * (bool(on.ii) + bool(on.ui))
  aligned = B if on.itc or on.itm or on.itg else 0
  matched = 3 * B if on.itm else 0
  texts = aligned * T * (bool(on.itc or on.itm) + bool(on.itg)) + matched * T
  queries = (aligned + matched + pairs) * q.num_queries
  uses = 0.0
  for name, size in weights.items():
    if "text_mlp" in name:
      rows = texts
    elif "stack/layer/attention" in name:
      rows = texts + queries
    elif name.startswith("reader/") or ("stack/cross" in name and _one_token(c)):
      rows = aligned + matched + pairs
    elif name.startswith("lm/"):
      rows = aligned * T * bool(on.itg)
    elif name.startswith("heads/text"):
      rows = aligned
    else:
      rows = queries
    uses += float(size) * rows
  return uses + float(c.plan.text_vocabulary * q.width) * aligned * T * bool(on.itg)


def _one_token(c) -> bool:
  return len(c.vectors) * c.qformer.kv_tokens == 1


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


def _drawn_out(c, lm, mesh) -> Costs | None:
  """Costs of the real depth, from unrolled programs of two depths."""
  if lm is None:
    group = c.qformer.cross_every
    depth, make = c.qformer.num_layers, lambda n: programs.phase1(
        c, mesh, unroll=True, num_layers=n)
  else:
    group, depth = 1, lm.num_layers
    make = lambda n: programs.phase2(  # noqa: E731
        c, shapes.with_layers(lm, n, unroll=True), mesh, unroll=True)
  return drawn_out(make, group, depth)


def drawn_out(make: Callable[[int], programs.Program], group: int, depth: int) -> Costs | None:
  """Costs at `depth` layers of the programs that `make` builds with some; None: one did not fit."""
  at = {}
  for n in sorted({min(n * group, depth) for n in DEPTHS}):
    compiled, _ = compile_or_say(make(n))
    if compiled is None:
      return None
    analysis = compiled.cost_analysis()
    at[n] = Costs(analysis["flops"], analysis["bytes accessed"],
                  analysis.get("optimal_seconds", 0.0))
  return next(iter(at.values())) if len(at) == 1 else extrapolate(at, depth)
