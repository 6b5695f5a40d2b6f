"""A language model of this library as teacher: generates answers to requests in batches."""
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ilm_jax.data import targets, tokenizer_files
from ilm_jax.data.teachers import Said
from ilm_jax.decode import generate
from ilm_jax.decode import prompt as prompt_lib
from ilm_jax.models import language_model
from ilm_jax.stages import context
from ilm_jax.weights import load

# Prompt formats of instruction-tuned models. Control tokens are those between < and >.
CHATS = {
    "chatml": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "gemma": "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
    "none": "{}\n\n",
}
_CONTROL = re.compile(r"(<\|?\w+\|?>)")
_MULTIPLE = 32           # prompts are padded to a multiple of this, so that few shapes compile


class LmTeacher:
  """The model of `targets.model`, or that of `lm` if it is empty, on this process's devices.

  Decoding is greedy, or samples with a key from the seed and the batch's first request.
  """

  def __init__(self, run: context.Run):
    self._config, self._seed = run.config.targets, run.config.seed
    path, words = run.teacher_files
    self._tokenizer = tokenizer_files.load(words)
    lm_config, self._params = load.language_model(
        path, dtype=run.config.lm.dtype, mesh=run.own_mesh,
        gin_file="" if self._config.model else run.config.lm.gin_file,
        vocabulary=self._tokenizer.vocab_size)
    self._graphdef = nnx.split(language_model.bind(lm_config, self._params))[0]
    chat = self._config.chat
    if chat == "auto":
      chat = next((name for name in ("chatml", "gemma")
                   if all(self._tokenizer.control(t) is not None
                          for t in _CONTROL.findall(CHATS[name]))), "none")
    self._chat = CHATS[chat]
    self._ends = set(self._tokenizer.ends) | {
        i for i in map(self._tokenizer.control, ("<|im_end|>", "<end_of_turn>")) if i is not None}

  def write(self, requests: list[targets.Request]) -> list[Said]:
    """The model's answer to each of up to `targets.batch_size` requests."""
    ids = [self.encode(request.prompt) for request in requests]
    rows = ids + [ids[-1]] * (self._config.batch_size - len(ids))    # one shape for all batches
    length = -(-max(map(len, rows)) // _MULTIPLE) * _MULTIPLE
    tokens_BL = np.zeros((len(rows), length), np.int32)
    valid_BL = np.zeros(tokens_BL.shape, bool)
    for b, row in enumerate(rows):
      tokens_BL[b, :len(row)], valid_BL[b, :len(row)] = row, True
    first = int(requests[0].key("")[:8], 16) & 0x7fffffff
    key = jax.random.fold_in(jax.random.key(self._seed), first)
    text_BT, _ = _generate(
        self._graphdef, self._params, tokens_BL, valid_BL, key, self._config.max_tokens,
        self._tokenizer.eos_id, tuple(sorted(self._ends)),
        generate.Sampling(self._config.temperature, self._config.top_p))
    return [self._said(row.tolist()) for row in np.asarray(text_BT)[:len(requests)]]

  def encode(self, prompt: str) -> list[int]:
    """Ids of a request in the model's format; only its control tokens, not the prompt's, count."""
    before, after = self._chat.split("{}")
    middle = [*self._pieces(before), *self._tokenizer.encode(prompt), *self._pieces(after)]
    return [*self._tokenizer.before, *middle, *self._tokenizer.after]

  def _pieces(self, text: str) -> list[int]:
    ids = []
    for piece in filter(None, _CONTROL.split(text)):
      control = self._tokenizer.control(piece)
      ids += self._tokenizer.encode(piece) if control is None else [control]
    return ids

  def _said(self, ids: list[int]) -> Said:
    end = next((n for n, i in enumerate(ids) if i in self._ends), None)
    return self._tokenizer.decode(ids[:end]), end is not None


def _generate(graphdef, params, tokens_BL, valid_BL, key, max_new, eos_id, ends, sampling):
  embeds_BLD = _embed(graphdef, params, tokens_BL)
  position_BL = np.maximum(np.cumsum(valid_BL, axis=1) - 1, 0)
  prompt = prompt_lib.Prompt(embeds_BLD, jnp.asarray(position_BL, jnp.int32),
                             jnp.asarray(valid_BL))
  return generate.generate(graphdef, params, prompt, max_new=max_new, eos_id=eos_id,
                           ends=ends, sampling=sampling, key=key)


@jax.jit(static_argnums=0)
def _embed(graphdef, params, tokens_BL):
  return nnx.merge(graphdef, params).embed(tokens_BL)
