"""Stage recommend: wishes that cannot be met, files of lists, by what a run ranks."""
import csv
import dataclasses
import errno
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from configs import openp5_ml100k, quickstart, tiny
from ilm_jax import errors
from ilm_jax.config import variants
from ilm_jax.data import interactions
from ilm_jax.evaluation import list_files
from ilm_jax.runtime import axes
from ilm_jax.stages import recommend, recommender
from ilm_jax.stages.evals import speaker

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def run():
  """Two users, four items, and no model: what is refused is refused before one is loaded."""
  return made_up()


def made_up(more_users=0):
  """A run without a model; more users have the history of the second."""
  items = interactions.Items(["10", "11", "12", "13"], ["Heat", "Heat", "Up", "=1+1"],
                             [1995, 1986, 2009, None], [[]] * 4)
  users = ["7", "9", *(f"u{n}" for n in range(more_users))]
  of_N, count = np.array([0, 0, 0, *range(1, len(users))], np.int32), len(users) + 2
  log = interactions.Interactions(users, 4, of_N, np.array([3, 1, 4] + [2] * (count - 3), np.int32),
                                  np.zeros(count, np.int64), np.ones(count, np.float32))
  return types.SimpleNamespace(data=interactions.Data(log, items, ""), config=tiny.get_config())


WISH = recommend.Wish(liked=("Up (2009)",))


@pytest.mark.parametrize(("wish", "words"), [
    (recommend.Wish(), "needs --user=user:ID, --liked="),
    (recommend.Wish(liked=("",)), "--liked is empty"),
    (recommend.Wish(user="7", liked=("Up",)), "--user and --liked ask for different lists"),
    (recommend.Wish(liked=("Up",), users="all"), "--liked and --users ask for"),
    (recommend.Wish(items="7", out="x/"), "--items=7: expected all"),
    (recommend.Wish(items="all"), "--items=all needs a file to write"),
    (recommend.Wish(items="all", k=4, out="x.csv"), "--k=4: the catalogue has 3 other items"),
    (recommend.Wish(users="7"), "--users=7: expected all, or a file .* use --user=7"),
    (recommend.Wish(users="/"), "--users=/: expected all, or a file"),
    (recommend.Wish(users="all"), "--users=all needs a file to write"),
    (recommend.Wish(users="all", out="top.xlsx"), r"--out=top.xlsx: expected .* \.csv or"),
    (WISH._replace(out="top.csv"), "--out=top.csv is for the lists of --users or --items"),
    (WISH._replace(k=0), "--k=0: expected 1 or more"),
    (WISH._replace(k=5), "--k=5: the catalogue has 4 items"),
    (recommend.Wish(user="user:8"), "none of the 2 users of the data has the id '8'"),
    (recommend.Wish(user="8"), "none of the 2 users"),
    (recommend.Wish(liked=("Upp (2009)",)), r"near it: 'Up \(2009\)'"),
    (recommend.Wish(liked=("item:14",)), "none of the 4 items of the data has the id '14'"),
    (recommend.Wish(liked=("Heat",)), "several items: say which of item:10"),
    (recommend.Wish(liked=("user:9",)), "--liked=user:9 is a user, expected an item"),
    (WISH._replace(model="mpl", k=2), "--model=mpl: this config trains ilm, rand, mlp, blind$")])
def test_wishes_that_cannot_be_met_in_one_line(run, wish, words):
  with pytest.raises(errors.UserError, match=words) as caught:
    recommend.run(run, wish)
  assert "\n" not in str(caught.value)


def test_lists_into_a_folder_or_without_pyarrow_are_refused(tmp_path, monkeypatch):
  (tmp_path / "x.csv").mkdir()
  with pytest.raises(errors.UserError, match="is a folder, expected a file"):
    list_files.check(f"{tmp_path}/x.csv")
  monkeypatch.setitem(sys.modules, "pyarrow", None)
  with pytest.raises(errors.UserError, match="pip install pyarrow, or name a .csv file"):
    list_files.check("top.parquet")


def test_by_what_a_run_ranks():
  c = quickstart.get_config()
  assert recommender.way(c) == "item head"
  c.phase2.head.weight = 0.0
  c.phase1.losses.cf = 0.0
  with pytest.raises(errors.UserError, match="nothing in this run ranks") as caught:
    recommender.way(with_rates(c, next_item=0.0))
  assert "\n" not in str(caught.value)
  for ui, cf, way in ((0.0, 0.0, "beams"), (0.5, 0.0, "dot product"), (0.0, 0.5, "dot product")):
    c.phase1.losses.update(ui=ui, cf=cf)
    assert recommender.way(c) == way
  with pytest.raises(errors.UserError, match="tasks.entities='names'"):
    recommender.way(openp5_ml100k.get_config())


def test_a_model_that_is_not_trained_or_has_no_way_to_rank_is_refused(run):
  assert recommender.Recommender(run, variants.COMPARED["mlp"]).method == (
      "MLP projector, item head with iALS")
  run.config.phase2.compare = ("rand",)
  with pytest.raises(errors.UserError, match=r"trains ilm, rand; phase2.compare=\('mlp',\) trains"):
    variants.named(run.config, "mlp")
  run.config.phase2.head.weight, run.config.phase1.losses.ui = 0.0, 1.0
  with pytest.raises(errors.UserError, match="--model=mlp: .* no item head"):
    recommender.Recommender(run, variants.COMPARED["mlp"])


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 4), (17, 24), (1000, 24)])
def test_somebody_alone_does_not_wait_for_a_batch(run, count, rows):
  run.mesh = axes.abstract_mesh({"data": 1, "fsdp": 1, "tensor": 1})
  spec = dataclasses.make_dataclass("Spec", ["rows", "length"])(24, 64)
  shape = recommender.Recommender(run)._shape(spec, count)
  assert (shape.rows, shape.length) == (rows, 64)


def test_the_catalogue_is_projected_once_for_any_number_of_users(run, monkeypatch):
  made, given = [], []

  def score(graphdef, params, arrays, rows, num_items, items):
    given.append((rows.tolist(), items))
    return np.tile(np.array([-np.inf, 4, 3, 2, 1], np.float32), (len(rows), 1))

  run.config.phase2.head.weight, run.config.phase1.losses.ui = 0.0, 1.0
  monkeypatch.setattr(recommender.dot_scores, "score", score)
  monkeypatch.setattr(recommender.dot_scores, "items",
                      lambda *given: made.append(given[3:]) or "items")
  monkeypatch.setattr(recommender.recipe, "entity_arrays", lambda run: "arrays")
  monkeypatch.setattr(recommender.speaker, "with_more", lambda run, arrays, *more: (arrays, more))
  makes = recommender.Recommender(run)
  makes.together, makes._phase1 = 2, ("graphdef", "params")
  makes._users = types.SimpleNamespace(vectors=lambda histories: [{}] * len(histories),
                                       members=lambda histories: None)
  items_NK, _ = makes.top([[1], [2], [3]], 2)
  assert items_NK.tolist() == [[2, 3], [1, 3], [1, 2]]
  assert made == [(4,)] and given == [([7, 8], "items"), ([7], "items")]


@pytest.mark.parametrize("shape", [{"data": 1}, {"data": 2, "fsdp": 4}])
def test_new_rows_stand_behind_those_of_the_table(monkeypatch, shape):
  """Which stays on the devices; one program serves three and four new rows."""
  mesh = axes.make_mesh(shape, jax.devices()[:np.prod(list(shape.values()))])
  run = types.SimpleNamespace(mesh=mesh, entities=types.SimpleNamespace(
      rows=types.SimpleNamespace(total=5)))
  table = {"vectors": {"a": np.arange(10, dtype=np.float32).reshape(5, 2)},
           "present": {"a": np.array([False] + [True] * 4)},
           "members": np.arange(15, dtype=np.int32).reshape(5, 3)}
  arrays = jax.tree.map(lambda x: axes.put_rows(mesh, x), table)
  monkeypatch.setattr(speaker.placement, "fetch", None)
  new = [{"a": np.full(2, n, np.float32)} for n in (7, 8)] + [{}]
  for members, want in ((None, [0] * 3), ([[1, 2, 3]] * 3, [1, 2, 3])):
    grown = speaker.with_more(run, arrays, new, members)
    got = jax.tree.map(np.asarray, grown)
    np.testing.assert_array_equal(got["vectors"]["a"][:8], [
        *table["vectors"]["a"], [7, 7], [8, 8], [0, 0]])
    np.testing.assert_array_equal(got["present"]["a"][:8], [False] + [True] * 6 + [False])
    np.testing.assert_array_equal(got["members"][:8], [*table["members"], *[want] * 3])
    assert len({len(x) for x in jax.tree.leaves(got)}) == 1
  four = speaker.with_more(run, arrays, [*new, {}])
  assert four["vectors"]["a"].shape == grown["vectors"]["a"].shape
  assert four["vectors"]["a"].sharding == arrays["vectors"]["a"].sharding


def test_a_phase1_elsewhere_must_have_read_the_same_vectors(run, monkeypatch):
  run.config.phase2.init_from = "elsewhere"
  meta = {"fingerprints": {"entities": "theirs"}, "settings": {"vectors": ["behavioral"]}}
  trained = recommend.trained
  monkeypatch.setattr(trained.recipe, "phase1_made_from", lambda run: types.SimpleNamespace(
      fingerprints={"entities": "mine"}, settings={"vectors": ("behavioral",)}))
  monkeypatch.setattr(trained.checkpoint, "read_meta", lambda folder: meta)
  with pytest.raises(errors.UserError, match="phase 1 in elsewhere was trained with entities"):
    trained.first_meta(run)
  meta["fingerprints"]["entities"] = "mine"
  assert trained.first_meta(run) is meta


def with_rates(config, **rates):
  changed = config.copy_and_resolve_references()
  changed.tasks.mixture.update(rates)
  return changed


@dataclasses.dataclass
class Fake:
  """In place of `recommender.Recommender`: the score of an item is its row, the last user knows."""
  run: object
  variant: object
  method: str = "ILM, item head"
  by: str = "item head"
  reads: int = 2
  together: int = 1

  def top(self, histories, k):
    rows = [sorted({1, 2, 3, 4} - set(map(int, h)))[::-1][:k] for h in histories]
    items = np.array([r + [0] * (k - len(r)) for r in rows], np.int32)
    return items, np.where(items, items - 2.5, -np.inf).astype(np.float32)


def test_a_list_of_somebody_new_and_of_a_user(run, monkeypatch, capsys):
  monkeypatch.setattr(recommender, "Recommender", Fake)
  recommend.run(run, recommend.Wish(liked=("Up (2009)", "item:13"), k=2))
  assert capsys.readouterr().out == (
      "liked: Up (2009), =1+1\nrecommended by ILM, item head, without these:\n"
      "  1  Heat (1986)    -0.500\n  2  Heat (1995)    -1.500\n")
  recommend.run(run, recommend.Wish(user="7", k=2))
  assert capsys.readouterr().out == (
      "7: the whole history, 3 items; the model reads the last 2\n"
      "recommended by ILM, item head, without these:\n  1  Heat (1986)    -0.500\n"
      "1 of the 2 asked for: the catalogue has no more\n")


def test_lists_of_all_users_as_csv(run, monkeypatch, tmp_path, capsys):
  """A title that a spreadsheet would run is text; a negative score stays a number."""
  monkeypatch.setattr(recommender, "Recommender", Fake)
  out = tmp_path / "new" / "top.csv"
  recommend.run(run, recommend.Wish(users="all", k=3, out=str(out)))
  assert list(csv.reader(out.open())) == [
      ["user", "rank", "item", "title", "score"], ["7", "1", "11", "Heat (1986)", "-0.5"],
      ["9", "1", "13", "'=1+1", "1.5"], ["9", "2", "12", "Up (2009)", "0.5"],
      ["9", "3", "10", "Heat (1995)", "-1.5"]]
  assert f"{out}: 2 users, 3 items each, by ILM, item head" in capsys.readouterr().out
  assert [p.name for p in out.parent.iterdir()] == ["top.csv"]


def test_lists_of_all_users_as_parquet(run, monkeypatch, tmp_path):
  parquet = pytest.importorskip("pyarrow.parquet")
  monkeypatch.setattr(recommender, "Recommender", Fake)
  out = tmp_path / "top.parquet"
  recommend.run(run, recommend.Wish(users="all", k=2, out=str(out)))
  assert parquet.read_table(out).to_pylist() == [
      {"user": "7", "rank": 1, "item": "11", "title": "Heat (1986)", "score": -0.5},
      {"user": "9", "rank": 1, "item": "13", "title": "=1+1", "score": 1.5},
      {"user": "9", "rank": 2, "item": "12", "title": "Up (2009)", "score": 0.5}]


@pytest.fixture
def parquet(monkeypatch):
  """The reader of Parquet, for lists by `Fake` in parts of one user."""
  monkeypatch.setattr(recommender, "Recommender", Fake)
  monkeypatch.setattr(recommend, "PART", 1)
  monkeypatch.setattr(recommend.trained, "phase2_meta", lambda run, variant: variant.key)
  monkeypatch.setattr(recommend.provenance, "record", lambda meta: {"of": meta})
  return pytest.importorskip("pyarrow.parquet")


def test_lists_of_all_users_in_parts_go_on_where_they_stopped(run, monkeypatch, tmp_path, parquet):
  wish = recommend.Wish(users="all", k=2, out=f"{tmp_path}/top/")
  asked, top = [], Fake.top
  monkeypatch.setattr(Fake, "top", lambda self, histories, k: asked.append(
      len(histories)) or top(self, histories, k))
  recommend.run(run, wish)
  first, second = tmp_path / "top" / "part-0.parquet", tmp_path / "top" / "part-1.parquet"
  kept = first.stat().st_mtime_ns
  assert [row["user"] for path in (first, second) for row in parquet.read_table(path).to_pylist()
          ] == ["7", "9", "9"]
  second.unlink()
  recommend.run(run, wish)
  assert asked == [1, 1, 1] and second.exists() and first.stat().st_mtime_ns == kept
  says = r"top/ holds lists of users made with other settings .k.:"
  with pytest.raises(errors.UserError, match=says):
    recommend.run(run, wish._replace(k=1))
  with pytest.raises(errors.UserError, match=r"with other settings .checkpoint.: name another"):
    recommend.run(run, wish._replace(model="mlp"))
  run.config.phase2.head.factors = 0.75
  with pytest.raises(errors.UserError, match=r"with other settings .factors.: name another"):
    recommend.run(run, wish)


def test_lists_of_the_users_that_a_file_names_in_its_order(run, tmp_path, parquet):
  (named := tmp_path / "active.txt").write_text(" 9\n\n7\n")
  wish = recommend.Wish(users=str(named), k=1, out=f"{tmp_path}/top/")
  recommend.run(run, wish)
  assert [parquet.read_table(f"{wish.out}part-{n}.parquet").to_pylist()[0]["user"]
          for n in range(2)] == ["9", "7"]
  with pytest.raises(errors.UserError, match=r"with other settings .users.:"):
    recommend.run(run, wish._replace(users="all"))
  named.write_text("7\n")
  recommend.run(run, wish._replace(out=f"{tmp_path}/top.csv"))
  assert (tmp_path / "top.csv").read_text().count("\n") == 2


@pytest.mark.parametrize(("text", "words"), [
    ("7\n8\n", "line 2: none of the 2 users of the data has the id '8'"),
    ("7\n9\n7", "line 3: user '7' is in the file twice"), ("\n \n", "names no user")])
def test_a_file_of_users_with_a_mistake_is_one_line(run, tmp_path, text, words):
  (named := tmp_path / "active.txt").write_text(text)
  with pytest.raises(errors.UserError, match=words) as caught:
    recommend.run(run, recommend.Wish(users=str(named), out="top.csv"))
  assert "\n" not in str(caught.value)


SLOW = """
import sys, time
from tests import test_recommend as t

def slow(self, histories, k, top=t.Fake.top):
  print("scored", flush=True)
  time.sleep(0.1)
  return top(self, histories, k)

t.Fake.top, t.recommender.Recommender = slow, t.Fake
t.recommend.PART = 4
t.recommend._made_from = lambda recommender, wish, users: {"k": wish.k}
t.recommend.run(t.made_up(18), t.recommend.Wish(users="all", k=2, out=sys.argv[1]))
"""


def test_a_killed_command_leaves_whole_parts_and_goes_on_behind_them(tmp_path):
  """SIGKILL inside the third of five parts; the same command then scores three parts."""
  parquet = pytest.importorskip("pyarrow.parquet")
  folder = tmp_path / "top"
  argv = [sys.executable, "-c", SLOW, f"{folder}/"]
  child = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
  try:
    assert [child.stdout.readline() for _ in range(10)] == ["scored\n"] * 10
  finally:
    child.kill()
    child.wait()
  whole = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
  assert sorted(whole) == ["part-0.parquet", "part-1.parquet"]
  again = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
  assert again.stdout.count("scored") == 12
  names = [f"part-{n}.parquet" for n in range(5)]
  assert sorted(path.name for path in folder.iterdir()) == ["made_from.json", *names]
  assert all((folder / name).stat().st_mtime_ns == at for name, at in whole.items())
  rows = [row for name in names for row in parquet.read_table(folder / name).to_pylist()]
  assert [row["user"] for row in rows] == ["7", *(
      user for user in ("9", *(f"u{n}" for n in range(18))) for _ in range(2))]


@pytest.mark.parametrize("name", ["top.csv", "top.parquet"])
def test_what_fails_half_way_leaves_the_old_file(run, monkeypatch, tmp_path, name):
  """Of two users the second fails; no scrap of a new file stays beside the old one."""
  if name.endswith("parquet"):
    pytest.importorskip("pyarrow")
  first = iter([Fake.top])
  monkeypatch.setattr(recommender, "Recommender", Fake)
  monkeypatch.setattr(Fake, "top", lambda *args: next(first)(*args))
  (tmp_path / name).write_text("old")
  with pytest.raises((StopIteration, RuntimeError)):
    recommend.run(run, recommend.Wish(users="all", k=1, out=str(tmp_path / name)))
  assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_a_place_that_cannot_be_written_is_said_before_a_model_loads(run, monkeypatch, tmp_path):
  monkeypatch.setattr(recommender, "Recommender", Fake)
  monkeypatch.setattr(Fake, "top", None)
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="top.csv cannot be written") as caught:
    recommend.run(run, recommend.Wish(users="all", k=1, out=f"{tmp_path}/file/top.csv"))
  assert "\n" not in str(caught.value)


def test_a_full_disk_is_said_of_the_file_and_not_of_the_workdir(tmp_path):
  with pytest.raises(errors.UserError, match=r"top.csv: no room .* free some space"):
    with list_files.writing(str(tmp_path / "top.csv")):
      raise OSError(errno.ENOSPC, "No space left on device")
  assert not list(tmp_path.iterdir())
