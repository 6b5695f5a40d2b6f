"""MovieLens-100K: both file layouts and the TFDS builder, on a made-up extract and the real one."""
import numpy as np
import pytest
import real

from ilm_jax import errors
from ilm_jax.data import interactions
from tasks.datasets import movielens_files

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


def test_items_are_the_same_in_both_layouts(layouts):
  grouplens, recbole = (movielens_files.read_items(paths) for paths in layouts)
  assert grouplens == recbole == interactions.Items(
      ids=["1", "2", "1412", "267"],
      titles=["The Horseman on the Roof (Le Hussard sur le toit)", "Café & Crime",
              "Land Before Time III", "unknown"],
      years=[1995, 1994, 1995, None],
      genres=[["Drama"], ["Crime", "Film-Noir"], ["Animation", "Children's"], []])


def test_log_is_the_same_in_both_layouts(layouts):
  grouplens, recbole = (movielens_files.read_log(paths) for paths in layouts)
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
])
def test_title_and_year(raw, title, year):
  assert movielens_files.title_and_year(raw) == (title, year)


def test_a_broken_log_names_its_line(layouts):
  layouts[1]["ml-100k.inter"].write_text("header\n1\t2\t3\t4\n1\t2\t3\n")
  with pytest.raises(errors.UserError, match=r"ml-100k\.inter, line 3"):
    movielens_files.read_log(layouts[1])


def test_real_layouts_agree():
  grouplens = {name: real.SHARED / name for name in ("u.data", "u.item")}
  if not all(path.is_file() for path in grouplens.values()):
    pytest.skip("GroupLens's own files are not in ../shared")
  assert movielens_files.read(real.movielens_paths()) == movielens_files.read(grouplens)


def test_builder_examples(layouts, tmp_path):
  """Users ascend as numbers; equal times keep the order of the log."""
  from tasks.datasets import movielens
  users = movielens._read("interactions", tmp_path / "tfds", layouts[1])
  assert [user["user_id"] for user in users] == [b"9", b"10"]
  assert list(users[1]["item_ids"]) == [b"1412", b"1", b"2"]
  np.testing.assert_array_equal(users[1]["timestamps"], [70, 70, 90])
  np.testing.assert_array_equal(users[1]["ratings"], [4, 2, 3])
  items = movielens._items(movielens._read("items", tmp_path / "tfds", layouts[0]))
  assert items == movielens_files.read_items(layouts[0])


def test_load_equals_the_files(tmp_path, monkeypatch):
  """What went through TFDS is what the files say, on the real data; a second load reads it back."""
  from ilm_jax import assets
  from tasks.datasets import movielens
  paths = real.movielens_paths()
  monkeypatch.setattr(assets, "fetch", lambda name: paths)
  direct, direct_items = interactions.build(*real.movielens_log(), k=5)
  for _ in range(2):
    loaded, items = movielens.load(tmp_path, k=5)
    assert items == direct_items and loaded.user_ids == direct.user_ids
    for name in ("user_N", "item_N", "time_N", "value_N"):
      np.testing.assert_array_equal(getattr(loaded, name), getattr(direct, name))
  assert (loaded.num_users, loaded.num_items, len(loaded.user_N)) == (943, 1349, 99287)
