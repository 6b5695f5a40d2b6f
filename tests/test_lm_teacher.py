"""A language model of ours as teacher, of random weights and with a vocabulary of 40 words."""
import json
import types

import jax
import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from ilm_jax.config import reading
from ilm_jax.data import targets
from ilm_jax.models import decoder, language_model
from ilm_jax.runtime import axes
from ilm_jax.stages import lm_teacher
from ilm_jax.weights import own

WORDS = [f"word{n}" for n in range(40)]
REQUEST = targets.Request("elm_pitch", "train", (1,), "word3 word4 word5", "word6 word7")


@pytest.fixture
def teacher(tmp_path):
  """(ends) -> the teacher whose generation_config.json names them, `ends` as ids."""
  config = decoder.DecoderConfig(num_layers=2, width=16, num_heads=2, num_kv_heads=1, head_dim=8,
                                 mlp_width=24, vocab_size=len(WORDS))
  own.save(tmp_path, config, language_model.init(config, 0))
  backend = tokenizers.Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, "word0"))
  backend.pre_tokenizer = pre_tokenizers.Whitespace()
  backend.save(str(tmp_path / "tokenizer.json"))

  def make(*ends: int) -> lm_teacher.LmTeacher:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": list(ends)}))
    return lm_teacher.LmTeacher(types.SimpleNamespace(
        config=reading.load("configs/tiny.py", {
            "targets.model": str(tmp_path), "lm.dtype": "float32", "targets.max_tokens": 8,
            "targets.batch_size": 2}),
        teacher_files=(tmp_path, tmp_path),
        own_mesh=axes.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])))

  return make


def test_a_text_ends_at_any_end_of_the_model(teacher, monkeypatch):
  """Llama 3 Instruct ends an answer with <|eot_id|>, the second of its two; nothing follows it."""
  written = []
  generate = lm_teacher.generate.generate

  def kept(*args, **kwargs):
    text_BT, length_B = generate(*args, **kwargs)
    written.append(np.asarray(text_BT)[0].tolist())
    return text_BT, length_B

  monkeypatch.setattr(lm_teacher.generate, "generate", kept)
  [(text, complete)] = teacher(0).write([REQUEST])
  words = text.split()
  assert len(words) == 8 and not complete
  end = next(n for n, word in enumerate(words) if word != words[0])     # what it says second
  [(text, complete)] = teacher(0, WORDS.index(words[end])).write([REQUEST])
  assert text.split() == words[:end] and complete
  assert written[1] == [WORDS.index(word) for word in words[:end]] + [0] * (8 - end)
