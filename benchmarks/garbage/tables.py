"""Readers of data sets: the user's own tables, and published ones."""
import functools
import gzip
import io
import json

import ml_collections

from benchmarks.garbage import reader
from configs import base
from ilm_jax.data import interactions
from tasks.datasets import examples, openp5_files, registry

_LOG = [("u1", "i1", 1_700_000_000, 4.0), ("u1", "i2", 1_700_000_100, 3.5),
        ("u2", "i1", 1_700_000_050, 1.0), ("u2", "i3", 1_700_000_200, 5.0)]
_ITEMS = [("i1", "Heat", 1995, "Crime|Drama"), ("i2", 'The 12" single, "B"', 1981, ""),
          ("i3", "Amélie", None, "Comedy")]


def read(name: str, files: tuple[str, str], folder) -> None:
  """All that stage prepare makes of a data set before TensorFlow has it, and the arrays of it."""
  data = ml_collections.ConfigDict({"name": name, "path": str(folder), "columns": base.columns()})
  if registry.DATASETS[name].takes_columns:
    data.columns.update({"interactions_file": files[0], "items_file": files[1], "genres": "genres",
                         "year": "year"})
    if name == "table":
      data.columns.update({"time": "time", "value": "rating"})
  found = registry.find(data)
  users, items, times, values = found.read_log()
  each = list(examples.of_users(users, items, times, values))
  known = found.read_items()
  _encoded(each, list(examples.of_items(known)))
  if not found.about.partial:
    interactions.build(users, items, times, values, known, 0)


def _encoded(users: list[dict], items: list[dict]) -> None:
  """Examples as TFDS would store them: text in UTF-8, years in 32 bits."""
  for each in users:
    [text.encode() for text in (each["user_id"], *each["item_ids"])]
  for each in items:
    [text.encode() for text in (each["item_id"], each["title"], *each["genres"])]
    each["year"].to_bytes(4, "little", signed=True)


def _delimited(mark: str) -> dict[str, bytes]:
  def cell(value):
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if mark == "," and '"' in text else text

  def lines(header, rows):
    return "".join(mark.join(map(cell, row)) + "\n" for row in [header, *rows]).encode()

  kind = {",": "csv", "\t": "tsv"}[mark]
  return {f"log.{kind}": lines(("user_id", "item_id", "time", "rating"), _LOG),
          f"items.{kind}": lines(("item_id", "title", "year", "genres"), _ITEMS)}


def _json_lines(rows, names) -> bytes:
  return "".join(json.dumps(dict(zip(names, row))) + "\n" for row in rows).encode()


def _jsonl() -> dict[str, bytes]:
  return {"log.jsonl": _json_lines(_LOG, ("user_id", "item_id", "time", "rating")),
          "items.jsonl": _json_lines([(*row[:3], row[3].split("|")) for row in _ITEMS],
                                     ("item_id", "title", "year", "genres"))}


def _parquet() -> list[dict[str, bytes]]:
  """Tables with columns of many types, and codecs."""
  import datetime
  import decimal

  import pyarrow as pa
  from pyarrow import parquet
  times = [row[2] for row in _LOG]
  columns = [
      (pa.array(times), pa.array([4.0, 3.5, 1.0, 5.0]), "snappy"),
      (pa.array([t * 10**9 for t in times], pa.timestamp("ns")),
       pa.array([decimal.Decimal("4.50")] * 4), "gzip"),
      (pa.array([datetime.date(2024, 1, n) for n in (1, 2, 3, 4)]), pa.array([1, 2, 3, 4]), "none"),
      (pa.array([str(t) for t in times]).dictionary_encode(), pa.array([1, 2, 3, 4], pa.uint8()),
       "zstd")]
  ids = [pa.array([1, 2, 1, 3]), pa.array([f"i{n}" for n in (1, 2, 1, 3)]),
         pa.array([f"i{n}".encode() for n in (1, 2, 1, 3)]), pa.array([1.0, 2.0, 1.0, 3.0])]
  made = []
  for (time, value, codec), items in zip(columns, ids):
    log = pa.table({"user_id": [row[0] for row in _LOG], "item_id": items, "time": time,
                    "rating": value})
    of = pa.table({"item_id": items.take(pa.array([0, 1, 3])), "title": ["Heat", "Up", "Amélie"],
                   "year": pa.array([1995, None, 2001], pa.int32()),
                   "genres": [["Crime"], [], ["Comedy", "Drama"]]})
    files = {}
    for name, table in (("log", log), ("items", of)):
      out = io.BytesIO()
      parquet.write_table(table, out, compression=codec)
      files[f"{name}.parquet"] = out.getvalue()
    made.append(files)
  return made


def _movielens(layout: str) -> dict[str, bytes]:
  log = [("1", "1", "5", "881250949"), ("1", "2", "3", "881250950"), ("2", "1", "4", "881250951")]
  titles = [("1", "Usual Suspects, The (1995)", "Crime|Thriller"), ("2", "Misérables, Les (1995)",
                                                                    "Drama")]
  joined = {mark: "".join(mark.join(row) + "\n" for row in log).encode() for mark in ("\t", "::")}
  flags = "|".join("01" * 10)[:37]
  return {
      "ml-100k": {"u.data": joined["\t"], "u.item": "".join(
          f"{n}|{title}|01-Jan-1995||http://x|{flags}\n" for n, title, _ in titles).encode(
              "latin-1")},
      "recbole": {"ml-100k.inter": b"user_id:token\titem_id:token\trating:float\ttime:float\n"
                                   + joined["\t"],
                  "ml-100k.item": "a\tb\tc\td\n1\tUsual Suspects, The\t1995\tCrime Thriller\n"
                                  "2\tMisérables, Les\tV\tDrama\n".encode()},
      "ml-10m": {"ratings.dat": joined["::"],
                 "movies.dat": "".join("::".join(row) + "\n" for row in titles).encode()},
      "ml-20m": {"ratings.csv": b"userId,movieId,rating,timestamp\n" + joined["\t"].replace(
          b"\t", b","), "movies.csv": b"movieId,title,genres\n" + "".join(
              f'{n},"{title}",{genres}\n' for n, title, genres in titles).encode()},
  }[layout]


def _amazon(year: int) -> dict[str, bytes]:
  log = [("A1", "B1", 5.0, 1_400_000_000), ("A1", "B2", 1.0, 1_400_000_100)]
  product = {2014: {"asin": "B1", "title": "A <b>lamp</b>", "categories": [["Home", "Lamps"]],
                    "brand": "L"},
             2018: {"asin": "B1", "title": "A lamp", "category": ["Home", "Lamps"], "brand": "L"},
             2023: {"parent_asin": "B1", "title": "A lamp", "categories": ["Home"], "store": "S",
                    "main_category": "H"}}[year]
  if year == 2023:
    names = ("user_id", "parent_asin", "rating", "timestamp")
    files = {"X.jsonl.gz": _json_lines(log, names), "meta_X.jsonl.gz": _json_lines(
        [product.values()], product)}
  else:
    names = ("reviewerID", "asin", "overall", "unixReviewTime")
    meta = (repr(product) + "\n").encode() if year == 2014 else _json_lines(
        [product.values()], product)
    files = {f"{'reviews_' * (year == 2014)}X_5.json.gz": _json_lines(log, names),
             "meta_X.json.gz": meta}
  return {name: gzip.compress(data, 1, mtime=0) for name, data in files.items()}


def _openp5() -> dict[str, bytes]:
  return {openp5_files.SEQUENCES: b"1 i1 i2 i3\n2 i3 i1\n",
          "items.csv": _delimited(",")["items.csv"]}


def _others(name: str) -> dict[str, bytes]:
  yelp = [{"user_id": "a", "business_id": "b", "stars": 4, "date": "2018-07-07 22:09:11"}] * 2
  shop = {"business_id": "b", "name": "Café", "categories": "Pizza, Bars"}
  return {
      "lastfm": {"user_artists.dat": b"userID\tartistID\tweight\n2\t51\t13883\n2\t52\t1169\n",
                 "artists.dat": "id\tname\turl\tpictureURL\n51\tDuran\tu\tp\n52\tBjörk\tu\tp\n"
                 .encode()},
      "taobao": {"UserBehavior.csv": b"1,2,3,buy,1511544070\n1,5,3,pv,1511561733\n1,6,3,buy,"
                                     b"1511572885\n"},
      "yelp": {"yelp_academic_dataset_review.json": b"".join(
          json.dumps(row).encode() + b"\n" for row in yelp),
               "yelp_academic_dataset_business.json": json.dumps(shop).encode() + b"\n"},
  }[name]


def _read_index(folder) -> None:
  openp5_files.read_index(folder / "item_random_indexing.txt")
  openp5_files.read_prompts(folder / "prompt.txt")


def _index() -> dict[str, bytes]:
  return {"item_random_indexing.txt": b"1 1001\n2 <CI3><CI17>\n",
          "prompt.txt": b"sequential; seen; {dataset} user {user_id} {history}; {target}\n"
                        b"straightforward; unseen; What for {user_id}?; {dataset} {target}\n"}


def _of(name: str, dataset: str, seeds, files=("", "")) -> reader.Reader:
  return reader.Reader(name, seeds, functools.partial(read, dataset, files))


def _once(make, *args):
  return lambda: [make(*args)]


ALL = [
    _of("csv", "table", _once(_delimited, ","), ("log.csv", "items.csv")),
    _of("tsv", "table", _once(_delimited, "\t"), ("log.tsv", "items.tsv")),
    _of("csv.gz", "table", lambda: [{f"{name}.gz": gzip.compress(data, 1, mtime=0)
                                     for name, data in _delimited(",").items()}],
        ("log.csv.gz", "items.csv.gz")),
    _of("jsonl", "table", _once(_jsonl), ("log.jsonl", "items.jsonl")),
    _of("parquet", "table", functools.cache(_parquet), ("log.parquet", "items.parquet")),
    _of("ml-100k", "ml-100k", _once(_movielens, "ml-100k")),
    _of("ml-100k-recbole", "ml-100k", _once(_movielens, "recbole")),
    _of("ml-10m", "ml-10m", _once(_movielens, "ml-10m")),
    _of("ml-20m", "ml-20m", _once(_movielens, "ml-20m")),
    *(_of(f"amazon-{year}", f"amazon-{year}", _once(_amazon, year))
      for year in (2014, 2018, 2023)),
    _of("openp5", "openp5", _once(_openp5), ("", "items.csv")),
    reader.Reader("openp5-index", _once(_index), _read_index),
    *(_of(name, name, _once(_others, name)) for name in ("lastfm", "taobao", "yelp")),
]
