"""The optimizer of both phases: clipping, then AdamW, with the learning rate's schedule."""
import re
from typing import Any

import jax
import optax

from ilm_jax.runtime import axes

Params = Any

# Parameters whose path contains one of these words have no weight decay.
_UNDECAYED = re.compile(r"(^|[/_])(bias|scale|norm|temperature)([/_]|$)")

# Config field -> the parameters whose learning rate it scales: what text passes before its
# projection, and with it all attention, also the fresh cross-attention (at the full rate it was no
# better, docs/results/quickstart.md); the whole Q-Former; the MLP inside ILM.
_SCALED = {
    "text_scale": re.compile(
        r"(^|/)(text_embed|embed_norm|attention|attention_norm|text_mlp|text_norm)/"),
    "qformer_scale": re.compile(r"^qformer/"),
    "mlp_scale": re.compile(r"^skip/")}


def schedule(c) -> optax.Schedule:
  """Linear warm-up over `c.warmup` steps, then a cosine down to `c.final_fraction` of the peak."""
  warmup = optax.linear_schedule(0.0, c.learning_rate, c.warmup)
  cosine = optax.cosine_decay_schedule(
      c.learning_rate, max(c.steps - c.warmup, 1), alpha=c.final_fraction)
  return optax.join_schedules([warmup, cosine], [c.warmup])


def decayed(params: Params):
  """A tree of bool: true where weight decay applies (matrices, except norms and biases)."""
  return jax.tree_util.tree_map_with_path(
      lambda path, x: x.ndim >= 2 and not _UNDECAYED.search(axes.path_name(path)), params)


def make_optimizer(c) -> optax.GradientTransformation:
  """AdamW with global-norm clipping, for a config like `phase1` or `phase2`.

  `c.text_scale` (phase 1) scales the updates of the text tower and of all attention,
  `c.qformer_scale` (phase 2) those of the Q-Former. So pretrained weights learn more slowly than
  fresh ones and keep what they know when there are only about a thousand texts. `c.mlp_scale`
  (phase 2) scales those of the MLP in ILM, whose layers have more inputs.
  """
  parts = [optax.clip_by_global_norm(c.clip),
           optax.adamw(schedule(c), b2=c.b2, weight_decay=c.weight_decay, mask=decayed)]
  parts += [_scaled(where, c.get(name)) for name, where in _SCALED.items()
            if c.get(name, 1.0) != 1.0]
  return optax.chain(*parts)


def _scaled(where: re.Pattern, scale: float) -> optax.GradientTransformation:
  """Multiplies the updates of the parameters whose path matches `where` by `scale`."""
  return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(
      lambda path, u: u * scale if where.search(axes.path_name(path)) else u, updates))
