"""Vectors of users and items that are not in the log, as the entity table would hold them.

A user gets the vectors that stage cf makes for users: `behavioral` by folding in, `sequential`,
members. An item gets its text's `semantic` vector and none from behaviour. Nothing is trained.

    users = newcomers.Users(run)
    vectors = users.vectors([[50, 7, 181]])        # entity rows of what each liked, oldest first
    describe.Describer(run).say(vectors)           # or evals.speaker.Speaker.knowing
"""
import functools

import numpy as np

from ilm_jax.cf import cooccurrence, fold_in
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.stages import context, sequence_model, vectors


class Users:
  """Makes vectors of users from what they liked.

  Args:
    run: after stage cf; its factors and entity table are read.
  """

  def __init__(self, run: context.Run):
    self.run = run
    self._makers = {name: make() for name, make in (
        ("behavioral", self._behavioral), ("sequential", self._sequential))
        if name in run.config.vectors}

  def vectors(self, histories) -> list[dict]:
    """For each of N users, name -> float32 [C], of those in `config.vectors` that users have.

    Items that lack a vector, e.g. without a training interaction, add nothing to a user's. A user
    who liked only such items gets {}, as stage cf marks users without training interactions.

    Args:
      histories: for each user the entity rows (1..I) of its items, oldest first, at least one. For
        the training history of a user of the log the result is that user's row of the table.
    """
    found: list[dict] = [{} for _ in histories]
    for name, (make, fitted) in self._makers.items():
      has_R = self.run.entities.present[name]
      read = [rows[has_R[rows]] for rows in (np.asarray(h, np.int64) for h in histories)]
      for n, made_C in enumerate(fitted(make(read))):
        if len(read[n]):
          found[n][name] = made_C
    return found

  def members(self, histories) -> np.ndarray | None:
    """int32 [N, S] for `qformer.members`: each user's last items; None if the config has none."""
    count = self.run.config.qformer.members
    return cooccurrence.last_items(histories, count) if count else None

  def _behavioral(self):
    c, (user_UC, item_I1C) = self.run.config.cf, vectors.factors(self.run)
    make = fold_in.Form(item_I1C, reg=c.reg, alpha=c.alpha).users
    met_U = self._met()
    return make, fold_in.Fitted.of(user_UC[met_U], self._table("behavioral")[met_U])

  def _sequential(self):
    c, log = self.run.config.cf, self.run.data.log
    if c.sequential == "sasrec":
      make = sequence_model.states(self.run)
    else:
      # From the table's items. They were standardised like the users, but with other means and
      # deviations: the rest is an affine map, fitted on the users of the log.
      items = self.run.entities.vectors["sequential"][:1 + log.num_items]
      make = functools.partial(
          fold_in.of_last_items, item_I1C=items, window=c.transition_window)
    histories, met_U = interactions_lib.train_histories(log), self._met()
    return make, fold_in.Fitted.of(
        make([histories[u] for u in met_U]), self._table("sequential")[met_U])

  def _met(self) -> np.ndarray:
    """int [N]: users with a training interaction; others have no vector to fit."""
    log = self.run.data.log
    return np.flatnonzero(log.train_counts[log.rows.users])

  def _table(self, name: str) -> np.ndarray:
    return self.run.entities.vectors[name][self.run.entities.rows.users]


def items(run: context.Run, texts: list[str]) -> list[dict]:
  """For each new item, {"semantic": float32 [C]} by the sentence encoder; {} if not in the config.

  Args:
    run: after stage cf.
    texts: in the form of `interactions.item_text`: "Toy Story (1995). Animation, Comedy".
  """
  if "semantic" not in run.config.vectors:
    return [{} for _ in texts]
  return [{"semantic": vector} for vector in np.asarray(run.sentence_vectors(texts), np.float32)]
