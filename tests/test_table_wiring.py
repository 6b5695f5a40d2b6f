"""How the tables are wired: who is asked what, whose vectors, whose filter, on stubs."""
import types

import numpy as np
import pytest

from ilm_jax import elm
from ilm_jax.data import interactions, rows
from ilm_jax.evaluation import consistency
from ilm_jax.stages import recipe, vectors
from ilm_jax.stages.evals import between, cold, common, methods, prompts, ranking, text, trained
from tests import test_table_arithmetic as arithmetic

LABEL = arithmetic.rows.label
SCORES = [-np.inf, 5.0, 4.0, 3.0, 1.0]       # of the padding row and four items


def namespace(**fields):
  return types.SimpleNamespace(**fields)


# Ranking.


def test_the_head_ranks_each_model_with_the_users_filter(monkeypatch):
  monkeypatch.setattr(common, "head_spec", lambda run, groups: None)
  run = namespace(config=namespace(phase2=namespace(head=namespace(weight=1.0, factors=0.0))))
  model = namespace(head_score=lambda examples, spec: np.tile(SCORES, (2, 1)))
  of_users = arithmetic.questions([3, 3], [np.array([1]), np.zeros(0, int)])
  made = ranking._by_head(run, [methods.Method("ILM", model, None)], of_users)
  assert [(r.label, r.rank_U.tolist(), r.depth) for r in made] == [
      ("ILM, item head", [2, 3], np.inf)]
  assert [r.items_UK[:, :4].tolist() for r in made] == [[[2, 3, 4, 0], [1, 2, 3, 4]]]
  run.config.phase2.head.weight = 0.0
  assert ranking._by_head(run, [], of_users) == []


def test_the_dot_product_is_of_the_users_rows_with_their_filter(monkeypatch):
  """Five items, so user 1 is entity row 7; the phase 1 of `init_from` if there is one."""
  calls = []
  run = namespace(
      config=namespace(phase1=namespace(losses=namespace(ui=0.0, cf=1.0)),
                       tasks=namespace(entities="slots"), phase2=namespace(init_from="other")),
      workdir="mine", data=namespace(log=namespace(rows=rows.EntityRows(4, 3))))

  def score(graphdef, params, frozen, user_rows, num_items):
    calls.append((graphdef, params, user_rows.tolist(), num_items))
    return np.tile(SCORES, (2, 1))

  monkeypatch.setattr(trained, "phase1", lambda run, workdir: (workdir, "params"))
  monkeypatch.setattr(recipe, "entity_arrays", lambda run: None)
  monkeypatch.setattr(ranking.dot_scores, "score", score)
  of_users = ranking.Questions(
      [None] * 2, np.array([1, 2]), np.array([3, 3]), [np.array([1]), np.zeros(0, int)],
      ranking.blocked([np.array([1]), np.zeros(0, int)], 4), {})
  made, = ranking._by_dot_product(run, of_users)
  assert (made.label, made.rank_U.tolist()) == ("Q-Former, dot product", [2, 3])
  assert calls == [("other", "params", [6, 7], 4)]
  run.config.phase1.losses.cf = 0.0
  assert ranking._by_dot_product(run, of_users) == []


def test_the_table_of_rankings_keeps_depth_protocol_and_order(monkeypatch):
  monkeypatch.setattr(common, "protocol", lambda run: {"seed": 3})
  monkeypatch.setattr(common, "bootstrap", lambda run: arithmetic.BOOTSTRAP)
  run = namespace(config=namespace(tasks=namespace(index="title"), seed=3, phase2=namespace(
                      head=namespace(weight=1.0, factors=0.3))),
                  rule=namespace(name="loo", meaning="last"), data=namespace(
                      log=namespace(num_items=4)))
  of_users = arithmetic.questions([3, 3], [np.zeros(0, int)] * 2)
  table = ranking._table(run, "sequential", of_users, [
      ranking.Ranking("ILM", np.array([1.0, np.inf]), 5, "beam 5"),
      ranking.Ranking("popularity", np.array([2.0, 9.0]))])
  made = arithmetic.values(table["rows"])
  assert list(made) == ["ILM, beam 5", "popularity"]
  assert made["ILM, beam 5"].keys() == {"hr@1", "hr@5", "ndcg@5", "mrr@5"}
  assert made["popularity"]["hr@10"] == 1 and made["popularity"]["mrr"] == (1 / 2 + 1 / 9) / 2
  assert "catalogue of 4 (2 users)" in table["title"] and table["protocol"]["task"] == "sequential"
  assert table["protocol"]["factors"] == 0.3


# Cold items.


def test_cold_items_rank_among_themselves_and_among_all(monkeypatch):
  """Items 3 and 4 are cold; user 0 met item 1 and will meet 2, which it is not recommended."""
  monkeypatch.setattr(common, "protocol", lambda run: {})
  monkeypatch.setattr(common, "bootstrap", lambda run: arithmetic.BOOTSTRAP)
  monkeypatch.setattr(common, "head_spec", lambda run, groups: None)
  monkeypatch.setattr(cold, "_K", 1)
  monkeypatch.setattr(vectors, "factors", lambda run: (
      np.array([[1.0], [-1.0]]), np.array([[0.0], [1.0], [3.0], [9.0], [9.0]])))
  log = interactions.Interactions(
      ["u", "v"], 4, np.array([0, 0, 0, 1, 1], np.int32), np.array([1, 4, 2, 1, 3], np.int32),
      np.arange(5), np.ones(5, np.float32), np.array([1, 3, 1, 1, 3], np.int8))
  texts = np.array([[0, 0], [1, 0], [1, 0], [1, 0.1], [0, 1]], np.float32)
  models = {"ILM": [0, 9, 8, 2, 7], "MLP": [0, 9, 8, 7, 2]}
  compared = [methods.Method(name, namespace(head_score=lambda examples, spec, scores=scores: (
      np.tile(np.r_[-np.inf, scores[1:]], (2, 1)))), None) for name, scores in models.items()]
  asked = {"test": [{"user": [5], "target_entity": [4]}, {"user": [6], "target_entity": [3]}]}
  run = namespace(
      config=namespace(phase2=namespace(head=namespace(weight=1.0), compare=("mlp",)),
                       eval=namespace(users=0), seed=0, tasks=namespace(mixture={"next_item": 1})),
      rule=namespace(meaning="cold"), data=namespace(log=log),
      entities=namespace(vectors={"semantic": texts}), prepared=lambda task, split: asked[split])
  table = cold._table(run, compared, "test")
  hits = {LABEL(row): row["metrics"]["hr@1"]["value"] for row in table["rows"]}
  few, every = "among 2 cold items", "full catalogue of 4"
  assert hits == {
      f"ILM, item head, {few}": 0.5, f"ILM, item head, {every}": 0.5,
      f"MLP, item head, {few}": 0.5, f"MLP, item head, {every}": 0,
      f"text nearest neighbour, {few}": 0.5, f"text nearest neighbour, {every}": 0,
      f"text mapped to iALS, {few}": 0.5, f"text mapped to iALS, {every}": 0.5,
      f"popularity, {few}": 0.5, f"popularity, {every}": 0,
      f"ILM, item head minus text mapped to iALS, {few}": 0,
      f"ILM, item head minus text mapped to iALS, {every}": 0,
      f"ILM, item head minus MLP, item head, {few}": 0,
      f"ILM, item head minus MLP, item head, {every}": 0.5,
      f"ILM, item head minus text nearest neighbour, {few}": 0,
      f"ILM, item head minus text nearest neighbour, {every}": 0.5,
      f"ILM, item head minus popularity, {few}": 0,
      f"ILM, item head minus popularity, {every}": 0.5}
  assert "hr@1 among them is 0.5000" in table["note"] and "(2 users)" in table["title"]


# Prompts.


@pytest.mark.parametrize("head", [0.0, 1.0])
def test_every_template_is_asked_of_the_same_users_and_seen_ones_are_averaged(monkeypatch, head):
  """Three templates of which two are seen; the example of user u and template n has number 3u + n.

  A template ranks the target of every user at n + 1, so hits at 5 are 1; NDCG differs.
  """
  asked = []

  class Stored(list):
    manifest = {"templates": ["A", "B", "C"], "seen": 2}

  def rank(examples, spec, trie, *, width, blocked):
    assert not head and trie == "indices"
    asked.append([e["number"] for e in examples])
    place = examples[0]["number"] % 3
    return np.array([[0] * place + [7] + [0] * (width - place - 1)] * len(examples))

  def head_score(examples, spec):
    assert head and spec == "head"
    asked.append([e["number"] for e in examples])
    place = examples[0]["number"] % 3             # so many others are before item 7
    return np.array([[-np.inf] + [5.0] * place + [1.0] * (6 - place) + [4.0]] * len(examples))

  monkeypatch.setattr(common, "spec", lambda run, groups: None)
  monkeypatch.setattr(common, "head_spec", lambda run, groups: "head")
  monkeypatch.setattr(common, "bootstrap", lambda run: arithmetic.BOOTSTRAP)
  monkeypatch.setattr(common, "users_and_filter", lambda run, examples: (
      None, np.full(len(examples), 7), [[]] * len(examples), {}))
  run = namespace(
      config=namespace(eval=namespace(prompt_users=0, beam_width=5), seed=0,
                       tasks=namespace(mixture={"sequential": 1.0}),
                       phase2=namespace(head=namespace(weight=head, rows=0))),
      data=namespace(log=namespace(num_items=7)),
      prepared=lambda task, split: Stored({"number": n} for n in range(6)))
  ilm = namespace(rank=rank, head_score=head_score, losses=lambda examples, spec: (
      np.array([float(e["number"]) for e in examples]), np.ones(len(examples))))
  made = prompts._rows(run, ilm, "sequential", None if head else "indices")
  assert asked == [[0, 3], [1, 4], [2, 5]]
  assert [LABEL(row) for row in made] == [
      "sequential, seen 0: A", "sequential, seen 1: B", "sequential, unseen 0: C",
      "sequential, mean of 2 seen"]
  nll = [row["metrics"]["nll"]["value"] for row in made[:3]]
  assert nll == [1.5, 2.5, 3.5]
  assert made[3]["metrics"]["ndcg@5"]["value"] == pytest.approx((1 + 1 / np.log2(3)) / 2)


# Methods.


def test_shuffled_vectors_stand_beside_the_model_whose_they_are(monkeypatch):
  monkeypatch.setattr(methods.speaker, "Speaker", lambda run, variant: variant)
  monkeypatch.setattr(methods, "_titles", lambda run: None)
  monkeypatch.setattr(methods, "_shuffled", lambda run: None)
  config = namespace(tasks=namespace(mixture={"elm_title": 1.0}),
                     phase2=namespace(compare=("rand", "mlp")),
                     eval=namespace(references=("shuffled_mlp", "title", "shuffled")))
  compared = methods.methods(namespace(config=config), "ilm")
  assert [m.label for m in compared] == [
      "ILM", "ILM-rand", "MLP projector", "no slots", "MLP projector, vectors shuffled",
      "title as text", "ILM, vectors shuffled"]
  assert methods.baselines(compared) == {
      "ILM-rand": "ILM", "MLP projector": "ILM", "no slots": "ILM", "title as text": "ILM",
      "MLP projector, vectors shuffled": "MLP projector", "ILM, vectors shuffled": "ILM"}
  by_label = {m.label: m for m in compared}
  assert by_label["MLP projector, vectors shuffled"].model.key == "mlp"
  assert by_label["ILM, vectors shuffled"].model == "ilm" == by_label["ILM"].model
  assert [by_label[n].queries for n in ("no slots", "title as text", "ILM")] == [0, 0, None]
  assert by_label["title as text"].tasks == methods.OF_ELM
  config.phase2.compare = ("rand",)        # --watch measures ILM before the others are trained
  assert "MLP projector, vectors shuffled" not in [
      m.label for m in methods.methods(namespace(config=config), "ilm")]
  config.tasks.mixture = {"sequential": 1.0}
  assert [m.label for m in methods.methods(namespace(config=config), "ilm")] == [
      "ILM", "ILM-rand", "no slots"]


@pytest.mark.parametrize("seed", range(4))
def test_vectors_are_shuffled_among_their_kind(seed):
  """Items 1 to 6, of which 2, 4 and 5 are held out; users 7 to 10."""
  held_I = np.isin(np.arange(7), [2, 4, 5])
  run = namespace(entities=namespace(rows=rows.EntityRows(6, 4)), heldout=held_I,
                  config=namespace(seed=seed))
  change = methods._shuffled(run)
  every = np.arange(1, 11)
  moved = change({"entities": every, "targets": "kept"})
  assert moved["targets"] == "kept" and sorted(moved["entities"]) == every.tolist()
  for kind in ([2, 4, 5], [1, 3, 6], [7, 8, 9, 10]):
    of_kind = moved["entities"][np.array(kind) - 1]
    assert sorted(of_kind) == kind and (of_kind != kind).all()
  assert change({"entities": np.array([0])})["entities"].tolist() == [0]


# Texts.


FACTORS = np.array([[0.0], [2.0], [4.0], [8.0]])


def test_factors_are_of_the_entities_shown_and_of_the_target_where_none_is(monkeypatch):
  monkeypatch.setattr(vectors, "factors", lambda run: (None, FACTORS))
  examples = [{"entities": [1, 3], "target_entity": [1]}, {"entities": [], "target_entity": [2]}]
  assert text._factors(None, examples).tolist() == [[5], [4]]


def test_behaviour_is_learnt_from_training_items_alone(monkeypatch):
  """Item 2 is held out; of a task's train split the examples of the first prompt are taken."""
  learnt = {}

  def fit(text_NP, factor_NC, item_N, user_UC, *, seed):
    learnt.update(texts=text_NP, factors=factor_NC.tolist(), items=item_N.tolist(), users=user_UC,
                  seed=seed)

  monkeypatch.setattr(vectors, "factors", lambda run: ("users", FACTORS))
  monkeypatch.setattr(consistency, "fit", fit)
  task = elm.ELM_24[0]
  stored = [{"entities": [3], "target_entity": [3], "prompt": [0], "targets": [7, 0]},
            {"entities": [3], "target_entity": [3], "prompt": [1], "targets": [8, 0]}]
  run = namespace(
      config=namespace(tasks=namespace(mixture={task: 1.0, "sequential": 1.0}), seed=5),
      data=namespace(items=interactions.Items(
          ids=["a", "b", "c"], titles=["A", "B", "C"], years=[0, 0, 0], genres=[[], [], []])),
      heldout=np.array([False, False, True, False]), sentence_vectors=lambda texts: texts,
      prepared=lambda name, split: {(task, "train"): stored}[name, split],
      lm_tokenizer=namespace(decode=lambda ids: f"said {ids[0]}"))
  text.behaviour(run)
  assert learnt == {"texts": [interactions.item_text(run.data.items, 1),
                              interactions.item_text(run.data.items, 3), "said 7"],
                    "factors": [[2], [8], [8]], "items": [1, 3, 3], "users": "users", "seed": 5}
  run.config.tasks.mixture = {"sequential": 1.0}
  assert text.behaviour(run) is None


def test_the_row_of_means_is_over_elm_s_tasks_if_there_are_several():
  one, two = elm.ELM_24[:2]
  of = {one: {"semantic consistency": np.array([0.2])},
        two: {"semantic consistency": np.array([0.6])},
        "other": {"semantic consistency": np.array([9.0])}}
  item_rows = {task: [1] for task in of}
  made = arithmetic.values(text._means(arithmetic.BOOTSTRAP, item_rows, of))
  assert made == {"mean of 2 of ELM's 24 tasks": {"semantic consistency": pytest.approx(0.4)}}
  assert text._means(arithmetic.BOOTSTRAP, item_rows, {one: of[one], "other": of["other"]}) == []


def test_the_middle_is_held_against_both_references(monkeypatch):
  """Texts are vectors here: what is said of the pair (1, 2) lies between "e1" and "e2"."""
  as_vector = {"said": [1.0, 0.0], "e1": [1.0, 0.0], "e2": [0.0, 1.0]}
  known = {}

  def knowing(vectors_of_pairs):
    known["vectors"] = vectors_of_pairs
    return namespace(say=say), np.array([50, 51])

  def say(examples, spec, max_new):
    known.update(entities=[e["entities"].tolist() for e in examples], max_new=max_new)
    return ["said"] * len(examples)

  monkeypatch.setattr(common, "spec", lambda run, groups: None)
  monkeypatch.setattr(vectors, "factors", lambda run: (None, FACTORS))
  run = namespace(
      entities=namespace(vectors={"x": np.array([[0.0], [2.0], [6.0], [1.0]]), "y": None},
                         present={"x": np.array([False, True, True, True])}),
      config=namespace(vectors=("x",)),
      sentence_vectors=lambda texts: np.array([as_vector[t] for t in texts]),
      lm_tokenizer=namespace(decode=lambda ids: f"e{ids[0]}"))
  first, second = ({"entities": [n], "target_entity": [n], "targets": [n, 0]} for n in (1, 2))
  made = between._scores(run, namespace(knowing=knowing), arithmetic.Behaviour(),
                         [(first, second), (second, first)])
  assert [v["x"].tolist() for v in known["vectors"]] == [[4], [4]]
  assert known["entities"] == [[50], [51]] and known["max_new"] == 2
  np.testing.assert_allclose(made["semantic consistency"], [np.sqrt(0.5)] * 2)
  np.testing.assert_allclose(made["behavioural consistency"], [3, 3])     # of factors 2 and 4
