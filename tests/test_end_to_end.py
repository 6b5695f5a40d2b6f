"""The whole path on real data with configs/tiny.py, as a user runs it.

The language models are small ones of random weights; real ones: test_docs (register_a_task).
"""
import gzip
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import random_lm
import real
from flax import nnx

from configs import base
from ilm_jax import errors
from ilm_jax.assets import pinned
from ilm_jax.config import reading
from ilm_jax.data import batches, entities
from ilm_jax.evaluation.rows import label
from ilm_jax.export.shipped import check
from ilm_jax.models import bert
from ilm_jax.monitoring import scalars
from ilm_jax.stages import context, recipe
from launch import bundle

ROOT = pathlib.Path(__file__).parents[1]
# A fifth of the catalogue: test_movielens has all of it.
CORE = "--config.data.k_core=80"
# What evaluation can do for texts and tiny leaves out.
COMPARED = ("--config.eval.references=('title','shuffled')", "--config.eval.compared_examples=1",
            "--config.eval.interpolations=3")
# Both stages import TensorFlow in a process of their own, which takes longer than all they do.
IN_ONE_PROCESS = """
import sys
from ilm_jax import main
from ilm_jax.stages import child

child.run = lambda name, function, *arguments: function(*arguments)
sys.exit(main.main(sys.argv[1:]))
"""
NO_TENSORFLOW = """
import sys
for name in ("tensorflow", "seqio", "tensorflow_datasets", "ilm_jax.tasks"):
  sys.modules[name] = None      # as if not installed
"""


def main(workdir, *flags, path="", config="tiny", before=(), module=("-m", "ilm_jax.main"),
         said=""):
  """Runs ilm_jax.main with the language model in workdir/lm; `said` is its standard input."""
  env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
  return subprocess.run(
      [sys.executable, *before, *module, f"--config={ROOT}/configs/{config}.py",
       f"--workdir={workdir}", CORE,
       f"--config.lm.asset={workdir}/lm", "--config.lm.tokenizer=smollm2-135m-instruct", *flags],
      input=said, capture_output=True, text=True, env=env, check=False)


def copy(run, workdir, *without):
  """A copy to train on in: what is large is never written in place, so a link will do."""
  def link_or_copy(source, target):
    large = os.path.getsize(source) > 2 ** 20
    return (os.link if large else shutil.copy2)(source, target)

  shutil.copytree(run, workdir, ignore=shutil.ignore_patterns(*without), copy_function=link_or_copy)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A workdir after all stages; those after prepare ran with TensorFlow not importable."""
  pytest.importorskip("tensorflow_datasets", reason=real.NEEDS_DATA)
  try:
    for name in ("ml-100k", "smollm2-135m-instruct", "minilm-l6"):
      pinned.fetch(name)
  except errors.UserError as e:
    pytest.skip(f"needs the real data and weights, which cannot be had here: {e}")
  workdir = tmp_path_factory.mktemp("tiny")
  random_lm.write("llama", workdir / "lm")
  blocked = tmp_path_factory.mktemp("blocked")
  (blocked / "sitecustomize.py").write_text(NO_TENSORFLOW)
  first = main(workdir, "--stage=prepare")
  assert first.returncode == 0, first.stderr[-2000:]
  rest = main(workdir, "--stage=cf,phase1,phase2,eval,report", "--config.eval.prompt_users=1",
              "--config.eval.rank_compared=True", *COMPARED,
              "--config.eval.references=('title','shuffled','shuffled_mlp')", path=blocked)
  assert rest.returncode == 0, rest.stderr[-2000:]
  (workdir / "said.txt").write_text(rest.stdout)
  return workdir


def test_every_table_is_there(run):
  report = json.loads((run / "report.json").read_text())
  rows = {part["title"].split(" (")[0]: [label(row) for row in part["rows"]]
          for part in report["tables"]}
  assert any("Retrieval" in title for title in rows)
  assert any("Next item, full catalogue of 276" in title for title in rows)
  ranked = next(names for title, names in rows.items() if title.startswith("Next item, full"))
  assert {"ILM, beam 20", "MLP projector, beam 20", "ILM, item head", "ILM-rand, item head",
          "Q-Former, dot product", "popularity"} <= set(ranked)
  worded = rows["Next item by prompt"]
  assert [sum(name.startswith(task) for name in worded)
          for task in ("sequential", "straightforward")] == [12, 12]
  assert worded[10].startswith("sequential, unseen 0: Predict which film")
  losses = next(names for title, names in rows.items() if title.startswith("Loss on test"))
  others = ["ILM-rand", "MLP projector", "ILM without vectors", "no slots", "title as text",
            "ILM, vectors shuffled"]
  moved = "MLP projector, vectors shuffled"
  every = ["ILM", *others, moved, *(f"ILM minus {name}" for name in others),
           f"MLP projector minus {moved}"]
  assert losses == every
  compared = next(names for title, names in rows.items() if title.endswith("over 3 tasks"))
  assert compared == every
  assert set(report["curves"]) == {"phase1", "phase2", "phase2_rand", "phase2_mlp",
                                   "phase2_blind"}
  page = (run / "report.html").read_text()
  assert page.count("alt='plot of phase1'") == page.count("alt='plot of phase2'") == 1
  assert "alt='plot of phase2_rand'" not in page          # it is a line beside ILM's
  ilm, mlp = ([row["learning_rate"] for row in map(
      json.loads, (run / name / "metrics.jsonl").read_text().splitlines())]
              for name in ("phase2", "phase2_mlp"))
  assert ilm[-1] > 0 and mlp == [rate * 0.5 for rate in ilm]        # phase2.mlp_scale


def test_a_bundle_runs_what_it_carries_and_its_results_come_home(run, tmp_path):
  """From a folder where nothing is, with the bundle's own code, weights and language model."""
  bundle.act(bundle.parse([f"--workdir={run}", f"--out={tmp_path}/bundle"]))
  into, results = tmp_path / "into", tmp_path / "results"

  def there(*words):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(["bash", tmp_path / "bundle" / "bundle_run.sh", into, *words],
                          capture_output=True, text=True, cwd=tmp_path, check=False,
                          env={**env, "PYTHON": sys.executable, "PIP_NO_INDEX": "1"})

  done = there("--pack=results")
  assert done.returncode == 1 and "into is no unpacked bundle" in done.stderr
  first = there("--stage=report")
  assert first.returncode == 0, first.stderr[-2000:]
  assert "unpacking" in first.stdout and not (into / "packages").exists()
  assert json.loads((into / "config.json").read_text())["lm"]["asset"] == "files/lm.asset/lm"
  for part in (tmp_path / "bundle").glob("part-*"):        # none is read again
    part.unlink()
  with open(into / "source" / "ilm_jax" / "__init__.py", "a") as code:
    code.write("print('carried')\n")
  again = there("--stage=phase1", "--config.phase1.losses.ui=0.0")
  assert again.returncode == 1 and again.stdout == "carried\n"
  assert "phase1.losses.ui: 0.5 -> 0.0" in again.stderr and again.stderr.count("\n") == 1

  (into / "run" / "eval" / "from_there").write_text("1")
  assert there(f"--pack={results}").returncode == 0
  home = tmp_path / "home"
  copy(run, home, "tfds", "lm", "phase2*")
  bundle.act(bundle.parse([f"--workdir={home}", f"--results={results}"]))
  assert (home / "eval" / "from_there").exists() and (home / "phase2" / "checkpoints").is_dir()
  manifest = home / "data" / "manifest.json"
  manifest.write_text(manifest.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
  with pytest.raises(errors.UserError, match="are of data .*: name the workdir that was bundled"):
    bundle.act(bundle.parse([f"--workdir={home}", f"--results={results}"]))


def test_phase1_starts_as_the_sentence_encoder_unless_told_otherwise(run):
  """configs/tiny.py says otherwise: its checkpoints need not hold that encoder's words."""
  config = reading.from_json((run / "config.phase1.json").read_text())
  assert config.qformer.init == ""
  with config.unlocked():
    config.qformer = base.get_config().qformer
  begun = context.Run(config, run, devices=False)
  graphdef, trainable = recipe.phase1(begun)
  stored = begun.prepared("item_text", "train")
  batch = batches.text_batch([stored[0], stored[1]], 2, config.qformer.max_text)
  model = nnx.merge(graphdef, trainable["qformer"])
  mine = model.project_text(model.text(batch["text"], batch["text_mask"]), batch["text_mask"])
  encoder = bert.bind(*begun.text_encoder)
  np.testing.assert_allclose(mine, encoder.sentence(batch["text"], batch["text_mask"]), atol=1e-5)


def test_the_lists_are_the_item_head_s(run):
  """In the examples, in what is stored, and in the closing summary, which has no wide table."""
  folder = run / "eval" / "phase2" / "2"
  shown = json.loads((folder / "examples.json").read_text())
  assert "by item head" in shown["note"]
  names = shown["examples"][0]["recommended"]
  stored = [json.loads(line) for line in
            gzip.decompress((folder / "predictions.jsonl.gz").read_bytes()).splitlines()]
  titles = json.loads((run / "data" / "items.json").read_text())["titles"]
  assert [name.split(" (")[0] for name in names] == [
      titles[row - 1] for row in stored[0]["items"][:10]] and len(stored[0]["items"]) == 20
  ranks = json.loads(gzip.decompress((folder / "ranks.json.gz").read_bytes()))["ranks"]
  assert [line["rank"] for line in stored] == ranks["ILM, item head"]
  alike = json.loads((folder / "lists.json").read_text())["rows"]
  assert {"ILM, beam 20", "ILM, item head", "ILM, item head alone", "ILM-rand, item head",
          "MLP projector, item head", "popularity", "iALS (the vectors themselves)"
          } <= {label(row) for row in alike}
  said = (run / "said.txt").read_text()
  assert f"-> {names[0].split(' (')[0][:9]}" in said and "Loss on test" not in said
  assert "--stage=recommend" in said and "--liked=" in said


def test_a_finished_run_refuses_other_settings(run):
  """In one line with old and new value, before anything is rewritten; by eval and report alike."""
  records = {path: path.read_bytes() for path in run.glob("config.*.json")}
  assert {path.name for path in records} == {
      f"config.{stage}.json" for stage in ("prepare", "cf", "phase1", "phase2", "eval")}
  for stages, change, words in (
      ("cf,phase1,phase2", "--config.phase1.losses.ui=0.0", "phase1.losses.ui: 0.5 -> 0.0"),
      ("eval", "--config.phase2.learning_rate=0.5", "phase2.learning_rate: 0.001 -> 0.5")):
    done = main(run, f"--stage={stages}", change)
    assert done.returncode == 1
    error, = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert words in error and "--accept_changed_settings" in error and "--workdir" in error
  assert {path: path.read_bytes() for path in run.glob("config.*.json")} == records


@pytest.mark.parametrize("kind", ["t5", "palm"])
def test_other_language_models_from_the_same_phase1(run, tmp_path, kind):
  """Phase 2, ranking and texts through an encoder-decoder, and through a PaLM-style decoder."""
  workdir = tmp_path / "run"
  copy(run, workdir, "phase2*", "eval", "tensorboard", "tfds", "report.*", "lm")
  random_lm.write(kind, workdir / "lm")
  compared = ("mlp",) if kind == "t5" else ()
  done = main(workdir, "--stage=phase2,eval", f"--config.phase2.compare={compared}",
              "--config.eval.baselines=('popularity',)", config=f"tiny_{kind}")
  assert done.returncode == 0, done.stderr[-2000:]
  loss, ranked = (json.loads(next((workdir / "eval" / "phase2").glob(f"*/{name}.json")).read_text())
                  for name in ("loss", "recommendation"))
  assert "catalogue of 276" in ranked["title"]
  assert {"ILM, beam 20", "popularity"} <= {label(row) for row in ranked["rows"]}
  assert ("ILM minus MLP projector" in [label(row) for row in loss["rows"]]) == (kind == "t5")


def test_the_audit_finds_nothing_in_a_run_with_tasks_of_rate_0(run):
  done = main(run, "--stage=audit")
  assert done.returncode == 0, done.stderr[-2000:]
  checks = [line for line in done.stdout.splitlines() if line.startswith("audit: ")]
  assert "audit: sequential train: only training interactions: clean" in checks
  assert "audit: sequential test: no target in the text: clean" in checks
  assert not [line for line in checks if line.startswith("audit: next_item train")]
  assert all(line.endswith(": clean") for line in checks[:-1])     # the last one counts repeats


def test_elm_tasks_from_targets_to_the_report(run, tmp_path):
  """A task about one item and one about two, with targets of the user's, to tables and means."""
  workdir, path = tmp_path / "run", tmp_path / "mine.jsonl"
  copy(run, workdir, "phase2*", "eval", "tensorboard", "report.*")
  path.write_text("")
  flags = (f"--config.targets.file={path}", "--config.targets.teacher=file",
           "--config.targets.max_items=8", "--config.targets.max_heldout=3",
           "--config.tasks.mixture.elm_pitch=1.0", "--config.tasks.mixture.elm_similarities=1.0",
           "--config.tasks.mixture.elm_title=0.0", "--config.phase2.compare=()", *COMPARED,
           # Nothing is ranked: other tests do.
           "--config.tasks.mixture.sequential=0.0", "--config.tasks.mixture.straightforward=0.0",
           "--config.phase2.head.weight=0.0")
  empty = main(workdir, "--stage=targets,prepare", *flags, module=("-c", IN_ONE_PROCESS, "main"))
  assert empty.returncode == 1 and "elm_pitch: 11 asked, 11 absent" in empty.stdout
  assert "of 11 targets of elm_pitch none for training will do" in empty.stderr
  items = json.loads((workdir / "data" / "items.json").read_text())
  asked = map(json.loads, (workdir / "targets" / "requests.jsonl").read_text().splitlines())
  path.write_text("".join(json.dumps({
      "task": r["task"], "ids": [items["ids"][row - 1] for row in r["rows"]],
      "target": f"Come and see {items['titles'][r['rows'][0] - 1]}."}) + "\n" for r in asked))
  done = main(workdir, "--stage=targets,prepare,phase2,eval,report", *flags)
  assert done.returncode == 0, done.stderr[-2000:]
  tables = {part["title"].split(" (")[0]: {label(row): row["metrics"] for row in part["rows"]}
            for part in json.loads((workdir / "report.json").read_text())["tables"]}
  assert tables["Loss on test targets"]["ILM"]["mean of 2 ELM tasks"]["n"] >= 2
  text = tables["Text from vectors alone: held-out items"]
  assert {"elm_genres", "elm_year", "elm_pitch", "elm_similarities",
          "mean of 2 of ELM's 24 tasks"} == set(text)
  assert "behavioural consistency" in text["elm_similarities"]
  halfway = tables["Text from vectors halfway between two held-out items"]
  assert halfway.keys() == {"elm_pitch"} and halfway["elm_pitch"]["words"]["n"] == 3
  assert tables["Text from vectors alone, compared: means over 2 tasks"].keys() >= {
      "ILM, vectors shuffled", "ILM minus ILM, vectors shuffled", "ILM minus title as text"}
  assert "behavioural consistency" not in text["elm_year"]
  again = main(workdir, "--stage=targets,prepare", *flags, "--config.targets.max_items=4",
               module=("-c", IN_ONE_PROCESS, "main"))
  assert again.returncode == 0 and "elm_pitch: 7 asked, 7 written" in again.stdout


def test_describe_on_the_way_from_an_item_to_another_and_a_conversation(run):
  """Three texts on the way; the ends are what the items themselves get. Then a list and a text."""
  done = main(run, "--stage=describe,chat", "--items=Heat (1995)", "--towards=Toy Story (1995)",
              "--steps=3", "--config.targets.max_tokens=6",
              said="I like Heat (1995)\n/about 1\n/quit\n")
  assert done.returncode == 0, done.stderr[-2000:]
  lines = done.stdout.splitlines()
  assert lines[0] == "Heat (1995) -> Toy Story (1995)"
  assert [line[:6] for line in lines[1:4]] == ["0.00  ", "0.50  ", "1.00  "]
  assert all(line[6:].strip() for line in lines[1:4])
  assert "ranked by ILM, item head with iALS. " in lines[4]
  assert lines[5] == "Noted: you like Heat (1995)." and lines[6].startswith("1. ")
  assert lines[11].startswith("From the vector of ") and lines[12:] == ["Goodbye."]


def test_describe_names_what_is_near_an_unknown_title(run):
  done = main(run, "--stage=describe", "--items=Toy Stori (1995)")
  assert done.returncode == 1 and "Traceback" not in done.stderr
  assert "no item is called 'Toy Stori (1995)'; near it: 'Toy Story (1995)'" in done.stderr


def test_running_again_changes_nothing(run):
  before = {p: p.stat().st_mtime_ns for p in run.rglob("*.array_record")}
  again = main(run, "--stage=prepare,cf,phase1")
  assert again.returncode == 0, again.stderr[-2000:]
  assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*.array_record")}


def test_two_processes_train_and_evaluate_as_one_does(run, tmp_path):
  """A pod of two: phase 1's losses, tables of a phase 2 that it finds done, one writer of each."""
  made = ("data", "prepared", "entities", "lm", "factors.npz")
  trains, evaluates = tmp_path / "trains", tmp_path / "evaluates"
  for workdir, names, flags in (
      (trains, made, ("--stage=phase1",)),
      (evaluates, (*made, "phase1", "phase2"), (
          "--stage=eval,report", "--config.phase2.compare=()",
          "--config.eval.baselines=('popularity',)"))):
    workdir.mkdir()
    for name in names:
      (workdir / name).symlink_to(run / name)
    done = main(workdir, "--config.mesh.data=2", *flags,
                before=(ROOT / "launch" / "local_pod.py", "-n", "2", "--", sys.executable))
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
  one, two = scalars.read(run / "phase1" / "metrics.jsonl"), scalars.read(
      trains / "phase1" / "metrics.jsonl")
  assert [r["step"] for r in two] == [r["step"] for r in one] == [2, 4]
  for name in ("loss", "itc", "itm", "itg", "ii", "ui"):
    assert [r[name] for r in two] == pytest.approx([r[name] for r in one], rel=1e-6)
  assert len(list((trains / "tensorboard" / "phase1").iterdir())) == 1
  assert (evaluates / "report.html").exists()
  for table in ("phase1/*/retrieval.json", "phase2/*/loss.json", "phase2/*/recommendation.json"):
    mine, theirs = ({label(row): row["metrics"] for row in json.loads(path.read_text())["rows"]}
                    for path in (next((w / "eval").glob(table)) for w in (evaluates, run)))
    assert mine
    largest = max(m["value"] for row in theirs.values() for m in row.values())
    for name in mine:
      assert mine[name].keys() == theirs[name].keys()
      # A difference is as exact as what it is made of: float32, here up to 10 nats.
      exact = 1e-6 * (max(1.0, largest) if " minus " in name else 1.0)
      for metric, found in mine[name].items():
        assert found == pytest.approx(theirs[name][metric], rel=1e-5, abs=exact), (name, metric)


def test_a_pod_refuses_at_once_what_it_cannot_do(run):
  """A plan in several processes, and groups that two processes cannot share."""
  for flags, says in ((("--stage=plan",), "--stage=plan runs in one process, this job has 2"),
                      (("--stage=phase2",), "makes 1 groups, which do not divide over the 2")):
    done = main(run, *flags, "--config.mesh.data=2",
                before=(ROOT / "launch" / "local_pod.py", "-n", "2", "--", sys.executable))
    assert done.returncode == 1 and "[0] error: " in done.stdout and says in done.stdout


def test_phase1_of_another_entity_table_is_refused(run):
  """Phase 2 pointed at a phase 1 whose vectors were others: one line, both fingerprints named."""
  table = entities.load(run / "entities")
  manifest = json.loads((run / "entities" / "manifest.json").read_text())
  other = entities.make(table.rows.num_items, table.rows.num_users, **{
      name: (2 * vectors[:table.rows.users.start], 2 * vectors[table.rows.users])
      for name, vectors in table.vectors.items()})
  kept = run / "entities.kept"
  (run / "entities").rename(kept)
  try:
    other.save(run / "entities", manifest["made_from"])
    done = main(run, "--stage=phase2", "--config.phase2.steps=3",
                f"--config.phase2.init_from={run}")
  finally:
    for path in (run / "entities").iterdir():
      path.unlink()
    (run / "entities").rmdir()
    kept.rename(run / "entities")
  lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  assert done.returncode == 1 and len(lines) == 1 and "Traceback" not in done.stderr
  assert table.fingerprint[:12] in lines[0] and other.fingerprint[:12] in lines[0]


FOLDED_IN = """
import json, sys, types
import numpy as np
from ilm_jax import main
from ilm_jax.config import reading
from ilm_jax.data import interactions
from ilm_jax.stages import context, recommender

assert main.main(sys.argv[1:]) == 0
config = main._with_gin(main._CONFIG.value)
run = context.Run(config, main._WORKDIR.value)
histories = interactions.train_histories(run.data.log)[:3]
table, users = run.entities, run.entities.rows.users
trained = [{name: table.vectors[name][users][u] for name in config.vectors} for u in range(3)]
ask = recommender.Recommender(run)
makes = ask._users
for by in ("item head", "dot product", "beams"):
  lists = []
  for vectors in (makes.vectors(histories), trained, [{}] * 3):
    ask.by, ask._users = by, types.SimpleNamespace(
        vectors=lambda _, vectors=vectors: vectors, members=makes.members)
    lists.append([x.tolist() for x in ask.top(histories, 4)])
  print(json.dumps([by, [h.tolist() for h in histories], lists]))
"""


def test_recommend_to_users_folded_in_as_to_those_trained(run):
  """The list that is asked for; and by every way, a training history does what its user does."""
  done = main(run, "--stage=recommend", "--liked=Heat (1995)", "--liked=Fargo (1996)", "--k=3",
              module=("-c", FOLDED_IN, "main"))
  assert done.returncode == 0, done.stderr[-2000:]
  said, by_way = done.stdout.splitlines()[:5], map(json.loads, done.stdout.splitlines()[5:])
  assert said[:2] == ["liked: Heat (1995), Fargo (1996)",
                      "recommended by ILM, item head with iALS, without these:"]
  names = [line[3:-10].strip() for line in said[2:]]
  assert len(set(names)) == 3 and not set(names) & {"Heat (1995)", "Fargo (1996)"}
  ways = []
  for by, histories, ((items, mine), (_, trained), (_, without)) in by_way:
    ways.append(by)
    assert np.shape(items) == (3, 4) and all(len(set(row)) == 4 and 0 not in row for row in items)
    assert not any(set(row) & set(history) for row, history in zip(items, histories))
    assert all(row == sorted(row, reverse=True) for row in mine)
    np.testing.assert_allclose(mine, trained, rtol=1e-6, atol=2e-5)
    assert not np.allclose(mine, without, rtol=1e-6, atol=2e-5)      # the vector is read
  assert ways == ["item head", "dot product", "beams"]


def test_an_export_proves_parity_and_is_written_whole(run):
  done = main(run, "--stage=export", "--users=all")
  assert done.returncode == 0, done.stderr[-2000:]
  assert "left out" not in done.stdout and "prove parity: python -m ilm_jax" in done.stdout
  folder = run / "export"
  names = {path.name for path in folder.iterdir()}
  assert {"items.safetensors", "users.safetensors", "hf", "soft_tokens.jaxexport", "README.md",
          "data_card.md", "top_k.py", "check.py", "prompt_embeds.py"} <= names
  has_torch = importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")
  said = check.check(folder, () if has_torch else ("hf",))
  assert "lists of" in said and "results of soft_tokens, item_keys, state by jax.export" in said
  if has_torch:                        # docs/export.md as written
    page = (ROOT / "docs" / "export.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]
    spoken = subprocess.run([sys.executable, "-c", code], cwd=run, capture_output=True, text=True,
                            check=True).stdout
    assert "Film<item_50_0><item_50_1> has the genres:" in spoken


SERVED = """
import logging, pathlib, sys
import jax
from starlette import testclient
from ilm_jax.config import reading
from ilm_jax.serving import app, engine, limits
from ilm_jax.stages import context

workdir = pathlib.Path(sys.argv[1])
config = reading.from_json((workdir / "config.eval.json").read_text())
with config.unlocked():
  config.targets.max_tokens = 6
run, bounds = context.Run(config, workdir), limits.Limits(together=2)
served = engine.Engine(run, engine.served(run, "ilm")[:2], 5, bounds)
served.warm()


class Compiled(logging.Handler):
  def emit(self, record):
    if record.getMessage().startswith("Compiling"):
      print(record.getMessage()[:200], file=sys.stderr)


jax.config.update("jax_log_compiles", True)
logging.getLogger("jax").addHandler(Compiled())
ids, user = run.data.items.ids[:30], run.data.log.user_ids[0]
texts = ["I liked Heat (1995), but something grimmer and newer", "no " + "gloomy " * 14, "why"]
with testclient.TestClient(app.create(served, bounds)) as client:
  def post(path, **body):
    done = client.post(f"/v1/{path}", json=body)
    assert done.status_code == 200, done.text
    return done.json()

  for model in served.talkers:
    for liked in (ids[:1], ids):
      post("recommend", liked=liked, model=model)
    kept = post("sessions", user=user)["id"]
    for text in texts:
      said = {"messages": [{"role": "user", "content": text}], "session_id": kept, "model": model}
      post("chat/completions", **said)
    more = {"session_id": kept, "model": model}
    post("critique", attribute="comedy", steps=2, **more)
    assert post("explain", item=ids[0], about=True, **more)["about"]
    assert post("between", first=ids[1], second=ids[2], share=0.3, model=model)["text"]
  post("similar", item=ids[0]), post("users", liked=ids)
  for path in ("models", "items?q=a", f"sessions/{kept}", "usersimcrs"):
    assert client.get(f"/v1/{path}").status_code == 200
  client.patch(f"/v1/sessions/{kept}", json={"edits": [{"do": "dislike", "item": ids[3]}]})
  assert client.post("/v1/usersimcrs", json={"context": [], "message": texts[0]}).is_success
served.thread.stop()
print("served by", *served.talkers)
"""


def test_nothing_is_compiled_for_a_request_once_a_server_is_ready(run):
  """By every route and model, with long histories, guessed words and texts."""
  done = subprocess.run(
      [sys.executable, "-c", SERVED, run], capture_output=True, text=True, check=False,
      env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)})
  assert done.returncode == 0, done.stderr[-2000:]
  assert done.stdout.startswith("served by ilm ")
  compiled = [line for line in done.stderr.splitlines() if line.startswith("Compiling")]
  assert not compiled, compiled


NOTEBOOKS = """
import pathlib, runpy, sys
import matplotlib
from ilm_jax.config import reading, stages

matplotlib.use("Agg")
config = reading.from_json(pathlib.Path("runs/quickstart/config.eval.json").read_text())
with config.unlocked():
  config.targets.max_tokens = 6      # as the test of describe has it: the same programs
reading.load = lambda path, overrides=None: config
stages.ALL = ("cf",)
for path in sys.argv[1:]:
  print("===", pathlib.Path(path).stem)
  runpy.run_path(path)
"""


def test_notebooks_and_the_python_page_run_as_written(run, tmp_path):
  """In one process, on the tiny run in place of the quickstart's."""
  (tmp_path / "runs").mkdir()
  (tmp_path / "runs" / "quickstart").symlink_to(run)
  page = (ROOT / "docs" / "api.md").read_text()
  (tmp_path / "api.py").write_text(
      "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)))
  notebooks = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
  done = subprocess.run(
      [sys.executable, "-c", NOTEBOOKS, *map(str, notebooks), "api.py"], cwd=tmp_path, text=True,
      env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}, capture_output=True,
      check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  said = dict(part.split("\n", 1) for part in done.stdout.split("=== ")[1:])
  assert said.keys() == {"train", "describe", "talk_and_serve", "own_data", "api"}
  assert "Next item, full catalogue of 276" in said["train"] and "ILM, item head" in said["train"]
  assert said["describe"].count("steps towards comedy: ") == 3 and "least: [" in said["describe"]
  assert said["talk_and_serve"].count("> ") == 4 and "1. " in said["talk_and_serve"]
  near = re.findall(r"no. (\d+) is near \[(.*)\]", said["own_data"])
  assert [{int(n) % 2 for n in re.findall(r"no. (\d+)", names)} for _, names in near] == [{0}, {1}]
  assert "'behavioral': (8,)" in said["api"] and said["api"].count("(19") >= 10
