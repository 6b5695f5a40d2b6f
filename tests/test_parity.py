"""The decoder and the encoder against an independent implementation: transformers on torch."""
import numpy as np
import pytest

WHY = "parity needs the extra: pip install 'ilm-jax[parity]'"
torch = pytest.importorskip("torch", reason=WHY)
transformers = pytest.importorskip("transformers", reason=WHY)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

from benchmarks import parity  # noqa: E402
from ilm_jax.models import bert, qformer, qformer_init  # noqa: E402
from ilm_jax.weights import blip2, safetensors  # noqa: E402
from tests import small_configs  # noqa: E402


def array(tensor) -> np.ndarray:
  return tensor.detach().float().numpy()


@pytest.mark.parametrize("family, reader", parity.ROWS)
def test_language_models(family, reader):
  """Through files, so that the reader is in the comparison."""
  row = parity.compare(family, reader)
  assert row.logits > 1 and row.difference < 1e-4 and row.greedy_equal


def test_bert(tmp_path):
  """Through the files transformers writes, so the reader is in the comparison."""
  torch.manual_seed(0)
  theirs = transformers.BertModel(transformers.BertConfig(
      num_hidden_layers=2, hidden_size=24, num_attention_heads=3, intermediate_size=40,
      vocab_size=60, max_position_embeddings=32, layer_norm_eps=1e-12, initializer_range=0.2))
  theirs.eval().save_pretrained(tmp_path)
  config, params = safetensors.load_bert(tmp_path)
  ids = np.random.default_rng(1).integers(0, 60, (2, 9))
  mask = np.arange(9)[None] < np.asarray([[9], [5]])
  types = np.asarray([[0] * 4 + [1] * 5] * 2)
  with torch.no_grad():
    want = array(theirs(torch.tensor(ids), attention_mask=torch.tensor(mask).long(),
                        token_type_ids=torch.tensor(types)).last_hidden_state)
  got = bert.bind(config, jax.tree.map(jnp.asarray, params)).hidden(
      jnp.asarray(ids), jnp.asarray(mask), jnp.asarray(types))
  np.testing.assert_allclose(np.where(mask[..., None], got, 0),
                             np.where(mask[..., None], want, 0), atol=1e-4)


@pytest.mark.parametrize("layout", ["transformers", "lavis"])
def test_qformer(tmp_path, layout):
  """BLIP-2's three passes on shared random weights, through a file of either layout."""
  config, model, theirs, embeddings = _blip2(tmp_path, layout)
  rng = np.random.default_rng(1)
  ids = rng.integers(1, 60, (2, 9))
  mask = np.arange(9)[None] < np.asarray([[9], [5]])
  vectors = {"behavioral": jnp.asarray(rng.normal(size=(2, 7)), jnp.float32)}
  present = {"behavioral": jnp.ones(2, bool)}
  tokens = torch.tensor(np.asarray(model.reader(vectors, present)[0]))
  queries = torch.tensor(np.asarray(model.query_tokens[...]))[None].expand(2, -1, -1)
  words = embeddings(torch.tensor(ids))
  seen = torch.tensor(np.concatenate([np.ones((2, config.num_queries)), mask], 1)).long()
  with torch.no_grad():
    want = [theirs(query_embeds=queries, encoder_hidden_states=tokens),
            theirs(query_embeds=words, query_length=0, attention_mask=seen[:, -9:]),
            theirs(query_embeds=torch.cat([queries, words], 1), query_length=config.num_queries,
                   attention_mask=seen, encoder_hidden_states=tokens)]
  want = [array(w.last_hidden_state) for w in want]
  assert np.abs(want[0]).max() > 1
  np.testing.assert_allclose(model.queries(vectors, present), want[0], atol=1e-4)
  np.testing.assert_allclose(np.asarray(model.text(ids, mask))[mask], want[1][mask], atol=1e-4)
  np.testing.assert_allclose(model.joint(vectors, present, ids, mask),
                             want[2][:, :config.num_queries], atol=1e-4)


def _blip2(folder, layout: str):
  """(config, our model from a file, their Q-Former, their text embeddings)."""
  torch.manual_seed(0)
  sizes = dict(num_hidden_layers=4, hidden_size=24, num_attention_heads=3, intermediate_size=40,
               vocab_size=60, max_position_embeddings=16, encoder_hidden_size=20,
               cross_attention_frequency=2, initializer_range=0.3, use_qformer_text_input=True)
  whole = transformers.Blip2ForImageTextRetrieval(transformers.Blip2Config(
      qformer_config=sizes, num_query_tokens=3, image_text_hidden_size=6,
      vision_config=dict(hidden_size=20, intermediate_size=16, num_hidden_layers=1,
                         num_attention_heads=2, image_size=28, patch_size=14))).eval()
  torch.nn.init.normal_(whole.query_tokens)
  if layout == "transformers":
    whole.save_pretrained(folder)
    path = folder
  else:
    path = folder / "blip2.pth"
    torch.save({"model": _as_lavis(whole.state_dict())}, path)
  found, params = blip2.load(path)
  config = small_configs.qformer(
      vectors={"behavioral": 7}, num_layers=4, width=24, num_heads=3, mlp_width=40, vocab_size=60,
      max_text=16, num_queries=3, kv_tokens=5, kv_width=20, proj_width=6)
  blip2.check_room(path, found, config)
  graphdef, state = nnx.split(qformer.QFormer(config, rngs=nnx.Rngs(0)))
  start = qformer_init.init_from_qformer(nnx.to_pure_dict(state), params, 1)
  return config, nnx.merge(graphdef, start.params), whole.qformer, whole.embeddings


def _as_lavis(state: dict) -> dict:
  """The same tensors by LAVIS's names, as the converter that made transformers' files has them."""
  names = (("qformer.layernorm", "Qformer.bert.embeddings.LayerNorm"),
           ("qformer.encoder", "Qformer.bert.encoder"), ("attention.attention", "attention.self"),
           ("embeddings.word", "Qformer.bert.embeddings.word"),
           ("embeddings.position", "Qformer.bert.embeddings.position"),
           ("vision_projection", "vision_proj"), ("text_projection", "text_proj"))
  found = {}
  for name, tensor in state.items():
    if not name.startswith("vision_model."):
      for ours, theirs in names:
        name = name.replace(ours, theirs)
    found[name] = tensor
  return {**found, "temp": torch.tensor(0.07)}
