"""A digest of each array of a checkpoint, worked out where the array lies.

Two sums, modulo 2^32, over the 32-bit words of an array's bit pattern, each word mixed with its
place in the whole array. Integers that wrap sum to the same in any order, so a digest depends on
no mesh, device or number of processes. The mixing maps words one to one: where one word differs,
however it does, both sums differ with certainty. So no flipped bit stays unnoticed; damage of
several words does by a chance of about 2^-64. These guard against accidents, not against forgers.
"""
import jax
import jax.numpy as jnp
import numpy as np

from ilm_jax import errors
from ilm_jax.runtime import axes

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def digests(tree) -> dict[str, str]:
  """{path: "float32 [8, 16] 0123abcd4567cdef"} of the arrays of `tree`.

  Of several processes all must call it, as the arrays are sharded over them; all get the same.
  """
  # All are begun before one is waited for. A program for each shape: one for the whole tree takes
  # three times as long to compile.
  begun = [(axes.path_name(path), f"{leaf.dtype} {list(leaf.shape)}", _sums(leaf))
           for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
  return {name: f"{kind} {''.join(f'{int(total):08x}' for total in sums)}"
          for name, kind, sums in begun}


def check(tree, expected: dict[str, str] | None, checkpoint, *, whole: bool = False) -> None:
  """Refuses arrays that are not what was saved.

  Args:
    tree: what was read, a part of what was saved.
    expected: `digests` of what was saved; None: of a checkpoint older than digests.
    checkpoint: its folder, for the message.
    whole: whether `tree` is all that was saved.

  Raises:
    UserError: a leaf is missing, or has another digest, or none in `expected`. One that was read
      as another dtype or shape than it was saved in is not looked at.
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
          f"checkpoint {checkpoint} is damaged: {name} has digest {digest}, saved was {saved}: "
          "delete that folder and run again; the run resumes from the checkpoint before it, or "
          "starts anew")


@jax.jit
def _sums(leaf):
  """The two sums of an array, uint32 scalars (which all processes hold)."""
  words = _words(jnp.asarray(leaf))
  place = jnp.zeros(words.shape, jnp.uint32)
  for axis, size in enumerate(words.shape):
    place = place * np.uint32(size % 2**32) + jax.lax.broadcasted_iota(
        jnp.uint32, words.shape, axis)
  once = _mixed(words ^ _mixed(place + np.uint32(1)))
  twice = _mixed(once + place)
  return [jnp.sum(mixed, dtype=jnp.uint32) for mixed in (once, twice)]


def _mixed(words):
  """A permutation of the uint32s (the finaliser of MurmurHash3) in which each bit moves all."""
  words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
  words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
  return words ^ (words >> 16)


def _words(leaf):
  """The bit pattern as uint32, one or (of 8-byte numbers) two a number."""
  if leaf.dtype == jnp.bool_:
    return leaf.astype(jnp.uint32)
  return jax.lax.bitcast_convert_type(leaf, _UNSIGNED[leaf.dtype.itemsize]).astype(jnp.uint32)
