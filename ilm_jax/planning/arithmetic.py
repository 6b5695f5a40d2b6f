"""A plan without a compiler: sizes of shapes, matmuls counted, collectives by the rules of axes.py.

For chips that nothing here compiles for, and to choose what is worth compiling (search.py).
"""
import dataclasses

from ilm_jax.models import decoder
from ilm_jax.planning import costs, estimate, programs
from ilm_jax.runtime import chips


@dataclasses.dataclass(frozen=True)
class Ratio:
  """How much more a compiler's program takes than is counted here."""
  activations: float = 1.0
  bytes: float = 1.0


AS_COUNTED = Ratio()


def ratio(compiled: dict, counted: dict) -> Ratio:
  """Of two plans of one step, as `estimate.plan` and `plan` have them."""
  moved = compiled["bytes_per_chip"] or counted["bytes_per_chip"]    # None: it does not fit
  return Ratio(compiled["activation_bytes_per_chip"] / counted["activation_bytes_per_chip"],
               moved / counted["bytes_per_chip"])


def plan(c, lm: decoder.DecoderConfig, program: programs.Program,
         topology: chips.Topology, of: Ratio = AS_COUNTED) -> dict:
  """Phase 2's plan, as `estimate.plan` has it, of matmuls and bytes that are counted by hand.

  Args:
    c: config of the run.
    lm: its language model.
    program: its step, whose parameters lie on some mesh.
    topology: of the mesh.
    of: what to multiply by: as a compiler found it for a like step.
  """
  p, chip = c.phase2, topology.chip
  mesh = program.state.step.sharding.mesh
  ways = {n: mesh.shape[n] for n in ("data", "fsdp", "tensor")}
  tokens = p.rows * p.length / (ways["data"] * ways["fsdp"])
  weights = programs.bytes_per_chip((program.state.trainable, program.frozen))
  optimizer = programs.bytes_per_chip(program.state.opt_state)
  width = 1 if lm.int8 else 2 if lm.dtype == "bfloat16" else 4
  layer = sum(x.size for x in program.frozen["lm"]["layers"].values() if len(x.shape) == 3)
  layer = layer * width / lm.num_layers / ways["tensor"]     # bytes of a whole layer on a chip
  parts = p.microbatches                # of which one is held at a time
  activations = lm.num_layers * tokens / parts * kept_bytes(lm, p.length, ways["tensor"])
  gathered = 2 * layer if ways["fsdp"] > 1 else 0.0
  logits = 3 * 4 * min(256, p.targets * p.rows // parts) * lm.vocab_size / ways["tensor"]
  temporaries = of.activations * (activations + gathered + logits)
  peak = int(weights + optimizer + temporaries)
  useful = costs.useful_flops(c, lm, program)
  scores = 4 * 2 * lm.num_layers * p.rows * p.length ** 2 * lm.num_heads * lm.head_dim
  again = {"full": 1.5, "dots": 1.0, "weights": 1.0, "none": 1.0}[lm.remat]
  compiled = again * (useful + scores)
  sent = collectives_by_rules(lm, layer, tokens, ways, parts)
  size = of.bytes * 3 * lm.num_layers * (
      layer * parts + tokens * kept_bytes(lm, p.length, ways["tensor"]))
  line = estimate.roofline(chip, compiled / topology.chips, size,
                           sum(x["sent_bytes"] for x in sent.values()))
  seconds, how = ((line.added, "all added up, as XLA's model does") if chip.modelled else
                  (line.serial, "collectives apart"))
  return {
      "topology": topology.name, "chips": topology.chips, "fits": peak <= chip.memory,
      "peak_bytes_per_chip": peak, "capacity_bytes_per_chip": int(chip.memory),
      "weight_bytes_per_chip": weights, "optimizer_bytes_per_chip": optimizer,
      "activation_bytes_per_chip": int(temporaries), "useful_flops": useful,
      "compiled_flops": compiled, "compiled_over_useful_flops": compiled / useful,
      "bytes_per_chip": size, "collectives": sent, "estimated_step_seconds": seconds,
      "estimate_of": f"arithmetic: roofline, {how}; nothing was compiled",
      "useful_utilization": useful / (seconds * topology.chips * chip.flops),
      "xla_optimal_seconds": None, "roofline_seconds": dataclasses.asdict(line) | {
          "overlapped": line.overlapped, "serial": line.serial}}


def kept_bytes(lm: decoder.DecoderConfig, length: int, tensor: int) -> float:
  """Bytes that a layer keeps of each token for its backward pass, under `lm.remat`."""
  width = 4 if lm.dtype == "float32" else 2
  attention = (lm.num_heads * 2 + lm.num_kv_heads * 2) * lm.head_dim
  mlp = lm.mlp_width * (2 if lm.gated else 1)
  kept = {"full": 0, "weights": attention + mlp, "dots": attention + mlp,
          "none": 2 * attention + 3 * mlp}[lm.remat] / tensor
  scores = {"dots": 4, "none": 8}.get(lm.remat, 0) * lm.num_heads * length / tensor
  return width * (lm.width * (1 if lm.remat == "full" else 2) + kept) + scores


def collectives_by_rules(lm, layer_bytes: float, tokens: float, ways: dict[str, int],
                         parts: int = 1) -> dict:
  """What axes.RULES makes necessary, as `hlo.totals` has it: weights gathered forward and backward
  over fsdp for each microbatch (there are `parts`), activations summed over tensor after attention
  and mlp, forward and backward."""
  totals = {}
  if (n := ways["fsdp"]) > 1:
    size = 2 * lm.num_layers * layer_bytes * parts
    totals["all-gather"] = {"count": 14 * lm.num_layers * parts, "bytes": size,
                            "sent_bytes": size * (n - 1) / n}
  if (n := ways["tensor"]) > 1:
    sums = (1 if lm.parallel else 2) * 2 * lm.num_layers
    size = sums * tokens * lm.width * (4 if lm.dtype == "float32" else 2)
    totals["all-reduce"] = {"count": sums * parts, "bytes": size,
                            "sent_bytes": 2 * size * (n - 1) / n}
  return totals
