"""The arithmetic of the published tables, on arrays worked by hand."""
import dataclasses
import types

import numpy as np
import pytest

from ilm_jax.data import interactions
from ilm_jax.evaluation import metrics, paired, rows, text_scores
from ilm_jax.stages.evals import (
    between,
    common,
    losses,
    methods,
    prompts,
    ranking,
    text,
    user_tasks,
)

BOOTSTRAP = paired.Bootstrap(resamples=50, seed=0)


def values(of_rows):
  """{label: {column: value}} of rows."""
  return {rows.label(row): {c: m["value"] for c, m in row["metrics"].items()} for row in of_rows}


# Rows and their labels.


@pytest.mark.parametrize(("fields", "label"), [
    ({"method": "ILM"}, "ILM"),
    ({"method": "ILM", "minus": "ILM-rand"}, "ILM minus ILM-rand"),
    ({"method": "ILM", "by": "beam 20"}, "ILM, beam 20"),
    ({"method": "a", "minus": "b", "by": "among all"}, "a minus b, among all"),
    ({"task": "elm_title"}, "elm_title"),
    ({"task": "sequential", "by": "seen 0: After {history}"},
     "sequential, seen 0: After {history}")])
def test_labels_are_made_of_the_fields(fields, label):
  row = rows.row({"x": 1}, **fields)
  assert rows.label(row) == label and row["metrics"] == {"x": 1}
  assert row.keys() == {*fields, "metrics"}       # no empty fields


# Sums, differences, means.


def test_a_difference_is_the_baseline_minus_the_method_example_by_example():
  ilm = {"a": (np.array([3.0, 5.0]), np.array([1, 2])), "b": (np.array([7.0]), np.array([4]))}
  mlp = {"a": (np.array([1.0, 9.0]), np.array([1, 2]))}
  minus = paired.sums_minus(ilm, mlp)
  assert minus.keys() == {"a"}
  assert [x.tolist() for x in minus["a"]] == [[2, -4], [1, 2]]
  with pytest.raises(ValueError, match="a: a paired difference needs the same examples"):
    paired.sums_minus(ilm, {"a": (np.array([1.0, 9.0]), np.array([2, 1]))})


def test_a_difference_of_values_is_taken_where_both_have_them():
  minus = paired.values_minus({"a": {"x": np.array([3.0, 1.0]), "y": np.array([1.0])}, "b": {}},
                              {"a": {"x": np.array([1.0, 4.0])}})
  assert {t: {m: v.tolist() for m, v in of.items()} for t, of in minus.items()} == {
      "a": {"x": [2, -3]}}


def test_rows_of_differences_stand_behind_those_of_the_methods():
  made = paired.with_differences(
      {"ILM": 10, "MLP": 4, "MLP, shuffled": 1}, {"MLP": "ILM", "MLP, shuffled": "MLP"},
      lambda a, b: a - b)
  assert made == [({"method": "ILM"}, 10), ({"method": "MLP"}, 4), ({"method": "MLP, shuffled"}, 1),
                  ({"method": "ILM", "minus": "MLP"}, 6),
                  ({"method": "MLP", "minus": "MLP, shuffled"}, 3)]


def test_the_mean_over_tasks_weighs_tasks_alike_and_counts_an_item_in_all_of_them():
  """Task a: items 5 and 3, (6 + 2) / (2 + 2) = 2; b: item 3 twice and 9, (1 + 3 + 8) / 3 = 4."""
  sums = {"a": ([5, 3], np.array([6.0, 2.0]), np.array([2, 2])),
          "b": ([3, 9, 3], np.array([1.0, 8.0, 3.0]), np.array([1, 1, 1]))}
  sum_TI, count_TI = paired.by_item(sums)
  assert sum_TI.tolist() == [[2, 6, 0], [4, 0, 8]]             # items 3, 5, 9
  assert count_TI.tolist() == [[2, 2, 0], [2, 0, 1]]
  mean = BOOTSTRAP.mean_over_tasks(sums)
  assert (mean["value"], mean["n"]) == (3, 3) and mean["lo"] <= 3 <= mean["hi"]


def test_intervals_are_over_examples_and_their_counts():
  alone = BOOTSTRAP.mean(np.array([1.0, 1.0, 1.0]))
  assert (alone["value"], alone["lo"], alone["hi"], alone["n"]) == (1, 1, 1, 3)
  assert BOOTSTRAP.mean([2.0, 4.0], [1, 3])["value"] == 1.5
  spread = BOOTSTRAP.mean(np.arange(10.0))
  assert spread["lo"] < 4.5 < spread["hi"]
  assert spread != paired.Bootstrap(resamples=50, seed=1).mean(np.arange(10.0))


def test_where_a_few_items_decide_the_interval_is_over_items():
  """Whoever will meet item 1 is hit, whoever will meet item 2 is not."""
  item_N, hit_N = np.repeat([1, 2], 50), np.repeat([1.0, 0.0], 50)
  of_examples, of_items = BOOTSTRAP.mean(hit_N), BOOTSTRAP.mean_by_item(item_N, hit_N)
  assert of_examples["value"] == of_items["value"] == 0.5
  assert 0.3 < of_examples["lo"] and of_items["lo"] == 0 and of_items["hi"] == 1


def test_means_over_tasks_with_the_semantic_consistency_of_each():
  of = {"a": {"semantic consistency": np.array([0.2, 0.4]), "words": np.array([1.0, 3.0])},
        "b": {"semantic consistency": np.array([0.9]), "words": np.array([5.0])}}
  made = paired.means_over_tasks(BOOTSTRAP, {"a": [1, 2], "b": [2]}, of)
  assert {name: round(m["value"], 9) for name, m in made.items()} == {
      "semantic consistency": 0.6, "words": 3.5, "semantic, a": 0.3, "semantic, b": 0.9}
  assert "semantic, a" not in paired.means_over_tasks(BOOTSTRAP, {"a": [1, 2]}, {"a": of["a"]})


def test_each_user_is_averaged_over_rankings():
  """Ranks 1 and 6 of user 0, 2 and inf of user 1: of hits at 5 they have .5 and .5."""
  ranks = [np.array([1.0, 2.0]), np.array([6.0, np.inf])]
  assert paired.mean_over_rankings(metrics.hit_rate, ranks, 5).tolist() == [0.5, 0.5]
  made = prompts.means(BOOTSTRAP, ranks)
  assert made["hr@5"]["value"] == 0.5 and made["hr@10"]["value"] == 0.75
  assert made["ndcg@5"]["value"] == pytest.approx((1 + 1 / np.log2(3)) / 4)
  assert made["ndcg@10"]["value"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(7)) / 4)


# Log perplexity.


def test_rows_of_losses():
  two, other = "elm_summary", "elm_positive_review"
  sums = {"ILM": {two: (np.array([2.0, 4.0]), np.array([2, 2])),
                  other: (np.array([1.0]), np.array([1])),
                  "sequential": (np.array([9.0]), np.array([3]))},
          "MLP": {two: (np.array([6.0, 6.0]), np.array([2, 2])),
                  other: (np.array([3.0]), np.array([1]))}}
  made = values(losses.loss_rows(BOOTSTRAP, sums, {"MLP": "ILM"},
                                 {two: [1, 2], other: [1], "sequential": [4]}))
  mean = "mean of 2 ELM tasks"
  assert made == {"ILM": {two: 1.5, other: 1, "sequential": 3, mean: 1.25},
                  "MLP": {two: 3, other: 3, mean: 3},
                  "ILM minus MLP": {two: -1.5, other: -2, mean: -1.75}}


def test_tasks_that_ask_about_the_same_items_say_no_more_together_than_one():
  nats_N = np.random.default_rng(0).normal(size=30)
  count_N, item_N = np.ones(30), np.arange(1, 31)
  tasks = [f"task {n}" for n in range(3)]
  together = {**dict.fromkeys(tasks, (nats_N, count_N)), "all": (np.tile(nats_N, 3), np.ones(90))}
  made = paired.loss_metrics(BOOTSTRAP, together, dict.fromkeys(tasks, item_N), ())
  one, every = made["task 0"], made["all"]
  assert every["n"] == 30
  np.testing.assert_allclose([every[x] for x in ("value", "lo", "hi")],
                             [one[x] for x in ("value", "lo", "hi")])


class Model:
  """Losses are the first input of an example; remembers the shapes it was asked in."""

  def __init__(self):
    self.queries = []

  def losses(self, examples, spec):
    self.queries.append(spec.queries)
    nll_N = np.array([e["inputs"][0] for e in examples], float)
    return nll_N, np.ones(len(examples))


def example(number, entities=(1,)):
  return {"inputs": np.array([number]), "entities": np.array(entities), "targets": np.array([1]),
          "target_entity": np.array([number])}


@dataclasses.dataclass(frozen=True)
class Spec:
  """Of a batch, as far as the tables look at it."""
  queries: int = 4
  rows: int = 8


def spec_of(groups):
  return Spec()


def test_a_method_is_asked_what_it_answers_as_it_is_shown():
  examples = {"sequential": [example(5)], "elm_title": [example(1), example(3)]}
  all_tasks = methods.Method("ILM", Model(), None)
  sums = losses.method_sums(all_tasks, examples, spec_of)
  assert {task: nll.tolist() for task, (nll, _) in sums.items()} == {
      "sequential": [5], "elm_title": [1, 3], "all": [5, 1, 3]}
  assert all_tasks.model.queries == [4, 4]
  changed = methods.Method("shuffled", Model(), all_tasks, tasks=("elm_title",), queries=0,
                           change=lambda e: example(int(e["inputs"][0]) * 10))
  sums = losses.method_sums(changed, examples, spec_of)
  assert {task: nll.tolist() for task, (nll, _) in sums.items()} == {"elm_title": [10, 30]}
  assert changed.model.queries == [0]
  assert losses.method_sums(all_tasks, {}, spec_of) == {}       # no task has a test example


def test_each_method_is_subtracted_from_its_own_baseline():
  ilm = methods.Method("ILM", None, None)
  mlp = methods.Method("MLP", None, ilm)
  moved = methods.Method("MLP, shuffled", None, mlp)
  assert methods.baselines([ilm, mlp, moved]) == {"MLP": "ILM", "MLP, shuffled": "MLP"}


# Texts.


class Behaviour:
  """Consistency is the first text coordinate times the first factor."""

  def consistency(self, text_NP, item_NC):
    return text_NP[:, 0] * item_NC[:, 0]


SAID = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
WANTED = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
FACTORS = np.array([[2.0], [3.0], [5.0]])


def test_scores_of_answers_beside_those_of_the_next_item():
  made = text_scores.about_items(Behaviour(), ["a b", "c", "d"], ["a b", "x", "d"], SAID, WANTED,
                                 FACTORS)
  expected = {"semantic consistency": [1, 0.8, 0.8],
              "with another item's reference": [0.6, 1, 0.6],      # of 1, 2 and 0
              "exact match": [1, 0, 1],
              "behavioural consistency": [2, 0, 3],
              "with another item's users": [3, 0, 1.2],
              "of the reference": [2, 1.8, 0], "words": [2, 1, 1]}
  assert made.keys() == expected.keys()
  for name, value_N in expected.items():
    np.testing.assert_allclose(made[name], value_N, atol=1e-12, err_msg=name)
  plain = text_scores.about_items(Behaviour(), ["a"], ["a"], SAID[:1], WANTED[:1])
  assert "behavioural consistency" not in plain and "words" in plain


def test_an_answer_of_names_is_right_where_its_first_is_one_of_the_item_s():
  said = ["Drama", "comedy, Drama", "Musical, Drama", "", "Drama, and a film about a film"]
  wanted = ["Action, Drama", "Comedy", "Drama", "Drama", "Drama"]
  assert text_scores.first_named(said, wanted).tolist() == [1, 1, 0, 0, 1]


def test_the_commonest_name_counts_items_and_of_equal_ones_is_the_first_in_the_alphabet():
  assert text_scores.commonest([["War", "Drama"], ["Drama"], ["War"], []]) == "Drama"
  assert text_scores.commonest([[], []]) == ""


def test_genres_stand_beside_always_naming_the_commonest_of_training_items():
  """Items 1 and 2 are trained on, so the commonest is Drama, though War is among held-out ones."""
  items = interactions.Items(list("abcde"), list("ABCDE"), [None] * 5,
                             [["Drama"], ["Drama"], ["War"], ["War"], ["War", "Drama"]])
  run = types.SimpleNamespace(data=types.SimpleNamespace(items=items),
                              heldout=np.array([0, 0, 0, 1, 1, 1], bool))
  answers = [text.Answers("elm_genres", [], ["War", "Drama", "Drama"],
                          ["War", "War", "War, Drama"]),
             text.Answers("elm_year", [], ["1995"], ["1996"])]
  columns, said = text._genres(run, answers[0], BOOTSTRAP)
  assert {name: made["value"] for name, made in columns.items()} == {
      "first genre right": pytest.approx(2 / 3), "commonest genre right": pytest.approx(1 / 3)}
  assert said == {"commonest genre": "Drama"}
  assert text._genres(run, answers[1], BOOTSTRAP) == ({}, {})


def test_answers_about_the_middle_are_held_against_the_mean_of_both_references():
  """Pairs (0, 1), (1, 2), (2, 0) of a circle: the other pair is two further on, 2, 0 and 1."""
  first, second = np.eye(2)[[0, 0, 1]], np.eye(2)[[0, 1, 0]]
  half = np.sqrt(0.5)
  made = text_scores.halfway(Behaviour(), ["a", "b c", "d"], SAID, first, second, FACTORS)
  expected = {"semantic consistency": [1, half, 1.4 * half],
              "with another pair's references": [half, 0, 1.4 * half],
              "behavioural consistency": [2, 0, 3],
              "with another pair's users": [5, 0, 1.8], "words": [1, 2, 1]}
  assert made.keys() == expected.keys()
  for name, value_N in expected.items():
    np.testing.assert_allclose(made[name], value_N, atol=1e-12, err_msg=name)


def test_pairs_are_neighbours_in_a_circle():
  assert between.in_a_circle([1, 2, 3]) == [(1, 2), (2, 3), (3, 1)]
  assert between.in_a_circle([1]) == []


def test_vectors_halfway_are_of_what_both_have():
  made = text_scores.mean_vectors(
      {"x": np.array([[0.0], [2.0], [6.0]]), "y": np.array([[0.0], [1.0], [3.0]])},
      {"x": np.array([False, True, True]), "y": np.array([False, True, False])},
      np.array([[1, 2], [1, 1]]))
  assert [{n: v.tolist() for n, v in of.items()} for of in made] == [
      {"x": [4]}, {"x": [2], "y": [1]}]


def test_mean_factors_of_one_item_and_of_two():
  item_I1C = np.array([[0.0, 0.0], [2.0, 4.0], [4.0, 8.0]])
  assert text_scores.mean_factors(item_I1C, [(1,), (1, 2)]).tolist() == [[2, 4], [3, 6]]
  assert text_scores.mean_factors(item_I1C, []).shape == (0, 2)


def test_rows_of_texts_compared():
  of = {"ILM": {"a": {"semantic consistency": np.array([0.5, 0.7])}},
        "MLP": {"a": {"semantic consistency": np.array([0.1, 0.2])}}}
  made = values(text.compared_rows(BOOTSTRAP, of, {"MLP": "ILM"}, {"a": [1, 2]},
                                   {"ILM": ["x y", "x y"], "MLP": ["z"]}))
  assert made["ILM minus MLP"] == {"semantic consistency": pytest.approx(0.45)}
  assert made["ILM"] == {"semantic consistency": 0.6, "distinct-1": 0.5, "distinct-2": 0.5}
  assert made["MLP"]["distinct-1"] == 1


# Ranking.


def test_what_is_filtered_is_blocked_and_nothing_else():
  blocked_UI = ranking.blocked([np.array([1, 3]), np.zeros(0, int)], 3)
  assert blocked_UI.tolist() == [[False, True, False, True], [False] * 4]


LOG = interactions.Interactions(
    user_ids=["a", "b"], num_items=5, user_N=np.repeat([0, 1], 4).astype(np.int32),
    item_N=np.array([1, 2, 3, 4, 2, 4, 5, 1], np.int32), time_N=np.arange(8, dtype=np.int64),
    value_N=np.ones(8, np.float32))


def test_users_targets_and_histories_of_examples():
  run = types.SimpleNamespace(data=interactions.Data(LOG, None, ""))
  examples = [{"user": [7], "target_entity": [1]}, {"user": [6], "target_entity": [4]}]
  user_U, target_U, filtered, protocol = common.users_and_filter(run, examples)
  assert user_U.tolist() == [1, 0] and target_U.tolist() == [1, 4]
  assert [rows_.tolist() for rows_ in filtered] == [[2, 4, 5], [1, 2, 3]]
  assert protocol == {"filter": "items of the user's history are taken out",
                      "repeated targets": "none"}


@pytest.mark.parametrize(("have", "want", "count"), [(5, 0, 5), (5, 9, 5), (5, 5, 5), (5, 2, 2)])
def test_examples_are_drawn_by_the_seed(have, want, count):
  drawn = common.drawn(have, want, 3)
  assert len(set(drawn.tolist())) == count and max(drawn) < have
  assert drawn.tolist() == common.drawn(have, want, 3).tolist()
  if count == have:
    assert drawn.tolist() == list(range(have))


class Beams:
  """Recommends the same items to everybody; remembers what was blocked."""

  def __init__(self, items):
    self.items, self.blocked = items, None

  def rank(self, examples, spec, trie, *, width, blocked):
    self.blocked = blocked
    return np.tile(np.array(self.items[:width]), (len(examples), 1))

  def score(self, examples, spec, trie):
    return np.tile(np.array([-np.inf, 5.0, 4.0, 4.0, 1.0]), (len(examples), 1))

  head_score = None


def questions(target_U, filtered):
  return ranking.Questions([example(1)] * len(target_U), np.arange(len(target_U)),
                           np.array(target_U), filtered, ranking.blocked(filtered, 4), {})


def evaluation(**changes):
  fields = {"beam_width": 3, "beam_users": 2, "rank_compared": False, "exact_users": 2, **changes}
  return types.SimpleNamespace(config=types.SimpleNamespace(eval=types.SimpleNamespace(**fields)))


def test_beams_rank_the_first_users_with_their_filter(monkeypatch):
  monkeypatch.setattr(common, "spec", lambda run, groups: None)
  ilm, mlp = Beams([4, 2, 1]), Beams([1, 2, 3])
  compared = [methods.Method("ILM", ilm, None), methods.Method("MLP", mlp, None)]
  of_users = questions([2, 3, 4], [np.array([1])] * 3)
  made = ranking._by_beam(evaluation(), compared, of_users, None)
  assert [(r.label, r.rank_U.tolist(), r.depth) for r in made] == [
      ("ILM, beam 3, first 2 users", [2, np.inf], 3)]
  assert made[0].items_UK.tolist() == [[4, 2, 1]] * 2 and ilm.blocked is of_users.filtered
  made = ranking._by_beam(
      evaluation(rank_compared=True, beam_users=3), compared, of_users, None)
  assert [(r.label, r.rank_U.tolist()) for r in made] == [
      ("ILM, beam 3", [2, np.inf, 1]), ("MLP, beam 3", [2, 3, np.inf])]
  assert [r.items_UK.tolist() for r in made] == [[[4, 2, 1]] * 3, [[1, 2, 3]] * 3]


def test_no_beams_are_searched_for_no_users():
  none = [methods.Method("ILM", None, None)]
  assert ranking._by_words(evaluation(beam_users=0), none, questions([2], [[]])) == []


def test_exact_ranks_put_the_lower_row_first_and_leave_out_what_is_filtered(monkeypatch):
  """Scores 5, 4, 4, 1 of items 1 to 4; item 1 is filtered of user 0 alone."""
  monkeypatch.setattr(common, "spec", lambda run, groups: Spec())
  ilm = methods.Method("ILM", Beams([1]), None)
  of_users = questions([3, 3, 4], [np.array([1]), np.zeros(0, int), np.zeros(0, int)])
  beam = ranking.Ranking("ILM", np.array([1.0, 7.0, 9.0]), 3)
  exact, beams = ranking._exact(evaluation(), ilm, of_users, None, beam)
  assert (exact.label, exact.rank_U.tolist()) == ("ILM, exact, first 2 users", [2, 3])
  assert (beams.label, beams.rank_U.tolist(), beams.depth) == (
      "ILM, beam 3, these 2 users", [1, 7], 3)
  assert ranking._exact(evaluation(exact_users=0), ilm, of_users, None, beam) == []


def test_metrics_look_no_further_than_the_list():
  made = BOOTSTRAP.ranks(np.array([1.0, 6.0, np.inf]), hits=(1, 5, 10), ndcgs=(5,), depth=5)
  assert {name: round(m["value"], 6) for name, m in made.items()} == {
      "hr@1": round(1 / 3, 6), "hr@5": round(1 / 3, 6), "ndcg@5": round(1 / 3, 6),
      "mrr@5": round((1 + 1 / 6) / 3, 6)}


# Tasks of a user's.


def nearness(targets, predictions):
  """A user's metric function: it sees texts, in the order of the examples."""
  return {"same": sum(a == b for a, b in zip(targets, predictions)) / len(targets)}


def test_metric_functions_of_a_user_s_task_see_the_decoded_answers(monkeypatch):
  class Speaker:
    def __init__(self, texts):
      self.texts, self.max_new = texts, None

    def say(self, examples, spec, max_new):
      self.max_new = max_new
      return self.texts

  stored = {"mine": {"metric_fns": [f"{__name__}:nearness"]}, "other": {}}
  run = types.SimpleNamespace(
      config=types.SimpleNamespace(
          tasks=types.SimpleNamespace(mixture={"mine": 1.0, "other": 2.0, "off": 0.0}),
          phase2=types.SimpleNamespace(compare=("mlp",)),
          eval=types.SimpleNamespace(consistency_examples=2, generations=1)),
      prepared=lambda task, split: types.SimpleNamespace(manifest=stored[task]),
      lm_tokenizer=types.SimpleNamespace(decode=lambda ids: " ".join(map(str, ids))))
  examples = [{"targets": [7, 8, 2]}, {"targets": [9, 2]}]
  monkeypatch.setattr(common, "sample", lambda run, task, count: examples[:count])
  monkeypatch.setattr(common, "spec", lambda run, groups: Spec())
  monkeypatch.setattr(common, "protocol", lambda run: {})
  ilm = methods.Method("ILM", Speaker(["7 8", "0"]), None)
  mlp = methods.Method("MLP", Speaker(["1", "2"]), ilm)
  alone = methods.Method("no slots", None, ilm)         # is not asked
  parts = user_tasks.tables(run, [ilm, mlp, alone])
  assert values(parts["user_tasks"]["rows"]) == {
      "mine, ILM": {"same": 0.5}, "mine, MLP": {"same": 0}}
  assert parts["user_answers"]["examples"] == [{"task": "mine", "answer": "7 8", "target": "7 8"}]
  assert ilm.model.max_new > 3
  none = examples[:]
  examples.clear()                                       # a task without test examples
  assert user_tasks.tables(run, [ilm, mlp, alone])["user_tasks"]["rows"] == []
  examples += none
  stored["mine"] = {"metric_fns": []}
  assert user_tasks.tables(run, [ilm, mlp, alone]) == {}
