"""What makes soft tokens and features of the head, by the parts that a config turns on."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax.models import ilm
from ilm_jax.models.qformer_layers import members_of
from ilm_jax.objectives import inputs, item_head
from tests import small_configs, test_item_head, test_objectives

B = 4


def entities(members: int = 0):
  keys = jax.random.split(jax.random.key(2), 2)
  vectors, present = ({"behavioral": jax.random.normal(keys[0], (B, 5))},
                      {"behavioral": jnp.ones(B, bool)})
  if members:
    name = members_of("behavioral")
    vectors[name] = jax.random.normal(keys[1], (B, members, 5))
    present[name] = jnp.ones((B, members), bool).at[0].set(False).at[1, 1:].set(False)
  return vectors, present


def built(config=test_objectives.QFORMER, mlp=False, **parts):
  form = dataclasses.replace(small_configs.FORM, **parts)
  graphdef, trainable = small_configs.phase2(
      config, 6, 0.2, seed=0, form=form, mlp=mlp, head_width=3)
  return nnx.merge(graphdef, trainable), graphdef, trainable


def test_with_a_skip_ilm_is_the_sum_of_an_mlp_and_a_qformer():
  model, *_ = built(skip=True)
  given = entities()
  np.testing.assert_array_equal(model.features(*given), model.skip.features(*given))
  model.feature_scale[...] = jnp.arange(50.0)
  query_BQW = model.qformer.queries(*given)
  own_BQD = model.projection(query_BQW)
  own_BF = np.arange(50.0) * np.asarray(model.head_in(query_BQW.reshape(B, -1)))
  np.testing.assert_allclose(
      model.soft_tokens(*given) - model.skip.soft_tokens(*given), own_BQD, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
      model.features(*given) - model.skip.features(*given), own_BF, rtol=1e-4, atol=1e-4)


def test_with_a_skip_every_part_learns_from_the_first_step():
  """A gate that started shut kept the Q-Former from it."""
  config = dataclasses.replace(test_objectives.QFORMER, width=64)
  model, graphdef, trainable = built(config, skip=True)
  mlp_BQD = model.skip.soft_tokens(*entities())
  own_BQD = model.soft_tokens(*entities()) - mlp_BQD
  assert 0.5 < np.std(own_BQD) / np.std(mlp_BQD) < 2

  def loss(trainable):
    soft_BQD, features_BF = nnx.merge(graphdef, trainable).read(*entities())
    return jnp.sum(jnp.sin(soft_BQD)) + jnp.sum(jnp.sin(features_BF))

  gradient = jax.jit(jax.grad(loss))(trainable)
  for part in (gradient["projection"], gradient["skip"]["projection"], gradient["feature_scale"],
               gradient["qformer"]["reader"]):
    assert max(np.abs(x).max() for x in jax.tree.leaves(part)) > 1e-3


def test_the_mlp_in_ilm_draws_other_noise_than_the_q_former(monkeypatch):
  model, _, _ = built(skip=True)
  given = {}
  for name, owner, method in (("ilm", model.qformer, "queries"), ("mlp", model.skip, "read")):
    inner = getattr(owner, method)
    monkeypatch.setattr(type(owner), method, lambda self, vectors, present, key, *, n=name, f=inner:
                        (given.update({n: key}), f(vectors, present, key))[1])
  model.read(*entities(), jax.random.key(3))

  def derived(key):
    keys = [key, *jax.random.split(key, 3), *(jax.random.fold_in(key, i) for i in range(8))]
    keys += [jax.random.fold_in(k, i) for k in keys for i in range(8)]
    return {tuple(np.asarray(jax.random.key_data(k))) for k in keys}

  assert not derived(given["ilm"]) & derived(given["mlp"])


def test_every_query_may_have_a_projection_of_its_own():
  model, _, trainable = built(per_query=True)
  kernel_QWD = trainable["projection"]["kernel"]
  assert kernel_QWD.shape == (2, 8, 6)
  query_BQW = model.qformer.queries(*entities())
  np.testing.assert_allclose(
      model.soft_tokens(*entities()),
      np.stack([query_BQW[:, q] @ kernel_QWD[q] for q in range(2)], axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mlp", [False, True])
def test_normed_soft_tokens_have_the_size_of_words(mlp):
  soft_BQD = built(mlp=mlp, soft_norm=True)[0].soft_tokens(*entities())
  np.testing.assert_allclose(np.std(soft_BQD, axis=-1), 0.2, rtol=1e-3)
  np.testing.assert_allclose(np.mean(soft_BQD, axis=-1), 0.0, atol=1e-6)


def test_an_equal_head_reads_as_many_features_as_of_the_mlp():
  heads = [built(**parts)[2]["head"]["key"]["kernel"].shape
           for parts in ({}, {"equal_head": True}, {"skip": True}, {"mlp": True})]
  assert heads == [(16, 3), (50, 3), (50, 3), (50, 3)]


def test_a_full_size_start_lets_the_vector_in():
  """How much of a query output is the vector's: its spread over entities beside its size."""
  def share(**changes):
    config = dataclasses.replace(test_objectives.QFORMER, width=64, **changes)
    query_BQW = built(config)[0].qformer.queries(*entities())
    return float(jnp.mean(jnp.std(query_BQW, axis=0)))

  small, full = share(cross_init="bert"), share(cross_init="width")
  assert full > 5 * small and full > 0.3


def test_queries_with_their_own_tokens_stay_apart():
  """How far a fresh Q-Former's queries differ, beside the size of its outputs."""
  def apart(**changes):
    config = dataclasses.replace(
        test_objectives.QFORMER, width=64, num_layers=6, cross_init="width", **changes)
    query_BQW = built(config)[0].qformer.queries(*entities())
    return float(jnp.sqrt(jnp.mean(jnp.var(query_BQW, axis=1)) / jnp.mean(query_BQW ** 2)))

  alike, own = apart(cross_reads="all"), apart(cross_reads="own")
  assert alike < 0.2 and own > 0.4


@pytest.mark.parametrize("hidden", [0, 3])
def test_members_that_are_not_there_change_nothing(hidden):
  config = dataclasses.replace(test_objectives.QFORMER, members=3, reader_hidden=hidden)
  model = built(config)[0].qformer
  vectors, present = entities(3)
  query_BQW = model.queries(vectors, present)
  name = members_of("behavioral")
  other = {**vectors, name: vectors[name].at[0].set(9.0).at[1, 1:].set(9.0)}
  np.testing.assert_array_equal(model.queries(other, present), query_BQW)
  moved = {**vectors, name: vectors[name].at[:, 0].set(jnp.arange(5.0)[None])}
  off_B = np.abs(model.queries(moved, present) - query_BQW).max(axis=(1, 2))
  assert off_B[0] == 0 and (off_B[1:] > 1e-5).all()


def test_an_mlp_reads_the_mean_of_the_members():
  config = dataclasses.replace(test_objectives.QFORMER, members=2)
  model = built(config, mlp=True)[0]
  vectors, present = entities(3)                   # of three in the table two are read
  name = members_of("behavioral")
  features_BF = model.features(vectors, present)
  assert features_BF.shape == (B, 100)
  swapped = {**vectors, name: vectors[name][:, jnp.array([1, 0, 2])].at[:, 2].set(7.0)}
  whole = {**present, name: present[name].at[1].set(True)}
  np.testing.assert_allclose(model.features(swapped, whole)[1:], model.features(vectors, whole)[1:],
                             rtol=1e-4, atol=1e-5)
  alone = {**vectors, name: vectors[name].at[1, 1:].set(9.0).at[0].set(9.0)}
  np.testing.assert_array_equal(model.features(alone, present), features_BF)
  moved = {**vectors, name: vectors[name].at[1, 0].set(jnp.arange(5.0))}
  assert np.abs(model.features(moved, present) - features_BF).max(axis=1)[1] > 1e-3


def test_members_stand_in_their_order():
  config = dataclasses.replace(test_objectives.QFORMER, members=2, cross_init="width")
  model = built(config)[0].qformer
  vectors, present = entities(2)
  name = members_of("behavioral")
  present[name] = jnp.ones((B, 2), bool)
  swapped = {**vectors, name: vectors[name][:, ::-1]}
  assert np.abs(model.queries(swapped, present) - model.queries(vectors, present)).max() > 1e-6


def test_members_of_a_row_are_gathered_with_it():
  held = test_objectives.frozen() | {"members": jnp.array([[0, 0], [2, 0], [1, 3]] + [[0, 0]] * 6)}
  vectors, present = inputs.entity_inputs(held, jnp.array([2, 0]))
  name = members_of("behavioral")
  np.testing.assert_array_equal(vectors[name][0], held["vectors"]["behavioral"][jnp.array([1, 3])])
  np.testing.assert_array_equal(present[name], [[True, True], [False, False]])


def test_a_skip_learns_to_rank_through_the_frozen_model():
  """One step down the gradient of the head's loss lowers it."""
  form = dataclasses.replace(small_configs.FORM, skip=True, per_query=True, soft_norm=True)
  graphdef, trainable = small_configs.phase2(
      test_objectives.QFORMER, 6, 0.05, seed=0, form=form, head_width=4)
  held = test_item_head.model()[2]
  hidden_ND, item_N = jax.random.normal(jax.random.key(1), (5, 6)), jnp.array([1, 6, 3, 3, 2])

  def loss(trainable):
    return jnp.mean(item_head.nll(nnx.merge(graphdef, trainable), test_item_head.HEAD, held,
                                    hidden_ND, item_N, None)[0])

  loss_and_gradient = jax.jit(jax.value_and_grad(loss))
  value, gradient = loss_and_gradient(trainable)
  stepped = jax.tree.map(lambda p, g: p - 0.3 * g, trainable, gradient)
  assert float(loss_and_gradient(stepped)[0]) < float(value) - 0.01


def test_form_of_a_config():
  section = {"skip": True, "per_query": False, "soft_norm": True, "equal_head": False, "steps": 3}
  assert ilm.Form.of(section) == ilm.Form(
      skip=True, per_query=False, soft_norm=True, equal_head=False)
