"""SASRec (Kang and McAuley, arXiv 1808.09781): a causal transformer over a user's items.

The inner product of its last output with the item table, or their cosine over a temperature, scores
all items. The loss is that of the paper (binary, one sampled negative for each position), the full
softmax over the catalogue, a softmax over sampled negatives, or gSASRec's binary loss with many
negatives. A comparison should not use the first (arXiv 2309.07602, 2308.07192). eSASRec (arXiv
2508.06450) is block="ligr" with loss="sampled".

Letters: B users, L positions, W width, N target positions of a batch, I items, K negatives.
"""
import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ilm_jax import errors
from ilm_jax.baselines import sasrec_blocks
from ilm_jax.evaluation import metrics

LOSSES = ("full", "sampled", "bce", "gbce")
_TOGETHER = 512          # histories that are scored at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Shape and training of a SASRec. Raises UserError for values that cannot work."""
  seed: int
  width: int = 64
  num_layers: int = 2
  num_heads: int = 1
  length: int = 50            # items of a history that are read: the last ones
  dropout: float = 0.2
  block: str = "plain"        # or "ligr": sasrec_blocks.BLOCKS
  loss: str = "full"          # one of LOSSES
  negatives: int = 256        # of "sampled" and "gbce", drawn uniformly for each user of a batch
  calibration: float = 0.75   # t of "gbce", 0..1
  temperature: float = 0.0    # scores are cosines divided by this; 0: inner products
  batch_size: int = 256       # users
  learning_rate: float = 1e-3
  epochs: int = 200           # most epochs
  patience: int = 5           # evaluations without a better validation NDCG@10 before it stops
  evaluate_every: int = 1     # epochs

  def __post_init__(self):
    if self.loss not in LOSSES:
      raise errors.UserError(f"SASRec: loss={self.loss!r}, expected one of {LOSSES}")
    if self.block not in sasrec_blocks.BLOCKS:
      raise errors.UserError(f"SASRec: block={self.block!r}, expected one of "
                             f"{tuple(sasrec_blocks.BLOCKS)}")
    if not 0 <= self.calibration <= 1:
      raise errors.UserError(f"SASRec: calibration={self.calibration}, expected 0 to 1")
    if self.negatives < 1:
      raise errors.UserError(f"SASRec: negatives={self.negatives}, expected 1 or more")
    if self.width % self.num_heads:
      raise errors.UserError(f"SASRec: width={self.width} does not divide over num_heads="
                             f"{self.num_heads}")
    if self.temperature < 0:
      raise errors.UserError(f"SASRec: temperature={self.temperature}, expected 0 or more")


class SASRec(nnx.Module):
  """The model. Row 0 of `item` is padding."""

  def __init__(self, config: Config, num_items: int, *, rngs: nnx.Rngs):
    self.config = config
    self.item = nnx.Param(0.02 * jax.random.normal(rngs.params(), (num_items + 1, config.width)))
    self.position = nnx.Param(
        0.02 * jax.random.normal(rngs.params(), (config.length, config.width)))
    block = sasrec_blocks.BLOCKS[config.block]
    self.blocks = nnx.List([block(config.width, config.num_heads, config.dropout, rngs=rngs)
                            for _ in range(config.num_layers)])
    self.norm = nnx.LayerNorm(config.width, rngs=rngs)

  def hidden(self, row_BL, key=None) -> jax.Array:
    """[B, L, W] outputs of item rows padded with 0 in front; without dropout if `key` is None."""
    mask_BLL = jnp.tri(row_BL.shape[1], dtype=bool)[None] & (row_BL > 0)[:, None, :]
    return self._through(self.item[...][row_BL] + self.position[...][None], mask_BLL, key)

  def packed(self, row_BL, segment_BL) -> jax.Array:
    """[B, L, W]: `hidden` of each history alone, for rows that hold several histories.

    Args:
      row_BL: int item rows; 0: no item of a history (padding, users); its output has no meaning.
      segment_BL: int, the number of the history at each place. A history must not have more items
        than `config.length`.
    """
    same_BLL = (segment_BL[:, :, None] == segment_BL[:, None, :]) & (row_BL > 0)[:, None, :]
    past_LL = jnp.tri(row_BL.shape[1], dtype=bool)
    behind_BL = jnp.sum(same_BLL & ~past_LL[None], axis=2)      # a history takes the last positions
    place_BL = jnp.maximum(self.config.length - 1 - behind_BL, 0)
    return self._through(self.item[...][row_BL] + self.position[...][place_BL],
                         same_BLL & past_LL[None], None)

  def _through(self, x_BLW, mask_BLL, key) -> jax.Array:
    keys = ([None] * (1 + len(self.blocks)) if key is None
            else list(jax.random.split(key, 1 + len(self.blocks))))
    x_BLW = sasrec_blocks.dropout(x_BLW, self.config.dropout, keys[0])
    for block, block_key in zip(self.blocks, keys[1:]):
      x_BLW = block(x_BLW, mask_BLL, block_key)
    return self.norm(x_BLW)


def train(histories: list, num_items: int, config: Config, validation: np.ndarray,
          report: Callable | None = None) -> dict:
  """Trains on users' training histories and keeps the epoch with the best validation NDCG@10.

  Args:
    histories: item rows (1..I) of each user's training interactions, in time order.
    num_items: I.
    config: shape and training.
    validation: int [users] item row of each user's validation target, 0: none. All items are
      ranked, those of the history too: a target that repeats one of them has no advantage.
    report: called with (epoch, mean loss, validation NDCG@10) after each evaluation; None: not.

  Returns:
    Parameters, a pure dict, for `scores`.

  Raises:
    UserError: no user has two training interactions.
  """
  model = SASRec(config, num_items, rngs=nnx.Rngs(config.seed))
  graphdef, state = nnx.split(model, nnx.Param)
  params = nnx.to_pure_dict(state)
  tx = optax.adam(config.learning_rate, b2=0.98)
  slots, rng = tx.init(params), np.random.default_rng(config.seed)
  learns = np.flatnonzero([len(h) > 1 for h in histories])
  validated = np.flatnonzero(np.asarray(validation) > 0)
  if not len(learns):
    raise errors.UserError("SASRec: no user has two training interactions, expected at least one "
                           "such user: use more data or a smaller data.k_core")
  step = jax.jit(functools.partial(_step, graphdef, config, tx))
  room = _room(histories, learns, config)
  best, kept, waited = -1.0, params, 0
  for epoch in range(1, config.epochs + 1):
    loss = []
    for users in np.array_split(rng.permutation(learns), -(-len(learns) // config.batch_size)):
      batch = _batch([histories[u] for u in users], config, room)
      params, slots, value = step(params, slots, batch, int(rng.integers(1 << 31)))
      loss.append(value)
    if epoch % config.evaluate_every:
      continue
    rank = ranks(params, config, [histories[u] for u in validated],
                 np.asarray(validation)[validated])
    ndcg = float(metrics.ndcg(rank, 10).mean()) if len(validated) else float(epoch)
    if report:
      report(epoch, float(np.mean(jax.device_get(loss))), ndcg)
    best, kept, waited = (ndcg, params, 0) if ndcg > best else (best, kept, waited + 1)
    if waited >= config.patience:
      break
  return jax.device_get(kept)


def scores(params: dict, config: Config, histories: list):
  """Yields float32 [at most `_TOGETHER`, I + 1] scores for users' histories; column 0 is -inf."""
  score = _scorer(config, params["item"].shape[0] - 1)
  for rows, count in padded(histories, config):
    score_BI = np.array(score(params, rows))[:count]
    score_BI[:, 0] = -np.inf
    yield score_BI


def abstract(config: Config, num_items: int) -> SASRec:
  """The model with shapes in place of arrays."""
  return nnx.eval_shape(lambda: SASRec(config, num_items, rngs=nnx.Rngs(0)))


def ranks(params: dict, config: Config, histories: list, target_U, blocked=None) -> np.ndarray:
  """float64 [users]: ranks of `target_U` among all items but `blocked`, item rows for each user."""
  parts, first = [], 0
  for score_BI in scores(params, config, histories):
    for b in range(len(score_BI) if blocked is not None else 0):
      score_BI[b, blocked[first + b]] = -np.inf
    parts.append(metrics.ranks_from_scores(score_BI, target_U[first:first + len(score_BI)]))
    first += len(score_BI)
  return np.concatenate(parts) if parts else np.zeros(0)


# Inside.


@functools.lru_cache(maxsize=8)
def _scorer(config: Config, num_items: int):
  graphdef = nnx.split(abstract(config, num_items))[0]

  @jax.jit
  def score(params, row_BL):
    hidden_BW, item_IW = compared(
        config, nnx.merge(graphdef, params).hidden(row_BL)[:, -1], params["item"])
    return hidden_BW @ item_IW.T

  return score


def _step(graphdef, config: Config, tx, params, slots, batch, seed):
  key_dropout, key_negatives = jax.random.split(jax.random.key(seed))

  def loss_fn(params):
    hidden_BLW = nnx.merge(graphdef, params).hidden(batch["rows"], key_dropout)
    loss_N = _losses(config, params["item"], hidden_BLW, batch["at"], batch["targets"],
                     key_negatives)
    return jnp.sum(loss_N * batch["weights"]) / jnp.sum(batch["weights"])

  loss, grads = jax.value_and_grad(loss_fn)(params)
  updates, slots = tx.update(grads, slots, params)
  return optax.apply_updates(params, updates), slots, loss


def _losses(config: Config, item_IW, hidden_BLW, at_N, target_N, key) -> jax.Array:
  """[N] loss of each target; `at_N` is its place among the B * L positions."""
  hidden_BLW, item_IW = compared(config, hidden_BLW, item_IW)
  hidden_NW, num_items = hidden_BLW.reshape(-1, config.width)[at_N], item_IW.shape[0] - 1
  logit_N = jnp.sum(hidden_NW * item_IW[target_N], axis=1)
  if config.loss == "full":
    return sasrec_blocks.full_softmax(logit_N, hidden_NW @ item_IW[1:].T)
  if config.loss == "bce":
    other_N = jax.random.randint(key, target_N.shape, 1, num_items + 1)
    return jax.nn.softplus(-logit_N) + jax.nn.softplus(
        jnp.sum(hidden_NW * item_IW[other_N], axis=1))
  # A user's positions share their negatives: one matrix product instead of [N, K, W] vectors.
  users, length, _ = hidden_BLW.shape
  negative_BK = jax.random.randint(key, (users, config.negatives), 1, num_items + 1)
  logits_BLK = jnp.einsum("blw,bkw->blk", hidden_BLW, item_IW[negative_BK])
  logits_NK = logits_BLK.reshape(users * length, -1)[at_N]
  logits_NK = jnp.where(negative_BK[at_N // length] == target_N[:, None], -jnp.inf, logits_NK)
  if config.loss == "sampled":
    return sasrec_blocks.sampled_softmax(logit_N, logits_NK)
  return sasrec_blocks.gbce(logit_N, logits_NK, num_items, config.calibration)


def compared(config: Config, hidden, item_IW):
  """(hidden, item_IW), scaled so that their inner product is the score."""
  if not config.temperature:
    return hidden, item_IW

  def unit(x):
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)

  return unit(hidden) / config.temperature, unit(item_IW)


def _room(histories, learns, config: Config) -> int:
  """Number of target positions in a batch's arrays: mean + 6 deviations, nearly always enough."""
  length = np.array([min(len(histories[u]) - 1, config.length) for u in learns])
  most = config.batch_size * length.mean() + 6 * length.std() * config.batch_size ** 0.5 + 1
  return int(min(-(-most // 64) * 64, config.batch_size * config.length))


def _batch(histories: list, config: Config, room: int) -> dict:
  """A batch: rows [B, L]; at [N], the places in B * L with a target; targets [N]; weights [N]."""
  rows, targets = np.zeros((2, config.batch_size, config.length), np.int32)
  for b, history in enumerate(histories):
    _put(rows[b], history[:-1])
    _put(targets[b], history[1:])
  at = np.flatnonzero(targets)[:room]
  placed = {"at": at, "targets": targets.ravel()[at], "weights": np.ones(len(at), np.float32)}
  return {"rows": rows, **{k: np.pad(v, (0, room - len(at))).astype(v.dtype if k == "weights" else
                                                                   np.int32)
                           for k, v in placed.items()}}


def padded(histories: list, config: Config):
  """Yields (int32 [_TOGETHER, L] ends of histories, the number of histories among these rows)."""
  for first in range(0, len(histories), _TOGETHER):
    part = histories[first:first + _TOGETHER]
    rows = np.zeros((_TOGETHER, config.length), np.int32)
    for b, history in enumerate(part):
      _put(rows[b], history)
    yield rows, len(part)


def _put(row, history) -> None:
  """Writes the end of a history to the end of `row`."""
  if n := min(len(history), len(row)):
    row[-n:] = history[-n:]
