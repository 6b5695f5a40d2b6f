"""Products with kernels in bfloat16, fast on every backend.

TPUs and GPUs multiply bfloat16 and sum in float32 by themselves. XLA's compiler for CPUs does so
(with AVX512-BF16, faster than in float32) only where both factors are bfloat16 and the
product is float32: else it turns the factors, and with them every kernel, into float32. So on a CPU
both passes round the factors, ask for float32, and round the product. The numbers are the same up
to the order of sums, and up to the rounding of a float32 gradient, which a TPU rounds, too.

Trained layers keep float32 parameters; `dot_general` rounds both factors to bfloat16, as a TPU does
by default.

Nor do that compiler's loops carry bfloat16: kernels stacked over layers, and what each layer keeps
for its backward pass, would be turned into float32. So frozen kernels are held as integers there
(`packed`), and products with them are kept as integers.
"""
import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

KEPT = "product"         # by this name `remat` keeps the products, which it cannot see as such


def packed(params: dict) -> dict:
  """The parameters of a model, with the bits of bfloat16 kernels [layers, I, O] as uint16.
  They have no gradient then."""
  def pack(x):
    is_kernel = x.dtype == jnp.bfloat16 and x.ndim == 3
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if is_kernel else x

  return jax.tree.map(pack, params)


def unpacked(kernel) -> jax.Array:
  """A kernel of `packed` parameters as it was; others are returned unchanged."""
  return (jax.lax.bitcast_convert_type(kernel, jnp.bfloat16) if kernel.dtype == jnp.uint16
          else kernel)


def matmul(x, kernel, *, axis: int = 0, wide: bool = False) -> jax.Array:
  """Product of the last axis of x and one axis of a kernel.

  Args:
    x: bfloat16 [.., I].
    kernel: bfloat16 or `packed`, [I, O] for axis 0, [O, I] for axis 1. If nothing differentiates
      it, its gradient costs nothing.
    axis: of the kernel.
    wide: the product is float32.

  Returns:
    [.., O], bfloat16 or float32.
  """
  y = _matmul(axis, wide, x, kernel)
  return y if kernel.dtype == jnp.uint16 else checkpoint_name(y, KEPT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _matmul(axis: int, wide: bool, x, kernel):
  return _product(x, kernel, ((x.ndim - 1,), (axis,)), jnp.float32 if wide else x.dtype)


def _forward(axis, wide, x, kernel):
  y = _matmul(axis, wide, x.value, kernel.value)
  if kernel.value.dtype == jnp.uint16 and not wide:
    bits = checkpoint_name(jax.lax.bitcast_convert_type(y, jnp.uint16), KEPT)
    y = jax.lax.bitcast_convert_type(bits, jnp.bfloat16)
  return y, (x.value if kernel.perturbed else None, kernel.value if x.perturbed else None)


def _backward(axis, wide, residuals, grad):
  x, kernel = residuals
  if isinstance(grad, jax.custom_derivatives.SymbolicZero):
    return None, None
  rows = tuple(range(grad.ndim - 1))
  of_x = of_kernel = None
  if kernel is not None:
    of_x = _product(grad, kernel, ((grad.ndim - 1,), (1 - axis,)), jnp.bfloat16)
  if x is not None:
    factors = (grad, x) if axis else (x, grad)
    of_kernel = _product(*factors, (rows, rows), x.dtype)
  return of_x, of_kernel


_matmul.defvjp(_forward, _backward, symbolic_zeros=True)


def dot_general(x, kernel, dimension_numbers, **_) -> jax.Array:
  """`jax.lax.dot_general` with factors rounded to bfloat16 and float32 sums, in both passes.

  Args:
    x: float32 [.., I].
    kernel: float32 [I, O], or [O, I].
    dimension_numbers: (((last axis of x,), (axis I of the kernel,)), ((), ())).

  Returns:
    float32 [.., O].
  """
  (_, (axis,)), _ = dimension_numbers
  return _rounded(axis, x, kernel)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rounded(axis: int, x, kernel):
  return _sums(x, kernel, ((x.ndim - 1,), (axis,)))


def _rounded_backward(axis, factors, grad):
  x, kernel = factors
  rows = tuple(range(grad.ndim - 1))
  of_kernel = _sums(*((grad, x) if axis else (x, grad)), (rows, rows))
  return _sums(grad, kernel, ((grad.ndim - 1,), (1 - axis,))), of_kernel


_rounded.defvjp(lambda axis, x, kernel: (_rounded(axis, x, kernel), (x, kernel)),
                _rounded_backward)


def _sums(a, b, contracted) -> jax.Array:
  return jax.lax.dot_general(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16),
                             (contracted, ((), ())), preferred_element_type=jnp.float32)


def _product(a, b, contracted, dtype) -> jax.Array:
  b, dimensions, factor = unpacked(b), (contracted, ((), ())), jnp.bfloat16

  def on_cpu(a, b):
    return jax.lax.dot_general(a.astype(factor), b.astype(factor), dimensions,
                               preferred_element_type=jnp.float32).astype(dtype)

  def elsewhere(a, b):
    sums = dtype if a.dtype == b.dtype else jnp.float32
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=sums).astype(dtype)

  return jax.lax.platform_dependent(a, b, cpu=on_cpu, default=elsewhere)
