"""The decoder and the encoder against an independent implementation: transformers on torch."""
import numpy as np
import pytest

WHY = "parity needs the extra: pip install 'ilm-jax[parity]'"
torch = pytest.importorskip("torch", reason=WHY)
transformers = pytest.importorskip("transformers", reason=WHY)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from benchmarks import parity  # noqa: E402
from ilm_jax.models import bert  # noqa: E402
from ilm_jax.weights import safetensors  # noqa: E402


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
