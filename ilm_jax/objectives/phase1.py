"""Phase 1: the Q-Former aligned with text and behaviour. Its loss has the form of phase2.py."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ilm_jax import losses
from ilm_jax.models.qformer import QFormer, QFormerConfig
from ilm_jax.objectives import drawing
from ilm_jax.objectives.inputs import entity_inputs, never_met, step_key

UNIFORM = 256                 # entities of a step whose pairs UNI looks at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase1Config:
  """Weights of the losses (0: not computed at all) and their form."""
  itc: float
  itm: float
  itg: float
  ii: float
  ui: float
  cf: float
  rec: float
  uni: float
  label_smoothing: float
  contrastive: str              # of II and UI: "infonce" or "margin"
  logq: bool                    # of UI by InfoNCE: corrected for how often entities are drawn
  num_items: int = 0            # II and UI by softmax over all items, rows 1..num_items; 0: over
                                # what the batch holds
  negatives: int = 0            # of all items, so many are drawn a step; 0: all stay
  draw: str = "uniform"         # how; "popularity": by how often an item is met in training
  cf_temperature: float = 0.1   # of the collaborative-filtering scores that CF hands on
  margin: float = 1.0

  @classmethod
  def of(cls, section, num_items: int) -> "Phase1Config":
    """That of a config's section phase1, for so many items."""
    return cls(**{name: section.losses.get(name, 0.0) for name in LOSSES},
               label_smoothing=section.label_smoothing, contrastive=section.contrastive,
               logq=section.logq, num_items=num_items if section.candidates == "catalogue" else 0,
               negatives=section.negatives, draw=section.draw,
               cf_temperature=section.cf_temperature)

  @property
  def by_popularity(self) -> bool:
    """Whether items are drawn by how often they are met."""
    return self.negatives > 0 and self.draw == "popularity"

  @property
  def needs_log_draws(self) -> bool:
    """Whether `frozen` must say how often entities are drawn."""
    return self.logq or self.by_popularity

  @property
  def weights(self) -> dict[str, float]:
    """Loss -> its weight."""
    return {name: getattr(self, name) for name in LOSSES}


LOSSES = ("itc", "itm", "itg", "ii", "ui", "cf", "rec", "uni")


def joins_users(losses) -> bool:
  """Whether weights `ui` and `cf` bring users into the space of items: dot products there rank."""
  return bool(losses.ui or losses.cf)


def build_phase1(config: QFormerConfig, seed: int) -> tuple[nnx.GraphDef, dict]:
  """(graphdef of the Q-Former, trainable = {"qformer": params})."""
  graphdef, state = nnx.split(QFormer(config, rngs=nnx.Rngs(seed)))
  return graphdef, {"qformer": nnx.to_pure_dict(state)}


def phase1_loss(graphdef: nnx.GraphDef, c: Phase1Config):
  """Weighted sum of the losses of phase 1.

  Batch: text_entities [B], text [B, T] ids, text_mask [B, T]; pair_a, pair_b [B2] (II);
  upair_user, upair_item [B3] (UI). `frozen`: vectors, present; where `needs_log_draws` also
  log_draws [R], the log of how often an entity is in UI's pairs. What has weight 0 needs no fields.

  Negatives come from the batch, so an entity is one as often as it is drawn, and a softmax over
  them learns log p(item | user) / p(item): what everybody likes ranks low. With `logq` the logits
  are less by log p(drawn), on either side, and learn log p(item | user) (Yi et al., "Sampling-bias-
  corrected neural modeling for large corpus item recommendations", RecSys 2019). With `num_items`
  the softmax is over all items, which are then drawn evenly: nothing is to be corrected. A user
  chooses an item; an item, the one that came next. With `negatives` it is over the right item and
  so many others, the same for the whole batch, each of which stands for more of the catalogue
  (`drawing.items`).

  CF hands on what the vectors knew of users and items: with the `factors` [R, C] of `frozen`, whose
  inner products are the scores of collaborative filtering, the cross-entropy of the softmax over
  all items of UI's similarity against that of those scores over their temperature (as LLM-SRec
  distils a recommender, arXiv 2502.13909). A user's own items are in its vector, so UI alone learns
  to give them back; the scores say what else is like them.

  With `vector_dropout` some items of each loss are read by their text alone, and items without a
  training interaction, `never_met` of `frozen`, are no candidates: they have no score to be
  trained towards. REC still asks for the vectors that were hidden.

  REC and UNI are computed on all query outputs of the step: what a linear layer reads of the
  vectors in them (mean squared error, a standardised vector's own being 1), and the uniformity of
  their projections.

  Metrics: each loss, unweighted; itg_nll (without smoothing); itc_accuracy and itm_accuracy;
  temperature_itc, _ii, _ui of the InfoNCE losses computed.
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
      of_pairs = _catalogue_losses if c.num_items else _pair_losses
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
    weight_BT = weight_BT.at[:, -1].set(False)  # position t predicts t + 1; the last, nothing
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
                         step_key(rng, 2))  # 0 and 1 are the keys of the draws
  logits = qformer.itm_logits(hidden)
  label = jnp.repeat(jnp.array([1, 0, 0]), B)
  weight = jnp.concatenate([jnp.ones(B, bool), has_text_B, has_item_B])
  hit = jnp.argmax(logits, axis=1) == label
  return {"itm": losses.weighted_mean(losses.classification(logits, label), weight),
          "itm_accuracy": losses.weighted_mean(hit.astype(jnp.float32), weight)}


def _catalogue_losses(qformer, c: Phase1Config, frozen, pairs, rng, outputs: list) -> dict:
  """II, UI and CF, the right side among all items; one pass through the Q-Former."""
  log_weight_I = frozen["log_draws"][1:c.num_items + 1] if c.by_popularity else None
  drawn = drawing.items(step_key(rng, 5), c.num_items, c.negatives, log_weight_I)
  K, whole = len(drawn.item_K), len(drawn.item_K) == c.num_items
  never_K = never_met(frozen, drawn.item_K, rng)
  if never_K is not None:
    drawn = drawn._replace(stands_K=jnp.where(never_K, 0.0, drawn.stands_K))
  sides = [x for _, left_B, right_B in pairs for x in ([left_B] if whole else [left_B, right_B])]
  rows = jnp.concatenate([drawn.item_K, *sides])
  vectors, present = entity_inputs(frozen, rows, rng, qformer.config.vector_dropout)
  query_NQW = qformer.queries(vectors, present, rng)
  outputs.append((rows, query_NQW))
  parts = iter(jnp.split(query_NQW, np.cumsum([K, *map(len, sides[:-1])])))
  metrics, item_KQP = {}, qformer.project_queries(next(parts))
  for name, left_B, right_B in pairs:
    left_BQP = qformer.project_queries(next(parts), users=name == "ui")
    similarity_BK = losses.bag_similarity(left_BQP, item_KQP)
    if not whole:
      right_BQP = qformer.project_queries(next(parts))
      similarity_BK = _beside(losses.pair_similarity(left_BQP, right_BQP), similarity_BK)
    metrics[f"temperature_{name}"] = qformer.temperature(name)
    logits_BK = similarity_BK / qformer.temperature(name)
    target_BK, stands_BK = _candidates(drawn, left_B, right_B, whole)
    metrics[name] = jnp.mean(losses.over_catalogue(
        logits_BK, target_BK, stands_BK, c.label_smoothing))
    if name == "ui" and c.cf:
      factors = frozen["factors"]
      given_BK = factors[left_B] @ factors[drawn.item_K].T
      if not whole:
        given_BK = _beside(jnp.sum(factors[left_B] * factors[right_B], axis=1), given_BK)
      metrics["cf"] = jnp.mean(losses.handed_on(logits_BK, given_BK / c.cf_temperature, stands_BK))
  return metrics


def _beside(own_B, other_BK) -> jax.Array:
  return jnp.concatenate([own_B[:, None], other_BK], axis=1)


def _candidates(drawn: drawing.Drawn, left_B, right_B, whole: bool):
  """(target, stands) for `losses.over_catalogue`, of pairs.

  Where items are left out, the right one stands in the first column, for itself alone.
  """
  item_BK = jnp.broadcast_to(drawn.item_K, (len(left_B), len(drawn.item_K)))
  target_BK = item_BK == right_B[:, None]
  stands_BK = jnp.where(item_BK == left_B[:, None], 0.0, drawn.stands_K[None])
  if whole:      # a target that asks for itself stays a candidate
    return target_BK, jnp.where(target_BK, 1.0, stands_BK)
  return (_beside(jnp.ones_like(right_B, bool), jnp.zeros_like(target_BK)),
          _beside(jnp.ones(len(left_B)), jnp.where(target_BK, 0.0, stands_BK)))


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


def _pair_losses(qformer, c: Phase1Config, frozen, pairs, rng, outputs: list) -> dict:
  """II and UI; all their entities go through the Q-Former in one pass."""
  rows = jnp.concatenate([x for _, left_B, right_B in pairs for x in (left_B, right_B)])
  vectors, present = entity_inputs(frozen, rows, rng, qformer.config.vector_dropout)
  query_NQW = qformer.queries(vectors, present, rng)
  outputs.append((rows, query_NQW))
  metrics, at = {}, 0
  for name, left_B, right_B in pairs:
    B = left_B.shape[0]
    similarity_BB = losses.bag_similarity(
        qformer.project_queries(query_NQW[at:at + B], users=name == "ui"),
        qformer.project_queries(query_NQW[at + B:at + 2 * B]))
    at += 2 * B
    # Row i pairs with j's right side too if they share either side; an entity is no negative
    # of itself.
    positive_BB = (left_B[:, None] == left_B[None]) | (right_B[:, None] == right_B[None])
    itself_BB = left_B[:, None] == right_B[None]
    if c.contrastive == "margin":
      loss_B = losses.margin(similarity_BB, positive_BB, itself_BB, width=c.margin)
    else:
      metrics[f"temperature_{name}"] = qformer.temperature(name)
      logits_BB = similarity_BB / qformer.temperature(name)
      if name == "ui" and c.logq:
        # A row's softmax does not see what its user subtracts, nor a column's its item.
        draws_R = frozen["log_draws"]
        logits_BB -= draws_R[left_B][:, None] + draws_R[right_B][None]
      loss_B = losses.contrastive(logits_BB, positive_BB, itself_BB, smoothing=c.label_smoothing)
    metrics[name] = jnp.mean(loss_B)
  return metrics
