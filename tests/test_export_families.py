"""Exported folders of every family: transformers computes on the words what we compute on vectors.

A random small model of transformers is read by our reader and exported with soft tokens as words.
Its word table is large and padded, as published ones are: words that were added must stay below the
first 1,000, and prompts are longer than the sliding windows.
"""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

WHY = "parity needs the extra: pip install 'ilm-jax[parity]'"
torch = pytest.importorskip("torch", reason=WHY)
transformers = pytest.importorskip("transformers", reason=WHY)

from benchmarks import parity  # noqa: E402
from ilm_jax.data import tokenizer  # noqa: E402
from ilm_jax.export import hf as export_hf  # noqa: E402
from ilm_jax.models import language_model  # noqa: E402
from ilm_jax.weights import hf  # noqa: E402

WORDS, ADDED = 6007, 6
# (family of benchmarks.parity, whether the head is the word table)
KINDS = (("Mistral", False), ("Qwen 2", True), ("Qwen 2", False), ("Qwen 3", True),
         ("Gemma 1", True), ("Gemma 1", False), ("Gemma 2", True), ("Gemma 3", True),
         ("Gemma 3", False))


@pytest.fixture(scope="module")
def words():
  """A tokenizer of whole words that puts <bos> before a prompt, as those of Gemma do."""
  names = ["<pad>", "<eos>", "<bos>", *(f"w{n}" for n in range(3, WORDS))]
  backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(
      {name: n for n, name in enumerate(names)}, unk_token="w3"))
  backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  backend.add_special_tokens(names[:3])
  backend.post_processor = tokenizers.processors.TemplateProcessing(
      single=["<bos>", "$A"], special_tokens=[("<bos>", 2)])
  return tokenizer.Tokenizer(backend, eos="<eos>", wrap=False)


@pytest.mark.parametrize("family, tied", KINDS)
def test_transformers_reads_words_as_we_read_soft_tokens(tmp_path, words, family, tied):
  theirs = parity.original(family, {"vocab_size": WORDS + 5, "tie_word_embeddings": tied})
  theirs.save_pretrained(tmp_path / "theirs")
  config, params = hf.load(tmp_path / "theirs")
  model = language_model.bind(config, jax.tree.map(jnp.asarray, params))
  ids, soft_ND = prompts(config)
  embeds_BLD = np.array(model.embed(np.where(ids < WORDS, ids, 0)))
  embeds_BLD[ids >= WORDS] = soft_ND[ids[ids >= WORDS] - WORDS]
  at_BL = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
  hidden_BLD = model.hidden(jnp.asarray(embeds_BLD), at_BL, at_BL * 0)
  want_BLV = np.asarray(model.logits(hidden_BLD))[..., :WORDS]

  lm = export_hf.Decoder(config, params, words, 64)
  plan = export_hf.plan(lm, export_hf.words("item", ["a", "b", "c"], 2))
  export_hf.write(tmp_path / "hf", lm, plan, [soft_ND],
                  np.asarray(hidden_BLD).reshape(-1, config.width))
  assert plan.stated["model_type"] == theirs.config.model_type
  exported = transformers.AutoModelForCausalLM.from_pretrained(
      tmp_path / "hf", attn_implementation="eager").eval()
  with torch.no_grad():
    got_BLV = exported(torch.tensor(ids)).logits.numpy()
    plain_BL = np.where(ids < WORDS, ids, 3)
    told_BLV = exported(torch.tensor(plain_BL)).logits.numpy()[..., :WORDS]
    original_BLV = theirs(torch.tensor(plain_BL)).logits.numpy()[..., :WORDS]
  assert np.abs(want_BLV).max() > 1
  assert np.abs(got_BLV[..., :WORDS] - want_BLV).max() < 1e-3
  assert np.abs(told_BLV - original_BLV).max() < 1e-3
  assert np.abs(want_BLV - original_BLV).max() > 0.1                      # soft tokens are read
  place_BL = np.sum(got_BLV[..., :WORDS] > got_BLV[..., WORDS:].max(axis=-1, keepdims=True), -1)
  assert place_BL.min() >= 1000, place_BL.min()


def prompts(config):
  """(ids [2, 19] that begin with <bos> and hold all words, their vectors [ADDED, D]).

  The vectors are as large as word embeddings are once a model has scaled them.
  """
  rng = np.random.default_rng(0)
  ids = rng.integers(3, WORDS, (2, parity.LENGTH))
  ids[:, 0] = 2
  ids[:, 5:5 + ADDED] = WORDS + np.arange(ADDED)
  ids[1, 14:16] = WORDS + 2, WORDS + 3
  return ids, (rng.normal(size=(ADDED, config.width)) * 0.2 * config.embed_scale
               ).astype(np.float32)
