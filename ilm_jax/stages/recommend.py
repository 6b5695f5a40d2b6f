"""Stage recommend: lists for a user of the log, for a new user, or for many users.

    python -m ilm_jax.main --config=.. --workdir=W --stage=recommend --user=user:405
    python -m ilm_jax.main --config=.. --workdir=W --stage=recommend \\
        --liked='Heat (1995)' --liked='Fargo (1996)' --k=10
    python -m ilm_jax.main --config=.. --workdir=W --stage=recommend --users=all --out=top10.csv
    python -m ilm_jax.main --config=.. --workdir=W --stage=recommend --items=all --out=near.parquet

`stages.recommender` says how a list is made, and how to do the same in Python.
"""
import contextlib
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from ilm_jax import errors, files
from ilm_jax.config import variants
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import list_files
from ilm_jax.runtime import distributed
from ilm_jax.stages import context, describe, list_parts, neighbours
from ilm_jax.stages import recommender as recommender_lib
from ilm_jax.stages.evals import common, trained
from ilm_jax.training import provenance

PART = 1 << 16                  # users per file in a folder of lists


class Wish(NamedTuple):
  """What the command line asks for; names as in `describe.Describer.row`."""
  user: str = ""                # of the log; with or without "user:" before the id
  liked: tuple[str, ...] = ()   # items, oldest first
  users: str = ""               # "all", or a file with one user's id a line
  k: int = 10
  out: str = ""                 # with `users` or `items`: a .csv or .parquet file, or a folder, x/
  items: str = ""               # "all": the neighbours of every item
  model: str = "ilm"            # key of the model that ranks, see `variants.named`


def run(run: context.Run, wish: Wish) -> None:
  """Prints a list, or writes the lists of all users or items.

  Raises:
    UserError: the wish is not possible; most mistakes are found before a model is loaded.
  """
  _check(wish)
  history = None if wish.users or wish.items else _history(run, wish)
  users = _users(run, wish.users) if wish.users else ()
  if wish.k > (items := len(run.data.items) - bool(wish.items)):
    raise errors.UserError(
        f"--k={wish.k}: the catalogue has {items} {'other ' if wish.items else ''}items, expected "
        f"--k={items} at most")
  recommender = recommender_lib.Recommender(run, variants.named(run.config, wish.model))
  if wish.items:
    made = neighbours.write(wish.out, recommender.item_vectors(), run.data.items, wish.k)
    if made or distributed.is_main():
      print(f"{wish.out}: {wish.k} neighbours of {made} items each, by {recommender.method}")
  elif wish.users:
    _write_all(recommender, wish, users)
  else:
    _print(recommender, wish, history)


def _history(run: context.Run, wish: Wish) -> np.ndarray:
  """int32 [T]: item rows of the user's history, oldest first."""
  log, names = run.data.log, describe.Describer(run)
  if wish.user:
    row = names.row(wish.user if wish.user.startswith("user:") else f"user:{wish.user}")
    if not log.rows.is_user(row):
      raise errors.UserError(f"--user={wish.user} is an item, expected a user: user:ID with a raw "
                             "id of the data")
    return log.item_N[log.of_user(log.rows.user_number(row))]
  rows = [names.row(name) for name in wish.liked]
  for name, row in zip(wish.liked, rows):
    if log.rows.is_user(row):
      raise errors.UserError(f"--liked={name} is a user, expected an item: 'Title (year)' or "
                             f"item:ID; for a user's list use --user={name}")
  return np.array(rows, np.int32)


def _users(run: context.Run, given: str) -> Sequence[int]:
  """The numbers of "all" users, or of those whose ids a file names, in its order.

  Raises:
    UserError: the file is not UTF-8, names nobody, an unknown user, or a user twice.
  """
  log, numbers = run.data.log, {}
  if given == "all":
    return range(log.num_users)
  known = {raw: number for number, raw in enumerate(log.user_ids)}
  for line, text in enumerate(files.text(given).splitlines(), 1):
    if not (raw := text.strip()):
      continue
    if raw not in known:
      raise errors.UserError(f"{given}, line {line}: none of the {len(known)} users of the data "
                             f"has the id {errors.shown(raw)}; expected one id a line")
    if raw in numbers:
      raise errors.UserError(f"{given}, line {line}: user {errors.shown(raw)} is in the file twice")
    numbers[raw] = known[raw]
  if not numbers:
    raise errors.UserError(f"{given} names no user: expected one id a line")
  return list(numbers.values())


def _print(recommender: recommender_lib.Recommender, wish: Wish, history) -> None:
  items_K, score_K = (x[0] for x in recommender.top([history], wish.k))
  if not distributed.is_main():
    return
  items, reads = recommender.run.data.items, recommender.reads

  def title(row):
    return errors.plain(interactions_lib.full_title(items, int(row)))

  if wish.user:
    read = f"; the model reads the last {reads}" if 0 < reads < len(history) else ""
    print(f"{errors.plain(wish.user)}: the whole history, {len(history)} items{read}")
  else:
    print(f"liked: {', '.join(map(title, history))}")
  print(f"recommended by {recommender.method}, without these:")
  shown = [(title(row), score) for row, score in zip(items_K, score_K) if row]
  wide = max((len(name) for name, _ in shown), default=0)
  for place, (name, score) in enumerate(shown, 1):
    print(f"{place:3}  {name:{wide}}  {score:8.3f}")
  if len(shown) < wish.k:
    print(f"{len(shown)} of the {wish.k} asked for: the catalogue has no more")


def _write_all(recommender: recommender_lib.Recommender, wish: Wish, users: Sequence[int]) -> None:
  """Scores a few users at a time, so that memory does not grow with their number. All processes of
  a job score, and process 0 writes."""
  if not wish.out.endswith("/"):
    _write(recommender, wish.out, users, wish.k)
  else:
    folder = pathlib.Path(wish.out)
    list_parts.claim(folder, _made_from(recommender, wish, users), "lists of users",
                     distributed.is_main())
    for path, part in list_parts.parts(folder, len(users), PART):
      # Process 0 decides for all: they score a part together, or none does.
      if not distributed.first(int(path.exists())):
        _write(recommender, str(path), [users[at] for at in part], wish.k)
  if distributed.is_main():
    print(f"{wish.out}: {len(users)} users, {wish.k} items each, by {recommender.method}")


def _made_from(recommender: recommender_lib.Recommender, wish: Wish, users: Sequence[int]) -> dict:
  """What the lists depend on, for the folder's made_from.json."""
  run = recommender.run
  made: dict = common.added_scores(run)
  if recommender.by == recommender_lib.BEAMS:
    made["beam width"] = run.config.eval.beam_width
  meta = (trained.first_meta(run) if recommender.by == recommender_lib.DOT
          else trained.phase2_meta(run, recommender.variant))
  made["checkpoint"] = provenance.record(meta)
  if wish.users != "all":
    made["users"] = files.sha256_json(list(users))
  return {"by": recommender.method, "data": run.data.fingerprint, "k": wish.k,
          "users of a part": PART, **made}


def _write(recommender: recommender_lib.Recommender, path: str, users: Sequence[int], k: int
           ) -> None:
  """Writes the lists of users, numbered from 0, from their whole histories."""
  log, items, _ = recommender.run.data
  with (list_files.writing(path) if distributed.is_main()
        else contextlib.nullcontext(lambda rows: None)) as write:
    for first in range(0, len(users), recommender.together):
      some = users[first:first + recommender.together]
      items_NK, score_NK = recommender.top([log.item_N[log.of_user(user)] for user in some], k)
      write([list_files.Row(log.user_ids[user], place + 1, items.ids[row - 1],
                            interactions_lib.full_title(items, row), score)
             for user, items_K, score_K in zip(some, items_NK.tolist(), score_NK.tolist())
             for place, (row, score) in enumerate(zip(items_K, score_K)) if row])


def _check(wish: Wish) -> None:
  values = {"--user": wish.user, "--liked": wish.liked, "--users": wish.users,
            "--items": wish.items}
  given = [flag for flag, value in values.items() if value]
  if not given:
    raise errors.UserError("--stage=recommend needs --user=user:ID, --liked='Title (year)', "
                           "--users=all or --users=FILE with --out, or --items=all with --out")
  if len(given) > 1:
    raise errors.UserError(f"{' and '.join(given)} ask for different lists: give one")
  if not all(name.strip() for name in wish.liked):
    raise errors.UserError("--liked is empty: name an item, e.g. --liked='Heat (1995)'")
  if wish.users and wish.users != "all" and not epath.Path(wish.users).is_file():
    raise errors.UserError(f"--users={wish.users}: expected all, or a file with one user's id a "
                           f"line; for the list of one user use --user={wish.users}")
  if wish.items and wish.items != "all":
    raise errors.UserError(f"--items={wish.items}: expected all, for the neighbours of every item; "
                           "for a list from liked items use --liked")
  if given and not wish.out and (wish.users or wish.items):
    raise errors.UserError(f"{given[0]}={wish.users or wish.items} needs a file to write: name it, "
                           "e.g. --out=top10.csv")
  if wish.out and not (wish.users or wish.items):
    raise errors.UserError(f"--out={wish.out} is for the lists of --users or --items; a single "
                           "list is printed: leave --out out")
  if wish.out:
    list_files.check(f"{wish.out}part.parquet" if wish.out.endswith("/") else wish.out)
  if wish.k < 1:
    raise errors.UserError(f"--k={wish.k}: expected 1 or more")
