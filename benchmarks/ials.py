"""Compares implicit ALS with the package `implicit`: seconds per sweep, and the loss reached.

    pip install implicit
    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS=1 JAX_PLATFORMS=cpu \\
        taskset -c 1 python -m benchmarks.ials --data=FOLDER --sweeps=5

FOLDER has interactions.tsv.gz of MovieLens-1M: a header, then user and item as the first two
columns. Both start from the same vectors, take turns sweep by sweep (users, then items) in one
process, and have one thread (`taskset -c 1`; implicit's num_threads=1). Seconds are wall time, and
CPU time of all threads, which other work does not disturb. Our alpha is the weight that an
interaction adds to 1; implicit's alpha is the whole weight, so it is ours + 1. The loss is what
both minimise, computed in float64 by one function. "cholesky" is implicit's use_cg=False, "cg" its
default: three steps from the previous sweep. Both programs reach the same loss, up to rounding.

Measured on one core that was also busy with other work, so compare the column CPU; our first sweep
includes compilation (implicit 0.7.3):

  seconds a sweep            first   median   least     CPU   loss
  implicit, cholesky        13.934    7.943   7.279   1.903   1.237961e+06
  ours, cholesky, float32   56.395    2.299   2.006   0.559   1.237961e+06
  implicit, cg               0.620    0.660   0.648   0.215   1.248054e+06
  ours, cg, float32         49.455    0.516   0.483   0.169   1.248054e+06
"""
import json
import time

import jax
import numpy as np
from absl import app, flags
from etils import epath
from implicit.cpu import als
from scipy import sparse

from ilm_jax.cf import histories as histories_lib
from ilm_jax.cf import ials
from ilm_jax.runtime import axes

_DATA = flags.DEFINE_string("data", None, "folder with interactions.tsv.gz", required=True)
_WIDTH = flags.DEFINE_integer("width", 64, "of the vectors")
_REG = flags.DEFINE_float("reg", 20.0, "weight of the squared norms")
_ALPHA = flags.DEFINE_float("alpha", 2.0, "extra weight of a pair that met")
_SWEEPS = flags.DEFINE_integer("sweeps", 10, "of each")
_DTYPES = flags.DEFINE_list("dtypes", ["float32"], "of our tables; also bfloat16")
_OUT = flags.DEFINE_string("out", None, "JSON file")


def main(_):
  met_UI = _log(_DATA.value)
  print(f"{met_UI.nnz:,} pairs of {met_UI.shape[0]:,} users and {met_UI.shape[1]:,} items, width "
        f"{_WIDTH.value}, {_SWEEPS.value} sweeps")
  print(f"{'seconds a sweep':<24}{'first':>8}{'median':>9}{'least':>8}{'CPU':>8}   loss")
  rows = []
  for solver in ials.SOLVERS:
    sides = {f"implicit, {solver}": _Implicit(met_UI, solver)}
    sides |= {f"ours, {solver}, {d}": _Ours(met_UI, solver, d) for d in _DTYPES.value}
    took = {name: [] for name in sides}
    for _ in range(_SWEEPS.value):
      for name, side in sides.items():
        start, cpu = time.perf_counter(), time.process_time()
        side.sweep()
        took[name].append((time.perf_counter() - start, time.process_time() - cpu))
    for name, side in sides.items():
      first, *rest = np.array(took[name])
      row = {"name": name, "first": first[0], "median": np.median(rest, axis=0)[0],
             "least": np.min(rest, axis=0)[0], "cpu": np.median(rest, axis=0)[1],
             "loss": loss(met_UI, *side.factors())}
      print(f"{name:<24}{first[0]:8.3f}{row['median']:9.3f}{row['least']:8.3f}{row['cpu']:8.3f}   "
            f"{row['loss']:.6e}", flush=True)
      rows.append(row)
  if _OUT.value:
    epath.Path(_OUT.value).write_text(json.dumps(rows, indent=1, default=float))


def loss(met_UI, user_UC, item_IC) -> float:
  """The loss that iALS minimises, over all pairs, without forming them."""
  x_UC, y_IC = user_UC.astype(np.float64), item_IC.astype(np.float64)
  pairs = met_UI.tocoo()
  total = np.sum((x_UC.T @ x_UC) * (y_IC.T @ y_IC))              # without the interactions' terms
  for at in range(0, pairs.nnz, 1 << 16):
    span = slice(at, at + (1 << 16))
    score = np.einsum("nc,nc->n", x_UC[pairs.row[span]], y_IC[pairs.col[span]])
    total += np.sum((1 + _ALPHA.value) * (1 - score) ** 2 - score ** 2)
  return float(total + _REG.value * (np.sum(x_UC ** 2) + np.sum(y_IC ** 2)))


class _Ours:
  """Our iALS, one sweep per call."""

  def __init__(self, met_UI, solver: str, dtype: str):
    self._mesh = axes.make_mesh({"data": 1, "fsdp": 1}, jax.devices()[:1])
    histories = histories_lib.Histories(met_UI.indptr.astype(np.int64), met_UI.indices + 1)
    self._users, self._items = ials.sides(histories, met_UI.shape[1], _WIDTH.value, self._mesh)
    self._form = ials.Form(_REG.value, _ALPHA.value, solver)
    self._user = ials.zeros(self._users, self._mesh, _WIDTH.value, dtype)
    self._item = ials.first_items(self._items, self._mesh, _WIDTH.value, 0, dtype)

  def sweep(self) -> None:
    self._user = ials.half_step(self._user, self._item, self._users, self._form, self._mesh)
    self._item = ials.half_step(self._item, self._user, self._items, self._form, self._mesh)
    self._item.block_until_ready()

  def factors(self):
    return (ials.to_host(self._user, self._users)[1:], ials.to_host(self._item, self._items)[1:])


class _Implicit:
  """implicit's iALS from our start: the sweeps that its `fit` runs after its set-up."""

  def __init__(self, met_UI, solver: str):
    self._model = als.AlternatingLeastSquares(
        factors=_WIDTH.value, regularization=_REG.value, use_cg=solver == "cg",
        num_threads=1)
    self._met_UI = ((1 + _ALPHA.value) * met_UI).astype(np.float32)
    self._met_IU = self._met_UI.T.tocsr()
    self._factors = _Ours(met_UI, solver, "float32").factors()

  def sweep(self) -> None:
    user_UC, item_IC = self._factors
    for met, vectors, other in ((self._met_UI, user_UC, item_IC), (self._met_IU, item_IC, user_UC)):
      self._model.solver(met, vectors, other, _REG.value, num_threads=1)

  def factors(self):
    return self._factors


def _log(folder) -> sparse.csr_matrix:
  """Matrix [users, items], 1 at interactions."""
  pairs_N2 = np.loadtxt(epath.Path(folder) / "interactions.tsv.gz", np.int64, skiprows=1,
                        usecols=(0, 1), delimiter="\t")
  (_, user_N), (_, item_N) = (np.unique(ids_N, return_inverse=True) for ids_N in pairs_N2.T)
  return sparse.csr_matrix((np.ones(len(user_N), np.float32), (user_N, item_N)))


if __name__ == "__main__":
  app.run(main)
