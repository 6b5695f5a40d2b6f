"""How much of a device's peak a training step uses: useful FLOPs, counted, over published peaks."""
import math
import sys

import jax
import jax.numpy as jnp
import tqdm
from jax import extend

from ilm_jax.runtime.chips import CHIPS

# Published peaks of dense bfloat16 matmuls by `device_kind`, in FLOP/s of one JAX device (on a TPU
# v2, v3 or 7x each TensorCore is a device). They serve for weights of any dtype, as is the
# convention of MFU.
PEAKS = {
    "TPU v2": 23e12,
    "TPU v3": 61.5e12,
    "TPU v4": CHIPS["v4"].flops,
    **dict.fromkeys(("TPU v5 lite", "TPU v5e"), CHIPS["v5e"].flops),
    **dict.fromkeys(("TPU v5", "TPU v5p"), CHIPS["v5p"].flops),
    **dict.fromkeys(("TPU v6 lite", "TPU v6e"), CHIPS["v6e"].flops),
    "TPU7x": 1153.5e12,
    **dict.fromkeys(("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB"), CHIPS["a100"].flops),
    "NVIDIA H100 80GB HBM3": CHIPS["h100"].flops,
    "NVIDIA H200": CHIPS["h200"].flops,
}


def peak(devices) -> float | None:
  """FLOP/s of all `devices` together; None if one is of a kind without a published peak."""
  peaks = [PEAKS.get(d.device_kind) for d in devices]
  return None if None in peaks else sum(peaks)


def useful_flops(loss_fn, trainable, frozen, batch) -> float:
  """FLOPs of the matmuls that loss and gradient need; nothing else is counted.

  Every matmul of the forward pass counts once, and once more for each operand that depends on
  trained parameters, because the backward pass has one matmul for each: 2 FLOPs per weight and
  token, 4 if a gradient passes through a frozen weight, 6 if the weight trains. Recomputation by
  remat does not count, padding does. Nothing is run or compiled.

  Args:
    loss_fn: as in `loop.train_step`.
    trainable: tree of arrays or ShapeDtypeStructs, like `frozen` and `batch`.
    frozen: arrays without a gradient.
    batch: of the whole job.
  """
  shapes = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (trainable, frozen, batch))
  closed = jax.make_jaxpr(lambda *args: loss_fn(*args, jax.random.key(0)))(*shapes)
  trains = [depends for depends, tree in zip((True, False, False), shapes)
            for _ in jax.tree.leaves(tree)]
  flops, _ = _walk(closed.jaxpr, trains)
  return flops


def kernel_flops(jaxpr) -> float:
  """FLOPs of the matmuls in the Pallas kernels of a jaxpr, on one device."""
  flops = 0.0
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == "pallas_call":
      inner = eqn.params["jaxpr"]
      turn, _ = _walk(inner, [False] * len(inner.invars))
      flops += turn * math.prod(eqn.params["grid_mapping"].grid)
    else:
      turns = eqn.params["length"] if eqn.primitive.name == "scan" else 1
      together = max if eqn.primitive.name == "cond" else sum
      flops += turns * together(
          [0.0, *map(kernel_flops, extend.core.jaxprs_in_params(eqn.params))])
  return flops


def flops_or_warning(name: str, loss_fn, trainable, frozen, batch) -> float | None:
  """`useful_flops` of phase `name`; if they cannot be counted, None and a line on stderr.

  A failed count must not stop training.
  """
  try:
    return useful_flops(loss_fn, trainable, frozen, batch)
  except Exception as e:
    tqdm.tqdm.write(f"warning: {name}: the FLOPs of a step cannot be counted ({e}): TFLOP/s and "
                    "utilization are not reported", file=sys.stderr)
    return None


def _walk(jaxpr, trains: list[bool]) -> tuple[float, list[bool]]:
  """(FLOPs, which outputs depend on something trained) of a jaxpr, given which inputs do."""
  depends = {v: t and _differentiable(v) for v, t in zip(jaxpr.invars, trains, strict=True)}
  flops = 0.0
  for eqn in jaxpr.eqns:
    given = [depends.get(v, False) if _is_variable(v) else False for v in eqn.invars]
    flops_eqn, out = _count(eqn, given)
    flops += flops_eqn
    depends |= {v: t and _differentiable(v) for v, t in zip(eqn.outvars, out, strict=True)}
  return flops, [_is_variable(v) and depends.get(v, False) for v in jaxpr.outvars]


def _count(eqn, given: list[bool]) -> tuple[float, list[bool]]:
  """(FLOPs, which outputs depend on something trained) of one equation, given its inputs."""
  name, params = eqn.primitive.name, eqn.params
  every = [any(given)] * len(eqn.outvars)
  if name == "dot_general":
    left, (contracted, _) = eqn.invars[0].aval.shape, params["dimension_numbers"][0]
    once = 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
    return once * (1 + sum(given)), every
  if name == "stop_gradient":
    return 0.0, [False] * len(every)
  if name == "scan":
    return _loop(params["jaxpr"].jaxpr, given, *_constants_and_carries(params), params["length"])
  if name == "while":      # the number of iterations is not known: count one
    consts = given[params["cond_nconsts"]:]
    return _loop(params["body_jaxpr"].jaxpr, consts, params["body_nconsts"], len(every), 1)
  if name == "cond":
    branches = [_walk(b.jaxpr, given[1:]) for b in params["branches"]]
    return max(f for f, _ in branches), [any(ways) for ways in zip(*(out for _, out in branches))]
  inner = params.get("jaxpr", params.get("call_jaxpr"))
  if inner is None:
    return 0.0, every
  inner = getattr(inner, "jaxpr", inner)
  return _walk(inner, given) if len(inner.invars) == len(given) else (0.0, every)


def _constants_and_carries(params) -> tuple[int, int]:
  """How many inputs of a scan are constants, and how many are carried, as its parameters say."""
  if "num_consts" in params:
    return params["num_consts"], params["num_carry"]
  constants, carries, _ = params["ft_in"].unpack()       # since JAX 0.12
  return len(constants), len(carries)


def _loop(body, given, consts: int, carries: int, length: int) -> tuple[float, list[bool]]:
  """As `_walk`, of a body that runs `length` times: repeats until no more carries depend."""
  while True:
    flops, out = _walk(body, given)
    carry = [a or b for a, b in zip(given[consts:consts + carries], out)]
    if carry == given[consts:consts + carries]:
      return flops * length, out
    given = given[:consts] + carry + given[consts + carries:]


def _is_variable(v) -> bool:
  return not hasattr(v, "val")     # a literal has its value


def _differentiable(v) -> bool:
  return jnp.issubdtype(v.aval.dtype, jnp.inexact)
