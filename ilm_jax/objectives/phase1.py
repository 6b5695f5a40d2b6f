"""The objective of phase 1: aligns the Q-Former with text and behaviour; same form as phase2.py."""
import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax import losses
from ilm_jax.models.qformer import QFormer, QFormerConfig
from ilm_jax.objectives import pairs as pair_losses
from ilm_jax.objectives.inputs import entity_inputs, step_key
from ilm_jax.objectives.phase1_config import Phase1Config

UNIFORM = 256                 # entities per step whose pairs UNI uses


def build_phase1(config: QFormerConfig, seed: int) -> tuple[nnx.GraphDef, dict]:
  """(graphdef of the Q-Former, trainable = {"qformer": params})."""
  graphdef, state = nnx.split(QFormer(config, rngs=nnx.Rngs(seed)))
  return graphdef, {"qformer": nnx.to_pure_dict(state)}


def phase1_loss(graphdef: nnx.GraphDef, c: Phase1Config):
  """Weighted sum of the losses of phase 1.

  Batch: text_entities int [B], text int [B, T] ids, text_mask bool [B, T]; pair_a, pair_b int [B2]
  (II); upair_user, upair_item int [B3] (UI). `frozen`: vectors, present; with `needs_log_draws`
  also log_draws [R], the log of how often an entity is in UI's pairs. A loss of weight 0 needs no
  fields.

  UI and II are contrastive: a user's positive is an item it chose, an item's positive the next
  item. In-batch negatives are drawn by frequency, so the softmax learns
  log p(item | user) / p(item), and popular items rank low. `logq` subtracts log p(drawn) from the
  logits, on either side; they then learn log p(item | user) (Yi et al., "Sampling-bias-corrected
  neural modeling for large corpus item recommendations", RecSys 2019). With `num_items` the softmax
  is over all items, which needs no correction. With `negatives` it is over the right item and so
  many others, the same for the whole batch, weighted to stand for the catalogue (`drawing.items`).

  CF distils collaborative filtering: the inner products of `factors` [R, C] in `frozen` are its
  scores. The loss is the cross-entropy of UI's softmax over all items against the softmax of these
  scores divided by their temperature (as LLM-SRec distils a recommender, arXiv 2502.13909). A
  user's own items are in its vector, so UI alone learns to return them; the scores tell which other
  items are similar.

  With `vector_dropout` some items of each loss are read by their text alone. Items without a vector
  from collaborative filtering (`never_met` in `frozen`) are then no candidates, since they have no
  score to learn. REC still predicts the hidden vectors.

  REC and UNI use all query outputs of the step. REC is the mean squared error of a linear layer
  that reconstructs the vectors (1 is the variance of a standardised vector). UNI is the uniformity
  of the projected outputs.

  Metrics: each loss, unweighted, in nats except REC, UNI and the margin form; itg_nll (without
  smoothing); itc_accuracy and itm_accuracy; temperature_itc, _ii, _ui of the InfoNCE losses
  computed.
  """
  def loss_fn(trainable, frozen, batch, rng):
    qformer = nnx.merge(graphdef, trainable["qformer"])
    metrics, outputs = {}, []          # outputs: (entity rows, query outputs)
    if c.itc or c.itm or c.itg:
      metrics |= _text_losses(qformer, c, frozen, batch, rng, outputs)
    pairs = [(n, batch[a], batch[b]) for n, a, b in
             (("ii", "pair_a", "pair_b"), ("ui", "upair_user", "upair_item"))
             if getattr(c, n) or (n == "ui" and c.cf)]
    if pairs:
      of_pairs = pair_losses.over_catalogue if c.num_items else pair_losses.in_batch
      metrics |= of_pairs(qformer, c, frozen, pairs, step_key(rng, 3), outputs)
    if c.rec or c.uni:
      metrics |= _kept(qformer, c, frozen, outputs)
    return sum(w * metrics[n] for n, w in c.weights.items() if w) + jnp.float32(0), metrics

  return loss_fn


def _text_losses(qformer, c: Phase1Config, frozen, batch, rng, outputs: list) -> dict:
  """ITC, ITM and ITG on one batch of items and their texts."""
  entity_B, ids_BT, mask_BT = batch["text_entities"], batch["text"], batch["text_mask"]
  inputs = entity_inputs(frozen, entity_B, rng, qformer.config.vector_dropout)
  metrics = {}
  if c.itg and (c.itc or c.itm):
    query_BQW, text_BTW, said_BTW = qformer.align(*inputs, ids_BT, mask_BT, step_key(rng, 0))
  elif c.itg:
    query_BQW, said_BTW = qformer.speak(*inputs, ids_BT, mask_BT, step_key(rng, 0))
  else:
    query_BQW = qformer.queries(*inputs, step_key(rng, 0))
    text_BTW = qformer.text(ids_BT, mask_BT, step_key(rng, 1))
  outputs.append((entity_B, query_BQW))
  if c.itg:
    target_BT, weight_BT = jnp.roll(ids_BT, -1, axis=1), jnp.roll(mask_BT, -1, axis=1)
    weight_BT = weight_BT.at[:, -1].set(False)  # position t predicts t + 1; the last one nothing
    loss_BT, nll_BT = qformer.token_loss(said_BTW, target_BT, c.label_smoothing)
    metrics["itg"] = losses.weighted_mean(loss_BT, weight_BT)
    metrics["itg_nll"] = losses.weighted_mean(nll_BT, weight_BT)
  if c.itc or c.itm:
    text_BP = qformer.project_text(text_BTW, mask_BT, step_key(rng, 4))
    logits_BB = losses.item_text_similarity(qformer.project_queries(query_BQW), text_BP)
    logits_BB = logits_BB / qformer.temperature("itc")
    same_BB = (entity_B[:, None] == entity_B[None]) | jnp.all(
        ids_BT[:, None] == ids_BT[None], axis=-1)
  if c.itc:
    metrics["itc"] = jnp.mean(
        losses.contrastive(logits_BB, same_BB, smoothing=c.label_smoothing))
    metrics["itc_accuracy"] = jnp.mean(losses.in_batch_hits(logits_BB, same_BB))
    metrics["temperature_itc"] = qformer.temperature("itc")
  if c.itm:
    metrics |= _matching(qformer, inputs, ids_BT, mask_BT, logits_BB, same_BB, step_key(rng, 2))
  return metrics


def _matching(qformer, inputs, ids_BT, mask_BT, logits_BB, same_BB, rng) -> dict:
  """ITM on 3B rows: (item, text), (item, hard text), (hard item, text)."""
  B = ids_BT.shape[0]
  key_text, key_item = jax.random.split(jax.random.key(0) if rng is None else rng)
  text_B, has_text_B = losses.draw_negatives(key_text, logits_BB, same_BB)
  item_B, has_item_B = losses.draw_negatives(key_item, logits_BB.T, same_BB.T)
  own_B = jnp.arange(B)
  item_rows, text_rows = (jnp.concatenate([own_B, own_B, item_B]),
                          jnp.concatenate([own_B, text_B, own_B]))
  vectors, present = jax.tree.map(lambda x: x[item_rows], inputs)
  hidden = qformer.joint(vectors, present, ids_BT[text_rows], mask_BT[text_rows],
                         step_key(rng, 2))  # keys 0 and 1 drew the negatives
  logits = qformer.itm_logits(hidden)
  label = jnp.repeat(jnp.array([1, 0, 0]), B)
  weight = jnp.concatenate([jnp.ones(B, bool), has_text_B, has_item_B])
  hit = jnp.argmax(logits, axis=1) == label
  return {"itm": losses.weighted_mean(losses.classification(logits, label), weight),
          "itm_accuracy": losses.weighted_mean(hit.astype(jnp.float32), weight)}


def _kept(qformer, c: Phase1Config, frozen, outputs: list) -> dict:
  """REC and UNI on all query outputs of the step."""
  rows = jnp.concatenate([rows for rows, _ in outputs])
  query_NQW = jnp.concatenate([query_NQW for _, query_NQW in outputs])
  metrics = {}
  if c.rec:
    vectors, present = entity_inputs(frozen, rows)
    names = [name for name, _ in qformer.config.vectors]
    error_NC = jnp.square(qformer.reconstructed(query_NQW) - jnp.concatenate(
        [vectors[name] for name in names], axis=1))
    there_NC = jnp.concatenate([jnp.broadcast_to(present[name][:, None], vectors[name].shape)
                                for name in names], axis=1)
    metrics["rec"] = losses.weighted_mean(error_NC, there_NC)
  if c.uni:
    few = query_NQW[:UNIFORM]
    metrics["uni"] = losses.uniformity(qformer.project_queries(few).reshape(
        -1, qformer.config.proj_width))
  return metrics
