"""The Hugging Face folder: a decoder in which soft tokens are the embeddings of added words.

After training the soft tokens of a known entity are constants, so they can be the embeddings of
words <item_17_0>, <item_17_1>, ..., one for each query. The output head is untied, and all added
words share one row of it: the mean of the rows of the words that were least likely on test prompts.
So for any hidden state an added word has the mean of those words' logits: it is never the single
most likely word, and at most as likely as those words are on average (Jensen). The list of added
ids in generation_config.json (suppress_tokens) keeps transformers' `generate` from ever writing
one.
"""
import dataclasses
import json
import pathlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import tokenizers
from etils import epath

from ilm_jax import files
from ilm_jax.data import gguf_file
from ilm_jax.data import tokenizer as tokenizer_lib
from ilm_jax.models import decoder
from ilm_jax.weights import hf_folder, tensor_file

MOST_WORDS = 1 << 20      # that may be added: engines hold embedding and head rows of all
_LEAST_LIKELY = 1024      # number of words whose mean head row all added words get


class Decoder(NamedTuple):
  """The language model to write, with its tokenizer and its maximum length."""
  config: decoder.DecoderConfig
  params: dict
  tokenizer: tokenizer_lib.Tokenizer
  positions: int            # max_position_embeddings


class Plan(NamedTuple):
  """What `write` will write; made first, so that an unsupported model is refused at once."""
  config: decoder.DecoderConfig     # with the added words, untied
  params: dict
  stated: dict                      # the fields of config.json
  tokenizer_json: str
  known: int                        # rows of the language model's tables that are kept


def words(kind: str, ids, queries: int) -> list[str]:
  """["<item_17_0>", "<item_17_1>", ..]: the added words of entities, entity after entity."""
  return [f"<{kind}_{i}_{q}>" for i in ids for q in range(queries)]


def positions(path) -> int:
  """The maximum length in tokens that a language model's files state; 2048 if they state none."""
  path, positions = epath.Path(path), None
  if path.suffix == ".gguf":
    fields = gguf_file.read(path)
    positions = fields.value(f"{fields.value('general.architecture')}.context_length", None)
  elif (path / "config.json").exists():
    stated = files.parse_json((path / "config.json").read_text())
    positions = stated.get("max_position_embeddings",
                           stated.get("text_config", {}).get("max_position_embeddings"))
  return positions if type(positions) is int and positions > 0 else 2048


def plan(lm: Decoder, added: list[str]) -> Plan:
  """The Plan for a model with `added` words; UserError if it or its tokenizer is not supported."""
  config, params = hf_folder.plain(lm.config, lm.params)
  known = min(config.vocab_size, lm.tokenizer.vocab_size)
  config = dataclasses.replace(
      config, tied=False, vocab_size=lm.tokenizer.vocab_size + len(added), remat="dots", unroll=1)
  if lm.config.tied:
    params["head"] = np.asarray(params["embedding"]).T
  return Plan(config, params, hf_folder.fields(config), lm.tokenizer.to_json(added), known)


def text(tokenizer_json: str, ids: list[int]) -> str:
  """The text whose tokens are exactly `ids`; "" if decoding `ids` gives none."""
  backend = tokenizers.Tokenizer.from_str(tokenizer_json)
  said = backend.decode(ids, skip_special_tokens=False)
  return said if backend.encode(said, add_special_tokens=True).ids == ids else ""


def write(folder: pathlib.Path, lm: Decoder, plan: Plan, soft_ND, hidden_MD) -> None:
  """Writes the folder.

  Args:
    folder: of the model, which this creates.
    lm: the language model.
    plan: from `plan`, for `lm` and the added words.
    soft_ND: float32, the soft token of each added word, as our model inserts it into a prompt.
    hidden_MD: float32, final hidden states on test prompts; they decide which words are unlikely.
  """
  folder.mkdir()
  ends = [int(i) for i in lm.tokenizer.ends]
  first = lm.tokenizer.vocab_size
  more = {"max_position_embeddings": lm.positions, "torch_dtype": plan.config.dtype,
          "eos_token_id": ends, "bos_token_id": lm.tokenizer.before[0] if lm.tokenizer.before
          else None, "pad_token_id": lm.tokenizer.pad_id}
  _json(folder / "config.json", plan.stated | more)
  _json(folder / "generation_config.json", {
      "eos_token_id": ends, "pad_token_id": lm.tokenizer.pad_id, "do_sample": False,
      "suppress_tokens": list(range(first, first + len(soft_ND)))})
  (folder / "tokenizer.json").write_text(plan.tokenizer_json, encoding="utf-8")
  _json(folder / "tokenizer_config.json", {
      "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
      "model_max_length": lm.positions, "eos_token": lm.tokenizer.spelled(ends[0]),
      "model_input_names": ["input_ids", "attention_mask"],
      **({"bos_token": lm.tokenizer.spelled(lm.tokenizer.before[0])} if lm.tokenizer.before
         else {})})
  params = {**plan.params, **_tables(lm.tokenizer.vocab_size, plan, soft_ND, hidden_MD)}
  with open(folder / "model.safetensors", "wb") as file:
    tensor_file.write(file, hf_folder.tensors(plan.config, params, plan.stated["model_type"]),
                      {"format": "pt"})


def unlikely(head_DV, hidden_MD, count: int = _LEAST_LIKELY) -> np.ndarray:
  """int [K]: the words with the lowest mean logits over the hidden states; at most an eighth of all
  words."""
  mean_V = np.asarray(hidden_MD, np.float32).mean(axis=0) @ np.asarray(head_DV, np.float32)
  return np.argsort(mean_V, kind="stable")[:max(1, min(count, len(mean_V) // 8))]


def _tables(vocabulary: int, plan: Plan, soft_ND, hidden_MD) -> dict:
  """{"embedding": [V + N, D], "head": [D, V + N]}. Ids without a row in the model's table, such as
  special tokens of images, have embedding 0 and are as unlikely as the added words."""
  D, known = plan.config.width, plan.known
  head_DV = np.asarray(plan.params["head"])[:, :known]
  row_D = head_DV[:, unlikely(head_DV, hidden_MD)].astype(np.float32).mean(axis=1)
  others = plan.config.vocab_size - known
  empty = np.zeros((vocabulary - known, D), np.float32)
  soft_ND = np.asarray(soft_ND, np.float32) / plan.config.embed_scale
  dtype = jnp.dtype(plan.config.dtype)
  return {
      "embedding": np.concatenate([np.asarray(plan.params["embedding"])[:known].astype(dtype),
                                   empty.astype(dtype), soft_ND.astype(dtype)]),
      "head": np.concatenate([head_DV.astype(dtype),
                              np.tile(row_D.astype(dtype)[:, None], (1, others))], axis=1)}


def _json(path, fields: dict) -> None:
  path.write_text(json.dumps(fields, ensure_ascii=False, indent=1), encoding="utf-8")
