"""Streaming: blocks give what whole tensors give, on a mesh too, and the host holds little."""
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from benchmarks import read_weights
from ilm_jax import errors
from ilm_jax.runtime import axes
from ilm_jax.weights import stream

LAYERS, WIDTH, HEADS, K, VOCAB = 3, 6, 5, 4, 14
KERNEL = stream.half_split(K)
ABSTRACT = {"embedding": jax.ShapeDtypeStruct((VOCAB, WIDTH), jnp.float32),
            "layers": {"query": jax.ShapeDtypeStruct((LAYERS, WIDTH, HEADS * K), jnp.bfloat16),
                       "norm": jax.ShapeDtypeStruct((LAYERS, WIDTH), jnp.float32)}}
PLACES = {"words": stream.Place(("embedding",)),
          **{f"{n}.q": stream.Place(("layers", "query"), n, KERNEL) for n in range(LAYERS)},
          **{f"{n}.norm": stream.Place(("layers", "norm"), n, stream.PLUS_ONE)
             for n in range(LAYERS)}}


def mesh(*sizes):
  return jax.make_mesh(sizes, axes.MESH_AXES, axis_types=(AxisType.Auto,) * 3,
                       devices=jax.devices()[:int(np.prod(sizes))])


def tensors() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  shapes = {"words": (VOCAB, WIDTH), **{f"{n}.q": (HEADS * K, WIDTH) for n in range(LAYERS)},
            **{f"{n}.norm": (WIDTH,) for n in range(LAYERS)}}
  return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def fill(named, where=None, abstract=ABSTRACT, places=PLACES):
  return stream.fill("file", places, {n: t.shape for n, t in named.items()}, named.__getitem__,
                     abstract, where)


@pytest.mark.parametrize("on", [None, (1, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("block", [1, 200, 1 << 20])
def test_blocks_of_any_size_give_the_same(monkeypatch, on, block):
  monkeypatch.setattr(stream, "BLOCK_BYTES", block)
  named, where = tensors(), on and mesh(*on)
  params = fill(named, where)
  np.testing.assert_array_equal(params["embedding"], named["words"])
  for n in range(LAYERS):
    # Neighbours (0, 1), (2, 3) of a head become (0, 2), (1, 3).
    rows = [K * head + channel for head in range(HEADS) for channel in (0, 2, 1, 3)]
    np.testing.assert_array_equal(params["layers"]["query"][n],
                                  named[f"{n}.q"][rows].T.astype(jnp.bfloat16))
    np.testing.assert_array_equal(params["layers"]["norm"][n], 1 + named[f"{n}.norm"])
  assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
      lambda x: (x.shape, x.dtype), ABSTRACT)
  if where is not None:
    assert params["layers"]["query"].sharding.spec == axes.param_sharding(
        where, ABSTRACT)["layers"]["query"].spec


@pytest.mark.parametrize("turn, shape", [
    (stream.KEEP, (7, 3)), (stream.TRANSPOSE, (7, 3)), (stream.half_split(6), (24, 5))])
def test_laying_undoes_reading(turn, shape):
  rows = np.random.default_rng(1).normal(size=shape)
  ours = np.empty(turn.read(rows).shape)
  view = turn.lay(ours)
  view[...] = rows.reshape(view.shape)
  np.testing.assert_array_equal(ours, turn.read(rows))
  assert turn.shape(ours.shape) == shape


@pytest.mark.parametrize("on", [None, (1, 2, 2)])
def test_int8_rounds_as_it_reads(on):
  """The 127th part of a channel's largest weight is its step; the tree is the one that fits."""
  ints = {"embedding": jax.ShapeDtypeStruct((VOCAB, WIDTH), jnp.int8),
          "embedding_scale": jax.ShapeDtypeStruct((VOCAB,), jnp.float32),
          "layers": {"norm": ABSTRACT["layers"]["norm"],
                     "query": jax.ShapeDtypeStruct((LAYERS, WIDTH, HEADS * K), jnp.int8),
                     "query_scale": jax.ShapeDtypeStruct((LAYERS, HEADS * K), jnp.float32)}}
  named = tensors()
  params = fill(named, on and mesh(*on), ints)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
      lambda x: (x.shape, x.dtype), ints)
  scale_V = np.abs(named["words"]).max(axis=1) / 127
  np.testing.assert_allclose(params["embedding_scale"], scale_V, rtol=1e-6)
  np.testing.assert_allclose(np.asarray(params["embedding"]) * scale_V[:, None], named["words"],
                             atol=0.501 * scale_V.max())
  for n in range(LAYERS):
    wide = KERNEL.read(named[f"{n}.q"])
    scale = np.abs(wide).max(axis=0) / 127
    np.testing.assert_allclose(params["layers"]["query_scale"][n], scale, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(params["layers"]["query"][n]) * scale[None], wide,
                               atol=0.501 * scale.max())


def test_integers_are_refused():
  named = tensors() | {"1.q": np.ones((HEADS * K, WIDTH), np.int32)}
  with pytest.raises(errors.UserError, match=r"file: tensor 1\.q has dtype int32.*floating"):
    fill(named)


def test_a_map_that_forgets_a_layer_is_a_fault_of_the_program():
  fewer = {k: v for k, v in PLACES.items() if k != "2.q"}
  named = {k: v for k, v in tensors().items() if k != "2.q"}
  with pytest.raises(ValueError, match="leaves .*query.* empty"):
    fill(named, places=fewer)


def test_the_host_holds_one_tensor_and_one_block(monkeypatch):
  """Ten layers of 1 MB in float32, one at a time: numpy never holds two of them."""
  monkeypatch.setattr(stream, "BLOCK_BYTES", 1 << 16)
  n, size = 10, 512
  abstract = {"layers": {"up": jax.ShapeDtypeStruct((n, size, size), jnp.float32)}}
  places = {str(i): stream.Place(("layers", "up"), i, stream.TRANSPOSE) for i in range(n)}
  rows = np.arange(size * size, dtype=np.float32).reshape(size, size)

  class Source:
    """Makes rows when they are asked for, as a file would."""
    shape = (size, size)

    def __init__(self, name):
      self._more = float(name)

    def __getitem__(self, part):
      return rows[part] + self._more

  where = mesh(1, 1, 2)
  tracemalloc.start()
  try:
    params = stream.fill("file", places, dict.fromkeys(places, Source.shape), Source,
                         abstract, where)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  np.testing.assert_array_equal(params["layers"]["up"][7], rows.T + 7)
  assert peak < 2 * rows.nbytes


def test_a_checkpoint_never_stands_in_memory():
  """250 MB in a process of its own, XLA's compiler 30 of the 48; one stacked kernel has 59."""
  found = read_weights.measure(0.25, devices=2)
  assert found["parameters"] > 240e6
  assert found["extra"] < 2 * found["largest_tensor"] + 48e6
