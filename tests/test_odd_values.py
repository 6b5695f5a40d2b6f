"""Files whose values are of another kind than usual: one line, no traceback, no quadratic time.

Found by reading the code; benchmarks/garbage has damage drawn at random.
"""
import asyncio
import decimal
import json
import time

import pytest

from benchmarks.garbage import weights
from configs import tiny
from ilm_jax import errors
from ilm_jax.config import checks, gin_overlay, own_tasks
from ilm_jax.conversation import soft_attributes, titles, wishes
from ilm_jax.data import chat_files, chat_template, interactions, teachers
from ilm_jax.serving import chat
from ilm_jax.weights import blip2, hf, safetensors
from tasks.datasets import amazon_files, cells, movielens_files

ITEMS = interactions.Items(["7"], ["Heat"], [1995], [["Crime"]])
HUGE, DIGITS = "1" + "0" * 400, "0x" + "f" * 5000


@pytest.mark.parametrize("line", [
    "{'asin': 'B', 'x': 0x" + "f" * 300 + "+1j}", "{" + DIGITS + ": 1}",
    "{'asin': " + DIGITS + "}"])
def test_numbers_in_literals_that_python_does_not_spell(tmp_path, line):
  (tmp_path / "meta").write_text(line)
  with pytest.raises(errors.UserError, match="line 1"):
    amazon_files.read_items({"meta": tmp_path / "meta"}, 2014)


def test_decimals_of_any_length_are_ids():
  long = decimal.Decimal("1" * 38)
  assert cells.identity("f", 1, "id", long) == "1" * 38
  assert cells.identity("f", 1, "id", decimal.Decimal("7.00")) == "7"
  assert cells.word("f", 1, "x", decimal.Decimal("0.5")) == "0.5"


def test_a_reference_of_many_digits_is_no_letter(tmp_path):
  title = "&#" + "1" * 5000 + "; A &amp; B"
  (tmp_path / "meta").write_text(json.dumps({"asin": "B", "title": title}))
  assert amazon_files.read_items({"meta": tmp_path / "meta"}, 2018).titles == ["A & B"]


@pytest.mark.parametrize("title", ["a" + " " * 40_000 + "x", "a(1995)" + " " * 40_000 + "x",
                                   "a, The" + " " * 40_000 + "x", "(" * 60_000,
                                   "a" + "\u0301\u0316" * 50_000])
def test_long_titles_take_no_quadratic_time(title):
  began = time.process_time()
  movielens_files.title_and_year(title)
  titles.split(title)
  titles._names(title)
  assert time.process_time() - began < 1.5


def test_years_are_found_as_before():
  assert movielens_files.title_and_year("Usual Suspects, The  (1995) (V) ") == (
      "The Usual Suspects", 1995)
  assert titles.split("Heat  (1995) ") == ("Heat", 1995)


def test_a_chat_template_that_is_not_utf8(tmp_path):
  (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
  with pytest.raises(errors.UserError, match="not UTF-8"):
    chat_files.of_tokenizer(tmp_path, None)
  with pytest.raises(errors.UserError, match="not UTF-8"):
    chat_template.load(str(tmp_path / "chat_template.jinja"), tmp_path, None)


def test_a_chat_template_whose_name_is_no_text(tmp_path):
  (tmp_path / "tokenizer_config.json").write_text(
      '{"chat_template": [{"name": [], "template": "x"}]}')
  assert chat_files.of_tokenizer(tmp_path, None)[0] == ""


def test_soft_attributes_with_a_long_cell(tmp_path):
  cells = ["7", "Heat" + " " * 200_000 + "x", "dark", "[]", "[]", "[]"]
  (tmp_path / "soft.csv").write_text(",".join(soft_attributes.COLUMNS) + "\n" + ",".join(cells))
  began = time.process_time()
  soft_attributes.read(tmp_path / "soft.csv", titles.Titles(ITEMS))
  assert time.process_time() - began < 1.5


@pytest.mark.parametrize("data", [b"\xff", b"[" * 3000 + b"]" * 3000,
                                  b'{"task": [], "ids": ["1"], "target": "x"}', None])
def test_a_teachers_file_of_another_kind(tmp_path, data):
  if data:
    (tmp_path / "said.jsonl").write_bytes(data)
  with pytest.raises(errors.UserError, match="said.jsonl"):
    teachers.File(tmp_path / "said.jsonl", {})


def test_numbers_beyond_floats_in_configs_of_models(tmp_path):
  for name, data in weights._hugging_face()[0].items():
    (tmp_path / name).write_bytes(data)
  (tmp_path / "config.json").write_text(
      json.dumps({**weights._LLAMA, "rms_norm_eps": 0.5}).replace("0.5", HUGE))
  with pytest.raises(errors.UserError, match="config.json"):
    hf.load(tmp_path)
  for name, data in weights._bert()[0].items():
    (tmp_path / name).write_bytes(data)
  fields = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(
      json.dumps({**fields, "layer_norm_eps": 0.5}).replace("0.5", HUGE))
  with pytest.raises(errors.UserError, match="not a BERT config"):
    safetensors.load_bert(tmp_path)


@pytest.mark.parametrize("value", [HUGE, DIGITS])
def test_numbers_beyond_floats_in_gin(tmp_path, value):
  for field in ("phase2.learning_rate", "data.path", "phase2"):
    (tmp_path / "a.gin").write_text(f"config.{field} = {value}\n")
    with pytest.raises(errors.UserError, match="a.gin"):
      gin_overlay.overlay(tiny.get_config().lock(), [str(tmp_path / "a.gin")])


@pytest.mark.parametrize("text", ["MIXTURE = {'a': " + HUGE + "}", "MIXTURE = " + "-" * 5000 + "1",
                                  "x = " + "-" * 200_000 + "1"])
def test_modules_that_python_does_not_read(tmp_path, monkeypatch, text):
  (tmp_path / "odd_tasks.py").write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(errors.UserError, match="odd_tasks"):
    own_tasks.mixture("odd_tasks")


def test_groups_of_no_rows_are_named():
  c = tiny.get_config()
  c.phase2.head.rows_per_group = 0
  assert any("rows_per_group" in line for line in checks.mistakes(c, 1))


def test_tables_of_another_rank_are_no_blip2():
  of = blip2._LAVIS
  shapes = {"query_tokens": (1, 2, 4), of.layer + "0.intermediate_query.dense.weight": (8, 4),
            f"{of.layer}0.crossattention.{of.inner}.key.weight": (4, 4)}
  assert blip2._sizes("f", of, shapes).num_queries == 2
  with pytest.raises(errors.UserError, match="no Q-Former"):
    blip2._sizes("f", of, {**shapes, of.tables + "word_embeddings.weight": (30,)})


def test_a_long_reply_is_streamed_in_few_parts():
  whole = {"id": "a", "created": 1, "model": "m", "usage": {},
           "choices": [{"message": {"content": "( " * 2000}, "finish_reason": "stop"}]}
  response = chat.streamed(whole, with_usage=False)
  assert hasattr(response, "__aiter__")        # else every part takes a thread, and waits for it

  async def sent():
    return [part async for part in response]

  parts = asyncio.run(sent())
  assert "".join(parts) == "".join(chat.events(whole, with_usage=False))
  assert len(parts) < 40


def test_a_text_gets_few_guesses():
  asked = []
  wish = wishes.read(", ".join(f"more odd{n}" for n in range(200)), ["horror"],
                     lambda *forms: asked.append(forms) or forms[-1])
  assert len(asked) == len(wish.critiques) == wishes.MOST_GUESSES
  assert len(wish.unread) == 200 - wishes.MOST_GUESSES
