"""Files whose values are of another kind than usual: one line, no traceback, no quadratic time.

Found by reading the code; benchmarks/garbage has damage drawn at random.
"""
import asyncio
import decimal
import json
import time
import tracemalloc

import pytest
from absl import flags
from etils import epath
from ml_collections import config_flags

from benchmarks.garbage import weights
from configs import tiny
from ilm_jax import errors
from ilm_jax.config import checks, gin_overlay, own_tasks, reading
from ilm_jax.conversation import redial, soft_attributes, titles, wishes
from ilm_jax.data import chat_files, chat_template, interactions, teachers
from ilm_jax.export.shipped import check
from ilm_jax.models import decoder, language_model
from ilm_jax.serving import chat
from ilm_jax.weights import blip2, hf, own, safetensors, t5x_gin
from tasks.datasets import amazon_files, cells, movielens_files, table_files

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


@pytest.mark.parametrize("name, text", [
    ("_METADATA", "[]"), ("_METADATA", "5"), ("_METADATA", '{"tree_metadata": {"x": 5}}'),
    ("_METADATA", "[" * 3000 + "]" * 3000), ("array_metadatas/process_0", "[]")])
def test_our_own_layout_with_damaged_metadata(tmp_path, name, text):
  config = decoder.DecoderConfig(num_layers=1, width=8, num_heads=2, num_kv_heads=1, head_dim=4,
                                 mlp_width=12, vocab_size=20)
  own.save(tmp_path / "m", config, language_model.init(config, 0))
  (tmp_path / "m" / "params" / name).write_text(text)
  with pytest.raises(errors.UserError, match="write the model again"):
    own.load(tmp_path / "m")


def overlaid(folder, **texts):
  """Lays `a` of some gin files over a config."""
  for name, text in texts.items():
    (folder / f"{name}.gin").write_text(text)
  return gin_overlay.overlay(tiny.get_config().lock(), [str(folder / "a.gin")])


def test_gin_files_that_include_each_other_again_and_again(tmp_path):
  texts = {f"g{n}": f"include 'g{n + 1}.gin'\n" * 2 for n in range(30)}
  with pytest.raises(errors.UserError, match="included after 200 files"):
    overlaid(tmp_path, a="include 'g0.gin'", g30="", **texts)
  with pytest.raises(errors.UserError, match="included after 200 files"):
    t5x_gin.read(tmp_path / "a.gin")


@pytest.mark.parametrize("url", ["http://a/b", "gs://a/b", "file:///etc/hosts"])
def test_gin_includes_no_url(tmp_path, url):
  with pytest.raises(errors.UserError, match="not a URL"):
    overlaid(tmp_path, a=f"include '{url}'")


@pytest.mark.parametrize("text", [
    "".join(f"M{n} = (%M{n + 1}, %M{n + 1})\n" for n in range(40)) + "M40 = 1\n",
    "".join(f"M{n} = %M{n + 1}\n" for n in range(1500)) + "M1500 = 1\n", "M0 = (%M0,)\n",
    "M0 = {" + DIGITS + ": 1}\n"])
def test_gin_macros_that_grow_or_go_deep(tmp_path, text):
  with pytest.raises(errors.UserError, match="a.gin"):
    overlaid(tmp_path, a=text + "config.vectors = %M0\n")


@pytest.mark.parametrize("field", ["seed", "phase2.steps", "vectors"])
def test_whole_numbers_of_thousands_of_digits_in_configs(tmp_path, field):
  c, value, text = tiny.get_config(), int(DIGITS, 16), DIGITS
  if field == "vectors":
    value, text = (value,), f"({text},)"
  c.update_from_flattened_dict({field: value})
  with pytest.raises(errors.UserError, match=f"{field}=.*64 bits"):
    reading.validate(c, 1, paths=False)
  with pytest.raises(errors.UserError, match="64 at most"):
    overlaid(tmp_path, a=f"config.{field} = {text}")


@pytest.mark.parametrize("change", [
    {"messages": [{"senderWorkerId": 0, "text": "\ud800"}]}, {"movieMentions": {"1": "\ud800"}},
    {"movieMentions": {"\ud800": "Heat"}}, {"conversationId": "\ud800"}, {"conversationId": []}])
def test_half_characters_in_redial(tmp_path, change):
  talk = {"conversationId": "1", "initiatorWorkerId": 0, "respondentWorkerId": 1, "messages": [],
          "movieMentions": {"1": "Heat (1995)"}}
  (tmp_path / "test.jsonl").write_text(json.dumps(talk))
  assert redial.read(tmp_path, "test")[0].films == {"1": "Heat (1995)"}
  (tmp_path / "test.jsonl").write_text(json.dumps(talk | change))
  with pytest.raises(errors.UserError, match="test.jsonl, line 1"):
    redial.read(tmp_path, "test")


def written(path, **tensors):
  """A safetensors file whose shapes are as given: name=(dtype, shape, data)."""
  header, data = {}, b""
  for name, (dtype, shape, part) in tensors.items():
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data + part)]}
    data += part
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("width, biases", [(0, 1), (1, 1)])
def test_an_export_of_many_keys_of_no_width(tmp_path, width, biases):
  users, count = 256, 400_000
  (tmp_path / "export.json").write_text("{}")
  (tmp_path / "check.json").write_text("{}")
  written(tmp_path / "check.safetensors", states=("F32", [users, 1], bytes(4 * users)),
          lists=("I32", [users, 1], bytes(4 * users)), seen=("I32", [0], b""),
          list_scores=("F32", [users, 1], bytes(4 * users)),
          seen_offsets=("I64", [users + 1], bytes(8 * users + 8)))
  written(tmp_path / "items.safetensors", bias=("F32", [biases], bytes(4 * biases)),
          keys=("F32", [count, width], bytes(4 * count * width)))
  tracemalloc.start()
  with pytest.raises((check.Different, ValueError), match="items.safetensors"):
    check.check(tmp_path)
  assert tracemalloc.get_traced_memory()[1] < 48 << 20
  tracemalloc.stop()


def parquet_log(folder, rows, user="u"):
  """Writes a log of equal rows; returns what reads it, and the file's size."""
  pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  path = folder / "log.parquet"
  parquet.write_table(pa.table({"user_id": pa.array([user] * rows), "item_id": ["7"] * rows}),
                      path, compression="zstd")
  columns = tiny.get_config().data.columns
  columns.update({"interactions_file": "log.parquet", "time": "", "value": ""})
  return lambda: table_files.read_log({"log": epath.Path(path)}, columns), path.stat().st_size


def test_parquet_of_millions_of_equal_rows(tmp_path):
  read, size = parquet_log(tmp_path, 3_000_000)
  assert size < 100_000
  with pytest.raises(errors.UserError, match="log.parquet has 6,000,000 cells"):
    read()
  assert len(parquet_log(tmp_path, 400_000)[0]()[0]) == 400_000


def test_parquet_keeps_equal_texts_once(tmp_path):
  read, _ = parquet_log(tmp_path, 5_000, "u" * 100_000)      # 500 MB if each were kept
  tracemalloc.start()
  assert set(map(len, read()[0])) == {100_000}
  assert tracemalloc.get_traced_memory()[1] < 48 << 20
  tracemalloc.stop()


def test_categories_of_parquet_are_read(tmp_path):
  read, _ = parquet_log(tmp_path, 3)
  import pyarrow as pa
  from pyarrow import parquet
  parquet.write_table(pa.table({
      "user_id": pa.array(["a", "b", "a"]).dictionary_encode(), "item_id": pa.array([7, 8, 7])}),
                      tmp_path / "log.parquet")
  assert read()[:2] == (["a", "b", "a"], ["7", "8", "7"])


@pytest.mark.parametrize("path", ["~\0x", "data/ml\0"])
def test_a_path_with_a_nul_is_one_line(path):
  config = tiny.get_config()
  config.data.path = path
  with pytest.raises(errors.UserError, match=r"^config\.data\.path is .*without NUL$"):
    reading.at_home(config)


def test_a_config_without_a_name_is_one_line():
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file("config", flag_values=values)
  with pytest.raises(errors.UserError, match="--config names no file"):
    reading.from_flags(values, ["main", "--config", "--config"], holder)


def test_of_two_configs_the_last_is_read_and_named():
  for first, last in (("tiny", "127.phase2.steps=1"), ("nothere", "tiny")):
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values)
    argv = ["main", f"--config={first}", "--config", last]
    if last == "tiny":
      assert reading.from_flags(values, argv, holder).phase2.steps == tiny.get_config().phase2.steps
    else:
      with pytest.raises(errors.UserError, match="config file 127.* does not exist"):
        reading.from_flags(values, argv, holder)
