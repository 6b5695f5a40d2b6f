"""Estimates how long a step takes from its costs."""
import dataclasses

from ilm_jax.planning import costs, hlo
from ilm_jax.runtime import chips


@dataclasses.dataclass(frozen=True)
class Roofline:
  """Seconds that each kind of a step's work takes alone, at published peaks."""
  compute: float
  memory: float             # for all bytes that XLA counts, even those that stay on the chip
  collectives: float        # bytes sent around rings, over half of the links (one direction)
  exposed: float            # the part of it that runs beside no computation

  @property
  def overlapped(self) -> float:
    """The lower bound: all kinds of work overlap."""
    return max(self.compute, self.memory, self.collectives)

  @property
  def serial(self) -> float:
    """Matmuls and memory traffic overlap; collectives do not."""
    return max(self.compute, self.memory) + self.collectives

  @property
  def scheduled(self) -> float:
    """Collectives that the compiler runs beside computation overlap with it; the others do not.

    Each may take as long as all computation of the step; beside its own fusions alone some would
    not end in time.
    """
    beside = self.collectives - self.exposed
    return max(self.compute, self.memory, beside) + self.exposed

  @property
  def added(self) -> float:
    """No overlap: close to XLA's own estimate of a program."""
    return self.compute + self.memory + self.collectives


def roofline(chip: chips.Chip, flops: float, size: float, sent: float, exposed: float | None = None
             ) -> Roofline:
  """The roofline of one chip.

  Args:
    chip: its published peaks.
    flops: FLOPs of the chip in a step.
    size: bytes of memory that it reads and writes.
    sent: bytes that it sends to other chips.
    exposed: those of them that are sent while nothing is computed; None: all.
  """
  seconds = lambda size: size / (chip.links / 2)  # noqa: E731
  return Roofline(flops / chip.flops, size / chip.bandwidth, seconds(sent),
                  seconds(sent if exposed is None else exposed))


def plan(topology: chips.Topology, measured: costs.Measured) -> dict:
  """The plan of a compiled step, as plan.json holds it."""
  chip, memory = topology.chip, measured.memory
  result = {
      "topology": topology.name, "chips": topology.chips, "fits": memory.fits,
      "peak_bytes_per_chip": memory.peak, "capacity_bytes_per_chip": int(chip.memory),
      "weight_bytes_per_chip": memory.weights, "optimizer_bytes_per_chip": memory.optimizer,
      "activation_bytes_per_chip": memory.activations, "useful_flops": measured.useful_flops,
      "compiled_flops": None, "compiled_over_useful_flops": None, "bytes_per_chip": None,
      "collectives": hlo.totals(list(measured.collectives)),
      "largest_collectives": [dataclasses.asdict(x) for x in sorted(
          measured.collectives, key=lambda x: -x.sent)[:20]], "estimated_step_seconds": None,
      "estimate_of": None, "useful_utilization": None}
  if memory.said:
    result["xla_says"] = memory.said[:500]
  if measured.costs is None:
    return result
  sent = sum(x.sent for x in measured.collectives)
  line = roofline(chip, measured.costs.flops, measured.costs.bytes, sent,
                  sum(x.sent for x in measured.collectives if not x.overlaps))
  xla = (measured.costs.optimal_seconds or None) if chip.modelled else None
  seconds = xla or line.scheduled
  compiled = measured.costs.flops * topology.chips
  return result | {
      "compiled_flops": compiled, "compiled_over_useful_flops": compiled / measured.useful_flops,
      "bytes_per_chip": measured.costs.bytes, "estimated_step_seconds": seconds,
      "estimate_of": ("XLA's model (optimal_seconds)" if xla else
                      "roofline, collectives overlap as compiled"),
      "useful_utilization": measured.useful_flops / (seconds * topology.chips * chip.flops),
      "xla_optimal_seconds": xla, "roofline_seconds": dataclasses.asdict(line) | {
          "overlapped": line.overlapped, "scheduled": line.scheduled, "serial": line.serial}}
