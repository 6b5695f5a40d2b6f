"""MovieLens: all file layouts and the TFDS builder, on a made-up extract and the real ones."""
import functools

import numpy as np
import pytest
import real
from logs import listed

from configs import base
from ilm_jax import errors
from ilm_jax.data import interactions
from tasks.datasets import movielens_files, registry

# Rows of the real formats: an accent, an article at the end of both titles, a video, "unknown".
ITEM_LINES = [
    ("1", "Horseman on the Roof, The (Hussard sur le toit, Le) (1995)", "Drama"),
    ("2", "Café & Crime (1994)", "Crime Film-Noir"),
    ("1412", "Land Before Time III (1995) (V)", "Animation Children's"),
    ("267", "unknown", "unknown"),
]
RECBOLE_ITEMS = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tHorseman on the Roof, The (Hussard sur le toit, Le)\t1995\tDrama\n"
    "2\tCafé & Crime\t1994\tCrime Film-Noir\n"
    "1412\tLand Before Time III (1995)\tV\tAnimation Children's\n"
    "267\tunkonwn\tunkonwn\tunknown\n")
# User 10 has ties at 70; the log order is 1412 before 1.
LOG = ["10\t2\t3\t90", "9\t1\t5\t20", "10\t1412\t4\t70", "10\t1\t2\t70", "9\t267\t1\t10"]


@pytest.fixture
def layouts(tmp_path):
  """The same small data set in both layouts."""
  flags = ["unknown", *movielens_files.GENRES[1:]]
  lines = ["|".join([raw, title, "01-Jan-1995", "", "http://home", *(
      "1" if genre in genres.split(" ") else "0" for genre in flags)])
           for raw, title, genres in ITEM_LINES]
  (tmp_path / "u.item").write_bytes(("\n".join(lines) + "\n").encode("iso-8859-1"))
  (tmp_path / "u.data").write_text("\n".join(LOG) + "\n")
  (tmp_path / "ml-100k.item").write_text(RECBOLE_ITEMS, encoding="utf-8")
  header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
  (tmp_path / "ml-100k.inter").write_text("\n".join([header, *LOG]) + "\n")
  return [{name: tmp_path / name for name in names}
          for names in (("u.data", "u.item"), ("ml-100k.inter", "ml-100k.item"))]


def found(paths, name="ml-100k"):
  about = registry.DATASETS[name]
  return registry.Found(name, about, paths, "0123", functools.partial(about.read_log, paths),
                        functools.partial(about.read_items, paths))


def test_items_are_the_same_in_both_layouts(layouts):
  grouplens, recbole = (movielens_files.read_items(paths) for paths in layouts)
  assert grouplens == recbole == interactions.Items(
      ids=["1", "2", "1412", "267"],
      titles=["The Horseman on the Roof (Le Hussard sur le toit)", "Café & Crime",
              "Land Before Time III", "unknown"],
      years=[1995, 1994, 1995, None],
      genres=[["Drama"], ["Crime", "Film-Noir"], ["Animation", "Children's"], []])


def test_log_is_the_same_in_both_layouts(layouts):
  grouplens, recbole = (listed(movielens_files.read_log(paths)) for paths in layouts)
  assert grouplens == recbole
  assert grouplens[0] == ["10", "9", "10", "10", "9"] and grouplens[2] == [90, 20, 70, 70, 10]


@pytest.mark.parametrize("raw, title, year", [
    ("Usual Suspects, The (1995)", "The Usual Suspects", 1995),
    ("Good, The Bad and The Ugly, The (1966)", "The Good, The Bad and The Ugly", 1966),
    ("Star Maker, The (Uomo delle stelle, L') (1995)", "The Star Maker (L'Uomo delle stelle)",
     1995),
    ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
    ("Paris, Texas (1984)", "Paris, Texas", 1984),
    ("unknown", "unknown", None),
    ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
    ("Misfits (2009– )", "Misfits", 2009),
    ("Naked City, The (1948) ", "The Naked City", 1948),
])
def test_title_and_year(raw, title, year):
  assert movielens_files.title_and_year(raw) == (title, year)


def test_a_broken_log_names_its_line(layouts):
  layouts[1]["ml-100k.inter"].write_text("header\n1\t2\t3\t4\n1\t2\t3\n")
  with pytest.raises(errors.UserError, match=r"ml-100k\.inter, line 3"):
    movielens_files.read_log(layouts[1])


def test_other_layouts_give_the_same_log(layouts, tmp_path):
  """ml-1m's and ml-20m's layouts: `::` in ISO-8859-1, and quoted CSV with CR LF."""
  rows = [line.split("\t") for line in LOG]
  (tmp_path / "ratings.dat").write_text("".join("::".join(row) + "\n" for row in rows))
  (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\r\n" + "".join(
      ",".join(row) + "\r\n" for row in rows))
  genres = [raw.replace(" ", "|") if raw != "unknown" else "(no genres listed)"
            for _, _, raw in ITEM_LINES]
  titles = [title for _, title, _ in ITEM_LINES]
  ids = [raw for raw, _, _ in ITEM_LINES]
  (tmp_path / "movies.dat").write_bytes("".join(
      "::".join(row) + "\n" for row in zip(ids, titles, genres)).encode("iso-8859-1"))
  (tmp_path / "movies.csv").write_text("movieId,title,genres\r\n" + "".join(
      f'{raw},"{title}",{names}\r\n' for raw, title, names in zip(ids, titles, genres)))
  expected = listed(movielens_files.read_log(layouts[0]))
  items = movielens_files.read_items(layouts[0])
  for name in ("ml-1m", "ml-20m"):
    c = base.get_config()
    c.data.update({"name": name, "path": str(tmp_path)})
    data = registry.find(c.data)
    assert listed(data.read_log()) == expected and data.read_items() == items


@pytest.mark.parametrize("name, content, words", [
    ("u.data", "1\t2\tbad\t4\n", "line 1: rating is 'bad', expected a number"),
    ("u.data", "1\t2\t3\tnoon\n", "line 1: time is 'noon', expected a number"),
    ("u.data", "", "holds no interaction"),
    ("u.item", "1|Heat (1995)|x\n", "line 1: found 3 fields, expected 24"),
    ("u.item", "\n", "describes no item"),
    ("ratings.csv", "userId,movie,rating,timestamp\n", "no column 'movieId'.* mean 'movie'"),
    ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,3\n", "line 2: found 3 fields"),
    ("movies.dat", "1::Caf\xe9 (1994)::Drama\n", "expected text in UTF-8"),
])
def test_lines_that_cannot_be_understood(tmp_path, name, content, words):
  (tmp_path / name).write_bytes(content.encode("iso-8859-1"))
  read = movielens_files.read_log if "data" in name or "ratings" in name else (
      movielens_files.read_items)
  with pytest.raises(errors.UserError, match=words):
    read({name: tmp_path / name})


def test_real_layouts_agree():
  grouplens = {name: real.SHARED / name for name in ("u.data", "u.item")}
  if not all(path.is_file() for path in grouplens.values()):
    pytest.skip("GroupLens's own files are not in ../shared")
  assert listed(movielens_files.read_log(real.movielens_paths())) == listed(
      movielens_files.read_log(grouplens))
  assert movielens_files.read_items(real.movielens_paths()) == movielens_files.read_items(grouplens)


def test_builder_examples(layouts, tmp_path):
  """Users ascend as numbers; equal times keep the order of the log."""
  pytest.importorskip("tensorflow_datasets", reason=real.NEEDS_DATA)
  from tasks.datasets import builder
  grouplens, recbole = (found(paths) for paths in layouts)
  users = list(builder._read(recbole, "interactions", tmp_path / "tfds"))
  assert [user["user_id"] for user in users] == [b"9", b"10"]
  assert list(users[1]["item_ids"]) == [b"1412", b"1", b"2"]
  np.testing.assert_array_equal(users[1]["timestamps"], [70, 70, 90])
  np.testing.assert_array_equal(users[1]["ratings"], [4, 2, 3])
  np.testing.assert_array_equal(users[1]["places"], [2, 3, 0])
  assert builder._log(users)[:2] == movielens_files.read_log(layouts[0])[:2]
  items = builder._items(builder._read(grouplens, "items", tmp_path / "tfds"))
  assert items == movielens_files.read_items(layouts[0])


def test_load_equals_the_files(tmp_path, monkeypatch):
  """What went through TFDS is what the files say, on the real data; a second load reads it back."""
  from ilm_jax.assets import pinned
  pytest.importorskip("tensorflow_datasets", reason=real.NEEDS_DATA)
  from tasks.datasets import builder
  paths = real.movielens_paths()
  monkeypatch.setattr(pinned, "fetch", lambda name: paths)
  ml100k = registry.find(base.get_config().data)
  direct, direct_items = interactions.build(*real.movielens_log(), k=5)
  for _ in range(2):
    loaded, items, _ = builder.load(ml100k, tmp_path, k=5)
    assert items == direct_items and loaded.user_ids == direct.user_ids
    for name in ("user_N", "item_N", "time_N", "value_N"):
      np.testing.assert_array_equal(getattr(loaded, name), getattr(direct, name))
  assert (loaded.num_users, loaded.num_items, len(loaded.user_N)) == (943, 1349, 99287)
