"""Chips that a run can be planned for: their published figures and their names.

`v5p:4x4x4` is one slice of 64 chips, `v5p:4x4x4*2` two of them; `h100:8` eight GPUs.
"""
import dataclasses
import difflib
import importlib.util
import math
import os
import re

from ilm_jax import errors
from ilm_jax.runtime import gpu


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip's published peaks (Google Cloud's TPU system pages; NVIDIA's data sheets)."""
  flops: float              # bfloat16 FLOP/s
  memory: float             # bytes
  bandwidth: float          # bytes of memory a second
  links: float              # bytes a second over all its links to other chips, both ways together
  dims: int = 0             # axes of its torus; 0: planned by arithmetic, no program compiles
  modelled: bool = False    # XLA's estimate of a program's time (optimal_seconds) is usable
  config: str = "default"   # libtpu's name of the mode with one device for each chip
  node: int = 0             # GPUs that NVLink joins; 0: `links` join all chips
  network: float = 0.0      # bytes a second between nodes, both ways together


GIB = 2.0 ** 30
_NETWORK = 100e9             # 400 Gb/s of InfiniBand for each GPU, both ways; A100: 200 Gb/s
CHIPS = {
    "v4": Chip(275e12, 32 * GIB, 1228e9, 300e9, dims=3, config="megacore"),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9, dims=2),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9, dims=3, modelled=True,
                config="megacore"),
    "v6e": Chip(918e12, 32 * GIB, 1640e9, 448e9, dims=2),
    # SXM modules; bfloat16 without sparsity, HBM, NVLink, as published:
    # https://resources.nvidia.com/en-us-gpu-resources/h100-datasheet-24306
    "h100": Chip(989e12, gpu.MEMORY_FRACTION * 80 * GIB, 3350e9, 900e9, node=8, network=_NETWORK),
    # https://nvdam.widen.net/s/nb5zzzsjdf/hpc-datasheet-sc23-h200-datasheet-3002446
    "h200": Chip(989e12, gpu.MEMORY_FRACTION * 141e9, 4800e9, 900e9, node=8, network=_NETWORK),
    # https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/
    # nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf; the one with 80 GB
    "a100": Chip(312e12, gpu.MEMORY_FRACTION * 80 * GIB, 2039e9, 600e9, node=8,
                 network=_NETWORK / 2),
}
SHAPES = {2: ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
          3: ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")}


@dataclasses.dataclass(frozen=True)
class Topology:
  """One or more slices of one kind of chip."""
  kind: str
  shape: tuple[int, ...]    # of one slice
  slices: int = 1

  @property
  def chip(self) -> Chip:
    """The chip; with more GPUs than NVLink joins, its links are those of the network."""
    chip = CHIPS[self.kind]
    if chip.node and self.chips > chip.node:
      return dataclasses.replace(chip, links=chip.network)
    return chip

  @property
  def chips(self) -> int:
    """The number of chips in all slices."""
    return math.prod(self.shape) * self.slices

  @property
  def name(self) -> str:
    one = f"{self.kind}:{'x'.join(map(str, self.shape))}"
    return f"{one}*{self.slices}" if self.slices > 1 else one


def dtype(asked: str, train: str, *, has_bfloat16: bool) -> str:
  """The dtype of the language model's weights: `lm.dtype`, where "auto" follows the devices.

  Args:
    asked: `lm.dtype`.
    train: `lm.train`; for "all", bfloat16 would lose small updates.
    has_bfloat16: whether the devices multiply faster in bfloat16 (`gpu.has_bfloat16`).
  """
  if asked != "auto":
    return asked
  return "bfloat16" if has_bfloat16 and train != "all" else "float32"


def assumptions(topology: Topology) -> list[str]:
  """The assumptions of a plan by arithmetic, a line each; [] if programs compile for the chip."""
  chip = topology.chip
  if chip.dims:
    return []
  wires = (f"{chip.network / 1e9:.0f} GB/s of network a GPU (NVLink joins only {chip.node})"
           if topology.chips > chip.node > 0 else f"{chip.links / 1e9:.0f} GB/s of NVLink")
  return [f"published peaks of {topology.kind} (SXM): {chip.flops / 1e12:.0f} TFLOP/s in bfloat16, "
          f"{chip.bandwidth / 1e9:.0f} GB/s of HBM, {wires}, half of it each way",
          f"JAX takes {gpu.MEMORY_FRACTION:g} of the memory (XLA_PYTHON_CLIENT_MEM_FRACTION)",
          "attention keeps its scores as lm.remat says; cuDNN's (lm.attention=auto) keeps none"]


def parse(text: str) -> Topology:
  """The topology with the name `text`, e.g. "v5p:4x4x4*2".

  Raises:
    UserError: there is no such topology; the message lists similar names.
  """
  m = re.fullmatch(r"([\w-]+):(\d+(?:x\d+)*)(?:\*(\d+))?", text.strip().lower())
  kind = m[1] if m else text.split(":")[0].strip().lower()
  if kind not in CHIPS:
    near = difflib.get_close_matches(kind, CHIPS, 3, cutoff=0.3)
    hint = f" did you mean {' or '.join(near)}?" if near else ""
    raise errors.UserError(f"--topology={text!r}: no chip is called {kind!r}:{hint} expected one "
                           f"of {', '.join(CHIPS)} with its shape, e.g. v5p:4x4x4")
  dims = CHIPS[kind].dims
  shape = tuple(map(int, m[2].split("x"))) if m else ()
  if len(shape) != (dims or 1) or not all(shape):
    known = [f"{kind}:{s}" for s in SHAPES.get(dims, ("1", "8"))]
    near = difflib.get_close_matches(text.lower(), known, 3, cutoff=0.0)
    raise errors.UserError(f"--topology={text!r}: a slice of {kind} has {dims or 1} axes, found "
                           f"{len(shape)}; e.g. {', '.join(near)}, and {near[0]}*2 for two slices")
  slices = int(m[3] or 1)
  if not slices:
    raise errors.UserError(f"--topology={text!r}: expected 1 slice or more")
  return Topology(kind, shape, slices)


def devices(topology: Topology) -> list:
  """Devices that programs can be compiled for, but cannot run on.

  Raises:
    UserError: no program compiles for this chip, libtpu is not installed, or it refuses the shape.
  """
  chip = topology.chip
  if not chip.dims:
    raise errors.UserError(f"{topology.name} is planned by arithmetic only: no program compiles "
                           f"for {topology.kind} here; give a TPU, e.g. --topology=v5e:4x4")
  if importlib.util.find_spec("libtpu") is None:
    raise errors.UserError("--stage=plan compiles with libtpu, which is not installed: pip install "
                           "-r requirements-plan.lock (needs no TPU)")
  # Without these libtpu asks a metadata server that only TPU VMs have, and waits for it.
  for name, value in (("TPU_SKIP_MDS_QUERY", "1"), ("TPU_WORKER_HOSTNAMES", "localhost"),
                      ("TPU_WORKER_ID", "0"), ("TPU_ACCELERATOR_TYPE", "v4-8"),
                      ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"), ("TPU_MIN_LOG_LEVEL", "3"),
                      ("TPU_STDERR_LOG_LEVEL", "3")):
    os.environ.setdefault(name, value)
  from jax.experimental import topologies
  shape = (*topology.shape, 1)[:3]
  host = tuple(min(n, h) for n, h in zip(shape, (2, 2, 1)))
  several = {"num_slices": topology.slices} if topology.slices > 1 else {}
  one = f"{topology.kind}:{'x'.join(map(str, topology.shape))}"
  try:
    return topologies.get_topology_desc(
        topology_name=one, platform="tpu", chip_config_name=chip.config,
        chips_per_host_bounds=host, **several).devices
  except Exception as e:       # libtpu's message says what is wrong with the shape
    known = ", ".join(f"{topology.kind}:{s}" for s in SHAPES[chip.dims])
    raise errors.UserError(f"--topology={topology.name}: libtpu refuses it "
                           f"({' '.join(str(e).split())[:200]}); e.g. {known}") from e
