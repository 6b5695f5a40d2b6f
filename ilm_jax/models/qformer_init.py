"""Initialises a Q-Former from a BERT encoder or a Q-Former (layouts: qformer.py and bert.py)."""
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ilm_jax.runtime import axes


class Start(NamedTuple):
  """An initialised Q-Former, and which parameters were copied or stay fresh ("/"-joined paths)."""
  params: dict
  copied: list[str]
  fresh: list[str]


def init_from_bert(params: dict, bert: dict) -> Start:
  """Copies BERT's weights into a Q-Former where shapes are equal.

  Copied are: words, positions (the first max_text, with BERT's token type 0 added), the embedding
  norm, and for each layer BERT's self-attention and its MLP, twice: for the text and for the
  queries. The queries, cross-attention, reader and heads stay fresh, and so does any array of
  another shape. A Q-Former with fewer layers takes BERT's first ones; with more, its further layers
  stay fresh (their arrays, stacked over layers, count as copied).

  Args:
    params: pure dict of a QFormer, with or without its text branch.
    bert: pure dict of a Bert.
  """
  theirs = {axes.path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(bert)}
  copied, fresh = [], []

  def take(path, mine):
    name = axes.path_name(path)
    value = _source(name, theirs, mine)
    if value is None or value.shape != mine.shape:
      fresh.append(name)
      return mine
    copied.append(name)
    return jnp.array(value, dtype=mine.dtype)  # a copy: donated buffers must not be shared

  return Start(jax.tree_util.tree_map_with_path(take, params), copied, fresh)


def init_from_qformer(params: dict, theirs: dict, start_word: int) -> Start:
  """Copies another Q-Former's weights into ours.

  Of layers, cross-attentions, queries, words and positions it copies the first, as many as we have;
  if we have more, our further ones stay fresh. If they have more words than we do, their last word
  is BLIP-2's [DEC], which becomes our `start_word`. Any array of another shape stays fresh.

  Args:
    params: pure dict of a QFormer, with or without its text branch.
    theirs: pure dict of a QFormer with all or some of its parts.
    start_word: id of our decoder-start token.
  """
  given = {axes.path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(theirs)}
  copied, fresh = [], []

  def take(path, mine):
    name = axes.path_name(path)
    value = given.get(name)
    counted = name.startswith(("stack/", "text_embed/")) or name in ("query_tokens", "lm/bias")
    if value is None or value.ndim != mine.ndim or value.shape[counted:] != mine.shape[counted:]:
      fresh.append(name)
      return mine
    copied.append(name)
    if not counted:
      return jnp.array(value, dtype=mine.dtype)
    rows = min(len(value), len(mine))
    taken = jnp.array(mine).at[:rows].set(value[:rows])
    if name in ("text_embed/word", "lm/bias") and len(value) > len(mine):
      taken = taken.at[start_word].set(value[-1])
    return taken

  return Start(jax.tree_util.tree_map_with_path(take, params), copied, fresh)


def _source(name: str, theirs: dict, mine):
  """BERT's array for our parameter `name` of value `mine`, or None."""
  if name == "text_embed/word":
    return theirs["word"]
  if name == "text_embed/position":
    rows = theirs["position"][:mine.shape[0]]
    return rows + theirs["type"][:1]
  if name.startswith("embed_norm/"):
    return theirs["norm/" + name.removeprefix("embed_norm/")]
  if not name.startswith("stack/layer/"):
    return None
  rest = name.removeprefix("stack/layer/")
  for ours, bert in (("attention/", ""), ("query_mlp/", ""), ("text_mlp/", ""),
                     ("attention_norm/", "attention_norm/"),
                     ("query_norm/", "mlp_norm/"), ("text_norm/", "mlp_norm/")):
    if rest.startswith(ours):
      return _layers(bert + rest.removeprefix(ours), theirs, mine)
  return None


def _layers(leaf: str, theirs: dict, mine):
  """BERT's `leaf`, stacked over layers; ours in layers that BERT lacks; None if shapes differ."""
  rows = []
  for i, fresh in enumerate(mine):
    row = theirs.get(f"layers/{i}/{leaf}", fresh)
    if row.shape != fresh.shape:
      return None
    rows.append(row)
  return jnp.stack(rows)
