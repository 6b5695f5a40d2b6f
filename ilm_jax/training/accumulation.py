"""Microbatches: the gradient of a batch, computed part by part when the whole does not fit."""
import jax
import jax.numpy as jnp


def value_and_grad(loss_fn, microbatches: int):
  """`jax.value_and_grad(loss_fn, has_aux=True)`, computed over a batch in parts.

  Each part has the whole batch as "whole", and its loss is its share of the mean over that batch.
  Parts hold different numbers of target tokens, so a mean of means would give more weight to tokens
  of short parts. Loss and gradient are the sums over the parts. Up to rounding they are equal to
  those of the whole batch if the loss draws no random numbers (each part has its own key, so
  dropout has other masks than in the whole batch).

  Row i of a batch of B goes to part i modulo `microbatches`. *Why not the first B / M rows to the
  first part:* rows are spread over the devices in order, and each device must have its share of
  every part without sending rows around.

  Args:
    loss_fn: (trainable, frozen, batch, rng) -> (loss, metrics); a metric a (sum, count) pair or a
      scalar that adds up over rows.
    microbatches: M, which divides the number of rows. 1: the whole batch at once.

  Returns:
    (trainable, frozen, batch, rng) -> ((loss, metrics), gradient by `trainable`).
  """
  loss_and_gradient = jax.value_and_grad(loss_fn, has_aux=True)
  if microbatches == 1:
    return loss_and_gradient

  def accumulated(trainable, frozen, batch, rng):
    def add(gradient, m):
      part = jax.tree.map(lambda x: _part(x, m, microbatches), batch)
      loss_and_metrics, part_gradient = loss_and_gradient(
          trainable, frozen, {**part, "whole": batch}, jax.random.fold_in(rng, m))
      return jax.tree.map(jnp.add, gradient, part_gradient), loss_and_metrics

    zeros = jax.tree.map(jnp.zeros_like, trainable)
    gradient, by_part = jax.lax.scan(add, zeros, jnp.arange(microbatches))
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), by_part), gradient

  return accumulated


def _part(rows, m, microbatches: int):
  """[B, ...] -> [B / M, ...]: rows m, m + M, m + 2 M, ..."""
  split = rows.reshape(rows.shape[0] // microbatches, microbatches, *rows.shape[1:])
  return jax.lax.dynamic_index_in_dim(split, m, axis=1, keepdims=False)
