"""Plans without a compiler: counts bytes from shapes, FLOPs of matmuls, and collectives by axes.py.

Used for chips without a compiler, and to choose what is worth compiling (search.py).
"""
import dataclasses
from typing import NamedTuple

from ilm_jax.config import mixture
from ilm_jax.models import decoder
from ilm_jax.planning import estimate, programs
from ilm_jax.runtime import chips


@dataclasses.dataclass(frozen=True)
class Ratio:
  """What a compiled program takes, divided by what this module counts."""
  activations: float = 1.0
  bytes: float = 1.0
  exposed: float = 1.0      # the share of collectives that run beside no computation


AS_COUNTED = Ratio()


def ratio(compiled: dict, counted: dict) -> Ratio:
  """The Ratio of two plans of the same step, from `estimate.plan` and from `plan`."""
  moved = compiled["bytes_per_chip"] or counted["bytes_per_chip"]    # None: it does not fit
  line = compiled.get("roofline_seconds") or {}                      # likewise
  exposed = line["exposed"] / line["collectives"] if line.get("collectives") else 1.0
  return Ratio(compiled["activation_bytes_per_chip"] / counted["activation_bytes_per_chip"],
               moved / counted["bytes_per_chip"], exposed)


def plan(c, lm: decoder.DecoderConfig, program: programs.Program,
         topology: chips.Topology, of: Ratio = AS_COUNTED) -> dict:
  """Phase 2's plan with the fields of `estimate.plan`, from counted matmuls and bytes.

  Args:
    c: config of the run.
    lm: its language model.
    program: its step, with parameters placed on a mesh.
    topology: of the mesh.
    of: factors for the counts, from a compiled plan of a similar step.
  """
  chip, parts = topology.chip, c.phase2.microbatches     # one microbatch is in memory at a time
  mesh = program.state.step.sharding.mesh
  ways = {n: mesh.shape[n] for n in ("data", "fsdp", "tensor")}
  spread = ways["data"] * ways["fsdp"]
  weights = programs.bytes_per_chip((program.state.trainable, program.frozen))
  optimizer = programs.bytes_per_chip(program.state.opt_state)
  width = 1 if lm.int8 else 2 if lm.dtype == "bfloat16" else 4
  of_lm = {**program.frozen["lm"], **program.state.trainable.get("lm", {})}
  layer = sum(x.size for x in of_lm["layers"].values() if len(x.shape) == 3)
  layer = layer * width / lm.num_layers / ways["tensor"]     # bytes of a gathered layer on a chip
  runs = passes(c, lm, spread)
  kept = sum(run.layers * run.tokens * kept_bytes(lm, run.length, ways["tensor"]) for run in runs)
  # Like axes.constrain: a count that does not divide is not sharded.
  entities = sum(n if n % spread else n / spread for n in entities_read(c))
  of_entities = entities * program.entity_bytes() + 3 * 4 * scores(c) / spread
  gathered = 2 * layer if ways["fsdp"] > 1 else 0.0
  targets = c.phase2.targets * c.phase2.rows if mixture.said_tasks(c) else 0
  words = lm.new_tokens + (0 if lm.index_only else lm.vocab_size)      # columns of the logits
  logits = 3 * 4 * min(256, targets // parts) * words / ways["tensor"]
  temporaries = of.activations * (kept / parts + of_entities + gathered + logits)
  peak = int(weights + optimizer + temporaries)
  useful = program.useful_flops()
  again = {"full": 1.5, "dots": 1.0, "weights": 1.0, "none": 1.0}[lm.remat]
  compiled = again * useful + program.again_flops()
  sent = collectives_by_rules(lm, layer, runs, ways, parts)
  size = of.bytes * 3 * (sum(run.layers for run in runs) * layer * parts + kept
                         + of_entities * parts)
  in_all = sum(x["sent_bytes"] for x in sent.values())
  line = estimate.roofline(chip, compiled / topology.chips, size, in_all, of.exposed * in_all)
  seconds, how = ((line.added, "no overlap, as in XLA's model") if chip.modelled else
                  (line.scheduled, "no overlap of collectives" if of.exposed == 1 else
                   "collectives overlap as in the compiled plan"))
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
  """Bytes that a layer stores per token for its backward pass, under `lm.remat`.

  Args:
    lm: the language model.
    length: of a row, in tokens.
    tensor: size of the mesh's tensor axis.
  """
  width = 4 if lm.dtype == "float32" else 2
  attention = (lm.num_heads * 2 + lm.num_kv_heads * 2) * lm.head_dim
  mlp = lm.mlp_width * (2 if lm.gated else 1)
  kept = {"full": 0, "weights": attention + mlp, "dots": attention + mlp,
          "none": 2 * attention + 3 * mlp}[lm.remat] / tensor
  scores = {"dots": 4, "none": 8}.get(lm.remat, 0) * lm.num_heads * length / tensor
  return width * (lm.width * (1 if lm.remat == "full" else 2) + kept) + scores


class Pass(NamedTuple):
  """Rows of a step that run together through the language model."""
  layers: int
  tokens: float             # of all these rows, per chip
  length: int               # of a row, in tokens


def passes(c, lm: decoder.DecoderConfig, spread: int) -> list[Pass]:
  """Passes of phase 2's step over `spread` chips: rows with target texts, rows that only rank."""
  p, found = c.phase2, []
  if mixture.said_tasks(c):
    found.append(Pass(lm.num_layers, p.rows * p.length / spread, p.length))
  if mixture.rank_tasks(c):
    layers = p.head.layer if 0 <= p.head.layer < lm.num_layers else lm.num_layers
    found.append(Pass(layers, p.head.rows * p.head.length / spread, p.head.length))
  return found


def entities_read(c) -> list[int]:
  """Entities in each pass of the projector, for one microbatch of phase 2.

  With a softmax over all items every microbatch passes the whole catalogue. If ranking rows hold
  items alone, this pass also serves their slots.
  """
  p, parts = c.phase2, c.phase2.microbatches
  slots = p.rows * p.slots // parts if mixture.said_tasks(c) else 0
  found, ranked, scored = [slots] * (slots > 0), mixture.rank_tasks(c), _scored(c)
  if ranked and not (scored == programs.num_items(c) and mixture.ranks_items_only(c)):
    found.append(_asked(c))
  if scored == programs.num_items(c):
    return found + [scored + mixture.ranks_items_only(c)]       # + 1: the padding row
  return found + [_asked(c) + scored] * (scored > 0)


def scores(c) -> int:
  """Logits in one microbatch, of the item head and of each of its teachers."""
  head = c.phase2.head
  teachers = bool(head.distil) + bool(head.distil_transitions) + bool(head.distil_ease)
  return _asked(c) * _scored(c) * (1 + teachers)


def _asked(c) -> int:
  """Positions of one microbatch at which the item head predicts the next item."""
  p = c.phase2
  if mixture.rank_tasks(c):
    return p.head.rows * p.head.slots // p.microbatches
  return p.rows * p.slots // p.microbatches if p.head.weight else 0


def _scored(c) -> int:
  """Candidates in the head's softmax (drawn ones, without the right item, or all); 0: no head."""
  head, every = c.phase2.head, programs.num_items(c)
  return min(head.negatives or every, every) if head.weight else 0


def collectives_by_rules(lm, layer_bytes: float, runs: list[Pass], ways: dict[str, int],
                         parts: int = 1) -> dict:
  """Collectives that axes.RULES requires, in the form of `hlo.totals`.

  Over fsdp weights are gathered forward and backward, in each of `parts` microbatches. Over tensor
  activations are summed after attention and MLP, forward and backward.
  """
  totals, layers = {}, sum(run.layers for run in runs)
  if (n := ways["fsdp"]) > 1:
    size = 2 * layers * layer_bytes * parts
    totals["all-gather"] = {"count": 14 * layers * parts, "bytes": size,
                            "sent_bytes": size * (n - 1) / n}
  if (n := ways["tensor"]) > 1:
    sums = (1 if lm.parallel else 2) * 2
    size = sums * sum(run.layers * run.tokens for run in runs) * lm.width * (
        4 if lm.dtype == "float32" else 2)
    totals["all-reduce"] = {"count": sums * layers * parts, "bytes": size,
                            "sent_bytes": 2 * size * (n - 1) / n}
  return totals
