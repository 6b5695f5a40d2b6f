"""The shape of a Q-Former, and which of its tokens attend to which."""
import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ilm_jax import errors
from ilm_jax.models import products

PRECISIONS = ("default", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QFormerConfig:
  """Shape of a Q-Former. Fields without a default get their values from configs/base.py."""
  vectors: tuple[tuple[str, int], ...]  # (name, width) of the named vectors; a dict is accepted
  num_layers: int
  width: int
  num_heads: int
  mlp_width: int
  vocab_size: int
  max_text: int                # text positions
  num_queries: int
  cross_every: int             # cross-attention in layers 0, cross_every, 2 * cross_every ..
  cross_init: str              # start of its value and out kernels: "width", std width ** -0.5, so
                               # that a vector enters at full size; "bert", std 0.02 (BLIP-2)
  cross_reads: str             # "own": every query has its own key/value tokens; "all": one set
                               # for all queries (BLIP-2)
  kv_tokens: int               # key/value tokens made from each named vector, of a set
  kv_width: int                # width of these tokens; 0: width (BLIP-2's patches: 1,408)
  reader_hidden: int           # width of the reader's hidden layer / vector's width; 0: linear
  members: int                 # members read with each entity (`entities.EntityTable.members`)
  proj_width: int              # width of the contrastive space
  user_projection: bool        # users for whom items are ranked have their own layer into it
  proj_init: str               # "normal"; "identity": a text starts as its pooled output, and
                               # proj_width must be width
  query_pool: str              # entities in that space: "mean" of their queries; "nearest": all
                               # queries, of which the nearest counts (BLIP-2)
  text_pool: str               # "cls"; "mean" suits encoders trained with mean pooling (MiniLM)
  temperature: float           # start of every learned temperature
  min_temperature: float       # its floor (CLIP's 0.01: similarities are scaled by at most 100)
  dropout: float
  text_dropout: float          # of the pooled text, before its projection
  vector_noise: float          # std of noise on the normed vector (its own std is 1)
  vector_dropout: float        # probability of hiding one of several vectors (objectives/inputs.py)
  remat: bool                  # recompute each group of layers in the backward pass
  matmul_precision: str        # "default", the backend's; "bfloat16" (`products.dot_general`)
  # Set by code, not by a config.
  decoder_start: int = 1       # token that opens generated text; MiniLM's [unused0]
  norm_eps: float = 1e-12
  unroll: bool = False           # layers without a loop (for planning)
  query_path_only: bool = False  # phase 2: no text branch, no heads
  reconstructs: bool = False     # phase 1: a head that gives the vectors back

  def __post_init__(self):
    if isinstance(self.vectors, Mapping):
      object.__setattr__(self, "vectors", tuple(self.vectors.items()))
    wrong = []
    if not self.vectors:
      wrong.append("vectors is empty: name at least one, e.g. behavioral")
    if not self.kv_width:
      object.__setattr__(self, "kv_width", self.width)
    if self.width % self.num_heads:
      wrong.append(f"width={self.width} does not divide over num_heads={self.num_heads}")
    if self.cross_init not in ("width", "bert"):
      wrong.append(f"cross_init={self.cross_init!r}: expected 'width' or 'bert'")
    if self.cross_reads not in ("own", "all"):
      wrong.append(f"cross_reads={self.cross_reads!r}: expected 'own' or 'all'")
    if self.query_pool not in ("mean", "nearest"):
      wrong.append(f"query_pool={self.query_pool!r}: expected 'mean' or 'nearest'")
    if self.matmul_precision not in PRECISIONS:
      wrong.append(f"matmul_precision={self.matmul_precision!r}: expected one of {PRECISIONS}")
    if self.text_pool not in ("cls", "mean"):
      wrong.append(f"text_pool={self.text_pool!r}: expected 'cls' or 'mean'")
    if self.proj_init not in ("normal", "identity"):
      wrong.append(f"proj_init={self.proj_init!r}: expected 'normal' or 'identity'")
    if self.proj_init == "identity" and self.proj_width != self.width:
      wrong.append(f"proj_init='identity' needs proj_width={self.width} (the width), found "
                   f"{self.proj_width}")
    if wrong:
      raise errors.UserError("qformer config: " + "; ".join(wrong))

  @property
  def vector_tokens(self) -> int:
    """The number of key/value tokens made from one named vector, for all queries together."""
    return self.kv_tokens * (self.num_queries if self.cross_reads == "own" else 1)

  @property
  def dot_general(self):
    """The function that multiplies inputs of linear layers with their kernels."""
    return products.dot_general if self.matmul_precision == "bfloat16" else jax.lax.dot_general


def attention_mask(mode: str, num_queries: int, text_mask_BT) -> jax.Array:
  """BLIP-2's self-attention masks over [queries; text], true where a row attends to a column.

    mode   query->query  query->text  text->query  text->text
    itc    full          none         none         full
    itm    full          full         full         full
    itg    full          none         full         causal

  Nothing attends to padding. Rows of padding follow the same rule as other text; the caller must
  ignore their outputs.

  Args:
    mode: "itc", "itm" or "itg".
    num_queries: Q.
    text_mask_BT: boolean, true where the text is not padding.

  Returns:
    boolean [B, Q + T, Q + T].
  """
  query_to_text, text_to_query, causal = {
      "itc": (False, False, False), "itm": (True, True, False), "itg": (False, True, True)}[mode]
  B, T = text_mask_BT.shape
  Q = num_queries
  text_BTT = jnp.broadcast_to(text_mask_BT[:, None, :], (B, T, T))
  if causal:
    text_BTT = text_BTT & jnp.tri(T, dtype=bool)[None]
  seen_by_query_BQT = jnp.broadcast_to(text_mask_BT[:, None, :] & query_to_text, (B, Q, T))
  queries = jnp.concatenate([jnp.ones((B, Q, Q), bool), seen_by_query_BQT], axis=2)
  texts = jnp.concatenate([jnp.full((B, T, Q), text_to_query), text_BTT], axis=2)
  return jnp.concatenate([queries, texts], axis=1)
