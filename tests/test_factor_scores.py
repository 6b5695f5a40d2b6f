"""The factorisation's scores beside the item head's: what is added, and where it is read."""
import types

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import factors
from configs import ml100k_head, quickstart, tiny
from ilm_jax import errors
from ilm_jax.cf import fold_in
from ilm_jax.config import reading, settings, variants
from ilm_jax.export.shipped import top_k
from ilm_jax.stages import factor_scores, recommender, vectors
from ilm_jax.stages.evals import common

ITEM_I1C = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
ITEM_I1C[0] = 0.0
HEAD_NI1 = np.random.default_rng(2).normal(size=(3, 7)).astype(np.float32)
HISTORIES = [np.array([3, 1]), np.array([6]), np.array([], int)]


@pytest.fixture
def run(monkeypatch):
  config = tiny.get_config()
  config.phase2.head.factors = 0.5
  monkeypatch.setattr(vectors, "factors", lambda run: (None, ITEM_I1C.copy()))
  return types.SimpleNamespace(config=config)


def test_it_is_the_user_folded_in_times_the_items(run):
  scores = factor_scores.of(run)
  c = run.config.cf
  user_NC = fold_in.Form(ITEM_I1C, reg=c.reg, alpha=c.alpha).users(HISTORIES)
  got_NI1, of_user_NI1 = scores.scores(HISTORIES, HEAD_NI1), user_NC @ ITEM_I1C.T
  for n in (0, 1):
    np.testing.assert_allclose(np.corrcoef(got_NI1[n], of_user_NI1[n])[0, 1], 1.0, rtol=1e-6)
    np.testing.assert_allclose(got_NI1[n, 1:].std(), 0.5 * HEAD_NI1[n, 1:].std(), rtol=1e-5)
  assert not got_NI1[2].any()           # nobody without a history has an opinion
  run.config.phase2.head.factors = 0.0
  assert factor_scores.of(run) is None


def test_whoever_exports_a_run_folds_in_alike(run):
  """The shipped program numbers items from 0."""
  c = run.config.cf
  got = top_k.folded_in([h - 1 for h in HISTORIES], HEAD_NI1[:, 1:], ITEM_I1C[1:], 0.5, c.reg,
                        c.alpha)
  np.testing.assert_allclose(got, factor_scores.of(run).users(HISTORIES, HEAD_NI1), rtol=1e-5)


def test_items_without_factors_count_in_no_deviation(run, monkeypatch):
  """Nor do they get a score: cold items keep the head's."""
  item_I1C = ITEM_I1C.copy()
  item_I1C[4] = 0.0
  monkeypatch.setattr(vectors, "factors", lambda run: (None, item_I1C))
  head_NI1 = HEAD_NI1.copy()
  head_NI1[:, 4] = 1e6
  got_NI1 = factor_scores.of(run).scores(HISTORIES, head_NI1)
  met = [1, 2, 3, 5, 6]
  np.testing.assert_allclose(got_NI1[0, met].std(), 0.5 * HEAD_NI1[0, met].std(), rtol=1e-5)
  assert not got_NI1[:, 4].any()


def test_a_state_times_the_keys_is_the_score(run, monkeypatch):
  """As an export multiplies them: head and factorisation in one inner product."""
  rng = np.random.default_rng(1)
  state_NP, key_IP = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(6, 4))
  key_IP = key_IP.astype(np.float32)
  speaker = types.SimpleNamespace(
      head_items=types.SimpleNamespace(key_IP=jnp.asarray(key_IP), bias_I=jnp.zeros(6)),
      head_states=lambda examples, spec: state_NP,
      head_score=lambda examples, spec: np.pad(state_NP @ key_IP.T, ((0, 0), (1, 0))))
  monkeypatch.setattr(common, "head_spec", lambda run, examples: None)
  monkeypatch.setattr(recommender.Recommender, "_ask", lambda self, h: (speaker, h, None))
  monkeypatch.setattr(recommender.Recommender, "_shape", lambda self, spec, count: spec)
  run.data = types.SimpleNamespace(log=types.SimpleNamespace(num_items=6))
  of = recommender.Recommender(run, variants.ILM)
  of.speaker = speaker
  got = of.states(HISTORIES) @ of.keys().T
  np.testing.assert_allclose(got, of.scores(HISTORIES)[:, 1:], rtol=1e-5, atol=1e-6)
  assert np.abs(got - state_NP @ key_IP.T).max() > 0.1
  np.testing.assert_array_equal(got[2], (state_NP @ key_IP.T)[2])
  run.config.phase2.head.factors = 0.0
  plain = recommender.Recommender(run, variants.ILM)
  plain.speaker = speaker
  np.testing.assert_array_equal(plain.scores(HISTORIES)[:, 1:], state_NP @ key_IP.T)
  assert plain.keys().shape == (6, 4)


def test_a_trained_run_may_change_it_and_tables_are_made_again():
  c = ml100k_head.get_config()
  with_it = ml100k_head.get_config()
  with_it.phase2.head.factors = c.phase2.head.factors + 1.0
  for variant in (variants.ILM, variants.COMPARED["mlp"]):
    assert settings.of_phase2(c, variant) == settings.of_phase2(with_it, variant)
  runs = [types.SimpleNamespace(config=config) for config in (c, with_it)]
  assert common.added_scores(runs[0]) != common.added_scores(runs[1])


def test_without_an_item_head_there_is_nothing_to_add_to(run):
  """So that whoever switches the head off need not know of them."""
  c = run.config
  assert common.added_scores(run) == {"factors": 0.5}
  c.phase2.head.weight = 0.0
  reading.validate(c, 1)
  assert factor_scores.of(run) is None and common.added_scores(run) == {}
  c.phase2.head.weight, c.phase2.head.factors = 1.0, -1.0
  with pytest.raises(errors.UserError, match="phase2.head.factors=-1.0"):
    reading.validate(c, 1)


def test_the_benchmark_chooses_on_validation(monkeypatch, capsys, tmp_path):
  """On validation weight .2 is best for one arm and 0 for the other; test is shown for these."""
  def ranks(args, name, seed, split):
    best = {"mlp": 0.2, "sasrec": 0.0}[name]
    rank_WU = np.full((len(factors.WEIGHTS), 4), 99.0)
    rank_WU[factors.WEIGHTS.index(best), :3 if split == "validation" else 2] = 1.0
    rank_WU[factors.WEIGHTS.index(0.5), :4 if split == "test" else 1] = 1.0
    return rank_WU

  monkeypatch.setattr(factors, "measure", ranks)
  monkeypatch.setattr("sys.argv", ["factors", f"--out={tmp_path}", "--arms=mlp,sasrec", "--test"])
  factors.main()
  lines = capsys.readouterr().out.splitlines()
  assert lines[2].split(" | ")[3] == "0.7500"
  assert lines[-2].startswith("| mlp | 0.0000 [0.000, 0.000] | 0.2 | 0.5000 [")
  assert lines[-1].startswith("| sasrec | 0.5000 [") and lines[-1].split(" | ")[2] == "0"


def test_the_benchmark_adds_a_sasrecs_scores_at_the_heads_width(monkeypatch):
  rng = np.random.default_rng(3)
  theirs_NI1 = 50.0 * rng.normal(size=HEAD_NI1.shape) + 7.0
  theirs_NI1[:, 0] = -np.inf
  log = types.SimpleNamespace(before_target=lambda user, part: HISTORIES[user])
  run, shown = types.SimpleNamespace(data=types.SimpleNamespace(log=log)), []
  monkeypatch.setattr(factors.projectors, "trained_arm", lambda *arm: (run, None))
  monkeypatch.setattr(factors.projectors, "by_head", lambda *asked: HEAD_NI1)
  monkeypatch.setattr(factors.projectors, "rank",
                      lambda run, split, score: shown.append(score(run, [], range(3))) or 0)
  monkeypatch.setattr(factors, "by_sasrec", lambda run, histories: theirs_NI1)
  args = types.SimpleNamespace(out=None, arms=["mlp"], add=factors.SASREC)
  factors.measure(args, "mlp", 0, "validation")
  np.testing.assert_array_equal(shown[0], HEAD_NI1)
  added_NI1 = shown[factors.WEIGHTS.index(0.5)] - HEAD_NI1
  np.testing.assert_allclose(added_NI1[:, 1:].std(axis=1), 0.5 * HEAD_NI1[:, 1:].std(axis=1),
                             rtol=1e-5)
  np.testing.assert_allclose(np.corrcoef(added_NI1[1, 1:], theirs_NI1[1, 1:])[0, 1], 1.0,
                             rtol=1e-6)
  assert not added_NI1[:, 0].any()


def test_a_list_is_named_after_all_that_ranks_it():
  c = quickstart.get_config()
  assert factor_scores.named(c, "item head") == "item head with iALS"
  assert factor_scores.named(c, "dot product") == "dot product"
  c.phase2.head.factors = 0.0
  assert factor_scores.named(c, "item head") == "item head"
