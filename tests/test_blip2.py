"""A Q-Former started from BLIP-2: both layouts, what is cut and what stays, refusals."""
import collections
import json
import pickle
import struct
import zipfile

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from ilm_jax import errors
from ilm_jax.models import qformer_init
from ilm_jax.models.qformer import QFormer
from ilm_jax.weights import blip2, torch_zip
from tests import small_configs

L, W, M, MLP, Q, V, T, P = 4, 8, 6, 12, 3, 24, 7, 4
SIZES = blip2.Sizes(L, W, MLP, Q, 2, M, V, T, P)


def tensors(layout: str, text: bool = True) -> dict[str, np.ndarray]:
  """A random checkpoint, named by hand from the two publishers' modules."""
  random, found = np.random.default_rng(3), {}
  lavis = layout == "lavis"

  def put(name, *shape):
    found[name] = random.normal(size=shape).astype(np.float32)

  def linear(name, n_out, n_in):
    put(name + ".weight", n_out, n_in)
    put(name + ".bias", n_out)

  def norm(name):
    put(name + ".weight", W)
    put(name + ".bias", W)

  root = "Qformer.bert.encoder.layer." if lavis else "qformer.encoder.layer."
  inner = "self" if lavis else "attention"
  put("query_tokens", 1, Q, W)
  norm("Qformer.bert.embeddings.LayerNorm" if lavis else "qformer.layernorm")
  for n in range(L):
    for kind, kv in (("attention", W), ("crossattention", M))[:2 if n % 2 == 0 else 1]:
      for part, n_in in (("query", W), ("key", kv), ("value", kv)):
        linear(f"{root}{n}.{kind}.{inner}.{part}", W, n_in)
      linear(f"{root}{n}.{kind}.output.dense", W, W)
      norm(f"{root}{n}.{kind}.output.LayerNorm")
    for suffix in ("_query", "")[:1 + text]:
      linear(f"{root}{n}.intermediate{suffix}.dense", MLP, W)
      linear(f"{root}{n}.output{suffix}.dense", W, MLP)
      norm(f"{root}{n}.output{suffix}.LayerNorm")
  put("vision_model.patch", 5)
  if text:
    tables = "Qformer.bert.embeddings." if lavis else "embeddings."
    put(tables + "word_embeddings.weight", V, W)
    put(tables + "position_embeddings.weight", T, W)
    linear("vision_proj" if lavis else "vision_projection", P, W)
    linear("text_proj" if lavis else "text_projection", P, W)
    linear("itm_head", 2, W)
  if text and lavis:
    found["temp"] = np.float32(0.05)
    put("Qformer.cls.predictions.bias", V)
    linear("Qformer.cls.predictions.transform.dense", W, W)
    norm("Qformer.cls.predictions.transform.LayerNorm")
    found["Qformer.cls.predictions.decoder.weight"] = found[tables + "word_embeddings.weight"]
  return found


class _Rebuild:
  """Pickles as PyTorch's call that makes a tensor of a storage."""

  def __init__(self, key, array):
    self.args = (_Storage(key, array.size), 0, array.shape,
                 tuple(step // array.itemsize for step in array.strides), False,
                 collections.OrderedDict())


class _Storage:
  def __init__(self, key, size):
    self.saved = (key, size)


def write_pth(path, found: dict) -> None:
  """A file as torch.save writes it, without PyTorch."""
  import io
  import sys
  import types
  fake = types.ModuleType("torch._utils")
  fake._rebuild_tensor_v2 = lambda *args: args
  fake._rebuild_tensor_v2.__module__ = "torch._utils"
  fake._rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
  storage = type("FloatStorage", (), {"__module__": "torch"})
  torch = types.ModuleType("torch")
  torch.FloatStorage, torch._utils = storage, fake

  class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
      if isinstance(obj, _Storage):
        return ("storage", storage, obj.saved[0], "cpu", obj.saved[1])

    def reducer_override(self, obj):
      if isinstance(obj, _Rebuild):
        return fake._rebuild_tensor_v2, obj.args
      return NotImplemented

  kept = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
  sys.modules.update({"torch": torch, "torch._utils": fake})
  try:
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"model": collections.OrderedDict(
        (name, _Rebuild(str(i), array)) for i, (name, array) in enumerate(found.items()))})
  finally:
    for name, module in kept.items():
      sys.modules.pop(name)
      if module is not None:
        sys.modules[name] = module
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", buffer.getvalue())
    for i, array in enumerate(found.values()):
      archive.writestr(f"archive/data/{i}", np.asarray(array).tobytes())


def write(folder, layout, found):
  """The checkpoint's path, in the file format of its publisher."""
  if layout == "lavis":
    write_pth(folder / "blip2.pth", found)
    return folder / "blip2.pth"
  safetensors.numpy.save_file(found, folder / "model.safetensors")
  (folder / "config.json").write_text(json.dumps({"model_type": "blip-2"}))
  return folder


def fresh(**changes):
  config = small_configs.qformer(**dict(
      vectors={"behavioral": 5}, num_layers=L, width=W, num_heads=2, mlp_width=MLP, vocab_size=V,
      max_text=T, num_queries=Q, proj_width=P, kv_tokens=2, kv_width=M, decoder_start=1) | changes)
  return config, nnx.to_pure_dict(nnx.state(QFormer(config, rngs=nnx.Rngs(0))))


@pytest.mark.parametrize("layout", ["lavis", "transformers"])
def test_everything_but_the_reader_is_copied(tmp_path, layout):
  found = tensors(layout)
  sizes, theirs = blip2.load(write(tmp_path, layout, found))
  assert sizes == SIZES
  config, params = fresh()
  blip2.check_room("there", sizes, config)
  start = qformer_init.init_from_qformer(params, theirs, 1)
  lacking = {"heads/log_temperature_ii", "heads/log_temperature_ui"}
  if layout == "transformers":
    lacking |= {"heads/log_temperature_itc", "lm/bias", "lm/transform/kernel", "lm/transform/bias",
                "lm/norm/scale", "lm/norm/bias"}
  assert {n for n in start.fresh if not n.startswith("reader/")} == lacking
  root, inner = (("Qformer.bert.encoder.layer.", "self") if layout == "lavis" else
                 ("qformer.encoder.layer.", "attention"))
  stack = start.params["stack"]
  np.testing.assert_array_equal(stack["cross"]["attention"]["value"]["kernel"][1],
                                found[f"{root}2.crossattention.{inner}.value.weight"].T)
  np.testing.assert_array_equal(stack["layer"]["text_mlp"]["mlp_out"]["kernel"][3],
                                found[f"{root}3.output.dense.weight"].T)
  np.testing.assert_array_equal(start.params["query_tokens"], found["query_tokens"][0])
  if layout == "lavis":
    np.testing.assert_allclose(start.params["heads"]["log_temperature_itc"], np.log(0.05), 1e-6)


def test_fewer_layers_queries_and_words_take_the_first_and_the_start_word(tmp_path):
  found = tensors("lavis")
  _, theirs = blip2.load(write(tmp_path, "lavis", found))
  _, params = fresh(num_layers=3, num_queries=2, vocab_size=V - 1, max_text=5, kv_width=0)
  start = qformer_init.init_from_qformer(params, theirs, 1)
  words = found["Qformer.bert.embeddings.word_embeddings.weight"]
  mine = np.asarray(start.params["text_embed"]["word"])
  np.testing.assert_array_equal(mine[2:], words[2:V - 1])
  np.testing.assert_array_equal(mine[1], words[V - 1])
  np.testing.assert_array_equal(start.params["query_tokens"], found["query_tokens"][0, :2])
  assert "stack/cross/attention/key/kernel" in start.fresh       # the tokens are ours, 8 wide
  assert "stack/cross/attention/query/kernel" in start.copied


def test_stage_two_has_no_text_branch(tmp_path):
  sizes, theirs = blip2.load(write(tmp_path, "transformers", tensors("transformers", text=False)))
  assert sizes == SIZES._replace(vocab_size=0, max_text=0, proj_width=0)
  _, params = fresh(query_path_only=True)
  start = qformer_init.init_from_qformer(params, theirs, 1)
  assert all(name.startswith("reader/") for name in start.fresh)


def test_refusals_name_both_sides(tmp_path):
  found = tensors("lavis")
  gone = "Qformer.bert.encoder.layer.1.output.dense.bias"
  lacking = {n: t for n, t in found.items() if n != gone}
  with pytest.raises(errors.UserError, match="1 tensor.s. missing: .*layer.1.output.dense.bias"):
    blip2.load(write(tmp_path, "lavis", lacking))
  with pytest.raises(errors.UserError, match="left over .*: unknown"):
    blip2.load(write(tmp_path, "lavis", {**found, "unknown": found["query_tokens"]}))
  with pytest.raises(errors.UserError, match="no Q-Former of BLIP-2"):
    blip2.load(write(tmp_path, "lavis", {"weight": found["query_tokens"]}))
  with pytest.raises(errors.UserError, match="qformer.width=16, expected 8"):
    blip2.check_room("there", SIZES, fresh(width=16, proj_init="normal")[0])


def test_a_pickle_that_runs_code_is_refused(tmp_path):
  path = tmp_path / "evil.pth"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", pickle.dumps({"a": print}))
  with pytest.raises(errors.UserError, match="builtins.print, which is neither"):
    torch_zip.TorchFile(path)
  (tmp_path / "old.pth").write_bytes(b"\x80\x02 not a zip")
  with pytest.raises(errors.UserError, match="not a readable PyTorch file"):
    torch_zip.TorchFile(tmp_path / "old.pth")


def by_hand(path, offset=0, shape=(4,), stride=(1,), kind=b"ctorch\nFloatStorage\n", more=b"",
            how=zipfile.ZIP_STORED) -> str:
  """A .pth whose one tensor w lies as told in a storage of 0, 1, 2, 3."""
  def text(x):
    return b"X" + struct.pack("<I", len(x)) + x.encode()

  def number(x):
    return text(x) if isinstance(x, str) else b"\x8a\x0a" + x.to_bytes(10, "little", signed=True)

  def numbers(xs):
    return b"(" + b"".join(map(number, xs)) + b"t"

  pickled = (b"\x80\x02}" + more + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n(("
             + text("storage") + kind + text("0") + text("cpu") + number(4) + b"tQ"
             + number(offset) + numbers(shape) + numbers(stride)
             + b"\x89ccollections\nOrderedDict\n)RtRs.")
  with zipfile.ZipFile(path, "w", how) as archive:
    archive.writestr("a/data.pkl", pickled)
    archive.writestr("a/data/0", np.arange(4, dtype="f4").tobytes())
  return path


@pytest.mark.parametrize("how, want", [
    ({}, [0, 1, 2, 3]), ({"offset": 2, "shape": (2,)}, [2, 3]), ({"shape": (0,)}, []),
    ({"shape": (2, 2), "stride": (1, 2)}, [[0, 2], [1, 3]]), ({"shape": (), "stride": ()}, 0),
    ({"shape": (1, 4), "stride": (0, 1)}, [[0, 1, 2, 3]]),
    ({"shape": (2,), "stride": (3,)}, [0, 3]),
    ({"more": b"r\xff\xff\xff\xff"}, [0, 1, 2, 3])])        # remembered as number 2^32 - 1
def test_tensors_lie_as_their_strides_say(tmp_path, how, want):
  np.testing.assert_array_equal(torch_zip.TorchFile(by_hand(tmp_path / "w.pth", **how)).read("w"),
                                np.array(want, np.float32))


@pytest.mark.parametrize("how", [
    {"stride": (-1,)}, {"stride": (-(1 << 70),)}, {"offset": -1}, {"offset": 1 << 70},
    {"offset": 1}, {"shape": (-4,)}, {"shape": (1 << 40,), "stride": (0,)}, {"stride": (1, 1)},
    {"shape": (4, 1)}, {"shape": (1 << 62, 1 << 62), "stride": (1, 1)}, {"stride": (1 << 62,)},
    {"shape": (4, 0), "stride": (1, -1)}, {"shape": ("4",)}, {"offset": "0"}, {"stride": (2,)},
    {"shape": (1,) * 99, "stride": (1,) * 99}, {"kind": b"X\x03\0\0\0f32"},
    {"kind": b"ccollections\nOrderedDict\n"}, {"how": zipfile.ZIP_DEFLATED},
    {"more": b"("}, {"more": b"0"}, {"more": b"h\x07"}])
def test_tensors_outside_their_storage_are_refused(tmp_path, how):
  """Never memory of others, and never more of it than the file is large."""
  with pytest.raises(errors.UserError, match=r"w\.pth: .*: (get|expected|save)") as caught:
    torch_zip.TorchFile(by_hand(tmp_path / "w.pth", **how)).read("w")
  assert "\n" not in str(caught.value)


def test_layers_are_counted_by_what_is_there(tmp_path):
  found = tensors("lavis")
  found["Qformer.bert.encoder.layer.2147483647.output.dense.bias"] = np.zeros(W, np.float32)
  with pytest.raises(errors.UserError, match="layers is 2147483648, expected a whole number"):
    blip2.load(write(tmp_path, "lavis", found))


def test_a_pth_that_is_a_pointer_of_git_lfs_is_named(tmp_path):
  (tmp_path / "b.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:5\n")
  with pytest.raises(errors.UserError, match=r"b.pth is a git-lfs pointer"):
    blip2.load(tmp_path / "b.pth")


def test_a_short_storage_is_named(tmp_path):
  path = tmp_path / "short.pth"
  write_pth(path, {"a": np.zeros((3, 4), np.float32)})
  with zipfile.ZipFile(path) as archive:
    pickled = archive.read("archive/data.pkl")
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", pickled)
    archive.writestr("archive/data/0", bytes(20))
  with pytest.raises(errors.UserError, match="tensor a ends after 5 of 12"):
    torch_zip.TorchFile(path).read("a")


def test_a_kv_width_of_its_own_changes_the_tokens_alone():
  config, params = fresh()
  assert params["reader"]["vectors"]["behavioral"]["tokens"]["kernel"].shape == (5, 2 * M)
  assert params["stack"]["cross"]["attention"]["key"]["kernel"].shape == (2, M, W)
  model = QFormer(config, rngs=nnx.Rngs(0))
  vectors = {"behavioral": jax.random.normal(jax.random.key(0), (2, 5))}
  assert model.queries(vectors, {"behavioral": np.ones(2, bool)}).shape == (2, Q, W)
