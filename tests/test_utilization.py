"""Useful FLOPs by hand: who needs a gradient decides what a product costs."""
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.models import language_model
from ilm_jax.monitoring import utilization
from ilm_jax.objectives import phase2
from tests import small_configs, test_objectives

B, C, W, D = 3, 5, 7, 11


def useful(loss, trainable, frozen):
  batch = {"x": jnp.zeros((B, C))}
  return utilization.useful_flops(lambda *args: (loss(*args[:3]), {}), trainable, frozen, batch)


def test_trained_frozen_and_what_nobody_needs():
  """x A is a trained weight on data; (..) F passes a gradient through; y G is before all that is
  trained; A A' needs both sides; what only integers or a stop come from passes nothing on."""
  tree = {"a": jnp.zeros((C, W))}
  frozen = {"f": jnp.zeros((W, D)), "g": jnp.zeros((C, D))}

  def loss(t, f, b):
    hidden_BW = b["x"] @ t["a"]                                    # 2 B C W, twice
    out_BD = hidden_BW @ f["f"]                                    # 2 B W D, twice
    data_BD = b["x"] @ f["g"]                                      # 2 B C D, once
    gram_CC = t["a"] @ t["a"].T                                    # 2 C W C, three times
    stopped_BD = jax.lax.stop_gradient(hidden_BW) @ f["f"]         # 2 B W D, once
    whole_BD = jnp.argmax(hidden_BW, axis=1)[:, None] * (jnp.ones((B, 1)) @ jnp.ones((1, D)))
    return jnp.sum(out_BD + data_BD + stopped_BD + whole_BD) + jnp.sum(gram_CC)

  assert useful(loss, tree, frozen) == (
      2 * (2 * B * C * W) + 2 * (2 * B * W * D) + 2 * B * C * D + 3 * (2 * C * W * C)
      + 2 * B * W * D + 2 * B * D)


def test_flops_that_cannot_be_counted_are_a_warning(capsys):
  def loss_fn(*_):
    raise TypeError("no such leaf")

  assert utilization.flops_or_warning("phase2", loss_fn, {}, {}, {}) is None
  assert capsys.readouterr().err.strip() == (
      "warning: phase2: the FLOPs of a step cannot be counted (no such leaf): TFLOP/s and "
      "utilization are not reported")


def test_a_scan_counts_as_often_as_it_runs_and_remat_once():
  """Three layers of a frozen stack; the first sees only data until the carry has met `a`."""
  frozen = {"layers": jnp.zeros((3, C, C))}

  def loss(t, f, b):
    def layer(x_BC, w_CC):
      return jax.checkpoint(lambda x, w: jnp.tanh(x @ w) + t["a"])(x_BC, w_CC), None

    return jnp.sum(jax.lax.scan(layer, b["x"], f["layers"])[0])

  assert useful(loss, {"a": jnp.zeros((B, C))}, frozen) == 3 * 2 * (2 * B * C * C)


def test_a_scan_says_what_it_carries_in_two_ways():
  """`num_consts` to JAX 0.11, a tree of (constants, carries, slices) since 0.12."""
  tree = types.SimpleNamespace(unpack=lambda: ([None] * 3, [None], [None] * 2))
  assert utilization._constants_and_carries({"ft_in": tree, "ft_out": None}) == (3, 1)
  assert utilization._constants_and_carries({"num_consts": 3, "num_carry": 1}) == (3, 1)


def test_phase2_costs_4_a_frozen_weight_and_6_a_trained_one():
  """The language model of the tests, frozen and trained: twice and three times its forward pass,
  apart from attention, which always has its gradients on both sides."""
  lm = test_objectives.LM
  graphdef, trainable = small_configs.phase2(test_objectives.QFORMER, 6, 0.05, seed=0)
  loss = phase2.phase2_loss(graphdef, lm, ("sequential", "elm"))
  params = language_model.init(lm, 5)
  held = test_objectives.frozen() | {"lm": params}
  frozen = utilization.useful_flops(loss, trainable, held, test_objectives.BATCH_2)
  trained = utilization.useful_flops(
      loss, trainable | {"lm": params}, test_objectives.frozen() | {"lm": {}},
      test_objectives.BATCH_2)
  rows, length = test_objectives.BATCH_2["tokens"].shape
  weights = sum(np.prod(x.shape) for x in jax.tree.leaves(params["layers"]) if x.ndim == 3)
  head = np.prod(params["embedding"].shape) * test_objectives.BATCH_2["targets"].size
  assert trained - frozen == 2 * (rows * length * weights + head)


def test_peaks():
  def device(kind):
    return types.SimpleNamespace(device_kind=kind)

  assert utilization.peak([device("TPU v5p")] * 4) == 4 * 459e12
  assert utilization.peak([device("TPU v5p"), device("abacus")]) is None
  assert utilization.peak(jax.devices()) is None


@pytest.mark.parametrize("kind", ["while", "cond"])
def test_loops_of_unknown_length_count_once_and_branches_the_dearest(kind):
  def loss(t, f, b):
    x_BC = b["x"] + jnp.sum(t["a"])
    if kind == "while":
      return jnp.sum(jax.lax.while_loop(lambda x: jnp.sum(x) < 9, lambda x: x @ f["w"], x_BC))
    return jnp.sum(jax.lax.cond(jnp.sum(x_BC) > 0, lambda x: x @ f["w"], lambda x: x, x_BC))

  assert useful(loss, {"a": jnp.zeros(2)}, {"w": jnp.zeros((C, C))}) == 2 * (2 * B * C * C)
