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
import itertools
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

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
_ROWS = 1 << 14           # of the head that are made at a time


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


def write(folder: pathlib.Path, lm: Decoder, plan: Plan, soft: Iterable[np.ndarray],
          hidden_MD) -> None:
  """Writes the folder.

  Args:
    folder: of the model, which this creates.
    lm: the language model.
    plan: from `plan`, for `lm` and the added words.
    soft: float32 [.., D], the soft tokens of a few added words at a time, in order, as our model
      inserts them into a prompt.
    hidden_MD: float32, final hidden states on test prompts; they decide which words are unlikely.

  Raises:
    ValueError: `soft` has more or fewer rows than the plan has added words.
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
      "suppress_tokens": list(range(first, plan.config.vocab_size))})
  (folder / "tokenizer.json").write_text(plan.tokenizer_json, encoding="utf-8")
  _json(folder / "tokenizer_config.json", {
      "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
      "model_max_length": lm.positions, "eos_token": lm.tokenizer.spelled(ends[0]),
      "model_input_names": ["input_ids", "attention_mask"],
      **({"bos_token": lm.tokenizer.spelled(lm.tokenizer.before[0])} if lm.tokenizer.before
         else {})})
  with open(folder / "model.safetensors", "wb") as file:
    tensor_file.write(file, _tensors(first, plan, soft, hidden_MD), {"format": "pt"})


def unlikely(head_DV, hidden_MD) -> np.ndarray:
  """int [K]: the words with the lowest mean logits over the hidden states; at most an eighth of all
  words."""
  mean_V = np.asarray(hidden_MD, np.float32).mean(axis=0) @ np.asarray(head_DV, np.float32)
  return np.argsort(mean_V, kind="stable")[:max(1, min(_LEAST_LIKELY, len(mean_V) // 8))]


def _tensors(vocabulary: int, plan: Plan, soft: Iterable[np.ndarray], hidden_MD
             ) -> list[tensor_file.Entry]:
  """The tensors of the model; rows of added words are made as they are written. Ids without a row
  in the model's table, such as special tokens of images, have embedding 0 and are as unlikely as
  the added words."""
  known, all_ids = plan.known, plan.config.vocab_size
  head_DV = np.asarray(plan.params["head"])[:, :known]
  row_D = head_DV[:, unlikely(head_DV, hidden_MD)].astype(np.float32).mean(axis=1)
  empty = np.zeros((vocabulary - known, len(row_D)), np.float32)
  more = {hf_folder.EMBEDDING: itertools.chain(
              [empty], (np.asarray(part, np.float32) / plan.config.embed_scale for part in soft)),
          hf_folder.HEAD: (np.broadcast_to(row_D, (min(_ROWS, all_ids - first), len(row_D)))
                           for first in range(known, all_ids, _ROWS))}
  params = {**plan.params, "embedding": np.asarray(plan.params["embedding"])[:known],
            "head": head_DV}
  entries = hf_folder.tensors(plan.config, params, plan.stated["model_type"])
  return [_followed(entry, all_ids, more[entry.name]) if entry.name in more else entry
          for entry in entries]


def _followed(entry: tensor_file.Entry, rows: int, more: Iterator[np.ndarray]
              ) -> tensor_file.Entry:
  """An entry of `rows` rows: those that it has, and `more`."""
  return entry._replace(shape=(rows, *entry.shape[1:]),
                        array=lambda: itertools.chain([entry.array()], more))


def _json(path, fields: dict) -> None:
  path.write_text(json.dumps(fields, ensure_ascii=False, indent=1), encoding="utf-8")
