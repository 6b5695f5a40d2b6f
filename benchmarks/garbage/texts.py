"""Readers of tokenizers, chat templates, dialogs, sessions and gin files."""
import functools
import io
import json
import zipfile
from unittest import mock

from benchmarks.garbage import reader, zygote
from ilm_jax.data import interactions as interactions_lib

ITEMS = interactions_lib.Items(["7", "i8", "9"], ["Heat", "Fargo", "Amélie"], [1995, 1996, None],
                               [["Crime"], ["Crime", "Comedy"], []])
_CORPUS = ["the film that the user saw before was a drama about a thief", "Größe & Straße 123",
           "a film by two about the job of a thief", "映画 two  spaces\tand a tab"] * 10


# Tokenizers.

@functools.cache
def _sentencepiece() -> list[dict[str, bytes]]:
  import sentencepiece
  made = []
  for kind in (dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
                    vocab_size=330),
               dict(model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, vocab_size=60)):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_CORPUS), model_writer=out, minloglevel=2, hard_vocab_limit=False,
        character_coverage=1.0, **kind)
    made.append({"spiece.model": out.getvalue()})
  return made


@functools.cache
def _tokenizer_json() -> list[dict[str, bytes]]:
  import tokenizers
  from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
  bpe = tokenizers.Tokenizer(models.BPE())
  bpe.pre_tokenizer = pre_tokenizers.Sequence([
      pre_tokenizers.Split(tokenizers.Regex(r"\p{L}+|\s+"), "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
  bpe.decoder = decoders.ByteLevel()
  bpe.train_from_iterator(_CORPUS, trainers.BpeTrainer(
      vocab_size=300, special_tokens=["</s>", "<|im_end|>"], show_progress=False,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
  pieces = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
  pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
  pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  pieces.train_from_iterator(_CORPUS, trainers.WordPieceTrainer(
      vocab_size=90, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False))
  pieces.post_processor = processors.TemplateProcessing(
      single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
  unigram = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *(
      (word, -n / 10) for n, word in enumerate(sorted(set("".join(_CORPUS)) | {"film", "the"})))],
      unk_id=0))
  unigram.pre_tokenizer = pre_tokenizers.Metaspace()
  config = json.dumps({"vocab_size": 10_000, "eos_token_id": 0}).encode()
  named = json.dumps({"eos_token": {"content": "</s>"}, "bos_token": None}).encode()
  return [{"tokenizer.json": bpe.to_str().encode(), "config.json": config},
          {"tokenizer.json": pieces.to_str().encode()},
          {"tokenizer.json": unigram.to_str().encode(), "tokenizer_config.json": named}]


def _read_tokenizer(folder) -> None:
  from ilm_jax.data import tokenizer_files
  made = tokenizer_files.load(folder)
  made.decode(made.encode("a film by <slot> two é")[:50])
  made.fingerprint  # noqa: B018


# Chat templates.

_TEMPLATES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m.role == 'user' %}"
    "[INST] {% if loop.first and s is defined %}{{ s }} {% endif %}{{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% else %}"
    "{{ raise_exception('role ' + m.role) }}{% endif %}{% endfor %}",
    "{% macro turn(m) %}<|im_start|>{{ m.role | upper | lower }}\n{{ m.content }}<|im_end|>"
    "{% endmacro %}{% set ns = namespace(n=0) %}{% for m in messages %}{{ turn(m) }}"
    "{% set ns.n = ns.n + 1 %}{% if ns.n > 10 ** 3 or 'x' * 3 == 'y' %}{% break %}{% endif %}"
    "{% endfor %}{% for i in range(0) %}{% for j in range(9) %}{{ i * j }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


@functools.cache
def _chat_tokenizer() -> bytes:
  import tokenizers
  from tokenizers import decoders, models, pre_tokenizers
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  made = tokenizers.Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  made.add_special_tokens(["</s>", "<|im_start|>", "<|im_end|>"])
  return made.to_str().encode()


def _templates() -> list[dict[str, bytes]]:
  made = [{"chat_template.jinja": source.encode()} for source in _TEMPLATES]
  made.append({"tokenizer_config.json": json.dumps({
      "chat_template": [{"name": "default", "template": _TEMPLATES[0]}],
      "bos_token": {"content": "</s>"}, "eos_token": "</s>"}).encode()})
  return made


def _read_template(folder) -> None:
  from ilm_jax.data import chat_files, chat_template, tokenizer
  with mock.patch.object(chat_files.subprocess, "Popen", zygote.Forked):
    chat = chat_template.load("auto", folder, _words(tokenizer))
    chat.encode("Films.", [chat_template.Said("user", "Hi"),
                           chat_template.Said("assistant", "Heat"),
                           chat_template.Said("user", "No <|im_end|>")])


@functools.cache
def _words(tokenizer):
  import tokenizers
  return tokenizer.Tokenizer(tokenizers.Tokenizer.from_str(_chat_tokenizer().decode()), eos="</s>",
                             wrap=False)


# Dialogs and sessions.

def _dialogs() -> list[dict[str, bytes]]:
  talk = {"id": "talk 1", "history": ["7"], "profile": "likes crime", "turns": [
      {"role": "user", "text": "I liked Heat. What next?", "items": ["item:7"], "act": "tell"},
      {"role": "recommender", "act": "recommend", "text": "Fargo.", "items": ["Fargo (1996)"]}]}
  return [{"talks.jsonl": json.dumps(talk).encode() + b"\n" + json.dumps(
      {**talk, "id": 2}).encode() + b"\n"}]


def _read_dialogs(folder) -> None:
  from ilm_jax.conversation import dialogs
  for dialog in dialogs.read(folder / "talks.jsonl", ITEMS):
    dialogs.joined(dialog)


def _redial(packed: bool) -> list[dict[str, bytes]]:
  talk = {"conversationId": "391", "initiatorWorkerId": 0, "respondentWorkerId": 1,
          "movieMentions": {"203371": "Final Fantasy (2001)", "84779": "Heat (1995)"},
          "messages": [{"senderWorkerId": 0, "text": "I liked @84779", "messageId": 1,
                        "timeOffset": 0},
                       {"senderWorkerId": 1, "text": "Try @203371", "messageId": 2,
                        "timeOffset": 9}],
          "initiatorQuestions": {"84779": {"suggested": 0, "seen": 1, "liked": 1}},
          "respondentQuestions": []}
  data = json.dumps(talk).encode() + b"\n" + json.dumps(
      {**talk, "movieMentions": [], "initiatorQuestions": []}).encode() + b"\n"
  if not packed:
    return [{"test_data.jsonl": data}]
  made = []
  for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
      for part in ("train", "test"):
        archive.writestr(zipfile.ZipInfo(f"{part}_data.jsonl"), data, method)
    made.append({"redial.zip": out.getvalue()})
  return made


def _read_redial(folder) -> None:
  from ilm_jax.conversation import redial
  path = folder / "redial.zip"
  talks = redial.read(path if path.exists() else folder, "test")
  redial.parts(path if path.exists() else folder)
  redial.catalogue(talks, ITEMS)
  for talk in talks:
    [redial.worded(turn.text, talk.films) for turn in talk.turns]


def _sessions() -> list[dict[str, bytes]]:
  return [{"talk.json": json.dumps({
      "opinions": [{"item": "7", "kind": "liked", "rating": 4.5, "turn": 0}],
      "constraints": [{"genres": ["Crime"], "without": [], "years": [1990, None], "turn": 1}],
      "critiques": [{"attribute": "dark", "steps": 1.0, "turn": 1}],
      "turns": [{"role": "user", "text": "I like Heat", "items": ["7"], "act": "tell"}]}).encode()}]


def _read_session(folder) -> None:
  from ilm_jax.conversation import session
  made = session.from_json((folder / "talk.json").read_bytes(), "talk.json")
  session.from_json(session.to_json(session.undo(made)))
  session.allowed(made, ITEMS)


def _soft_attributes() -> list[dict[str, bytes]]:
  return [{"soft.csv": b"rater_id,reference_title,soft_attribute,less_than,about_as,more_than\n"
                       b'1,Heat (1995),dark,"[""Fargo (1996)""]",[],"[""Am\xc3\xa9lie""]"\n'
                       b'2,Fargo (1996),slow,[],[],"[""Heat (1995)""]"\n'}]


def _read_soft_attributes(folder) -> None:
  from ilm_jax.conversation import soft_attributes, titles
  soft_attributes.read(folder / "soft.csv", titles.Titles(ITEMS))


# Gin.

def _gin() -> list[dict[str, bytes]]:
  return [{"run.gin": b"include 'more.gin'\nSTEPS = 10\nconfig.phase2.steps = %STEPS\n"
                      b"config.phase2.learning_rate = 1e-3\nconfig.vectors = ('behavioral',)\n"
                      b"config.data.columns = {'user': 'u'}\n",
           "more.gin": b"# sizes\nconfig.seed = 3\nWIDTH/macro.value = 4\n"}]


def _read_gin(folder) -> None:
  from configs import tiny
  from ilm_jax.config import gin_overlay
  config = tiny.get_config()
  gin_overlay.to_gin(gin_overlay.overlay(config.lock(), [str(folder / "run.gin")]))


ALL = [
    reader.Reader("sentencepiece", _sentencepiece, _read_tokenizer),
    reader.Reader("tokenizer.json", _tokenizer_json, _read_tokenizer),
    reader.Reader("chat-template", _templates, _read_template),
    reader.Reader("dialogs", _dialogs, _read_dialogs),
    reader.Reader("redial", functools.partial(_redial, False), _read_redial),
    reader.Reader("redial-zip", functools.partial(_redial, True), _read_redial),
    reader.Reader("session", _sessions, _read_session),
    reader.Reader("soft-attributes", _soft_attributes, _read_soft_attributes),
    reader.Reader("gin", _gin, _read_gin),
]
