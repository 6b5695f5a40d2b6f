"""The SASRec of stage cf (`cf.sasrec`): it gives vectors, or teaches the item head.

It is trained on training interactions alone. Validation items decide which epoch is kept; with
`cf.sasrec.patience=0` it is the last one. No test item is read.
"""
import functools
from collections.abc import Callable

import numpy as np

from ilm_jax import errors
from ilm_jax.baselines import head_teacher, sasrec, sasrec_teacher
from ilm_jax.config import settings
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import store
from ilm_jax.stages import context
from ilm_jax.training import provenance


def check(run: context.Run) -> None:
  """Refuses `cf.sasrec.patience` if there is no validation target.

  Raises:
    UserError: `cf.sasrec.patience` is above 0, and no user has a validation target.
  """
  patience = run.config.cf.sasrec.patience
  if patience and not interactions_lib.validation_targets(run.data.log).any():
    raise errors.UserError(
        f"cf.sasrec.patience={patience}: data.split={run.config.data.split!r} leaves no validation "
        "target with training interactions, so no epoch can be chosen as the best: set "
        "cf.sasrec.patience=0")


def make(run: context.Run) -> None:
  """Writes sasrec/, unless it exists and was made from this data and these settings."""
  made_from = _made_from(run)
  if (store.read_manifest(_folder(run)) or {}).get("made_from") == made_from:
    return
  log, c = run.data.log, run.config.cf.sasrec
  target_U = interactions_lib.validation_targets(log)
  if not c.patience:
    target_U[:] = 0
  params = sasrec.train(
      interactions_lib.train_histories(log), log.num_items, config(run), target_U,
      report=lambda epoch, loss, ndcg: print(
          f"sasrec {epoch}/{c.epochs}: loss {loss:.4f}"
          + (f", validation NDCG@10 {ndcg:.4f}" if c.patience else ""), flush=True))
  sasrec_teacher.save(_folder(run), params, made_from)


def config(run: context.Run) -> sasrec.Config:
  """The config of this run's SASRec: shape and training."""
  return head_teacher.sasrec_config(run.config)


def load(run: context.Run) -> tuple[dict, str]:
  """(parameters, fingerprint) of this run's SASRec.

  Raises:
    UserError: there is none, or it was made from other data or settings.
  """
  mine = _made_from(run)
  made_from = (store.read_manifest(_folder(run)) or {}).get("made_from", mine)
  if made_from != mine:
    was, now = ({"data": of["data"][:12], **of["settings"]} for of in (made_from, mine))
    raise errors.UserError(
        f"{_folder(run)} was made from other data or settings than this run has "
        f"({provenance.words(provenance.changed(was, now))}): run --stage=cf again")
  return sasrec_teacher.load(_folder(run), config(run), run.data.log.num_items)


def vectors(run: context.Run) -> tuple[np.ndarray, np.ndarray]:
  """(item_I1W, user_UW) float32: its item table, with row 0 zero, and its states at the ends of the
  training histories, zero for an empty one."""
  params = load(run)[0]
  item_I1W = np.array(params["item"])
  item_I1W[0] = 0.0
  return item_I1W, sasrec_teacher.states(
      params, config(run), interactions_lib.train_histories(run.data.log))


def states(run: context.Run) -> Callable:
  """Loads it once and returns a function: histories (item rows) -> float32 [users, W], its states
  at their ends, zero for an empty one."""
  return functools.partial(sasrec_teacher.states, load(run)[0], config(run))


def _folder(run: context.Run):
  return run.workdir / "sasrec"


def _made_from(run: context.Run) -> dict:
  return {"data": run.data.fingerprint, "settings": settings.of_sasrec(run.config)}
