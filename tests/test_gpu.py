"""GPUs, of which none is at hand: flags, dtype, the choice of attention, what a plan assumes."""
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilm_jax.config import settings
from ilm_jax.configs import base
from ilm_jax.models import attention
from ilm_jax.planning import table
from ilm_jax.runtime import chips, gpu
from ilm_jax.training import totals


def test_flags_are_added_once_and_never_over_the_users():
  environ = {"XLA_FLAGS": "--mine=1"}
  gpu.prepare(environ, installed=True)
  gpu.prepare(environ, installed=True)
  assert environ == {"XLA_FLAGS": "--mine=1 --xla_gpu_enable_latency_hiding_scheduler=true",
                     "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"}
  own = {"XLA_FLAGS": "--xla_gpu_enable_latency_hiding_scheduler=false",
         "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}
  before = dict(own)
  gpu.prepare(own, installed=True)
  assert own == before


def test_without_a_gpu_plugin_nothing_is_set():
  environ = {}
  gpu.prepare(environ, installed=False)
  assert environ == {}


def test_xla_knows_the_flags():
  """It ends the process at one that it does not know."""
  environ = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
  gpu.prepare(environ, installed=True)
  program = "import jax; jax.devices(); print('started')"
  done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True,
                        text=True, check=False)
  assert done.stdout == "started\n", done.stderr[-500:]


def device(platform, capability=None):
  return types.SimpleNamespace(platform=platform, compute_capability=capability)


@pytest.mark.parametrize(("devices", "has"), [
    ([device("gpu", "9.0")], True), ([device("gpu", "7.5")], False), ([device("tpu")], True),
    ([device("gpu", "8.0"), device("gpu", "7.0")], False), ([device("cpu")], False),
    ([device("gpu", "10.3")], True)])
def test_who_multiplies_in_bfloat16(devices, has):
  assert gpu.has_bfloat16(devices) is has


@pytest.mark.parametrize(("asked", "train", "has", "dtype"), [
    ("auto", "none", True, "bfloat16"), ("auto", "lora", True, "bfloat16"),
    ("auto", "none", False, "float32"), ("auto", "all", True, "float32"),
    ("float32", "none", True, "float32"), ("int8", "none", False, "int8")])
def test_the_dtype_follows_the_devices_where_it_is_left_open(asked, train, has, dtype):
  assert chips.dtype(asked, train, has_bfloat16=has) == dtype


@pytest.mark.parametrize(("implementation", "backend", "dtype", "sizes", "more", "by"), [
    ("auto", "gpu", "bfloat16", (64, 128, 64), {}, "cudnn"),
    ("auto", "gpu", "float16", (2, 64, 64), {}, "cudnn"),
    ("auto", "gpu", "float32", (64, 128, 64), {}, "plain"),
    ("auto", "gpu", "bfloat16", (1, 128, 64), {}, "plain"),          # decoding token by token
    ("auto", "gpu", "bfloat16", (64, 256, 64), {}, "plain"),         # Gemma 3's heads
    ("auto", "gpu", "bfloat16", (64, 100, 64), {}, "plain"),
    ("auto", "gpu", "bfloat16", (64, 128, 64), {"softcap": True}, "plain"),
    ("auto", "gpu", "bfloat16", (64, 128, 64), {"bias": True}, "plain"),
    ("auto", "tpu", "bfloat16", (64, 128, 64), {}, "plain"),
    ("auto", "cpu", "bfloat16", (64, 128, 64), {}, "plain"),
    ("xla", "cpu", "float32", (3, 5, 7), {"bias": True}, "xla"),
    ("xla", "gpu", "float32", (3, 5, 7), {"softcap": True}, "plain"),
    ("plain", "gpu", "bfloat16", (64, 128, 64), {}, "plain")])
def test_what_works_out_an_attention(implementation, backend, dtype, sizes, more, by):
  assert attention.chosen(implementation, backend, dtype, sizes,
                          **{"softcap": False, "bias": False} | more) == by


@pytest.mark.parametrize("heads", [6, 2])
@pytest.mark.parametrize("mask", [(2, 4, 5), (1, 4, 5), (2, 1, 5)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_both_ways_are_equal_with_their_gradients(heads, mask, bias):
  """Grouped heads, masks of every form, a query that sees nothing."""
  rng = np.random.default_rng(0)
  q, k, v = (jnp.asarray(rng.normal(size=s), jnp.float32)
             for s in ((2, 4, heads, 8), (2, 5, 2, 8), (2, 5, 2, 8)))
  mask = rng.random(mask) < 0.6
  mask[0, 0] = False
  bias = jnp.asarray(rng.normal(size=(1, heads, 4, 5)), jnp.float32) if bias else None

  def attend(implementation):
    def loss(q, k, v):
      out = attention.attend(q, k, v, jnp.asarray(mask), scale=0.3, bias_BHTM=bias,
                             implementation=implementation)
      return (out ** 2).sum(), out
    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)

  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), attend("plain"),
               attend("xla"))


def test_how_attention_is_worked_out_is_no_setting_that_decides_numbers():
  assert "lm.attention" in settings._SAME_NUMBERS
  assert base.get_config().lm.attention == "auto"


@pytest.mark.parametrize(("name", "flops", "links"), [
    ("h100:8", 989e12, 900e9), ("h200:8", 989e12, 900e9), ("a100:8", 312e12, 600e9),
    ("h100:16", 989e12, 100e9), ("a100:16", 312e12, 50e9)])
def test_more_gpus_than_nvlink_joins_speak_over_the_network(name, flops, links):
  topology = chips.parse(name)
  assert (topology.chip.flops, topology.chip.links) == (flops, links)
  said = " ".join(chips.assumptions(topology))
  assert f"{flops / 1e12:.0f} TFLOP/s" in said and f"{links / 1e9:.0f} GB/s of" in said
  assert ("NVLink joins only" in said) is (topology.chips > 8)


def test_what_compiles_assumes_nothing_of_this_kind():
  assert chips.assumptions(chips.parse("v5e:4x4")) == []


def test_the_table_says_what_it_assumes():
  plan = {"phase": 2, "topology": "h100:8", "chips": 8, "mesh": {"data": 8}, "rows": 1,
          "length": 2, "model": "m", "dtype": "bfloat16", "remat": "dots", "fits": True,
          **dict.fromkeys(("weight_bytes_per_chip", "optimizer_bytes_per_chip",
                           "activation_bytes_per_chip", "peak_bytes_per_chip",
                           "capacity_bytes_per_chip", "useful_flops"), 1),
          "compiled_flops": None, "collectives": {}, "estimated_step_seconds": None,
          "assumes": chips.assumptions(chips.parse("h100:8"))}
  assert table.one(plan).count("  assumes  ") == 3


def test_the_host_waits_for_the_step_before_the_newest_alone():
  waited = []

  class Flag:
    def __init__(self, step):
      self.step = step

    def block_until_ready(self):
      waited.append(self.step)

  kept = totals.Totals({}, None)
  for step in (1, 2, 3):
    kept.add(step, {"finite": Flag(step)})
    kept.keep_up(behind=1)
  assert waited == [1, 2] and kept.finished == 2
