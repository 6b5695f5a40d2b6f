"""Masks by hand; who sees whom; the reader; the start from BERT."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ilm_jax import errors, losses
from ilm_jax.models import bert, qformer, qformer_init
from ilm_jax.models.qformer import QFormer, attention_mask, phase2_subtree
from ilm_jax.models.qformer_layers import members_of
from ilm_jax.runtime import axes
from tests import small_configs

TINY = dict(vectors={"behavioral": 5}, num_layers=3, width=8, num_heads=2, mlp_width=12,
            vocab_size=23, max_text=6, num_queries=3, proj_width=4, decoder_start=1)
IDS = jnp.array([[2, 7, 8, 3, 0], [2, 9, 4, 11, 3]])
MASK = IDS != 0


PASSES = ("queries", "text", "joint", "speak", "align", "generate")


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(graphdef, method, params, *args):
  return getattr(nnx.merge(graphdef, params), method)(*args)


def jitted(model: QFormer) -> QFormer:
  """The same model, its passes compiled once for all tests."""
  graphdef, state = nnx.split(model)
  for name in PASSES:
    object.__setattr__(model, name, functools.partial(run, graphdef, name, state))
  return model


def make(**changes) -> QFormer:
  config = small_configs.qformer(**(TINY | changes))
  graphdef, state = nnx.split(nnx.eval_shape(lambda: QFormer(config, rngs=nnx.Rngs(0))))
  return jitted(nnx.merge(graphdef, large(nnx.to_pure_dict(state), 9)))


def large(shapes, seed):
  """Weights larger than a fresh model's, so that what should differ does so visibly."""
  random = np.random.default_rng(seed)
  return jax.tree_util.tree_map_with_path(
      lambda path, x: jnp.array(0.3 * random.normal(size=x.shape) + ("scale" in str(path)),
                                jnp.float32), shapes)


def entity(seed=0, **widths):
  widths = widths or {"behavioral": 5}
  keys = jax.random.split(jax.random.key(seed), len(widths))
  vectors = {n: jax.random.normal(k, (2, w)) for k, (n, w) in zip(keys, widths.items())}
  return vectors, {n: jnp.ones(2, bool) for n in widths}


# Rows and columns: query, query, text, text, pad (Q = 2, T = 3 with one pad).
TABLES = {
    "itc": [[1, 1, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [0, 0, 1, 1, 0],
            [0, 0, 1, 1, 0],
            [0, 0, 1, 1, 0]],
    "itm": [[1, 1, 1, 1, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 1, 1, 0]],
    "itg": [[1, 1, 0, 0, 0],
            [1, 1, 0, 0, 0],
            [1, 1, 1, 0, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 1, 1, 0]],
}


@pytest.mark.parametrize("mode", TABLES)
def test_attention_mask_by_hand(mode):
  text_mask_BT = jnp.array([[True, True, False], [True, True, True]])
  mask = attention_mask(mode, 2, text_mask_BT)
  np.testing.assert_array_equal(mask[0], np.array(TABLES[mode], bool))
  assert mask[1, 4, 4]  # in the row without padding the last text position is seen


def test_queries_see_no_text_in_itg_and_do_in_itm():
  model, inputs = make(), entity()
  other = IDS.at[0, 2].set(17)
  query, text = model.speak(*inputs, IDS, MASK)
  query_2, text_2 = model.speak(*inputs, other, MASK)
  np.testing.assert_array_equal(query, query_2)
  np.testing.assert_allclose(query, model.queries(*inputs), rtol=2e-5, atol=1e-5)
  np.testing.assert_array_equal(text[0, :2], text_2[0, :2])   # causal
  assert np.abs(text[0, 2:4] - text_2[0, 2:4]).max() > 1e-2
  matched, matched_2 = (model.joint(*inputs, x, MASK) for x in (IDS, other))
  assert np.abs(matched[0] - matched_2[0]).max() > 1e-2
  np.testing.assert_array_equal(matched[1], matched_2[1])


def test_padding_is_never_seen():
  model, inputs = make(), entity()
  other = IDS.at[0, 4].set(17)  # a pad of row 0, still masked
  np.testing.assert_array_equal(model.joint(*inputs, IDS, MASK), model.joint(*inputs, other, MASK))
  np.testing.assert_array_equal(model.text(IDS, MASK)[0, :4], model.text(other, MASK)[0, :4])


def test_generation_sees_the_entity_and_opens_with_the_decoder_start():
  model = make()
  logits = model.generate(*entity(0), IDS, MASK)
  assert logits.shape == (2, 5, 23)
  assert np.abs(logits - model.generate(*entity(1), IDS, MASK)).max() > 1e-2
  # Whatever stands first ([CLS]), the model is given [DEC] there.
  np.testing.assert_array_equal(logits, model.generate(*entity(0), IDS.at[:, 0].set(13), MASK))


def test_align_is_three_passes_in_one():
  """Queries, text and text to generate come out as from passes of their own."""
  model, inputs = make(), entity()
  query, text, said = model.align(*inputs, IDS, MASK)
  np.testing.assert_allclose(query, model.queries(*inputs), rtol=2e-5, atol=1e-5)
  np.testing.assert_allclose(text, model.text(IDS, MASK), rtol=2e-5, atol=1e-5)
  np.testing.assert_allclose(said, model.speak(*inputs, IDS, MASK)[1], rtol=2e-5, atol=1e-5)


def test_token_loss_in_chunks_equals_whole():
  model = make()
  hidden = jax.random.normal(jax.random.key(1), (2, 6, 8))
  targets = jnp.arange(12).reshape(2, 6)
  whole = losses.token_cross_entropy(model.lm_logits(hidden), targets, 0.1)
  for chunk in (100, 4, 1):
    for a, b in zip(model.token_loss(hidden, targets, 0.1, chunk), whole):
      np.testing.assert_allclose(a, b, rtol=1e-5)


def test_token_loss_takes_a_chunk_of_every_device_at_a_time():
  model, hidden, targets = make(), jnp.ones((16, 4, 8)), jnp.ones((16, 4), jnp.int32)

  def turns():
    return str(jax.make_jaxpr(lambda x: model.token_loss(x, targets, 0.1, chunk=8))(hidden))

  assert "scan[" in turns()
  mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  with axes.tracing(mesh):
    assert "scan[" not in turns()


def test_one_token_cross_attention_is_the_direct_formula():
  """out(value(token)) for every query; no query or key projection exists."""
  model = make()
  cross = model.stack.cross.attention
  assert not hasattr(cross, "query") and not hasattr(cross, "key")
  vectors, present = entity()
  kv_B1W, mask_B1 = model.reader(vectors, present)
  x = vectors["behavioral"]
  part = model.reader.vectors["behavioral"]
  normed = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
  normed = normed * part.norm.scale[...][None] + part.norm.bias[...][None]
  token = normed @ part.tokens.kernel[...] + (
      part.tokens.bias[...] + model.reader.vector_type[...][0])[None]
  np.testing.assert_allclose(kv_B1W[:, 0], token, rtol=1e-4, atol=1e-5)
  graphdef, state = nnx.split(model.stack.cross)
  one = nnx.merge(graphdef, jax.tree.map(lambda p: p[1], nnx.to_pure_dict(state)))  # layer 2's
  value, out = one.attention.value, one.attention.out
  read = (token @ value.kernel[...] + value.bias[...][None]) @ out.kernel[...]
  query_BQW = jax.random.normal(jax.random.key(2), (2, 3, 8))
  seen_BQW = one(query_BQW, (kv_B1W, mask_B1), None, 0.0)
  for q in range(3):
    np.testing.assert_allclose(
        seen_BQW[:, q], one.norm(query_BQW[:, q] + read + out.bias[...][None]),
        rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kv_tokens", [1, 2])
@pytest.mark.parametrize("members", [0, 2])
@pytest.mark.parametrize("names", [("behavioral",), ("behavioral", "semantic")])
def test_a_query_reads_its_own_tokens_alone(kv_tokens, members, names):
  """Three queries that are equal read differently; what one reads concerns no other."""
  widths = dict(zip(names, (5, 4)))
  model = make(vectors=widths, kv_tokens=kv_tokens, members=members, cross_reads="own")
  vectors, present = entity(0, **widths)
  for name in names if members else ():
    vectors[members_of(name)] = jax.random.normal(jax.random.key(3), (2, members, widths[name]))
    present[members_of(name)] = jnp.ones((2, members), bool)
  kv_BNW, present_BN = model.reader(vectors, present)
  read_things = len(names) * (1 + members)
  assert kv_BNW.shape == (2, read_things * 3 * kv_tokens, 8)
  graphdef, state = nnx.split(model.stack.cross)
  cross = nnx.merge(graphdef, jax.tree.map(lambda p: p[0], nnx.to_pure_dict(state)))
  query_BQW = jnp.broadcast_to(jax.random.normal(jax.random.key(2), (2, 1, 8)), (2, 3, 8))

  def read(kv_BNW):
    return np.asarray(cross(query_BQW, (kv_BNW, present_BN), None, 0.0))

  seen_BQW = read(kv_BNW)
  assert np.abs(seen_BQW[:, 0] - seen_BQW[:, 1]).max() > 0.1
  of_query_1 = np.zeros((read_things, 3, kv_tokens), bool)
  of_query_1[:, 1] = True
  changed_BQW = read(jnp.where(of_query_1.ravel()[None, :, None], kv_BNW + 1.0, kv_BNW))
  np.testing.assert_array_equal(changed_BQW[:, [0, 2]], seen_BQW[:, [0, 2]])
  assert np.abs(changed_BQW[:, 1] - seen_BQW[:, 1]).max() > 0.1


def test_several_tokens_score_and_one_vector_alone_equals_the_other_absent():
  """Two named vectors: with one absent, the other decides alone and what is absent is inert."""
  model = make(vectors={"behavioral": 5, "semantic": 4})
  assert hasattr(model.stack.cross.attention, "key")
  vectors, present = entity(0, behavioral=5, semantic=4)
  both = model.queries(vectors, present)
  present["semantic"] = jnp.array([False, True])
  one = model.queries(vectors, present)
  vectors["semantic"] = vectors["semantic"].at[0].set(100.0)
  np.testing.assert_array_equal(one, model.queries(vectors, present))
  assert np.abs(one[0] - both[0]).max() > 1e-3
  np.testing.assert_array_equal(one[1], both[1])


@pytest.mark.parametrize("cross_reads", ["all", "own"])
@pytest.mark.parametrize("kv_tokens", [1, 2])
def test_nothing_present_is_finite_and_blind(kv_tokens, cross_reads):
  model = make(kv_tokens=kv_tokens, cross_reads=cross_reads)
  vectors, present = entity()
  absent = {"behavioral": jnp.zeros(2, bool)}
  blind = model.queries(vectors, absent)
  assert np.all(np.isfinite(blind))
  np.testing.assert_array_equal(blind, model.queries(entity(5)[0], absent))
  assert np.abs(blind - model.queries(vectors, present)).max() > 1e-2
  grads = jax.grad(lambda x: model.queries({"behavioral": x}, absent).sum())(vectors["behavioral"])
  np.testing.assert_array_equal(grads, jnp.zeros_like(grads))


def test_the_mean_of_queries_is_one_unit_vector_and_every_query_learns():
  """Their mean is compared, so a loss reaches all; of the nearest it reaches one query alone."""
  pooled, apart = make(query_pool="mean"), make(query_pool="nearest")
  hidden_BQW = jax.random.normal(jax.random.key(3), (2, 3, 8))
  mean_BP = np.asarray(apart.heads.query_projection(hidden_BQW)).mean(axis=1)
  got = pooled.project_queries(hidden_BQW)
  assert got.shape == (2, 1, 4) and apart.project_queries(hidden_BQW).shape == (2, 3, 4)
  np.testing.assert_allclose(
      got[:, 0], mean_BP / np.linalg.norm(mean_BP, axis=-1, keepdims=True), rtol=1e-5, atol=1e-6)
  text_TP = losses.unit(jax.random.normal(jax.random.key(4), (1, 4)))

  def learning(model):
    slope_BQW = jax.grad(lambda x: jnp.sum(losses.item_text_similarity(
        model.project_queries(x), text_TP)))(hidden_BQW)
    return (np.abs(slope_BQW).max(axis=-1) > 1e-6).sum(axis=1).tolist()

  assert learning(pooled) == [3, 3] and learning(apart) == [1, 1]


def test_one_query_is_identical_to_its_own_closest():
  model = make(num_queries=1)
  hidden_BQW = model.queries(*entity())
  item_BQP = model.project_queries(hidden_BQW)
  text_BP = model.project_text(model.text(IDS, MASK), MASK)
  np.testing.assert_allclose(losses.item_text_similarity(item_BQP, text_BP),
                             item_BQP[:, 0] @ text_BP.T, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(model.itm_logits(hidden_BQW), model.heads.match(hidden_BQW)[:, 0],
                             rtol=1e-5)


def test_itm_logits_are_averaged_over_queries():
  model = make()
  hidden_BQW = model.queries(*entity())
  by_query_BQ2 = model.heads.match(hidden_BQW)
  np.testing.assert_allclose(model.itm_logits(hidden_BQW), by_query_BQ2.mean(1), rtol=1e-5)


def test_mean_pool_leaves_padding_out_and_identity_keeps_the_mean():
  model = make(text_pool="mean", proj_init="identity", proj_width=8, num_layers=1)
  heads = qformer.Heads(model.config, rngs=nnx.Rngs(0))
  np.testing.assert_array_equal(heads.text_projection.kernel[...], jnp.eye(8))
  model.heads = heads
  hidden_BTW = jax.random.normal(jax.random.key(0), (2, 5, 8))
  text_BP = model.project_text(hidden_BTW, MASK)
  mean = np.asarray(hidden_BTW[0, :4]).mean(0)
  np.testing.assert_allclose(text_BP[0], mean / np.linalg.norm(mean), rtol=1e-5)


@pytest.mark.parametrize("name", PASSES)
def test_products_of_bfloat16_change_each_pass_by_rounding_alone(name):
  entities = () if name == "text" else entity()
  texts = () if name == "queries" else (IDS, MASK)
  exact, rounded = (jax.tree.leaves(getattr(make(matmul_precision=precision), name)(
      *entities, *texts)) for precision in ("default", "bfloat16"))
  for one, other in zip(exact, rounded, strict=True):
    assert other.dtype == jnp.float32
    apart = np.abs(one - other)[np.isfinite(one)]
    assert 1e-5 < np.mean(apart) / np.std(one) < 0.05


def test_dropout_only_with_a_key_and_repeatable():
  model, inputs = make(vector_noise=0.5), entity()
  np.testing.assert_array_equal(model.queries(*inputs), model.queries(*inputs))
  noisy = [model.queries(*inputs, jax.random.key(k)) for k in (1, 1, 2)]
  np.testing.assert_array_equal(noisy[0], noisy[1])
  assert np.abs(noisy[0] - noisy[2]).max() > 1e-3


def bert_params(num_layers=2, **changes):
  sizes = dict(num_layers=num_layers, width=8, num_heads=2, mlp_width=12, vocab_size=23,
               max_positions=9)
  config = bert.BertConfig(**sizes | changes)
  return config, large(bert.abstract_params(config), 4)


def test_started_from_bert_the_text_pass_is_bert():
  """Two layers, mean pool, identity projection: the text features are BERT's sentence vectors."""
  bert_config, theirs = bert_params()
  model = QFormer(small_configs.qformer(**TINY | dict(
      num_layers=2, proj_width=8, text_pool="mean", proj_init="identity")), rngs=nnx.Rngs(0))
  graphdef, state = nnx.split(model)
  start = qformer_init.init_from_bert(nnx.to_pure_dict(state), theirs)
  model = nnx.merge(graphdef, start.params)
  encoder = bert.bind(bert_config, theirs)
  np.testing.assert_allclose(model.text(IDS, MASK)[:, :4], encoder.hidden(IDS, MASK)[:, :4],
                             rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(model.project_text(model.text(IDS, MASK), MASK),
                             encoder.sentence(IDS, MASK), rtol=1e-4, atol=1e-5)
  layer = start.params["stack"]["layer"]
  jax.tree.map(np.testing.assert_array_equal, layer["query_mlp"], layer["text_mlp"])
  assert not any("stack/cross" in n or n.startswith(("reader", "heads", "lm", "query_tokens"))
                 for n in start.copied)
  assert len(start.copied) + len(start.fresh) == len(jax.tree.leaves(start.params))


def test_start_from_bert_of_another_shape_says_what_stayed_fresh():
  """Three layers from two; another vocabulary and mlp width: those stay, the rest is copied."""
  _, theirs = bert_params(vocab_size=31, mlp_width=16)
  _, state = nnx.split(QFormer(small_configs.qformer(**TINY), rngs=nnx.Rngs(0)))
  before = nnx.to_pure_dict(state)
  start = qformer_init.init_from_bert(before, theirs)
  assert "text_embed/word" in start.fresh and "text_embed/position" in start.copied
  assert "stack/layer/query_mlp/mlp_in/kernel" in start.fresh
  name = "stack/layer/attention/query/kernel"
  assert name in start.copied
  mine, old = (p["stack"]["layer"]["attention"]["query"]["kernel"] for p in (start.params, before))
  for i in range(2):
    np.testing.assert_array_equal(mine[i], theirs["layers"][i]["query"]["kernel"])
  np.testing.assert_array_equal(mine[2], old[2])
  np.testing.assert_array_equal(start.params["text_embed"]["word"], before["text_embed"]["word"])
  np.testing.assert_allclose(start.params["text_embed"]["position"],
                             theirs["position"][:6] + theirs["type"][:1])


def test_phase2_subtree_is_a_query_path_only_model():
  model = make()
  graphdef, state = nnx.split(QFormer(
      small_configs.qformer(**TINY, query_path_only=True), rngs=nnx.Rngs(1)))
  small = phase2_subtree(nnx.to_pure_dict(nnx.state(model)))
  assert jax.tree.structure(small) == jax.tree.structure(nnx.to_pure_dict(state))
  np.testing.assert_allclose(jitted(nnx.merge(graphdef, small)).queries(*entity()),
                             model.queries(*entity()), rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("wrong, message", [
    (dict(num_heads=3), "num_heads=3"), (dict(text_pool="max"), "text_pool='max'"),
    (dict(query_pool="max"), "query_pool='max': expected 'mean' or 'nearest'"),
    (dict(proj_init="identity"), "proj_width=8"), (dict(vectors={}), "vectors is empty")])
def test_wrong_config_is_named(wrong, message):
  with pytest.raises(errors.UserError, match=message):
    small_configs.qformer(**TINY | wrong)


def test_text_dropout_thins_the_pooled_text_in_training_alone():
  model = make(text_dropout=0.7)
  hidden_BTW = model.text(IDS, MASK)
  plain, same = (model.project_text(hidden_BTW, MASK) for _ in range(2))
  np.testing.assert_array_equal(plain, same)
  thinned = [model.project_text(hidden_BTW, MASK, jax.random.key(k)) for k in (1, 1, 2)]
  np.testing.assert_array_equal(thinned[0], thinned[1])
  assert np.abs(thinned[0] - thinned[2]).max() > 1e-3


def test_temperatures_stay_above_their_floor():
  model = make(min_temperature=0.1)
  for stored, used in ((0.07, 0.1), (0.2, 0.2)):
    model.heads.log_temperature_itc[...] = jnp.log(stored)
    np.testing.assert_allclose(model.temperature("itc"), used, rtol=1e-6)
