"""Generations of TPUs: their names in gcloud and GKE, and their topologies."""
import dataclasses
import difflib
import math
import re

from ilm_jax import errors

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
  """One generation of TPUs."""
  type_prefix: str        # of gcloud's --accelerator-type: "v5litepod-16"
  units_per_chip: int     # units of the number in that type: 2, TensorCores; 1, chips
  runtime: str            # gcloud's --version; "": not offered as a TPU VM, only through GKE
  gke_accelerator: str    # value of the node label cloud.google.com/gke-tpu-accelerator
  flat: bool              # two-dimensional topologies
  max_chips: int          # of one slice
  devices_per_chip: int = 1   # as JAX counts them


GENERATIONS = {
    "v4": Generation(type_prefix="v4", units_per_chip=2, runtime="tpu-ubuntu2204-base",
                     gke_accelerator="tpu-v4-podslice", flat=False, max_chips=4096),
    "v5e": Generation(type_prefix="v5litepod", units_per_chip=1, runtime="v2-alpha-tpuv5-lite",
                      gke_accelerator="tpu-v5-lite-podslice", flat=True, max_chips=256),
    "v5p": Generation(type_prefix="v5p", units_per_chip=2, runtime="v2-alpha-tpuv5",
                      gke_accelerator="tpu-v5p-slice", flat=False, max_chips=6144),
    "v6e": Generation(type_prefix="v6e", units_per_chip=1, runtime="v2-alpha-tpuv6e",
                      gke_accelerator="tpu-v6e-slice", flat=True, max_chips=256),
    "tpu7x": Generation(type_prefix="tpu7x", units_per_chip=2, runtime="",
                        gke_accelerator="tpu7x", flat=False, max_chips=9216, devices_per_chip=2),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips that are wired together, in a topology that GKE offers."""
  generation: Generation
  topology: str

  @property
  def chips(self) -> int:
    return math.prod(map(int, self.topology.split("x")))

  @property
  def chips_per_host(self) -> int:
    """A flat slice of up to 8 chips is one host; all others have hosts of 4."""
    return self.chips if self.generation.flat and self.chips <= 8 else 4

  @property
  def hosts(self) -> int:
    return self.chips // self.chips_per_host

  @property
  def devices(self) -> int:
    """The number that jax.device_count() will return."""
    return self.chips * self.generation.devices_per_chip


def slice_of(generation: str, topology: str) -> Slice:
  """A slice of GKE, e.g. slice_of("v5e", "4x4").

  Raises:
    UserError: no such generation, or it does not have that topology.
  """
  g = GENERATIONS.get(generation)
  if g is None:
    raise errors.UserError(f"--tpu={generation}: unknown generation"
                           f"{_near(generation, GENERATIONS)}; expected one of "
                           f"{', '.join(GENERATIONS)}")
  if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", topology) or not _comes_in(g, topology):
    offered = ", ".join(_FLAT) if g.flat else (
        f"{', '.join(_SMALL_CUBES)}, or three ascending multiples of 4 such as 4x4x8, up to "
        f"{g.max_chips} chips")
    raise errors.UserError(f"--topology={topology}: {generation} does not come in it; expected "
                           f"{offered}")
  return Slice(g, topology)


def of_type(accelerator_type: str) -> Generation:
  """The generation of gcloud's accelerator type, e.g. of_type("v5litepod-16").

  Raises:
    UserError: no such type, or not offered as a TPU VM.
  """
  prefix, _, number = accelerator_type.rpartition("-")
  generations = {g.type_prefix: g for g in GENERATIONS.values() if g.runtime}
  if prefix not in generations or not number.isdigit() or int(number) < 1:
    examples = ", ".join(f"{name}-{8 if g.units_per_chip == 2 else 4}"
                         for name, g in generations.items())
    raise errors.UserError(f"--type={accelerator_type}: unknown accelerator type"
                           f"{_near(prefix, generations)}; expected a number after one of "
                           f"{', '.join(generations)}, e.g. {examples}")
  g = generations[prefix]
  if int(number) % g.units_per_chip:
    raise errors.UserError(f"--type={accelerator_type}: the number counts TensorCores, of which a "
                           f"chip has {g.units_per_chip}: make it even")
  return g


def devices_of_type(accelerator_type: str) -> int:
  """The number that jax.device_count() will return."""
  return _chips_of_type(accelerator_type) * of_type(accelerator_type).devices_per_chip


def hosts_of_type(accelerator_type: str) -> int:
  chips = _chips_of_type(accelerator_type)
  one_host = 8 if of_type(accelerator_type).flat else 4
  return 1 if chips <= one_host else math.ceil(chips / 4)


def _chips_of_type(accelerator_type: str) -> int:
  return int(accelerator_type.rpartition("-")[2]) // of_type(accelerator_type).units_per_chip


def _comes_in(g: Generation, topology: str) -> bool:
  sizes = [int(n) for n in topology.split("x")]
  if g.flat:
    return topology in _FLAT
  return topology in _SMALL_CUBES or (
      len(sizes) == 3 and sizes == sorted(sizes) and not any(n % 4 for n in sizes)
      and math.prod(sizes) <= g.max_chips)


def _near(name: str, names) -> str:
  close = difflib.get_close_matches(name, list(names), 1)
  return f", did you mean {close[0]}?" if close else ""
