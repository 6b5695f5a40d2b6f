"""Tables of a user's own as they come: quote marks, odd ids, times of every unit, gaps, BOMs."""
import gzip
import json

import pytest
from logs import listed

from configs import base
from ilm_jax import errors
from ilm_jax.config import reading
from ilm_jax.data import interactions
from tasks.datasets import lines, registry

DAYS = [1_700_000_000 + 86_400 * day for day in range(6)]


def find(folder, log="log.csv", items="", **columns):
  """The table in `folder` with columns user_id, item_id, and of the items item_id, title."""
  c = base.get_config().data
  c.update(name="table", path=str(folder))
  c.columns.update(interactions_file=log, items_file=items, **columns)
  return registry.find(c)


def rows(separator, cells, header=("user_id", "item_id", "title", "at")):
  return "".join(separator.join(map(str, row)) + "\n" for row in [header, *cells])


def events(titles):
  return [(f"u{n % 2}", f"P{n}", title, DAYS[n]) for n, title in enumerate(titles)]


@pytest.mark.parametrize("titles", [
    ["Low", '"Heroes', "Scary", "Lodger", "Tonight"],            # never closed
    ["Low", '"Heroes', "Scary", 'Lodger"', "Tonight"],           # closed three rows below
    ["Low", '"Heroes', "Scary", '"Lodger"', "Tonight"],
    ["Low", "Heroes", '"Croco" Kettle', "Lodger", "Tonight"]])
def test_a_quote_mark_never_eats_rows(tmp_path, titles):
  """A TSV keeps its marks. A CSV is refused with the line where the mark opens."""
  (tmp_path / "log.tsv").write_text(rows("\t", events(titles)))
  log = find(tmp_path, "log.tsv", time="at").read_log()
  assert log.item_ids == [f"P{n}" for n in range(5)] and list(log.time_N) == DAYS[:5]
  (tmp_path / "items.tsv").write_text(rows("\t", [(f"P{n}", t) for n, t in enumerate(titles)],
                                           ("item_id", "title")))
  assert find(tmp_path, "log.tsv", "items.tsv").read_items().titles == titles
  (tmp_path / "log.csv").write_text(rows(",", events(titles)))
  line = 2 + next(n for n, title in enumerate(titles) if title.startswith('"'))
  with pytest.raises(errors.UserError, match=rf"log.csv, line {line}: .*quote mark"):
    find(tmp_path, time="at").read_log()


def test_csv_cells_may_hold_marks_commas_and_lines(tmp_path):
  cells = [("P0", '"12"" pan, red"'), ("P1", '"two\nlines"'), ("P2", 'the 5" knife'), ("P3", '""')]
  (tmp_path / "items.csv").write_text(rows(",", cells, ("item_id", "title")))
  (tmp_path / "log.csv").write_text("user_id,item_id\nu,P0\n")
  assert find(tmp_path, items="items.csv").read_items() == interactions.Items(
      ["P0", "P1", "P2", "P3"], ['12" pan, red', "two lines", 'the 5" knife', ""], [None] * 4,
      [[]] * 4)


def test_a_tsv_whose_header_is_quoted_is_quoted(tmp_path):
  (tmp_path / "log.tsv").write_text('"user_id"\t"item_id"\n"u"\t"P\t0"\n')
  assert find(tmp_path, "log.tsv").read_log()[:2] == (["u"], ["P\t0"])
  # A writer that quotes where it must doubles marks: they are read as it meant them.
  (tmp_path / "items.tsv").write_text('item_id\ttitle\nP0\t"12"" pan"\nP1\t"""Heroes"""\nP2\t""\n')
  assert find(tmp_path, "log.tsv", "items.tsv").read_items().titles == ['12" pan', '"Heroes"', '""']


@pytest.mark.parametrize("header", ["user_id,item_id", '"user_id","item_id"'])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path, header):
  (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbf" + f"{header}\nu,P\n".encode())
  assert find(tmp_path).read_log()[:2] == (["u"], ["P"])


def test_long_cells_and_packed_names_in_capitals(tmp_path):
  text = f"user_id,item_id,note\nu,P,{'x' * 140_000}\n".encode()
  (tmp_path / "log.csv.GZ").write_bytes(gzip.compress(text))
  assert find(tmp_path, "log.csv.GZ").read_log()[:2] == (["u"], ["P"])


def test_another_encoding_is_named_with_its_cure(tmp_path):
  (tmp_path / "log.csv").write_bytes("user_id,item_id\nu,Café\n".encode("latin-1"))
  with pytest.raises(errors.UserError, match="expected text in UTF-8; .*iconv"):
    find(tmp_path).read_log()


def test_one_id_in_every_spelling_of_a_whole_number(tmp_path):
  pairs = [("7", -7), (7, -7.0), (7.0, "-7.0"), ("7.0", "-7"), (" 7 ", -7),
           (-0.0, "-0"), ("0", "-0.0")]
  (tmp_path / "log.jsonl").write_text("".join(
      json.dumps({"user_id": user, "item_id": item}) + "\n" for user, item in pairs))
  assert find(tmp_path, "log.jsonl").read_log()[:2] == (
      ["7"] * 5 + ["0"] * 2, ["-7"] * 5 + ["0"] * 2)
  assert interactions.codes(["10", "-7", "9"])[0] == ["-7", "9", "10"]


@pytest.mark.parametrize("value", [True, ["P0"], {"id": 1}, None, "", 2.0 ** 60])
def test_what_can_be_no_id_is_refused_with_its_line(tmp_path, value):
  (tmp_path / "log.jsonl").write_text(
      json.dumps({"user_id": "u", "item_id": "P"}) + "\n"
      + json.dumps({"user_id": "u", "item_id": value}) + "\n")
  with pytest.raises(errors.UserError, match="log.jsonl, line 2: item_id is "):
    find(tmp_path, "log.jsonl").read_log()


def test_titles_and_genres_are_text(tmp_path):
  (tmp_path / "log.csv").write_text("user_id,item_id\nu,P0\n")
  for wrong in ({"title": ["Soap"]}, {"title": False}, {"tags": {"a": 1}}, {"tags": [["a"]]}):
    (tmp_path / "items.jsonl").write_text(json.dumps({"item_id": "P0", "title": "", "tags": [],
                                                      **wrong}) + "\n")
    with pytest.raises(errors.UserError, match=f"line 1: {next(iter(wrong))} is .*expected text"):
      find(tmp_path, items="items.jsonl", genres="tags").read_items()


def test_half_an_emoji_becomes_the_replacement_character(tmp_path):
  (tmp_path / "log.csv").write_text("user_id,item_id\nu,P0\n")
  (tmp_path / "items.jsonl").write_text(
      '{"item_id": "P0", "title": "cut \\ud83d", "tags": ["\\uDE00 b"]}\n'
      '{"item_id": "P1", "title": "whole \\ud83d\\ude00", "tags": []}\n')
  items = find(tmp_path, items="items.jsonl", genres="tags").read_items()
  assert items.titles == ["cut \ufffd", "whole \U0001f600"]
  assert items.genres == [["\ufffd b"], []]
  (tmp_path / "meta.json").write_text("{'title': 'cut \\ud83d'}\n")
  assert list(lines.objects(tmp_path / "meta.json", literals=True)) == [
      (1, {"title": "cut \ufffd"})]


def test_any_line_may_lack_a_key_that_is_optional(tmp_path):
  (tmp_path / "log.csv").write_text("user_id,item_id\nu,P0\n")
  (tmp_path / "items.jsonl").write_text('{"item_id": "P0"}\n{"item_id": "P1", "title": "Soap", '
                                        '"released": 2001}\n')
  items = find(tmp_path, items="items.jsonl", year="released").read_items()
  assert items.titles == ["", "Soap"] and items.years == [None, 2001]
  with pytest.raises(errors.UserError, match="no column 'relased': .* did you mean 'released'"):
    find(tmp_path, items="items.jsonl", year="relased").read_items()


@pytest.mark.parametrize("value, unit, seconds", [
    ("1.700000000e+09", "s", 1_700_000_000), ("1.7E12", "ms", 1_700_000_000),
    (1_700_000_000_000_001, "us", 1_700_000_000), ("1700000000000000001", "ns", 1_700_000_000)])
def test_numbers_of_time_in_every_unit(tmp_path, value, unit, seconds):
  (tmp_path / "log.csv").write_text(f"user_id,item_id,at\nu,P0,{value}\n")
  assert list(find(tmp_path, time="at", time_unit=unit).read_log().time_N) == [seconds]


def test_nanoseconds_decide_the_order(tmp_path):
  (tmp_path / "log.csv").write_text(
      "user_id,item_id,at\nu,P1,1700000000000000002\nu,P0,1700000000000000001\n")
  assert find(tmp_path, time="at", time_unit="ns").read_log()[1] == ["P0", "P1"]


def test_dates_beyond_the_nanoseconds_of_64_bits_keep_their_order(tmp_path):
  """A date far ahead often stands for "never"."""
  (tmp_path / "log.csv").write_text(
      "user_id,item_id,at\nu,P1,9999-12-31T00:00:00.2Z\nu,P0,9999-12-31T00:00:00.1Z\n"
      "u,P2,1900-01-01T00:00:00.5Z\n")
  log = find(tmp_path, time="at").read_log()
  assert log.item_ids == ["P2", "P0", "P1"]
  assert list(log.time_N) == [-2_208_988_800, 253_402_214_400, 253_402_214_400]


@pytest.mark.parametrize("value, unit, cure", [
    (1_700_000_000_000, "s", "time_unit='ms'"), (1_700_000_000_000_000, "s", "time_unit='us'"),
    (1_700_000_000_000_000_000, "s", "time_unit='ns'"),
    (1_700_000_000_000_000_000, "ms", "time_unit='ns'"),
    (20231114, "s", "2023-11-14"), (20231114221320, "s", "2023-11-14T22:13:20"),
    (10 ** 30, "ns", "since 1970")])
def test_times_of_another_unit_are_refused_with_the_cure(tmp_path, value, unit, cure):
  (tmp_path / "log.csv").write_text(f"user_id,item_id,at\nu,P0,{value}\n")
  with pytest.raises(errors.UserError, match=f"log.csv, line 2: at is {value}.*{cure}"):
    find(tmp_path, time="at", time_unit=unit).read_log()


def test_the_units_are_those_a_config_may_name():
  c = base.get_config()
  c.data.update(name="table", path=".")
  for unit in ("s", "ms", "us", "ns"):
    c.data.columns.time_unit = unit
    reading.validate(c, 1)
  c.data.columns.time_unit = "min"
  with pytest.raises(errors.UserError, match="time_unit"):
    reading.validate(c, 1)


def test_parquet_of_binary_ids_and_timestamps_in_nanoseconds(tmp_path):
  pa = pytest.importorskip("pyarrow")
  import decimal

  from pyarrow import parquet
  times = pa.array([1_700_000_000_000_000_007, 1_700_000_000_000_000_001], pa.timestamp("ns"))
  parquet.write_table(pa.table({
      "user_id": pa.array([b"c00", b"c00"]), "item_id": pa.array([b"P00", "Pö".encode()]),
      "at": times}), tmp_path / "log.parquet")
  parquet.write_table(pa.table({
      "item_id": pa.array([b"P00", "Pö".encode()], pa.large_binary()),
      "title": pa.array([b"Kettle no. 0", None]),
      "year": pa.array([decimal.Decimal("2001.00"), None]),
      "tags": pa.array([[b"garden"], []])}), tmp_path / "items.parquet")
  found = find(tmp_path, "log.parquet", "items.parquet", time="at", year="year", genres="tags")
  assert listed(found.read_log())[:3] == (["c00"] * 2, ["Pö", "P00"], [1_700_000_000] * 2)
  assert found.read_items() == interactions.Items(
      ["P00", "Pö"], ["Kettle no. 0", ""], [2001, None], [["garden"], []])
  for unit in ("s", "ms", "us", "ns"):
    for zone in (None, "Europe/Paris"):
      column = pa.array([1_700_000_000 * 10 ** {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]],
                        pa.timestamp(unit, zone))
      parquet.write_table(pa.table({"user_id": ["u"], "item_id": ["P"], "at": column}),
                          tmp_path / "log.parquet")
      assert list(find(tmp_path, "log.parquet", time="at").read_log().time_N) == [1_700_000_000]
  parquet.write_table(pa.table({"user_id": pa.array([b"\xff\xfe"]), "item_id": ["P"]}),
                      tmp_path / "log.parquet")
  with pytest.raises(errors.UserError, match="line 1: user_id is .*expected text in UTF-8"):
    find(tmp_path, "log.parquet").read_log()


def test_a_text_file_without_a_header_is_read_by_numbers_and_any_delimiter(tmp_path):
  """MovieLens-1M's form: "::" between cells, no header, Latin-1, quote marks in titles."""
  (tmp_path / "log.dat").write_text("1::P1::5::1700000002\n1::P0::4::1700000001\n")
  (tmp_path / "items.dat").write_bytes('P0::Café "Noir"::a|b\nP1::"Heroes::c\n'.encode("latin-1"))
  found = find(tmp_path, "log.dat", "items.dat", user="1", item="2", value="3", time="4", id="1",
               title="2", genres="3", delimiter="::", encoding="latin-1")
  assert listed(found.read_log()) == (
      ["1", "1"], ["P0", "P1"], [1700000001, 1700000002], [4.0, 5.0])
  assert found.read_items() == interactions.Items(
      ["P0", "P1"], ['Café "Noir"', '"Heroes'], [None, None], [["a", "b"], ["c"]])


def test_the_items_file_may_have_a_delimiter_and_a_header_of_its_own(tmp_path):
  (tmp_path / "log.txt").write_text("u;P0\n")
  (tmp_path / "items.csv").write_text('item_id,title\nP0,"Pot, red"\n')
  found = find(tmp_path, "log.txt", "items.csv", user="1", item="2", delimiter=";",
               items_delimiter=",")
  assert (found.read_log()[:2], found.read_items().titles) == ((["u"], ["P0"]), ["Pot, red"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_known_by_its_mark(tmp_path, encoding):
  text = "\ufeff" * (encoding != "utf-16") + "user_id,item_id\nu,Pö\n"
  (tmp_path / "log.csv").write_bytes(text.encode(encoding))
  assert find(tmp_path).read_log()[:2] == (["u"], ["Pö"])
  (tmp_path / "log.csv").write_bytes("user_id,item_id\nu,Pö\n".encode("utf-16-le"))
  with pytest.raises(errors.UserError, match="encoding=utf-16-le"):
    find(tmp_path, encoding="utf-16").read_log()


@pytest.mark.parametrize(("log", "columns", "says"), [
    ("u;P\n", {}, r"no column 'user_id'.*delimiter=';'"), ("u::P\n", {}, "delimiter=::"),
    ("u,P\n", {"user": "1", "item": "3"}, "line 1 has 2 cells separated by ',', expected at lea"),
    ("u,P\nu\n", {"user": "1", "item": "2"}, "line 2: found 1 fields, expected 2")])
def test_a_file_cut_otherwise_is_told(tmp_path, log, columns, says):
  (tmp_path / "log.csv").write_text(log)
  with pytest.raises(errors.UserError, match=says):
    find(tmp_path, **columns).read_log()


@pytest.mark.parametrize(("columns", "says"), [
    ({"interactions_file": "log.dat"}, "does not tell the delimiter: .*delimiter=::"),
    ({"user": "1", "item": "2", "time": "at"}, "time='at' beside user='1'.*or ''"),
    ({"user": "0", "item": "1"}, "counted from 1"), ({"encoding": "latin1x"}, "encoding='latin1x'"),
    ({"delimiter": '"'}, "no quote mark")])
def test_what_cannot_be_cut_is_refused_before_a_file_is_read(columns, says):
  c = base.get_config()
  c.data.update(name="table", path=".")
  c.data.columns.update(columns)
  with pytest.raises(errors.UserError, match=says):
    reading.validate(c, 1)


def test_a_run_from_before_these_fields_keeps_its_data(tmp_path):
  """The fingerprint of a table is what it was: sha256 over the older fields and the files."""
  (tmp_path / "log.csv").write_text("user_id,item_id\nu,P\n")
  was = {"interactions_file": "log.csv", "user": "user_id", "item": "item_id", "time": "",
         "time_unit": "s", "value": "", "items_file": "", "id": "item_id", "title": "title",
         "year": "", "genres": "", "separator": "|"}
  assert find(tmp_path).fingerprint == registry._fingerprint(find(tmp_path).paths, was)
  assert find(tmp_path, encoding="latin-1").fingerprint != find(tmp_path).fingerprint
