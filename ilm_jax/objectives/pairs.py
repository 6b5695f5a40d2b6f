"""Phase 1's losses over pairs, user-item and item-item: within the batch or over all items."""
import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax import losses
from ilm_jax.objectives import drawing, inputs
from ilm_jax.objectives.phase1_config import Phase1Config


def in_batch(qformer, c: Phase1Config, frozen, pairs, rng, outputs: list) -> dict:
  """II and UI with in-batch negatives; all entities go through the Q-Former in one pass."""
  rows = jnp.concatenate([x for _, left_B, right_B in pairs for x in (left_B, right_B)])
  vectors, present = inputs.entity_inputs(frozen, rows, rng, qformer.config.vector_dropout)
  query_NQW = qformer.queries(vectors, present, rng)
  outputs.append((rows, query_NQW))
  metrics, at = {}, 0
  for name, left_B, right_B in pairs:
    B = left_B.shape[0]
    similarity_BB = losses.bag_similarity(
        qformer.project_queries(query_NQW[at:at + B], users=name == "ui"),
        qformer.project_queries(query_NQW[at + B:at + 2 * B]))
    at += 2 * B
    # Row i also pairs with row j's right side if they share either side; an entity is no negative
    # for itself.
    positive_BB = (left_B[:, None] == left_B[None]) | (right_B[:, None] == right_B[None])
    itself_BB = left_B[:, None] == right_B[None]
    if c.contrastive == "margin":
      loss_B = losses.margin(similarity_BB, positive_BB, itself_BB, width=c.margin)
    else:
      metrics[f"temperature_{name}"] = qformer.temperature(name)
      logits_BB = similarity_BB / qformer.temperature(name)
      if name == "ui" and c.logq:
        # A softmax over a row is unchanged by its user's term, and over a column by its item's.
        draws_R = frozen["log_draws"]
        logits_BB -= draws_R[left_B][:, None] + draws_R[right_B][None]
      loss_B = losses.contrastive(logits_BB, positive_BB, itself_BB, smoothing=c.label_smoothing)
    metrics[name] = jnp.mean(loss_B)
  return metrics


def over_catalogue(qformer, c: Phase1Config, frozen, pairs, rng, outputs: list) -> dict:
  """II, UI and CF, with candidates from all items; one pass through the Q-Former."""
  log_weight_I = frozen["log_draws"][1:c.num_items + 1] if c.by_popularity else None
  drawn = drawing.items(inputs.step_key(rng, 5), c.num_items, c.negatives, log_weight_I)
  K, whole = len(drawn.item_K), len(drawn.item_K) == c.num_items
  never_K = inputs.never_met(frozen, drawn.item_K, rng)
  if never_K is not None:
    drawn = drawn._replace(stands_K=jnp.where(never_K, 0.0, drawn.stands_K))
  sides = [x for _, left_B, right_B in pairs for x in ([left_B] if whole else [left_B, right_B])]
  rows = jnp.concatenate([drawn.item_K, *sides])
  vectors, present = inputs.entity_inputs(frozen, rows, rng, qformer.config.vector_dropout)
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

  If candidates are drawn, the right item is in the first column and stands for itself alone.
  """
  item_BK = jnp.broadcast_to(drawn.item_K, (len(left_B), len(drawn.item_K)))
  target_BK = item_BK == right_B[:, None]
  stands_BK = jnp.where(item_BK == left_B[:, None], 0.0, drawn.stands_K[None])
  if whole:      # an item paired with itself stays a candidate
    return target_BK, jnp.where(target_BK, 1.0, stands_BK)
  return (_beside(jnp.ones_like(right_B, bool), jnp.zeros_like(target_BK)),
          _beside(jnp.ones(len(left_B)), jnp.where(target_BK, 0.0, stands_BK)))
