"""A digest of each array of a checkpoint, computed on the devices that hold the array.

A digest is two sums, modulo 2^32, over the 32-bit words of the array's bit pattern, after mixing
each word with its position in the whole array. Sums of wrapping integers do not depend on the
order, so a digest does not depend on mesh, device or number of processes. The mixing maps words one
to one: if a single word differs, both sums differ for certain, so every single flipped bit is
found. Damage of several words stays unnoticed with a probability of about 2^-64. Digests protect
against accidents, not against forgery.
"""
import json

import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax import errors
from ilm_jax.runtime import axes

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def digests(tree) -> dict[str, str]:
  """{path: "float32 [8, 16] 0123abcd4567cdef"} of the arrays of `tree`.

  In a job of several processes all must call it, because the arrays are sharded over them; all get
  the same digests.
  """
  # All sums start before the first is waited for. One program per shape: one program for the whole
  # tree takes three times as long to compile.
  begun = [(axes.path_name(path), f"{leaf.dtype} {list(leaf.shape)}", _sums(leaf))
           for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
  return {name: f"{kind} {''.join(f'{int(total):08x}' for total in sums)}"
          for name, kind, sums in begun}


def shapes(saved: dict[str, str]) -> dict[str, tuple[int, ...]]:
  """{path: shape} of the arrays of which `digests` returned `saved`."""
  return {name: tuple(json.loads(digest[digest.index("["):digest.index("]") + 1]))
          for name, digest in saved.items()}


def check(tree, expected: dict[str, str] | None, checkpoint, *, whole: bool = False) -> None:
  """Checks that arrays are equal to the saved ones.

  Args:
    tree: the arrays that were read, all or some of the saved ones.
    expected: `digests` of the saved arrays; None: the checkpoint is older than digests, no check.
    checkpoint: its folder, for the message.
    whole: whether `tree` must hold all saved arrays.

  Raises:
    UserError: an array is missing, has another digest, or has none in `expected`. An array that was
      read with another dtype or shape than it was saved with is not checked.
  """
  if expected is None:
    return
  have = digests(tree)
  missing = expected.keys() - have.keys() if whole else set()
  for name, digest in [*((name, "none") for name in sorted(missing)), *have.items()]:
    saved = expected.get(name, "none")
    same_kind = saved.rpartition(" ")[0] in ("", digest.rpartition(" ")[0])
    if saved != digest and (name in missing or same_kind):
      raise errors.UserError(
          f"checkpoint {checkpoint} is damaged: {name} has digest {digest}, expected {saved}: "
          "delete that folder and run again; the run resumes from the checkpoint before it, or "
          "starts anew")


@jax.jit
def _sums(leaf):
  """The two sums of an array, uint32 scalars that every process holds."""
  words = _words(jnp.asarray(leaf))
  place = jnp.zeros(words.shape, jnp.uint32)
  for axis, size in enumerate(words.shape):
    place = place * np.uint32(size % 2**32) + jax.lax.broadcasted_iota(
        jnp.uint32, words.shape, axis)
  once = _mixed(words ^ _mixed(place + np.uint32(1)))
  twice = _mixed(once + place)
  return [jnp.sum(mixed, dtype=jnp.uint32) for mixed in (once, twice)]


def _mixed(words):
  """A permutation of the uint32s (MurmurHash3's finaliser); each bit affects the whole result."""
  words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
  words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
  return words ^ (words >> 16)


def _words(leaf):
  """The bit pattern as uint32: one word per number, two per number of 8 bytes."""
  if leaf.dtype == jnp.bool_:
    return leaf.astype(jnp.uint32)
  return jax.lax.bitcast_convert_type(leaf, _UNSIGNED[leaf.dtype.itemsize]).astype(jnp.uint32)
