"""Files and words of people who mean harm, or were cut short: one line, and nothing runs."""
import csv
import dataclasses
import gzip
import inspect
import io
import itertools
import json
import pickle
import re
import struct
import sys
import types
import zipfile

import ml_collections
import numpy as np
import pytest

from benchmarks.garbage import mutate, weights
from configs import base, tiny
from ilm_jax import errors
from ilm_jax.config import gin_overlay
from ilm_jax.conversation import redial, soft_attributes, titles
from ilm_jax.data import chat_files, interactions, tokenizer_files
from ilm_jax.evaluation import compare, list_files, measured, report
from ilm_jax.export.shipped import check, top_k
from ilm_jax.stages import chat, recommend
from ilm_jax.weights import hf, safetensors, t5x, t5x_gin, torch_zip
from tasks.datasets import amazon_files, lines, movielens_files, table_files
from tests import talks

ESCAPE = "Heat\x1b]0;owned\x07\x9b31m\u202e"
ITEMS = interactions.Items(["7"], ["Heat"], [1995], [["Crime"]])


# What a message and a terminal get.

def test_a_message_is_one_plain_line_whatever_stands_in_it():
  said = str(errors.UserError(f"{ESCAPE}\ud800\n\tnext {'x' * 9000}"))
  assert said.startswith("Heat\\x1b]0;owned\\x07\\x9b31m\\u202e\\ud800 next xxx")
  assert said.endswith(".. (9,045 letters)") and len(said) < 4100 and said.isprintable()
  assert str(pickle.loads(pickle.dumps(errors.UserError("a b")))) == "a b"


def test_a_value_in_a_message_is_short_however_it_is_made():
  bomb = deep = ()
  for _ in range(60):
    bomb = (bomb, bomb)
  for _ in range(5000):
    deep = [deep]
  assert errors.shown("a") == "'a'" and errors.shown([1, None]) == "[1, None]"
  assert all(len(errors.shown(value)) < 400 for value in (bomb, deep, "x" * 10 ** 6, 10 ** 5000,
                                                          dict.fromkeys(range(99), bomb)))


def printed(capsys) -> str:
  out = capsys.readouterr().out
  assert "\\x1b]0;owned" in out and not set("\x1b\x07\x9b\u202e") & set(out), out
  return out


def test_titles_cannot_steer_the_terminal(tmp_path, monkeypatch, capsys):
  run = talks.run(monkeypatch)
  items = dataclasses.replace(run.data.items, titles=[*run.data.items.titles[:-1], ESCAPE])
  run.data = run.data._replace(items=items)
  monkeypatch.setattr("sys.stdin", io.StringIO("I like Fargo\n"))
  chat.run(run, chat.Wish(k=1))
  printed(capsys)
  fake = types.SimpleNamespace(run=run, reads=0, method="ILM", top=lambda *_: (
      np.array([[12]]), np.array([[1.0]])))
  recommend._print(fake, recommend.Wish(liked=("Heat",)), np.array([1]))
  printed(capsys)
  folder = tmp_path / "eval" / "phase2" / "2"
  folder.mkdir(parents=True)
  measured.mark(folder, {"checkpoints": {}})
  (folder / "examples.json").write_text(json.dumps({"title": "Recommendations", "note": "",
      "examples": [{"user": "7", "last read": [ESCAPE], "recommended": [ESCAPE]}]}))
  (folder / "recommendation.json").write_text(json.dumps({"title": ESCAPE, "note": ESCAPE,
      "protocol": {}, "rows": [{"method": ESCAPE, "metrics": {ESCAPE: {"value": 1.0}}}]}))
  report.write(tmp_path, with_tables=True)
  printed(capsys)


def test_markup_and_formulas_in_titles_are_text(tmp_path):
  markup = "<script>alert(1)</script>"
  assert compare._line([markup, "a|b"]) == "| &lt;script&gt;alert(1)&lt;/script&gt; | a\\|b |"
  out = str(tmp_path / "lists.csv")
  words = ["=cmd()", "+1", "-1", "@x", "\tx", " =x", "\nx", "\uff1dx", "1-1=0"]
  with list_files.writing(out) as write:
    write([list_files.Row(word, 1, word, word, -1.0) for word in words])
  with open(out, newline="") as file:
    rows = list(csv.reader(file))[1:]
  assert [row[3] for row in rows] == [f"'{word}" for word in words[:-1]] + words[-1:]
  with list_files.writing(out) as write:
    write([list_files.Row("u", 1, "i", "a\r=b", 0.5)])
  assert open(out, newline="").read().splitlines()[1:] == ["u,1,i,a =b,0.5"]
  assert all(row[0] == row[2] == row[3] and row[4] == "-1" for row in rows)


# What is packed.

@pytest.mark.parametrize("text", [b"\0" * (18 << 20), b"1,2\n" * (1 << 21)])
def test_a_bomb_in_gzip_is_refused_as_it_unpacks(tmp_path, monkeypatch, text):
  monkeypatch.setattr(lines.files, "SMALL", 1 << 20)
  path = tmp_path / "log.csv.gz"
  path.write_bytes(gzip.compress(text, 9))
  with pytest.raises(errors.UserError, match=r"log.csv.gz has (a line of|more than 250 times)"):
    with lines.text(path) as file:
      for _ in file:
        pass


def zipped(how=zipfile.ZIP_DEFLATED, **members) -> bytes:
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w", how) as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  return out.getvalue()


def test_a_bomb_in_a_zip_and_a_damaged_one_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(redial.files, "SMALL", 1 << 10)
  path = tmp_path / "r.zip"
  path.write_bytes(zipped(**{"test_data.jsonl": b"\n" * (1 << 22)}))
  with pytest.raises(errors.UserError, match="250 times the bytes of the zip"):
    redial.read(path)
  monkeypatch.setattr(redial.files, "SMALL", 1 << 24)
  path.write_bytes(zipped(**{"test_data.jsonl": b"\n" + b" " * (1 << 23)}))
  with pytest.raises(errors.UserError, match="line 2 has more than 4,194,304 bytes, expected Re"):
    redial.read(path)
  whole = bytearray(zipped(**{"test_data.jsonl": bytes(range(256)) * 9}))
  for bit in itertools.chain(range(0, 400, 7), range(8 * len(whole) - 600, 8 * len(whole), 7)):
    whole[bit // 8] ^= 1 << bit % 8
    path.write_bytes(whole)
    with pytest.raises(errors.UserError, match="r.zip"):
      redial.read(path)
    whole[bit // 8] ^= 1 << bit % 8


def test_members_that_would_leave_their_folder_are_only_names(tmp_path):
  """Nothing is unpacked to disk: a member is read by its name, and lands nowhere."""
  (tmp_path / "in").mkdir()
  path = tmp_path / "in" / "r.zip"
  path.write_bytes(zipped(**{"../../test_data.jsonl": b"{}", "/etc/test_data.jsonl": b"{}"}))
  with pytest.raises(errors.UserError, match="lacks messages"):
    redial.read(path)
  assert sorted(p.name for p in tmp_path.rglob("*")) == ["in", "r.zip"]


# Pickles.

def entangled(depth: int) -> bytes:
  """Opcodes of a tuple of two that are one tuple of two, and so on."""
  return b")" + b"".join(b"q%c\x68%c\x86" % (n, n) for n in range(depth))


@pytest.mark.parametrize("how", [
    b"}" + entangled(60) + b"K\x01s.", b"\x8f(" + entangled(60) + b"\x90.",
    b"(" + entangled(60) + b"K\x01d.", b"cos\nsystem\n(X\x04\0\0\0true\x85R.",
    b"cbuiltins\neval\n(X\x011tR.", b"c__builtin__\ngetattr\n.", b"(X\x04\0\0\0trueios\nsystem\n.",
    b"ctorch._utils\n_rebuild_tensor_v2\n}X\x0c\0\0\0__defaults__K\x01sb.", b"\x82\x01.",
    b"ccollections\nOrderedDict\n(K\x01tR.", b"ctorch\nload\n(X\x01\0\0\0xtR."])
def test_a_pickle_neither_runs_nor_hangs(tmp_path, how):
  path = tmp_path / "w.pth"
  path.write_bytes(zipped(zipfile.ZIP_STORED, **{"a/data.pkl": b"\x80\x02" + how}))
  with pytest.raises(errors.UserError, match=r"w\.pth: not? .*(readable|tensors)"):
    torch_zip.TorchFile(path)
  assert torch_zip._tensor.__defaults__ is None


def test_an_entangled_shape_is_told_in_few_words(tmp_path):
  data = weights.torch_zip({"w": np.zeros(3, np.float32)})
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    members = {name: archive.read(name) for name in archive.namelist()}
  shape = b"(J\x03\0\0\0t"
  made = members["archive/data.pkl"].replace(shape, b"(" + entangled(60) + b"t", 1)
  path = tmp_path / "w.pth"
  path.write_bytes(zipped(zipfile.ZIP_STORED, **{**members, "archive/data.pkl": made}))
  with pytest.raises(errors.UserError, match="expected whole numbers from 0"):
    torch_zip.TorchFile(path)


# What garbage broke.

def test_a_line_of_u_item_without_marks_is_named(tmp_path):
  (tmp_path / "u.item").write_bytes(b"no marks\n")
  with pytest.raises(errors.UserError, match="line 1: found 1 fields, expected 24"):
    movielens_files.read_items({"u.item": tmp_path / "u.item"})


@pytest.mark.parametrize("column, value", [
    ("time", "99999999999999999999999"), ("rating", "1e300"), ("year", "2147483648")])
def test_numbers_that_no_array_holds_are_refused(tmp_path, column, value):
  row = {"user_id": "u", "item_id": "i", "time": "5", "rating": "1", "year": "1990", "title": "t",
         column: value}
  path = tmp_path / "x.csv"
  path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
  columns = ml_collections.ConfigDict(base.columns())
  columns.update({"time": "time", "value": "rating", "year": "year", "items_file": "x.csv"})
  with pytest.raises(errors.UserError, match=f"line 2: {column} is"):
    table_files.read_log({"x.csv": path}, columns)
    table_files.read_items({"x.csv": path}, columns)


@pytest.mark.parametrize("number", range(4))
def test_damaged_parquet_is_refused_or_read(tmp_path, number):
  pytest.importorskip("pyarrow")
  from benchmarks.garbage import tables
  whole = tables._parquet()[number]["log.parquet"]
  columns = ml_collections.ConfigDict({**base.columns(), "time": "time", "value": "rating"})
  path, refused = tmp_path / "log.parquet", 0
  for at in range(4, len(whole), 23):
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1:])
    try:
      table_files.read_log({path.name: path}, columns)
    except errors.UserError:
      refused += 1
  assert refused > 10


def test_ids_of_more_digits_than_python_reads_are_texts():
  ids, code_N = interactions.codes(["9" * 5001, "10", "9"])
  assert ids == ["10", "9", "9" * 5001] and code_N.tolist() == [2, 0, 1]


def test_json_nested_too_deep_with_half_a_letter_is_refused(tmp_path):
  deep = '{"a": ' + "[" * 900 + '"\\ud800"' + "]" * 900 + "}"
  (tmp_path / "log.jsonl").write_text(deep)
  limit = sys.getrecursionlimit()
  sys.setrecursionlimit(len(inspect.stack(0)) + 500)
  try:
    with pytest.raises(errors.UserError, match="line 1 is no JSON object: .*recursion"):
      list(lines.objects(tmp_path / "log.jsonl"))
  finally:
    sys.setrecursionlimit(limit)


@pytest.mark.parametrize("line", ["{'asin': {{1}}}", "{{1}: 'asin'}"])
def test_a_literal_that_cannot_be_hashed_is_refused(tmp_path, line):
  (tmp_path / "meta.json").write_text(line)
  with pytest.raises(errors.UserError, match="line 1 is no Python dict: .*unhashable"):
    list(lines.objects(tmp_path / "meta.json", literals=True))


@pytest.mark.parametrize("year, key", [(2014, "categories"), (2018, "category"),
                                       (2023, "categories")])
@pytest.mark.parametrize("value, genres", [
    (5, ()), (1.5, ()), (True, ()), ([5], ()), ({"a": 1}, ()), ([None, {"b": 2}], ()),
    ("Soap", ("Soap",))])
def test_categories_of_other_types_name_nothing(tmp_path, year, key, value, genres):
  form = repr if year == 2014 else json.dumps
  (tmp_path / "meta").write_text(form({"asin": "A", "parent_asin": "A", key: value}))
  items = amazon_files.read_items({"meta": tmp_path / "meta"}, year)
  assert [tuple(of) for of in items.genres] == [genres]


def test_a_long_title_has_its_article_first():
  assert movielens_files.title_and_year(f"{'[' * 50_000}, The (1994)") == (
      f"The {'[' * 50_000}", 1994)


def test_a_sentencepiece_model_of_broken_letters_is_refused(tmp_path):
  model = bytearray(weights_of_pieces())
  at = re.search(rb"\n[\x02-\x14]([a-z]{2,})\x15", model).start(1)      # a piece, then its score
  model[at:at + 2] = b"\xff\xfe"
  (tmp_path / "a.model").write_bytes(model)
  with pytest.raises(errors.UserError, match="not a readable SentencePiece model"):
    tokenizer_files.load(tmp_path / "a.model")


def weights_of_pieces() -> bytes:
  from benchmarks.garbage import texts
  return texts._sentencepiece()[1]["spiece.model"]


def test_a_file_of_soft_attributes_that_is_not_there(tmp_path):
  with pytest.raises(errors.UserError, match="does not exist"):
    soft_attributes.read(tmp_path / "soft.csv", titles.Titles(ITEMS))


def test_the_campaign_forks_templates_under_the_same_limits(tmp_path, monkeypatch):
  from benchmarks.garbage import texts
  monkeypatch.setattr(chat_files, "SECONDS", 1)
  path = tmp_path / "chat_template.jinja"
  path.write_text("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}")
  with pytest.raises(errors.UserError, match="takes more than 1 seconds"):
    texts._read_template(tmp_path)
  path.write_text(texts._TEMPLATES[0])
  texts._read_template(tmp_path)


@pytest.mark.parametrize("header", [b'"x"', b"[1]", b"7", b'{"a": []}', b'{"a": {"dtype": []}}',
    b'{"a": {"dtype": "F32", "shape": [1e9], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [1152921504606846976], "data_offsets": [0, 4]}}'])
def test_a_header_of_another_kind_is_refused(tmp_path, header):
  (tmp_path / "config.json").write_text(json.dumps(weights._LLAMA))
  (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
  with pytest.raises(errors.UserError, match="not a readable safetensors file"):
    hf.load(tmp_path)


def test_more_heads_than_channels_are_refused(tmp_path):
  for name, data in weights._hugging_face()[0].items():
    (tmp_path / name).write_bytes(data)
  (tmp_path / "config.json").write_text(json.dumps({**weights._LLAMA, "num_attention_heads": 64}))
  with pytest.raises(errors.UserError, match="hidden_size is 8, less than 64 heads"):
    hf.load(tmp_path)


@pytest.mark.parametrize("text", ["config.seed = (1,\n", "config.seed = " + "(" * 300,
    "config.seed = " + "-" * 90_000 + "1", "config.seed = [" * 3000, "\0", "@", "include '\0'",
    "a = 'x\n"])
def test_gin_that_is_none_is_refused(tmp_path, text):
  (tmp_path / "a.gin").write_text(text)
  with pytest.raises(errors.UserError):
    gin_overlay.overlay(tiny.get_config().lock(), [str(tmp_path / "a.gin")])
  with pytest.raises(errors.UserError):
    t5x_gin.read(tmp_path / "a.gin")


def test_a_norm_of_another_kind_is_refused(tmp_path):
  for name, data in weights._bert()[0].items():
    (tmp_path / name).write_bytes(data)
  fields = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps({**fields, "layer_norm_eps": [1]}))
  with pytest.raises(errors.UserError, match="not a BERT config"):
    safetensors.load_bert(tmp_path)


def t5x_folder(folder, change):
  files = dict(weights._t5x_tensorstore()[0])
  change(files)
  for name, data in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
  return folder


def test_a_damaged_chunk_and_arrays_of_no_bytes_are_refused(tmp_path):
  def damage(files):
    name = next(name for name in files if name.endswith("/0.0"))
    files[name] = b"x" + files[name][1:]

  def inflate(files):
    name = next(name for name in files if name.endswith("token_embedder.embedding/.zarray"))
    files[name] = json.dumps({**json.loads(files[name]), "shape": [1 << 40, 8]}).encode()

  with pytest.raises(errors.UserError, match="an array of the checkpoint cannot be read"):
    t5x.load(t5x_folder(tmp_path / "a", damage))
  with pytest.raises(errors.UserError, match=r"its arrays have 8,796,.* elements by their headers"):
    t5x.load(t5x_folder(tmp_path / "b", inflate))


@pytest.mark.parametrize("name", ["items.safetensors", "items.json", "check.safetensors"])
def test_a_damaged_export_is_one_line(tmp_path, capsys, name):
  from benchmarks.garbage import programs
  for file, data in programs._export()[0].items():
    (tmp_path / file).write_bytes(data)
  assert check.main([str(tmp_path)]) == 0
  for wrong in (b"", b"[]", b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]", b"{}"):
    (tmp_path / name).write_bytes(wrong)
    codes = check.main([str(tmp_path)]), top_k.main([f"--folder={tmp_path}", "--like=7", "--k=1"])
    assert 1 in codes and len(capsys.readouterr().err.splitlines()) == sum(codes)


def test_garbage_is_the_same_for_a_seed():
  seeds = [{"a.json": b'{"a": [1, 2]}', "b.csv": b"1,2\n"}]
  import random
  one, other = (mutate.folder(random.Random(f"0 x {n}"), seeds) for n in (5, 5))
  assert one == other
