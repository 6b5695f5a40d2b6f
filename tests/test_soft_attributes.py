"""The reader of SoftAttributes."""
import pytest
import real

from ilm_jax import errors
from ilm_jax.conversation import soft_attributes, titles
from ilm_jax.data import interactions
from tasks.datasets import movielens_files

HEADER = "rater_id,reference_title,soft_attribute,less_than,about_as,more_than\n"
ITEMS = interactions.Items(
    ["7", "8", "9", "10"],
    ["The Lion King", "Amélie (Fabuleux destin d'Amélie Poulain, Le)", "Heat", "Das Boot"],
    [1994, 2001, 1995, 1981], [[]] * 4)


def read(tmp_path, text):
  (tmp_path / "sa.csv").write_text(text, encoding="utf-8")
  return soft_attributes.read(tmp_path / "sa.csv", titles.Titles(ITEMS))


def test_rows_with_titles_as_they_come(tmp_path):
  """An article behind, broken letters beside a whole name, a title that is not there."""
  got, absent = read(tmp_path, HEADER + (
      '3,"Lion King, The (1994)",dark,"[""Am��lie (Amelie) (2001)"",""Dune (2021)""]",,'
      '"[""Heat (1995)"",""Heat (1995)"",""Boot, Das (Boat, The) (1981)""]"\n'))
  assert got == [soft_attributes.Sorting("3", "dark", ((2,), (1,), (3, 4)))]
  assert absent == ["Dune (2021)"]


@pytest.mark.parametrize(("text", "words"), [
    ("rater_id,soft_attribute\n", "lacks the column 'reference_title', expected rater_id"),
    (HEADER + "3,Heat (1995),dark,Up,,\n", "line 2: less_than is Up, expected a list of titles"),
    (HEADER + '3,Heat (1995),dark,,"[1]",\n', r"line 2: about_as is \[1\], expected a list")])
def test_files_that_are_wrong(tmp_path, text, words):
  with pytest.raises(errors.UserError, match=words):
    read(tmp_path, text)


def test_rows_that_end_early_deep_lists_and_other_letters_are_one_line(tmp_path):
  with pytest.raises(errors.UserError, match="line 2 ends before 'soft_attribute'"):
    read(tmp_path, HEADER + "3,Heat (1995)\n")
  with pytest.raises(errors.UserError, match="line 2: less_than is .*expected a list"):
    read(tmp_path, HEADER + f"3,Heat (1995),dark,{'[' * 100000},,\n")
  (tmp_path / "sa.csv").write_bytes("Amélie".encode("latin-1"))
  with pytest.raises(errors.UserError, match="is not UTF-8 .* save the file as UTF-8"):
    soft_attributes.read(tmp_path / "sa.csv", titles.Titles(ITEMS))


def test_all_films_are_on_movielens():
  path, movies = real.shared("soft-attributes/soft-attributes.csv",
                             "ml-latest-small-2018/movies.csv")
  items = movielens_files.read_items({"movies.csv": movies})
  got, absent = soft_attributes.read(path, titles.Titles(items))
  assert len(got) == 5991 and len({each.attribute for each in got}) == 60 and absent == []
