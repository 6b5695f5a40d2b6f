"""Planning without libtpu: names of topologies, collectives of an HLO text, costs by depth."""
import dataclasses
import pathlib
import types

import jax
import numpy as np
import pytest

from configs import base
from ilm_jax import errors
from ilm_jax.config import names
from ilm_jax.planning import arithmetic, costs, estimate, hlo, programs, shapes, table
from ilm_jax.runtime import axes, chips

# A scan of 32 layers as a TPU's compiler writes it, shortened: a gather in it, a tuple summed, a
# loop in the loop, a reducer that is no collective, and one that nothing calls.
HLO = (pathlib.Path(__file__).parent / "golden" / "loops.hlo").read_text()


def test_collectives_count_as_often_as_their_loop_turns():
  found = {(c.kind, c.name): c for c in hlo.collectives(HLO, chips=8)}
  gather = found["all-gather", "jit(step)/while/body/gather"]
  assert (gather.count, gather.bytes, gather.group) == (32, 32 * 16 * 64 * 2, 4)
  assert gather.sent == gather.bytes * 3 / 4
  assert hlo.totals(hlo.collectives(HLO, chips=8)) == {
      # one plain, one chain of three parts
      "all-gather": {"count": 64, "bytes": 131072.0, "sent_bytes": 98304.0},
      # one fused with the slice of its result, one plain; both reduce 128 bytes over 4 chips
      "reduce-scatter": {"count": 2, "bytes": 256.0, "sent_bytes": 192.0},
      "all-reduce": {"count": 32, "bytes": 32 * (2048 + 32.0), "sent_bytes": 32 * (2048 + 32.0)},
      # 32 turns of a loop of 3, which its condition says; what starts counts, what ends does not
      "collective-permute": {"count": 97, "bytes": 97 * 16.0, "sent_bytes": 97 * 16.0},
      # no groups: all chips
      "all-to-all": {"count": 1, "bytes": 256.0, "sent_bytes": 224.0}}


def test_what_runs_beside_computation():
  overlaps = {c.name: c.overlaps for c in hlo.collectives(HLO, chips=8)}
  assert overlaps["chained"] and overlaps["beside"]
  assert not overlaps["jit(step)/while/body/gather"]
  assert not any(c.overlaps for c in hlo.collectives(HLO, chips=8) if c.count == 96)


def test_an_end_belongs_to_the_start_of_that_very_name():
  """The end of %cp.3.1, also with types of operands, does not end %cp.3."""
  ended = "  %d = f32[4] collective-permute-done((f32[4]{{0:T(128)}}, u32[]) %cp.3{})"
  lines = ["  %cp.3 = f32[4] collective-permute-start(%x)", ended.format(".1"),
           "  %f = f32[4] fusion(%y)", ended.format("")]
  assert hlo._computes_before_its_end(lines, 0)
  assert not hlo._computes_before_its_end([lines[0], lines[3], lines[2]], 0)


def test_an_unknown_spelling_of_groups_is_no_guess():
  with pytest.raises(ValueError, match="unknown notation of replica_groups in .*'b'"):
    hlo._group("replica_groups=mesh['a'=4,'b'=8]: {'b'}, x", 64)
  assert hlo._group("replica_groups={}, x", 64) == 64


@pytest.mark.parametrize("line, group", [
    ("replica_groups=[16,4]<=[4,16]T(1,0), x", 4),
    ("replica_groups={{0,2},{1,3}}, x", 2),
    ("replica_groups=mesh['a'=4,'b'=2,'c'=8] {'a','c'}, x", 32),
    ("replica_groups=mesh['a'=4,'b'=8] {'b':(2)4}, x", 4),
    ("replica_groups=mesh['a'=2,'b'=8], device_ids=([4,4]T(1,0)) {'b'}, dimensions={1}, x", 8),
    ("channel_id=1", 64)])
def test_groups_in_every_spelling(line, group):
  assert hlo._group(line, 64) == group


def test_a_program_of_this_machine_is_read_too():
  """A matmul over a spread axis in a scan of 5: 5 sums, of one kind or another."""
  mesh = axes.make_mesh({"data": 8})
  over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "data"))

  def f(x, w):
    return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=5)[0]

  x, w = (jax.ShapeDtypeStruct((16, 16), "float32", sharding=over) for _ in range(2))
  text = jax.jit(f, out_shardings=over).lower(x, w).compile().as_text()
  assert sum(x["count"] for x in hlo.totals(hlo.collectives(text, 8)).values()) >= 5


def test_costs_lie_on_a_line():
  at = {1: costs.Costs(110.0, 30.0, 1.0), 3: costs.Costs(130.0, 70.0, 1.5)}
  assert costs.extrapolate(at, 32) == costs.Costs(420.0, 650.0, 1.0 + 31 * 0.25)
  assert costs.extrapolate(at, 1) == at[1]


@pytest.mark.parametrize("said, size", [
    ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries "
     "(191.42G) exceeds available HBM (95.74G).", 191.42 * 2 ** 30),
    ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm. "
     "Exceeded hbm capacity by 1.75G.", 17.5 * 2 ** 30),
    ("RESOURCE_EXHAUSTED: something else", 0)])
def test_what_xla_says_it_needs(said, size):
  assert costs.needed_bytes(said) == int(size)


class Stubborn:
  """A program that does not compile."""

  def __init__(self, message):
    self.message = message

  def lower(self):
    raise jax.errors.JaxRuntimeError(self.message)


def test_out_of_memory_is_an_answer_and_other_errors_are_not():
  assert costs.compile_or_say(Stubborn("RESOURCE_EXHAUSTED: a\n  b")) == (
      None, "RESOURCE_EXHAUSTED: a b")
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    costs.compile_or_say(Stubborn("INTERNAL: a bug"))


@pytest.mark.parametrize("text, chips_, slices", [
    ("v5p:4x4x4", 64, 1), ("v5p:4x4x4*2", 128, 2), ("V5E:4x4", 16, 1), ("v4:2x2x1", 4, 1),
    ("v6e:16x16", 256, 1), ("h100:8", 8, 1)])
def test_names_of_topologies(text, chips_, slices):
  topology = chips.parse(text)
  assert (topology.chips, topology.slices) == (chips_, slices)
  assert topology.name == text.lower()


@pytest.mark.parametrize("text, says", [
    ("v5q:4x4x4", "no chip is called 'v5q': did you mean v5"),
    ("v5litepod:4x4", "did you mean"),
    ("v5p:4x4", "a slice of v5p has 3 axes, found 2; e.g. .*v5p:4x4x4"),
    ("v5e:4x4x4", "a slice of v5e has 2 axes, found 3; e.g. .*v5e:4x4"),
    ("v5p", "a slice of v5p has 3 axes, found 0"),
    ("v5e:0x4", "e.g. v5e:"),
    ("v5e:4x4*0", "1 slice or more"),
    ("", "no chip is called ''")])
def test_wrong_names_are_answered_with_near_ones(text, says):
  with pytest.raises(errors.UserError, match=says):
    chips.parse(text)


def test_without_libtpu_the_cure_is_named(monkeypatch):
  monkeypatch.setattr(chips.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(errors.UserError, match="pip install -r requirements-plan.lock"):
    chips.devices(chips.parse("v5e:4x4"))


def test_names_of_shapes_are_those_of_the_config():
  assert tuple(shapes.SHAPES) == names.SHAPES


@pytest.mark.parametrize("name, parameters", [
    ("llama-2-7b", 6.738e9), ("palm-62b", 62.5e9), ("gemma-3-4b", 3.88e9)])
def test_shapes_have_as_many_parameters_as_published(name, parameters):
  from ilm_jax.models import language_model
  sizes = [x.size for x in jax.tree.leaves(language_model.abstract_params(shapes.SHAPES[name]))]
  assert sum(sizes) == pytest.approx(parameters, rel=1e-3)


def config(**changes):
  c = base.get_config()
  with c.unlocked():
    c.lm.update(shape="llama-2-7b", dtype="bfloat16", remat="weights")
    c.phase2.update(rows=64, length=512, targets=64)
    c.update_from_flattened_dict(changes)
  return c


def plan(c, mesh, topology="h100:8", lm=None):
  lm = lm or shapes.of(c.lm)
  program = programs.phase2(c, lm, axes.abstract_mesh(mesh))
  return arithmetic.plan(c, lm, program, chips.parse(topology))


WHOLE = {"data": 8, "fsdp": 1, "tensor": 1}


def test_useful_flops_are_four_a_frozen_weight_and_six_a_trained_one():
  c = config()
  layers = 32 * (4 * 4096 ** 2 + 3 * 4096 * 11008)
  frozen = layers * 64 * 512 + 32000 * 4096 * 64 * 64
  attention = 32 * 2 * 64 * 512 ** 2 * 4096      # scores and sums: a gradient on either side
  trained = plan(c, WHOLE)["useful_flops"] - 4.0 * frozen - 6.0 * attention
  q = 4
  soft = 64 * c.phase2.slots * q
  qformer = 6 * (14 * 384 ** 2 + 2 * q * 384) + 64 * 384 + 384 * 4096
  mlp = 64 * 640 / q + 640 * 4096
  assert trained / 6 / soft == qformer + mlp


def test_phase_1_counts_what_passes_through_each_part():
  """Without text losses only the query path counts."""
  c = config()
  with c.unlocked():
    c.phase1.losses.update(itc=0.0, itm=0.0, itg=0.0)
    c.phase1.update(batch_size=8, pair_batch_size=8)
  pairs = programs.phase1(c, axes.abstract_mesh(WHOLE)).useful_flops()
  entities, q = 32, 4
  layers = 6 * (4 * 384 ** 2 + 2 * 384 * 1536 + 2 * 384 ** 2) * q + 64 * 384 * q
  attention = 6 * 2 * q ** 2 * 384
  similarity = 2 * (8 * q) ** 2 * 384            # of the 8 pairs of either kind
  heads = 384 * 384 * q
  assert pairs == 6.0 * (entities * (layers + attention + heads) + similarity)


def test_arithmetic_knows_what_does_not_fit():
  assert plan(config(), WHOLE)["fits"]
  assert not plan(config(**{"lm.shape": "palm-62b"}), WHOLE)["fits"]
  spread = plan(config(**{"lm.shape": "palm-62b"}), {"data": 1, "fsdp": 8, "tensor": 1})
  assert spread["fits"]
  assert spread["collectives"]["all-gather"]["bytes"] == pytest.approx(2 * 2 * 60.4e9, rel=0.01)


def test_logits_of_words_that_cannot_be_said_are_not_kept():
  """256 places at a time, three arrays of float32."""
  words = {"lm.new_tokens": 1000, "lm.index_only": True}
  few, every = (plan(config(**words | {"lm.index_only": only}), WHOLE)["activation_bytes_per_chip"]
                for only in (True, False))
  assert every - few == 3 * 4 * 256 * 32000


def test_a_model_that_trains_whole_is_planned_and_int8_computes_in_float32():
  whole = config(**{"lm.train": "all", "lm.dtype": "float32"})
  useful = [plan(c, WHOLE, lm=TINY)["useful_flops"] for c in (whole, config())]
  assert useful[0] > useful[1]
  assert shapes.of(config(**{"lm.dtype": "int8"}).lm).dtype == "float32"


def test_arithmetic_sums_over_tensor():
  found = plan(config(), {"data": 4, "fsdp": 1, "tensor": 2})["collectives"]
  assert found == {"all-reduce": {"count": 128, "bytes": 128 * 16 * 512 * 4096 * 2,
                                  "sent_bytes": 128 * 16 * 512 * 4096 * 2}}


def test_full_remat_keeps_less_and_computes_more():
  some, none = plan(config(), WHOLE), plan(config(**{"lm.remat": "full"}), WHOLE)
  assert none["activation_bytes_per_chip"] < some["activation_bytes_per_chip"] / 3
  assert none["compiled_over_useful_flops"] == pytest.approx(
      1.5 * some["compiled_over_useful_flops"])


def test_plan_says_whose_number_the_time_is():
  memory = costs.Memory(True, 10, 1, 5, 16)
  one = hlo.Collective("all-gather", 2, 400e9, 200e9, 4, "", True)
  alone = dataclasses.replace(one, sent=100e9, overlaps=False)
  measured = costs.Measured(memory, 64 * 400e12, costs.Costs(459e12, 2765e9 / 2, 2.0),
                            (one, alone))
  v5p = estimate.plan(chips.parse("v5p:4x4x4"), measured)
  assert v5p["estimated_step_seconds"] == 2.0 and "XLA" in v5p["estimate_of"]
  assert v5p["useful_utilization"] == pytest.approx(400 / 459 / 2)
  assert v5p["compiled_over_useful_flops"] == pytest.approx(459 / 400)
  line = v5p["roofline_seconds"]
  assert (line["compute"], line["memory"], line["collectives"]) == (1.0, 0.5, 1.0)
  assert (line["overlapped"], line["serial"]) == (1.0, 2.0)
  assert (line["exposed"], line["scheduled"]) == pytest.approx((1 / 3, 4 / 3))
  v5e = estimate.plan(chips.parse("v5e:8x8"), measured)
  assert "roofline" in v5e["estimate_of"] and v5e["xla_optimal_seconds"] is None
  assert v5e["estimated_step_seconds"] == v5e["roofline_seconds"]["scheduled"]
  assert "XLA's model" in table.one({**v5p, "phase": 1, "mesh": WHOLE, "rows": 8, "pairs": 8})


def test_what_does_not_fit_has_a_table_too():
  memory = costs.Memory(False, 10, 1, 5, 2 ** 40, "RESOURCE_EXHAUSTED: 1.0T")
  found = estimate.plan(chips.parse("v5p:4x4x4"), costs.Measured(memory, 1e15, None, ()))
  assert not found["fits"] and found["useful_utilization"] is None
  text = table.one({**found, "phase": 1, "mesh": WHOLE, "rows": 8, "pairs": 8})
  assert "1024.00 GiB of 95.00 GiB: DOES NOT FIT" in text and "RESOURCE_EXHAUSTED" in text


def test_time_of_arithmetic_is_added_where_xla_adds_it():
  c = config(**{"mesh.data": 64, "phase2.rows": 256})
  v5p, v6e = (plan(c, c.mesh.to_dict(), t) for t in ("v5p:4x4x4", "v6e:8x8"))
  line = v5p["roofline_seconds"]
  assert v5p["estimated_step_seconds"] == line["compute"] + line["memory"] + line["collectives"]
  assert v6e["estimated_step_seconds"] == v6e["roofline_seconds"]["serial"]


def test_every_depth_adds_one_layer():
  """Also the first: logits cut into turns are counted in all depths or in none."""
  c = base.get_config()
  with c.unlocked():
    c.phase2.update(rows=8, length=80, slots=2, targets=64)
    c.qformer.update(num_layers=1, cross_every=1, width=24, num_heads=2, mlp_width=32,
                     proj_width=24, num_queries=2)
    c.plan.entities = 5
  lm = dataclasses.replace(shapes.SHAPES["llama-2-7b"], width=16, num_heads=2, num_kv_heads=2,
                           head_dim=8, mlp_width=24, vocab_size=300)
  mesh = axes.make_mesh({"data": 1}, jax.devices()[:1])
  flops = [programs.phase2(c, shapes.with_layers(lm, n, unroll=True), mesh, unroll=True).lower()
           .cost_analysis()["flops"] for n in (1, 2, 3)]
  assert flops[1] - flops[0] == pytest.approx(flops[2] - flops[1], rel=1e-3)


def test_unrolled_programs_are_the_same_step():
  """The loss of one step, layers and Q-Former in loops or one after the other."""
  c = base.get_config()
  with c.unlocked():
    c.phase2.update(rows=2, length=16, slots=2, targets=4, dropout=0.0, vector_noise=0.0)
    c.qformer.update(num_layers=2, cross_every=1, width=24, num_heads=2, mlp_width=32,
                     proj_width=24, num_queries=2)
    c.plan.entities = 5
  lm = dataclasses.replace(shapes.SHAPES["llama-2-7b"], num_layers=2, width=16, num_heads=2,
                           num_kv_heads=2, head_dim=8, mlp_width=24, vocab_size=300)
  mesh = axes.make_mesh({"data": 2}, jax.devices()[:2])
  rng = np.random.default_rng(0)
  looped = programs.phase2(c, lm, mesh)
  values = jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape) * 0.1, x.dtype),
                        (looped.state.trainable, looped.frozen))
  batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), looped.batch)
  batch["weights"] += 1
  batch["slot"][:, :4] = np.arange(4)
  batch["entities"] += 1
  batch["tokens"][:] = rng.integers(0, 300, batch["tokens"].shape)
  unrolled = programs.phase2(c, shapes.with_layers(lm, 2, unroll=True), mesh, unroll=True)
  got = [float(jax.jit(p.loss)(*values, batch, None)[0]) for p in (looped, unrolled)]
  assert got[0] == pytest.approx(got[1], rel=1e-5)
  assert 1 < got[0] < 100


def test_microbatches_are_part_of_the_planned_step():
  """The program that trains: a loop over halves of the rows, whose weights are gathered twice."""
  c = base.get_config()
  with c.unlocked():
    c.phase2.update(rows=4, length=32, slots=4, targets=8)
    c.qformer.update(num_layers=1, cross_every=1, width=24, num_heads=2, mlp_width=32,
                     proj_width=24, num_queries=2)
    c.plan.entities = 5
  lm = dataclasses.replace(shapes.SHAPES["llama-2-7b"], num_layers=2, width=16, num_heads=2,
                           num_kv_heads=2, head_dim=8, mlp_width=24, vocab_size=300)
  mesh = axes.make_mesh({"data": 1, "fsdp": 2}, jax.devices()[:2])

  def lowered(unroll=False):
    model = shapes.with_layers(lm, 2, unroll=True) if unroll else lm
    return programs.phase2(c, model, mesh, unroll=unroll).lower()

  whole, drawn_out = lowered(), lowered(unroll=True).as_text()
  counted = plan(c, dict(mesh.shape) | {"tensor": 1}, "h100:2", lm)
  c.phase2.microbatches = 2
  halves = lowered()
  assert "tensor<4x32x16x" in whole.as_text() and "tensor<4x32x16x" not in halves.as_text()
  assert "tensor<2x32x16x" in halves.as_text()
  assert lowered(unroll=True).as_text() == drawn_out      # costs: of all rows, in no loop
  again = plan(c, dict(mesh.shape) | {"tensor": 1}, "h100:2", lm)
  assert again["activation_bytes_per_chip"] < counted["activation_bytes_per_chip"]
  gathers = [x["collectives"]["all-gather"]["sent_bytes"] for x in (counted, again)]
  assert gathers[1] == 2 * gathers[0] and again["useful_flops"] == counted["useful_flops"]


TINY = dataclasses.replace(shapes.SHAPES["llama-2-7b"], num_layers=3, width=32, num_heads=2,
                           num_kv_heads=2, head_dim=16, mlp_width=48, vocab_size=300)


def ranking(**changes):
  """Rows that say words beside rows that only rank, two layers deep; a catalogue read once."""
  c = base.get_config()
  with c.unlocked():
    c.tasks.mixture.update(dict.fromkeys(c.tasks.mixture, 0.0) | {"next_item": 1.0,
                                                                 "elm_title": 1.0})
    c.phase2.update(rows=4, length=32, slots=4, targets=8, skip=True, dropout=0.0,
                    vector_noise=0.0)
    c.phase2.head.update(weight=1.0, rows=4, length=24, slots=16, rows_per_group=4, layer=2,
                         queries=1)
    c.qformer.update(num_layers=2, cross_every=1, width=32, num_heads=2, mlp_width=64,
                     proj_width=32, num_queries=2)
    c.plan.update(entities=700, catalogue=600)
    c.update_from_flattened_dict(changes)
  return c


def one_device():
  return axes.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])


def test_an_estimate_of_unknown_operations_is_none(monkeypatch):
  """XLA adds -1 s for an operation that it does not know; the FLOPs of kernels are ours."""
  program = types.SimpleNamespace(kernel_flops=lambda: 2e12)
  chip = chips.Chip(1e12, 0, 0, 0, dims=2)
  told = {"flops": 3e12, "bytes accessed": 5.0}
  for seconds, want in ((0.5, 2.5), (-0.98, 0.0)):
    compiled = types.SimpleNamespace(
        cost_analysis=lambda seconds=seconds: told | {"optimal_seconds": seconds})
    monkeypatch.setattr(costs, "compile_or_say", lambda _, compiled=compiled: (compiled, ""))
    assert costs._costs(program, chip) == costs.Costs(5e12, 5.0, want)
  known, unknown = costs.Costs(1.0, 1.0, 0.4), costs.Costs(2.0, 2.0, 0.0)
  assert costs.extrapolate({1: known, 2: unknown}, 4) == costs.Costs(4.0, 4.0, 0.0)


def test_ranking_rows_and_their_catalogue_cost_what_xla_counts(monkeypatch):
  """FLOPs drawn out from few layers are those of the whole step, and near what is counted by hand;
  without ranking rows and head both are far off."""
  monkeypatch.setattr(costs, "compile_or_say", lambda program: (program.lower(), ""))
  c = ranking()
  whole = programs.phase2(c, shapes.with_layers(TINY, 3, unroll=True), one_device(), unroll=True)
  counted = whole.lower().cost_analysis()["flops"]
  useful = programs.phase2(c, TINY, one_device()).useful_flops()
  drawn_out = costs._drawn_out(c, TINY, one_device(), chips.CHIPS["v5e"])
  assert drawn_out.flops == pytest.approx(counted, rel=0.01)
  assert 0.7 * counted < useful < counted
  headless = ranking(**{"tasks.mixture.next_item": 0.0, "phase2.head.weight": 0.0})
  assert programs.phase2(headless, TINY, one_device()).useful_flops() < 0.5 * useful


def test_drawn_items_and_fewer_rows_are_planned_to_cost_less():
  """A catalogue of 100,000: memory, work and time of what is read of it; microbatches read it
  again."""
  def planned(topology="h100:1", **changes):
    c = ranking(**{"plan.entities": 200_000, "plan.catalogue": 100_000, **changes})
    return plan(c, {"data": 1, "fsdp": 1, "tensor": 1}, topology, TINY)

  all_of_it, drawn = planned(), planned(**{"phase2.head.negatives": 1000})
  fewer = planned(**{"phase2.head.negatives": 1000, "phase2.head.rows": 2,
                     "phase2.head.rows_per_group": 2})
  for less, more in ((drawn, all_of_it), (fewer, drawn)):
    for name in ("activation_bytes_per_chip", "useful_flops", "compiled_flops", "bytes_per_chip",
                 "estimated_step_seconds"):
      assert less[name] < more[name], name
  assert drawn["activation_bytes_per_chip"] < 0.1 * all_of_it["activation_bytes_per_chip"]
  twice = planned(**{"phase2.microbatches": 2, "phase2.rows_per_group": 2})
  assert twice["useful_flops"] == all_of_it["useful_flops"]
  assert twice["compiled_flops"] > 1.8 * all_of_it["compiled_flops"]


def test_phase_1_of_drawn_items_is_planned_to_cost_less():
  def useful(**changes):
    c = ranking(**{"phase1.candidates": "catalogue", "phase1.losses.itm": 0.0,
                   "phase1.losses.itg": 0.0, "plan.entities": 20_000, "plan.catalogue": 10_000,
                   **changes})
    return programs.phase1(c, one_device()).useful_flops()

  assert useful(**{"phase1.negatives": 100}) < 0.2 * useful()


def test_the_planned_batch_has_the_rows_that_are_trained():
  """Of each kind that there is, and what the projector reads of an entity beside its vector."""
  def batch(**changes):
    program = programs.phase2(ranking(**changes), TINY, one_device())
    return program.batch, program.frozen

  both, frozen = batch(**{"qformer.members": 3, "cf.members": 3, "vectors": ("sequential",)})
  assert both["tokens"].shape == (4, 32) and both["rank"]["tokens"].shape == (4, 24)
  assert "next_at" not in both and "targets" not in both["rank"]
  assert both["rank"]["next_at"].shape == both["rank"]["dropped"].shape + (16,)
  assert frozen["log_draws"].shape == (700,) and frozen["members"].shape == (700, 3)
  assert frozen["vectors"]["sequential"].shape == (700, base.get_config().cf.transition_width)
  assert "never_met" not in frozen
  hides = batch(**{"phase2.vector_dropout": 0.2})[1]
  assert hides["never_met"].shape == (700,) and hides["never_met"].dtype == bool
  assert list(batch(**{"tasks.mixture.elm_title": 0.0})[0]) == ["rank"]
  assert "rank" not in batch(**{"phase2.head.rows": 0, "phase2.head.layer": -1})[0]
