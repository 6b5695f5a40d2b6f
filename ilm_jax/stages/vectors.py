"""Stage cf: one row of vectors per item and user, from training interactions and item text."""
import tempfile

import numpy as np

from ilm_jax import errors, files
from ilm_jax.cf import cooccurrence, histories, ials, transitions
from ilm_jax.config import settings
from ilm_jax.conversation import corpora
from ilm_jax.data import arrays, splits, store
from ilm_jax.data import entities as entities_lib
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.runtime import distributed
from ilm_jax.stages import context, sequence_model


def run(run: context.Run) -> None:
  """Writes entities/, factors.npz and, if the config uses it, sasrec/, unless they exist.

  All processes factorise; process 0 trains a SASRec and writes. An entities/ that was made from
  this data and these settings stays, even if other files are missing: checkpoints depend on its
  bits.

  Raises:
    UserError: as `sequence_model.check`, before anything is made.
  """
  interactions, items, data = run.data
  if settings.needs_sasrec(run.config):
    sequence_model.check(run)
  folder = run.workdir / "entities"
  of_dialogs = dialog_histories(run)
  made_from = {"data": data, "settings": settings.of_entities(run.config),
               **({"dialogs": digest(of_dialogs)} if of_dialogs else {})}
  made = (store.read_manifest(folder) or {}).get("made_from") == made_from
  factored = made and _have_factors(run)
  if not factored:
    user_UC, item_I1C = factorise(run.config, interactions, run.mesh, of_dialogs)
  if not distributed.is_main():
    return
  if settings.needs_sasrec(run.config):
    sequence_model.make(run)
  if not factored:
    mark = np.frombuffer(bytes.fromhex(files.sha256_json(made_from)), np.uint8)
    arrays.save_file(run.workdir / "factors.npz", {"user_UC": user_UC, "item_I1C": item_I1C,
                                                   "made_from": mark})
  if made:
    return
  texts = [interactions_lib.item_text(items, row + 1) for row in range(len(items))]
  semantic_IW = run.sentence_vectors(texts)
  rows, met_R = interactions.rows, interactions.train_counts > 0
  for liked in of_dialogs:
    met_R[liked] = True
  standard_I1C = np.zeros_like(item_I1C)
  standard_I1C[1:] = standardised(item_I1C[1:], met_R[rows.items])
  named = {"behavioral": (standard_I1C, standardised(user_UC, met_R[rows.users])),
           "semantic": (np.concatenate([np.zeros_like(semantic_IW[:1]), semantic_IW]), None)}
  if "sequential" in run.config.vectors:
    named["sequential"] = _sequential(run)
  count = run.config.cf.members
  members = cooccurrence.members(
      interactions_lib.train_histories(interactions), len(items), count) if count else None
  lacking = {"behavioral": ~met_R, "sequential": interactions.train_counts == 0}
  table = entities_lib.make(
      interactions.num_items, interactions.num_users, members,
      lacking={name: lacking[name] for name in named if name in lacking}, **named)
  table.save(folder, made_from)


def _sequential(run: context.Run) -> tuple[np.ndarray, np.ndarray]:
  """(item_I1C, user_UC) of the method that `cf.sequential` names, standardised."""
  c, log = run.config.cf, run.data.log
  met_R = log.train_counts > 0
  item_I1C, user_UC = sequence_model.vectors(run) if c.sequential == "sasrec" else (
      transitions.vectors(
          interactions_lib.train_histories(log), log.num_items, c.transition_width,
          window=c.transition_window, seed=run.config.seed))
  item_I1C[1:] = standardised(item_I1C[1:], met_R[log.rows.items])
  return item_I1C, standardised(user_UC, met_R[log.rows.users])


def dialog_histories(run: context.Run) -> list[np.ndarray]:
  """The item rows that each training dialog's people like; [] if `cf.dialogs` is 0."""
  return corpora.liked(run.config.tasks.dialogs, run.data.items) if run.config.cf.dialogs else []


def digest(of_dialogs: list[np.ndarray]) -> str:
  """sha256 of the result of `dialog_histories`, from which vectors are made."""
  return files.sha256_json([liked.tolist() for liked in of_dialogs])


def factorise(config, log: interactions_lib.Interactions, mesh, of_dialogs=()
              ) -> tuple[np.ndarray, np.ndarray]:
  """(user_UC, item_I1C) by the config's iALS on training interactions.

  Args:
    config: the run's.
    log: U users, I items.
    mesh: of the devices.
    of_dialogs: from `dialog_histories`: each adds `cf.dialogs` users, whose rows are not returned.
  """
  c = config.cf
  with tempfile.TemporaryDirectory(prefix="ilm_cf_") as scratch:
    stream = scratch if c.stream else None
    met = histories.kept(log.user_N, log.item_N, lambda start, stop: (
        log.part_N[start:stop] == splits.TRAIN), log.num_users, stream)
    met = histories.concatenated(met, histories.of_lists(list(of_dialogs) * c.dialogs), stream)
    user_UC, item_I1C = ials.ials(met, log.num_items, c.width, reg=c.reg, alpha=c.alpha, mesh=mesh,
                     iterations=c.iterations, seed=config.seed, solver=c.solver,
                     cg_steps=c.cg_steps, dtype=c.dtype, stream=stream)
    return user_UC[:log.num_users], item_I1C


def standardised(vectors_NC, met_N=None) -> np.ndarray:
  """Each dimension with mean 0 and standard deviation 1 over the rows (constant dimensions: 0).

  Args:
    vectors_NC: one vector per row.
    met_N: bool, rows with training interactions. Other rows become zero and do not count. None: all
      rows have some.

  Returns:
    float32 [N, C].
  """
  out_NC = np.zeros(vectors_NC.shape, np.float32)
  met_N = np.ones(len(vectors_NC), bool) if met_N is None else met_N
  if met_N.any():
    met_MC = vectors_NC[met_N]
    spread_C = met_MC.std(axis=0)
    out_NC[met_N] = (met_MC - met_MC.mean(axis=0)) / np.where(spread_C > 0, spread_C, 1.0)
  return out_NC


def factors(run: context.Run) -> tuple[np.ndarray, np.ndarray]:
  """(user_UC, item_I1C): the factors of iALS, not standardised; their dot products rank items.

  Raises:
    UserError: they are missing or damaged, or not those of the vectors in entities/.
  """
  stored = _factors(run)
  if _foreign(run, stored):
    raise errors.UserError(f"{run.workdir}/factors.npz was made with other settings than "
                           "entities/: run --stage=cf")
  return stored["user_UC"], stored["item_I1C"]


def _have_factors(run: context.Run) -> bool:
  try:
    return not _foreign(run, _factors(run))
  except errors.UserError:                   # missing or damaged
    return False


def _factors(run: context.Run) -> dict[str, np.ndarray]:
  return arrays.load_file(run.workdir / "factors.npz", "run --stage=cf")


def _foreign(run: context.Run, stored: dict[str, np.ndarray]) -> bool:
  """Whether factors are of other data or settings than entities/: a stage cf with other settings
  was stopped between the two. Older files do not say what they were made from."""
  of_table = (store.read_manifest(run.workdir / "entities") or {}).get("made_from")
  return ("made_from" in stored
          and stored["made_from"].tobytes().hex() != files.sha256_json(of_table))
