"""What a layer keeps for its backward pass and what it computes again."""
import jax

POLICIES = {
    # Everything is kept.
    "none": None,
    # Outputs of matmuls are kept, what lies between them is computed again: less to write and read,
    # which on CPU is an eighth faster than keeping all, and no matmul runs twice.
    "dots": jax.checkpoint_policies.dots_saveable,
    # Likewise, but of matmuls with weights alone: attention's scores, which grow with the square of
    # the length, are computed again.
    "weights": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # Only the layer's input is kept: the least memory, one forward pass more.
    "full": jax.checkpoint_policies.nothing_saveable,
}


def layer(function, policy: str):
  """`function`, the body of a scan over layers, under one of POLICIES."""
  if policy == "none":
    return function
  # The scan itself keeps XLA from merging the two passes; a barrier would only cost.
  return jax.checkpoint(function, policy=POLICIES[policy], prevent_cse=False)
