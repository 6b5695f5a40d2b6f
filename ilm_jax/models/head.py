"""Embedding table and output head of every language model: embeddings, logits and token losses."""
import jax
import jax.numpy as jnp
from flax import nnx

from ilm_jax.models import products
from ilm_jax.runtime import axes


class Tables(nnx.Module):
  """Base class with the embedding table and the output head.

  embedding [V, D]; head [D, V] unless `tied`; in int8 also embedding_scale [V] and head_scale [V].
  The `new_tokens` added words at the end of the vocabulary have their own arrays, so that they can
  be trained alone: float32 new_embedding [N, D], and new_head [D, N] unless tied. (Small updates
  would be lost in bfloat16.)

  With `index_only` the model can output the new words only: logits are [..., N], and `columns` maps
  a token to its column.

  Config fields used: vocab_size (V, without the new words), width, tied, new_tokens, index_only,
  embed_scale, logit_scale, logit_softcap, dtype, int8, unroll.
  """

  def _make_tables(self, config, rngs: nnx.Rngs):
    self.config = c = config
    self._table("embedding", (c.vocab_size, c.width), 0.02, rngs)
    if not c.tied:
      self._table("head", (c.width, c.vocab_size), c.width ** -0.5, rngs)
    if c.new_tokens:
      new = 0.02 * jax.random.normal(rngs.params(), (c.new_tokens, c.width))
      self.new_embedding = nnx.Param(new)
      if not c.tied:
        self.new_head = nnx.Param(new.T / 0.02 * c.width ** -0.5)

  def _table(self, name: str, shape, std: float, rngs: nnx.Rngs):
    c, values = self.config, jax.random.normal(rngs.params(), shape)
    if c.int8:
      setattr(self, name, nnx.Param(jnp.clip(values * 42, -127, 127).astype(jnp.int8)))
      setattr(self, f"{name}_scale", nnx.Param(jnp.full((c.vocab_size,), std / 42)))
    else:
      setattr(self, name, nnx.Param((values * std).astype(c.dtype)))

  def embed(self, tokens) -> jax.Array:
    """int [...] token ids -> [..., D] embeddings in config.dtype, scaled for the first layer."""
    c = self.config
    old = jnp.minimum(tokens, c.vocab_size - 1) if c.new_tokens else tokens
    rows = self.embedding[...][old].astype(c.dtype)
    if c.int8:
      rows = rows * self.embedding_scale[...][old][..., None].astype(rows.dtype)
    if c.new_tokens:
      new = self.new_embedding[...][jnp.maximum(tokens - c.vocab_size, 0)]
      rows = jnp.where((tokens >= c.vocab_size)[..., None], new.astype(rows.dtype), rows)
    return rows * jnp.asarray(c.embed_scale, rows.dtype) if c.embed_scale != 1.0 else rows

  def columns(self, tokens) -> jax.Array:
    """Columns of these tokens in `logits`; with `index_only` they must be new words."""
    return tokens - self.config.vocab_size if self.config.index_only else tokens

  def logits(self, hidden) -> jax.Array:
    """[..., D] hidden states -> float32 [..., V + N] logits; [..., N] with `index_only`."""
    c = self.config
    name, form, axis = (("embedding", "...d,vd->...v", 1) if c.tied
                        else ("head", "...d,dv->...v", 0))

    def product(name):
      kernel = getattr(self, name)[...].astype(hidden.dtype)
      if kernel.dtype == jnp.bfloat16:
        return products.matmul(hidden, kernel, axis=axis, wide=True)
      return jnp.einsum(form, hidden, kernel, preferred_element_type=jnp.float32)

    if c.index_only:
      logits = product(f"new_{name}")
    else:
      logits = product(name)
      if c.int8:
        scale_V = getattr(self, f"{name}_scale")[...]
        logits = logits * jnp.expand_dims(scale_V, range(logits.ndim - 1))
      if c.new_tokens:
        logits = jnp.concatenate([logits, product(f"new_{name}")], axis=-1)
    if c.logit_scale != 1.0:
      logits = logits * c.logit_scale
    return c.logit_softcap * jnp.tanh(logits / c.logit_softcap) if c.logit_softcap else logits

  def token_nll(self, hidden, targets, *, chunk: int = 256) -> tuple[jax.Array, jax.Array]:
    """Negative log likelihood of `targets`; a device holds at most [chunk, V] logits at a time.

    Args:
      hidden: [..., D] normed hidden states, the first axis sharded over the mesh's batch axes.
      targets: [...] int token ids.
      chunk: positions whose logits are held at once; they are recomputed in the backward pass.

    Returns:
      (nll, hit): float32 [...] in nats, and bool [...], whether the target has the highest logit.
    """
    targets = jnp.maximum(self.columns(targets), 0)      # padding may be any word
    ways = axes.batch_ways()    # each shard of the batch loops over its own rows
    ways = 1 if len(targets) % ways else ways
    n = targets.size // ways
    turns = -(-n // chunk)
    chunk = -(-n // turns)      # turns of equal size need little padding
    pad = turns * chunk - n

    def cut(x):
      x = jnp.pad(x.reshape(ways, n, -1), ((0, 0), (0, pad), (0, 0)))
      return jnp.moveaxis(x.reshape(ways, turns, chunk, -1), 1, 0)

    def one(h_WCD, y_WC1):
      logits_WCV = self.logits(axes.constrain(h_WCD, "batch"))
      picked_WC = jnp.take_along_axis(logits_WCV, y_WC1, axis=2)[..., 0]
      nll_WC = jax.nn.logsumexp(logits_WCV, axis=2) - picked_WC
      return nll_WC, picked_WC >= jax.lax.stop_gradient(jnp.max(logits_WCV, axis=2))

    if turns > 1:               # with one turn recomputing its logits would save no memory
      one = jax.checkpoint(one)

    def whole(x_NWC):
      return jnp.moveaxis(x_NWC, 0, 1).reshape(ways, -1)[:, :n].reshape(targets.shape)

    _, (nll_NWC, hit_NWC) = jax.lax.scan(
        lambda _, xs: (None, one(*xs)), None, (cut(hidden), cut(targets)),
        unroll=turns if self.config.unroll > 1 else 1)
    return whole(nll_NWC), whole(hit_NWC)
