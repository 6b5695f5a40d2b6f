"""Rematerialisation policies: what a layer keeps for its backward pass and what it recomputes."""
import jax

from ilm_jax.models import products

_BY_NAME = jax.checkpoint_policies.save_only_these_names(products.KEPT)


def _and_products(policy):
  """`policy`, which also keeps products in bfloat16."""
  return jax.checkpoint_policies.save_from_both_policies(policy, _BY_NAME)


POLICIES = {
    # Everything is kept.
    "none": None,
    # Outputs of matmuls are kept, all else is recomputed. No matmul runs twice, and there is less
    # memory traffic: on CPU an eighth faster than keeping everything.
    "dots": _and_products(jax.checkpoint_policies.dots_saveable),
    # Only outputs of matmuls with weights are kept: attention scores, which grow with the square of
    # the length, are recomputed.
    "weights": _and_products(jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
    # Only the layer's input is kept: the least memory, one more forward pass.
    "full": jax.checkpoint_policies.nothing_saveable,
}


def layer(function, policy: str):
  """`function`, the body of a scan over layers, under one of POLICIES."""
  if policy == "none":
    return function
  # The scan itself keeps XLA from merging the two passes, so a barrier would only cost time.
  return jax.checkpoint(function, policy=POLICIES[policy], prevent_cse=False)
