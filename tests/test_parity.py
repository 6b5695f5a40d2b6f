"""The decoder and the encoder against an independent implementation: transformers on torch."""
import numpy as np
import pytest

WHY = "parity needs the extra: pip install 'ilm-jax[parity]'"
torch = pytest.importorskip("torch", reason=WHY)
transformers = pytest.importorskip("transformers", reason=WHY)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from ilm_jax.models import bert, decoder  # noqa: E402
from ilm_jax.weights import safetensors as reader  # noqa: E402


def array(tensor) -> np.ndarray:
  return tensor.detach().float().numpy()


def decoder_params(theirs, layers: int, tied: bool) -> dict:
  """Our tree from a Hub model, whose rotary layout is half-split already."""
  weights = theirs.state_dict()
  names = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
           "out": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
           "down": "mlp.down_proj", "attention_norm": "input_layernorm",
           "mlp_norm": "post_attention_layernorm"}
  stacked = {ours: np.stack([array(weights[f"model.layers.{n}.{name}.weight"]).T
                             for n in range(layers)]) for ours, name in names.items()}
  params = {"embedding": array(weights["model.embed_tokens.weight"]), "layers": stacked,
            "final_norm": array(weights["model.norm.weight"])}
  return params if tied else params | {"head": array(weights["lm_head.weight"]).T}


@pytest.mark.parametrize("tied", [True, False])
def test_llama(tied):
  torch.manual_seed(0)
  theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(
      num_hidden_layers=3, hidden_size=48, num_attention_heads=6, num_key_value_heads=2,
      head_dim=8, intermediate_size=80, vocab_size=101, rms_norm_eps=1e-5,
      tie_word_embeddings=tied, initializer_range=0.2,
      rope_parameters={"rope_type": "default", "rope_theta": 500.0})).eval()
  for name, weight in theirs.named_parameters():
    if "norm" in name:
      torch.nn.init.uniform_(weight, 0.5, 1.5)
  ids = np.random.default_rng(0).integers(0, 101, (2, 17))
  with torch.no_grad():
    want = array(theirs(torch.tensor(ids)).logits)
  config = decoder.DecoderConfig(
      num_layers=3, width=48, num_heads=6, num_kv_heads=2, head_dim=8, mlp_width=80,
      vocab_size=101, rope_base=500.0, norm_eps=1e-5, tied=tied)
  model = decoder.bind(config, jax.tree.map(jnp.asarray, decoder_params(theirs, 3, tied)))
  position = jnp.broadcast_to(jnp.arange(17), (2, 17))
  got = model.logits(model.hidden(model.embed(ids), position, jnp.ones((2, 17), int)))
  assert np.abs(want).max() > 1
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_bert(tmp_path):
  """Through the files transformers writes, so the reader is in the comparison."""
  torch.manual_seed(0)
  theirs = transformers.BertModel(transformers.BertConfig(
      num_hidden_layers=2, hidden_size=24, num_attention_heads=3, intermediate_size=40,
      vocab_size=60, max_position_embeddings=32, layer_norm_eps=1e-12, initializer_range=0.2))
  theirs.eval().save_pretrained(tmp_path)
  config, params = reader.load_bert(tmp_path)
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
