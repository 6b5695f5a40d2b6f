"""Every data set's layout, on small files of our own, and published counts on the real ones."""
import dataclasses
import gzip
import json

import numpy as np
import pytest
import real
from logs import listed

from configs import base
from ilm_jax import errors
from ilm_jax.config import names
from ilm_jax.conversation import redial
from ilm_jax.data import interactions
from tasks.datasets import lines, movielens_files, openp5_files, registry, table_files


def data(name, folder, **columns):
  """config.data for a set in `folder`."""
  c = base.get_config().data
  c.update(name=name, path=str(folder))
  c.columns.update(columns)
  return c


def write(path, text):
  """Text, packed where the name says so."""
  path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def json_lines(*objects):
  return "".join(json.dumps(o) + "\n" for o in objects)


def test_names_are_those_a_config_may_use():
  assert sorted(registry.DATASETS) == sorted(names.DATASETS)
  known = registry.DATASETS.items()
  assert {n for n, d in known if not d.timed} == set(names.UNTIMED)
  assert {n for n, d in known if d.asset} == set(names.FETCHED)


REVIEWS = [{"reviewerID": "A1", "asin": "B01", "overall": 5.0, "unixReviewTime": 1400000000},
           {"reviewerID": "A2", "asin": "000123", "overall": 1.0, "unixReviewTime": 1300000000},
           {"reviewerID": "A1", "asin": "B02", "overall": 4.0, "unixReviewTime": 1390000000}]


def test_amazon_2014(tmp_path):
  """Metadata are Python literals; ids keep leading zeros; B02 has none."""
  write(tmp_path / "reviews_Soap_5.json.gz", json_lines(*REVIEWS))
  products = [{"asin": "B01", "title": "Tom's &amp; Co\n Soap", "brand": "Tom's", "price": 1.5,
               "categories": [["Beauty", "Bath", "Soaps"], ["Home", "Soaps"], ["Gifts"]]},
              {"asin": "000123", "categories": [["Beauty"]], "imUrl": None}]
  write(tmp_path / "meta_Soap.json.gz", "".join(f"{p!r}\n" for p in products))
  found = registry.find(data("amazon-2014", tmp_path))
  assert listed(found.read_log()) == (["A1", "A2", "A1"], ["B01", "000123", "B02"],
                                      [1400000000, 1300000000, 1390000000], [5.0, 1.0, 4.0])
  assert found.read_items() == interactions.Items(
      ["B01", "000123"], ["Tom's & Co Soap", ""], [None, None],
      [["Soaps", "Gifts", "Tom's"], ["Beauty"]])
  with pytest.raises(errors.UserError, match="expected reviews_Beauty_5.json.gz . meta_Beauty"):
    registry.find(data("amazon-2014-beauty", tmp_path))
  write(tmp_path / "meta_Gum.json.gz", "")
  with pytest.raises(errors.UserError, match="holds meta_Gum.json.gz and meta_Soap.json.gz: give"):
    registry.find(data("amazon-2014", tmp_path))


def test_amazon_2018(tmp_path):
  write(tmp_path / "Soap_5.json.gz", json_lines(*REVIEWS))
  write(tmp_path / "meta_Soap.json.gz", json_lines(
      {"asin": "B01", "title": "Soap", "brand": "Tom's", "category": ["Beauty", "Bath"]},
      {"asin": "B02", "title": "var aPageStart = (new Date()).getTime();", "brand": "",
       "category": [], "main_category": "All Beauty"}))
  found = registry.find(data("amazon-2018", tmp_path))
  assert found.read_log()[1] == ["B01", "000123", "B02"]
  assert found.read_items() == interactions.Items(
      ["B01", "B02"], ["Soap", ""], [None] * 2, [["Bath", "Tom's"], ["All Beauty"]])


def test_amazon_2018_without_the_markup_of_its_pages(tmp_path):
  write(tmp_path / "Soap_5.json.gz", json_lines(*REVIEWS))
  write(tmp_path / "meta_Soap.json.gz", json_lines(
      {"asin": "B01", "title": '<span id="productTitle" class="a-size-large">Soap</span>',
       "brand": "", "category": ["Women", "Imported", "</span></span></span>"]},
      {"asin": "B02", "title": "I <3 you & 2 > 1", "brand": "<br/>Tom", "category": ["</span>"],
       "main_category": "All Beauty"}))
  assert registry.find(data("amazon-2018", tmp_path)).read_items() == interactions.Items(
      ["B01", "B02"], ["Soap", "I <3 you & 2 > 1"], [None] * 2,
      [["Imported"], ["All Beauty", "Tom"]])


@pytest.mark.parametrize("name, folder", [
    ("amazon-2018", {"Soap_5.json": [{**REVIEWS[0], "asin": ["B01"]}], "meta_Soap.json": []}),
    ("yelp", {"yelp_academic_dataset_review.json": [
        {"user_id": True, "business_id": "b", "stars": 4, "date": "2018-07-07"}],
              "yelp_academic_dataset_business.json": []})])
def test_ids_of_named_sets_are_text(tmp_path, name, folder):
  for file, objects in folder.items():
    write(tmp_path / (file + ".gz" * (name != "yelp")), json_lines(*objects))
  with pytest.raises(errors.UserError, match="line 1: (asin|user_id) is .*expected text"):
    registry.find(data(name, tmp_path)).read_log()


@pytest.mark.parametrize("name", ["Soap.csv.gz", "Soap.jsonl.gz"])
def test_amazon_2023(tmp_path, name):
  """Times are milliseconds: two events of one second keep their order in time, not in the file."""
  events = [("A1", "B02", 4.0, 1600000000900), ("A1", "B01", 5.0, 1600000000100)]
  keys = ("user_id", "parent_asin", "rating", "timestamp")
  if "csv" in name:
    write(tmp_path / name, "".join(",".join(map(str, row)) + "\n" for row in [keys, *events]))
  else:
    write(tmp_path / name, json_lines(*({**dict(zip(keys, e)), "asin": "X"} for e in events)))
  write(tmp_path / "meta_Soap.jsonl.gz", json_lines(
      {"parent_asin": "B01", "title": "Soap", "store": "Tom's", "categories": ["Beauty", "Bath"],
       "main_category": "All Beauty"},
      {"parent_asin": "B02", "title": None, "store": None, "categories": [],
       "main_category": "All Beauty"}))
  found = registry.find(data("amazon-2023", tmp_path))
  assert listed(found.read_log()) == (["A1", "A1"], ["B01", "B02"], [1600000000] * 2, [5.0, 4.0])
  assert found.read_items() == interactions.Items(
      ["B01", "B02"], ["Soap", ""], [None] * 2, [["Bath", "Tom's"], ["All Beauty"]])


def test_lastfm(tmp_path):
  (tmp_path / "user_artists.dat").write_bytes(
      b"userID\tartistID\tweight\r\n2\t51\t138\r\n2\t7\t9\r\n")
  (tmp_path / "artists.dat").write_text(
      "id\tname\turl\tpictureURL\n7\tSigur Rós\thttp://a\t\n51\tMono\thttp://b\thttp://c\n")
  found = registry.find(data("lastfm", tmp_path))
  assert listed(found.read_log()) == (["2", "2"], ["51", "7"], None, [138.0, 9.0])
  assert found.read_items() == interactions.Items(
      ["7", "51"], ["Sigur Rós", "Mono"], [None] * 2, [[], []])


def test_yelp(tmp_path):
  write(tmp_path / "yelp_academic_dataset_review.json", json_lines(
      {"review_id": "r", "user_id": "u", "business_id": "b", "stars": 4.0,
       "date": "1970-01-02 00:00:05", "text": "good"}))
  write(tmp_path / "yelp_academic_dataset_business.json", json_lines(
      {"business_id": "b", "name": "Joe's ", "categories": "Pizza, Bars"},
      {"business_id": "c", "name": "Ann's", "categories": None},
      {"business_id": "d", "name": 7, "categories": ["Pizza ", "Bars"]}))
  found = registry.find(data("yelp", tmp_path))
  assert listed(found.read_log()) == (["u"], ["b"], [86405], [4.0])
  assert found.read_items() == interactions.Items(
      ["b", "c", "d"], ["Joe's", "Ann's", "7"], [None] * 3,
      [["Pizza", "Bars"], [], ["Pizza", "Bars"]])
  write(tmp_path / "yelp_academic_dataset_review.json", json_lines(
      {"user_id": "u", "business_id": "b", "stars": 4.0, "date": "yesterday"}))
  with pytest.raises(errors.UserError, match="line 1: date is 'yesterday', expected e.g."):
    found.read_log()


def test_taobao(tmp_path):
  """Purchases alone are interactions."""
  path = tmp_path / "UserBehavior.csv"
  path.write_text("1,2268318,2520377,pv,1511544070\n1,33,9,buy,1511561733\n2,4,9,buy,1511571885\n")
  found = registry.find(data("taobao", tmp_path))
  assert listed(found.read_log()) == (
      ["1", "2"], ["33", "4"], [1511561733, 1511571885], [1.0, 1.0])
  assert found.read_items() == interactions.Items(
      ["33", "4"], ["", ""], [None] * 2, [["category 9"], ["category 9"]])
  path.write_text("1,33,9,bought,1511561733\n")
  with pytest.raises(errors.UserError, match="line 1: behaviour is 'bought', expected one of pv"):
    found.read_log()


def test_openp5_behind_a_byte_order_mark(tmp_path):
  """None of its files takes the mark for a part of the first word."""
  for name, content in (("user_sequence.txt", "A1 B1 B2\n"), ("item_indexing.txt", "B1 1001\n"),
                        ("prompt.txt", "sequential; seen; {user_id} {history}; {target}\n")):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
  assert registry.find(data("openp5", tmp_path)).read_log()[0] == ["A1", "A1"]
  assert openp5_files.read_index(tmp_path / "item_indexing.txt") == {"B1": "1001"}
  assert openp5_files.read_prompts(tmp_path / "prompt.txt")[0].task == "sequential"


def test_openp5(tmp_path):
  (tmp_path / "user_sequence.txt").write_text("A1 B2 B1\nA2 B1 B3 B1\n")
  found = registry.find(data("openp5", tmp_path))
  assert listed(found.read_log()) == (["A1", "A1", "A2", "A2", "A2"],
                                      ["B2", "B1", "B1", "B3", "B1"], None, [1.0] * 5)
  assert found.read_items().ids == ["B1", "B2", "B3"] and not any(found.read_items().titles)
  (tmp_path / "items.tsv").write_text("item_id\ttitle\nB1\tSoap\nB2\t\nB3\tBrush\n")
  titled = registry.find(data("openp5", tmp_path, items_file="items.tsv"))
  assert titled.read_items().titles == ["Soap", "", "Brush"]
  assert titled.fingerprint != found.fingerprint
  index = tmp_path / "item_collaborative_indexing_50_10.txt"
  index.write_text("B1 <CI0><CI7>\nB2 <CI0><CI8>\n")
  assert openp5_files.read_index(index) == {"B1": "<CI0><CI7>", "B2": "<CI0><CI8>"}
  prompts = tmp_path / "prompt.txt"
  prompts.write_text("sequential; seen; {dataset} {user_id}: {history}; {dataset} {target}\n"
                     "straightforward; unseen; for {user_id}?; {dataset} {target}\n")
  first, second = openp5_files.read_prompts(prompts)
  assert first == ("sequential", True, "{dataset} {user_id}: {history}", "{dataset} {target}")
  assert second[:2] == ("straightforward", False)


@pytest.mark.parametrize("name, content, words", [
    ("user_sequence.txt", "A1\n", "line 1: user 'A1' has no items"),
    ("user_sequence.txt", "A1 B1\nA1 B2\n", "line 2: user 'A1' has a line already"),
    ("item_indexing.txt", "B1 1001\nB1 1002\n", "line 2: 'B1' has an index already"),
    ("item_indexing.txt", "B1 1001\nB2 1001\n", "some ids share an index"),
    ("item_indexing.txt", "B1\n", "line 1: found 1 fields, expected id, index"),
    ("prompt.txt", "sequential; new; a; b\n", "found 'new', expected 'seen' or 'unseen'"),
])
def test_openp5_files_that_cannot_be_understood(tmp_path, name, content, words):
  path = tmp_path / name
  path.write_text(content)
  read = {"user_sequence.txt": lambda path: openp5_files.read_log({path.name: path}),
          "item_indexing.txt": openp5_files.read_index, "prompt.txt": openp5_files.read_prompts}
  with pytest.raises(errors.UserError, match=words):
    read[name](path)


EVENTS = [{"who": "u1", "what": 7, "when": 1.75, "stars": 3}, {"who": "u1", "what": 8, "when": 1.25,
                                                              "stars": 5}]


def as_table(rows, separator):
  return "".join(separator.join(map(str, row)) + "\n" for row in [rows[0], *map(dict.values, rows)])


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.csv.gz", "log.jsonl", "log.jsonl.gz",
                                  "log.parquet"])
def test_tables_of_every_kind(tmp_path, name):
  if name.endswith(".parquet"):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet
    parquet.write_table(pyarrow.Table.from_pylist(EVENTS), tmp_path / name)
  else:
    write(tmp_path / name, json_lines(*EVENTS) if "jsonl" in name else
          as_table(EVENTS, "\t" if "tsv" in name else ","))
  columns = dict(interactions_file=name, user="who", item="what", time="when", value="stars")
  found = registry.find(data("table", tmp_path, **columns))
  assert listed(found.read_log()) == (["u1", "u1"], ["8", "7"], [1, 1], [5.0, 3.0])
  assert found.read_items().ids == ["7", "8"]
  thousandths = registry.find(data("table", tmp_path, **columns, time_unit="ms"))
  assert list(thousandths.read_log().time_N) == [0, 0]
  bare = registry.find(data("table", tmp_path, interactions_file=name, user="who", item="what"))
  assert listed(bare.read_log()) == (["u1", "u1"], ["7", "8"], None, [1.0, 1.0]) and not bare.timed
  with pytest.raises(errors.UserError, match=f"{name}.* has no column 'whom': .* mean 'who'"):
    registry.find(data("table", tmp_path, **{**columns, "user": "whom"})).read_log()
  with pytest.raises(errors.UserError, match="does not hold the files of table"):
    registry.find(data("table", tmp_path, interactions_file="other.csv"))


def test_items_of_a_table(tmp_path):
  (tmp_path / "log.csv").write_text("user_id,item_id\na,1\n")
  (tmp_path / "items.csv").write_text(
      'item_id,title,released,tags\n1,"Heat,  the film",1995.0,Action; Crime\n2,,,\n')
  columns = dict(interactions_file="log.csv", items_file="items.csv", year="released",
                 genres="tags", separator=";")
  found = registry.find(data("table", tmp_path, **columns))
  assert found.read_items() == interactions.Items(
      ["1", "2"], ["Heat, the film", ""], [1995, None], [["Action", "Crime"], []])
  (tmp_path / "items.jsonl").write_text(json_lines(
      {"item_id": 1, "title": "Heat", "released": 1995, "tags": ["Action", "Crime"]},
      {"item_id": 2, "title": None}))
  again = registry.find(data("table", tmp_path, **{**columns, "items_file": "items.jsonl"}))
  assert again.read_items() == dataclasses.replace(found.read_items(), titles=["Heat", ""])


@pytest.mark.parametrize("text, seconds", [
    ("1714564800", 1714564800), ("1714564800.9", 1714564800), ("-5", -5),
    ("2024-05-01T12:00:00Z", 1714564800), ("2024-05-01 14:00:00+02:00", 1714564800),
    ("2024-05-01", 1714521600)])
def test_times_of_a_table(tmp_path, text, seconds):
  (tmp_path / "interactions.csv").write_text(f"user_id,item_id,at\na,1,{text}\n")
  assert list(registry.find(data("table", tmp_path, time="at")).read_log().time_N) == [seconds]


@pytest.mark.parametrize("log, words", [
    ("user_id,item_id,at\na,1,soon\n", "line 2: at is 'soon', expected a number or ISO 8601"),
    ("user_id,item_id,at\na,1,nan\n", "line 2: at is 'nan'"),
    ("user_id,item_id,at\na,,5\n", "line 2: item_id is empty"),
    ("user_id,item_id,at\na,1\n", "line 2: found 2 fields, expected 3"),
    ("user_id,item_id,at\n", "holds no interaction"),
    ("", "has no column 'user_id'"),
])
def test_logs_that_cannot_be_understood(tmp_path, log, words):
  (tmp_path / "interactions.csv").write_text(log)
  with pytest.raises(errors.UserError, match=words):
    registry.find(data("table", tmp_path, time="at")).read_log()


def test_items_that_stand_in_a_file_twice(tmp_path):
  path = tmp_path / "items.csv"
  path.write_text("item_id,title\n7,A\n7.0,B\n")
  with pytest.raises(errors.UserError, match="line 3: item '7' is in the file twice"):
    table_files.read_items({"i": path}, data("table", "", items_file="items.csv").columns)


def test_files_that_are_damaged(tmp_path):
  """Cut short, not packed, not a table, not an object: one line each, with the file's name."""
  packed = gzip.compress(json_lines(*REVIEWS).encode() * 50)
  path = tmp_path / "log.jsonl.gz"
  for content in (packed[:-20], b"plain text"):
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match="log.jsonl.gz cannot be read .* fetch it again"):
      list(lines.objects(path))
  path = tmp_path / "log.jsonl"
  for content, words in (("{]\n", "line 1 is no JSON object"), ("[1]\n", "JSON object but list")):
    path.write_text(content)
    with pytest.raises(errors.UserError, match=words):
      list(lines.objects(path))
  path.write_text("__import__('os')\n")
  with pytest.raises(errors.UserError, match="line 1 is no Python dict"):
    list(lines.objects(path, literals=True))
  pytest.importorskip("pyarrow")
  (tmp_path / "interactions.parquet").write_text("no table")
  with pytest.raises(errors.UserError, match="cannot be read as Parquet"):
    registry.find(data("table", tmp_path, interactions_file="interactions.parquet")).read_log()


def test_a_changed_file_has_another_fingerprint(tmp_path, monkeypatch):
  (tmp_path / "interactions.csv").write_text("user_id,item_id\na,1\n")
  first = registry.find(data("table", tmp_path)).fingerprint
  assert registry.find(data("table", tmp_path)).fingerprint == first
  assert registry.find(data("table", tmp_path, separator=";")).fingerprint != first
  monkeypatch.setattr(registry, "_READERS", 0)      # and so have readers that were mended
  assert registry.find(data("table", tmp_path)).fingerprint != first
  monkeypatch.undo()
  (tmp_path / "interactions.csv").write_text("user_id,item_id\na,2\n")
  assert registry.find(data("table", tmp_path)).fingerprint != first


def test_load_keeps_the_order_of_the_log_and_checks_the_counts(tmp_path):
  """Through TFDS and back: equal times in log order over all users, unnamed items by their id."""
  pytest.importorskip("tensorflow_datasets", reason=real.NEEDS_DATA)
  from tasks.datasets import builder
  reviews = [{**REVIEWS[0], "reviewerID": f"A{n % 3}", "asin": f"B{n % 4}", "unixReviewTime": 9}
             for n in range(24)]
  write(tmp_path / "reviews_Soap_5.json.gz", json_lines(*reviews))
  write(tmp_path / "meta_Soap.json.gz", "{'asin': 'B1', 'title': 'Soap'}\n")
  found = registry.find(data("amazon-2014", tmp_path))
  users, items, _, _ = builder._log(builder._read(found, "interactions", tmp_path / "tfds"))
  assert (users, items) == found.read_log()[:2]
  log, left, kept = builder.load(found, tmp_path / "tfds", k=2)
  assert kept.items == (4, 4) and kept.interactions == (24, 24) and kept.without == 0
  assert left.titles == ["B0", "Soap", "B2", "B3"] and len(log.user_N) == 24
  assert kept.nameless == 3 and "3 of 4 items of the log have no row" in kept.lines()[-1]
  beauty = dataclasses.replace(found, about=dataclasses.replace(
      found.about, cores={2: registry.Counts(3, 5, 24)}))
  with pytest.raises(errors.UserError, match=r"its 2-core has 4 items \(published: 5\): "):
    builder.load(beauty, tmp_path / "tfds", k=2)
  short = dataclasses.replace(found, about=dataclasses.replace(found.about, events=25))
  with pytest.raises(errors.UserError, match=r"the log has 24 interactions \(published: 25\)"):
    builder.load(short, tmp_path / "tfds", k=2)


def test_films_that_dialogs_name_are_items(tmp_path):
  """Those that the log lacks by title and year, those below the core by their own id."""
  pytest.importorskip("tensorflow_datasets", reason=real.NEEDS_DATA)
  from tasks.datasets import builder
  (tmp_path / "interactions.csv").write_text("user_id,item_id\na,1\na,2\nb,1\nb,3\nc,1\nc,2\n")
  (tmp_path / "items.csv").write_text(
      "item_id,title,year\n1,Heat,1995\n2,Fargo,1996\n3,Emma,2020\n4,Up,2009\n5,Jaws,1975\n")
  found = registry.find(data("table", tmp_path, items_file="items.csv", year="year"))
  found = dataclasses.replace(found, about=dataclasses.replace(
      found.about, cores={2: registry.Counts(2, 2, 4)}))
  talk = redial.Talk("1", (), {"9": "Heat (1995)", "11": "Emma (2020)", "12": "Heat (2019)",
                               "13": "Jaws (1975)"}, {})
  log, left, kept = builder.load(found, tmp_path / "tfds", k=2, talks=[talk])
  assert left.ids == ["1", "2", "3", "5", "redial:12"]
  assert left.years == [1995, 1996, 2020, 1975, 2019]
  assert log.untrained_items.tolist() == [3, 4, 5] and len(log.user_N) == 4
  assert kept.items == (3, 2) and kept.lines()[1:] == [
      "data: 1 items of the items file have no interaction: left out; data.k_core=0 keeps them; "
      "'Up' (4)", "data: 3 more items, which ReDial's dialogs name (data.dialog_items)"]
  log, left, kept = builder.load(found, tmp_path / "tfds", k=0, talks=[talk])
  assert left.ids == ["1", "2", "3", "4", "5", "redial:12"] and kept.dialog_items == 1


def test_a_table_whose_items_file_is_partial_calls_the_others_by_their_ids(tmp_path, capsys):
  """But a file that describes no item of the log is of another log."""
  pytest.importorskip("tensorflow_datasets", reason=real.NEEDS_DATA)
  from tasks.datasets import builder
  (tmp_path / "interactions.csv").write_text("user_id,item_id\na,P1\na,P2\na,P3\n")
  for rows, titles in (("P2,Soap\n", ["P1", "Soap", "P3"]), ("7,Soap\n", None)):
    (tmp_path / "items.csv").write_text(f"item_id,title\n{rows}")
    found = registry.find(data("table", tmp_path, items_file="items.csv"))
    if titles:
      _, left, kept = builder.load(found, tmp_path / "tfds", k=1)
      assert left.titles == titles and kept.lines()[-1].endswith(
          "2 of 3 items of the log have no row in the items file and are called by their ids: "
          "'P1', 'P3'")
    else:
      with pytest.raises(errors.UserError, match="3 items of the log have no description"):
        builder.load(found, tmp_path / "tfds", k=1)
  assert not capsys.readouterr().out         # TFDS speaks of a download


def test_the_builder_has_the_name_of_the_set(tmp_path):
  pytest.importorskip("tensorflow_datasets", reason=real.NEEDS_DATA)
  from tasks.datasets import builder
  (tmp_path / "user_sequence.txt").write_text("A1 B2 B1\n")
  found = registry.find(data("openp5", tmp_path))
  made = builder.builder_of("openp5")(found, config="items", data_dir=tmp_path)
  assert made.info.full_name == "openp5/items/2.0.0" and "OpenP5" in made.info.citation
  assert builder.builder_of("ml-1m").name == "ml_1m"


# Published counts, on the real files.


def core(log, items, k=5):
  users, raw_items, times, values = log
  found, left = interactions.build(users, raw_items, times, values, items, k)
  return found.num_users, len(left), len(found.user_N)


def test_ml1m_counts():
  sequences, movies = real.shared("ml-1m/data/ML1M/user_sequence.txt", "ml-1m/movies.dat")
  log = openp5_files.read_log({"user_sequence.txt": sequences})
  items = movielens_files.read_items({"movies.dat": movies}, "iso-8859-1")
  assert len(items) == 3883 and "Les Misérables" in {t.split(" (")[0] for t in items.titles}
  assert core(log, items) == registry.DATASETS["ml-1m"].cores[5] == (6040, 3416, 999_611)


def test_latest_small_counts():
  """The release of 2016, whose readme has the first counts."""
  folder = real.shared("ml-latest-small-2016/ratings.csv")[0].parent
  found = registry.find(data("ml-latest-small", folder))
  log, items = found.read_log(), found.read_items()
  assert (len(set(log[0])), len(set(log[1])), len(log[0])) == (671, 9066, 100_004)
  assert core(log, items) == (671, 3496, 90_072)
  assert sum(year is None for year in items.years) <= 4
  assert sum(not genres for genres in items.genres) == 18


def test_beauty_counts():
  """OpenP5's folder as it is distributed, with titles beside it, and its index files."""
  folder, titles = real.shared("amazon-beauty-openp5/data/Beauty", "amazon-beauty-openp5/items.tsv")
  found = registry.find(data("openp5", folder, items_file=str(titles), genres="categories"))
  items = found.read_items()
  assert core(found.read_log(), items) == (22_363, 12_101, 198_502)
  assert registry.DATASETS["amazon-2014-beauty"].cores[5] == (22_363, 12_101, 198_502)
  for name in ("item_random_indexing", "item_sequential_indexing_original",
               "item_collaborative_indexing_500_20_sequential"):
    assert set(openp5_files.read_index(folder / f"{name}.txt")) == set(items.ids)


def test_lastfm_counts():
  log, artists = real.shared("lastfm-hetrec/user_artists.dat", "lastfm-hetrec/items.tsv")
  events = registry.DATASETS["lastfm"].read_log({"user_artists.dat": log})
  items = table_files.read_items({"i": artists}, data("table", "", items_file="items.tsv").columns)
  assert (len(set(events[0])), len(set(events[1])), len(events[0])) == (1892, 17_632, 92_834)
  assert core(events, items) == (1859, 2823, 71_355)
  assert np.max(events[3]) > 100_000      # play counts
