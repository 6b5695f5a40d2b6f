"""Checks for leaks that make a recommender's numbers too good; each check returns its findings.

A finding is one sentence: what is wrong, and the cure. An empty list means a clean check. Examples
are prepared examples (data/store.py); rows are entity rows.
"""
import numpy as np

from ilm_jax import errors
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import metrics
from ilm_jax.training import provenance

CLEAR = 0.9          # a rank correlation that is not chance over a catalogue
_ITEMS = 10          # fewest items to check: 4 in 10,000 random orders of ten reach CLEAR
_READ = 4096         # examples read at a time
_SCORES = 1 << 25     # most scores that are compared
_RUNS = 20           # fewest runs of tied events to check: fewer may be in order by chance


def histories_as_logged(task: str, split: str, examples, log: interactions_lib.Interactions,
                        history: int) -> list[str]:
  """Checks that a prompt's items are those before the target in the user's log, and no later ones.

  In a training prompt they are those before it in the training part of the log.

  Args:
    task, split: for the finding.
    examples: of a task that shows a history: entities are the user and the items, in any order.
    log: the interactions.
    history: most items that a prompt shows.
  """
  wrong = []
  for number in range(len(examples)):
    example = examples[number]
    user, target = log.rows.user_number(int(example["user"][0])), int(example["target_entity"][0])
    span = log.of_user(user)
    rows = log.item_N[span]
    if split == "train":                      # validation and test events are not shown
      rows = rows[log.split.train[span]]
    shown = sorted(int(e) for e in example["entities"] if not log.rows.is_user(e))
    places = np.flatnonzero(rows == target)
    if not any(sorted(rows[max(at - history, 0):at].tolist()) == shown for at in places):
      wrong.append(number)
  return _told(wrong, f"{task} {split}: in {{count}} of {len(examples)} prompts (first: example "
               "{first}) the items are not those before the target in the user's log, so the "
               "prompt may show the target or later items: run --stage=prepare again, or correct "
               "the task")


def target_not_told(task: str, split: str, examples, templates: list) -> list[str]:
  """Checks that the prompt's text does not hold the target's index.

  Args:
    task, split: for the finding.
    examples: with "prompt", the number of the template.
    templates: token ids of each template, with slots in its places. Matches in the template itself
      do not count: a film may be called "Next", a word of the template.
  """
  wrong, words = [], [_text(template) for template in templates]
  for number in range(len(examples)):
    example = examples[number]
    index = _text(example["targets"][:-1])
    if index and (_text(example["inputs"]).count(index)
                  > words[int(example["prompt"][0])].count(index)):
      wrong.append(number)
  return _told(wrong, f"{task} {split}: the target's index is in {{count}} of {len(examples)} "
               "prompts (first: example {first}), which gives the answer away: correct the "
               "template")


def trained_on_training_alone(task: str, examples, log: interactions_lib.Interactions) -> list[str]:
  """Checks that the pairs and targets of a training split are training interactions.

  Args:
    task: "user_item" (user row, item row), "item_item" (item row, the user's next item row), or a
      task with "user" and "target_entity".
    examples: its train split.
    log: the interactions.
  """
  train_N = log.split.train
  first_N, second_N = log.rows.user(log.user_N[train_N]), log.item_N[train_N]
  if task == "item_item":
    same = first_N[1:] == first_N[:-1]
    first_N, second_N = second_N[:-1][same], second_N[1:][same]
  # A set of pairs would take 180 bytes for each. No key is as large as the last one.
  known = np.r_[np.unique(_keys(first_N, second_N, log)), np.iinfo(np.int64).max]
  wrong = []
  for start in range(0, len(examples), _READ):
    some = _read(examples, range(start, min(start + _READ, len(examples))))
    first_B, second_B = np.array([_pair(example) for example in some], np.int64).T
    key_B = _keys(first_B, second_B, log)
    is_known_B = known[np.searchsorted(known, key_B)] == key_B
    is_row_B = (second_B >= 0) & (second_B < log.rows.total)     # or two pairs have the same key
    wrong += (start + np.flatnonzero(~(is_known_B & is_row_B))).tolist()
  return _told(wrong, f"{task} train: {{count}} of {len(examples)} examples (first: {{first}}) are "
               "no training interactions, so validation or test has leaked: run --stage=prepare "
               "again")


def untrained_items_unknown(task: str, examples, log: interactions_lib.Interactions) -> list[str]:
  """Checks that no training prompt shows or asks for an item without training interactions.

  Args:
    task: for the finding.
    examples: its train split: with entities, and target_entity if the prompt asks for an item.
    log: the interactions.
  """
  untrained, wrong = set(log.untrained_items.tolist()), []
  for number in range(len(examples) if untrained else 0):
    example = examples[number]
    rows = np.r_[example["entities"], example.get("target_entity", ())]
    if not untrained.isdisjoint(rows.astype(int).tolist()):
      wrong.append(number)
  return _told(wrong, f"{task} train: {{count}} of {len(examples)} examples (first: {{first}}) "
               "hold an item without training interactions, so a cold item has leaked: run "
               "--stage=prepare again")


def no_vectors_of_untrained(name: str, present_R, log: interactions_lib.Interactions, liked=()
                            ) -> list[str]:
  """Checks that only items and users with training interactions have a vector made from them.

  Args:
    name: of the vector, for the finding.
    present_R: bool, from the entity table: the rows that have the vector.
    log: the interactions.
    liked: int, rows of further items that may have it: those that training dialogs like.
  """
  wrong = np.setdiff1d(np.flatnonzero(present_R & (log.train_counts == 0)), liked).tolist()
  return _told(wrong, f"entities/: {{count}} of {len(present_R)} rows (first: {{first}}) have a "
               f"{name} vector and no training interaction: delete entities/ and run "
               "--stage=cf")


def vectors_of_training(found_UC, found_IC, again_UC, again_IC) -> list[str]:
  """Checks that stored factors score like factors recomputed from training interactions alone.

  Args:
    found_UC, found_IC: the factors that the run uses; rows of users, and of items with row 0 for
      padding.
    again_UC, again_IC: the recomputed factors, from the same seed and settings.

  Of many users, so many are compared, at equal distances, that memory holds their scores.
  """
  users = np.linspace(0, len(found_UC) - 1, min(len(found_UC), max(1, _SCORES // len(found_IC))))
  some = np.unique(users.astype(int))
  score, again = found_UC[some] @ found_IC[1:].T, again_UC[some] @ again_IC[1:].T
  if np.allclose(score, again, rtol=1e-3, atol=1e-3 * np.abs(again).max(initial=0)):
    return []
  if np.ptp(score) == 0 or np.ptp(again) == 0:      # constant scores have no correlation
    how = "differ from"
  else:
    alike = float(np.corrcoef(score.ravel(), again.ravel())[0, 1])
    if alike > 0.999:
      return []
    how = f"correlate by {alike:.3f}, expected 1.000, with"
  return [f"factors.npz: its scores {how} those of factors recomputed from training interactions, "
          "so it was made from other interactions or settings: delete entities/ and run --stage=cf"]


def rows_carry_no_order(log: interactions_lib.Interactions, number_I, what: str,
                        cure: str) -> list[str]:
  """Checks that the numbers of items do not follow the time of each item's first event.

  Args:
    log: the interactions; with fewer than two times, or few items, there is nothing to check.
    number_I: a number for each item row 1..I, e.g. the row itself or a numeric index.
    what: name of these numbers, for the finding.
    cure: for the finding.
  """
  first_I = np.full(log.num_items + 1, np.iinfo(np.int64).max)
  np.minimum.at(first_I, log.item_N, log.time_N)
  if log.num_items < _ITEMS or np.ptp(first_I[1:]) == 0 or np.ptp(number_I) == 0:
    return []
  rho = float(metrics.spearman(np.asarray(number_I)[None], first_I[None, 1:])[0])
  if abs(rho) < CLEAR:
    return []
  return [f"{what}: numbers follow the time of the first event (Spearman {rho:.2f}), so "
          f"consecutive numbers reveal which item comes next: {cure}"]


def item_rows_carry_no_order(log: interactions_lib.Interactions, raw_ids: list[str]) -> list[str]:
  """Checks that item rows are in the order of raw ids, or else do not follow time.

  If raw ids follow time, as a shop's running numbers do, so do rows. That is harmless: no model
  reads a row number.

  Args:
    log: the interactions.
    raw_ids: of the item rows 1..I.
  """
  if interactions_lib.codes(raw_ids)[0] == list(raw_ids):
    return []
  return rows_carry_no_order(log, np.arange(1, log.num_items + 1), "item rows",
                             "delete data/ and run --stage=prepare, which numbers by raw id")


def repeated_targets(log: interactions_lib.Interactions) -> dict[str, tuple[int, int]]:
  """Part -> (targets that occur earlier in their user's log, all targets); never a finding."""
  key_N = log.user_N.astype(np.int64) * (log.num_items + 1) + log.item_N
  _, first, inverse = np.unique(key_N, return_index=True, return_inverse=True)
  repeats_N = first[inverse] < np.arange(len(key_N))
  return {name: (int(repeats_N[part_N].sum()), int(part_N.sum()))
          for name, part_N in (("validation", log.split.valid), ("test", log.split.test))}


def ties_not_sorted(log: interactions_lib.Interactions) -> list[str]:
  """Checks that events of equal time are not all sorted by item row."""
  if not log.time_N.any():
    return []
  starts = np.flatnonzero(np.r_[True, (np.diff(log.time_N) != 0) | (np.diff(log.user_N) != 0)])
  runs = [r for r in np.split(log.item_N, starts[1:]) if len(r) >= 3]
  if len(runs) < _RUNS:
    return []
  for way, step in (("ascending", 1), ("descending", -1)):
    if all((np.diff(run.astype(np.int64)) * step > 0).all() for run in runs):
      return [f"data/: all {len(runs)} runs of three or more events of one user and time are in "
              f"{way} order of their item: ties were sorted by item, which inflates every metric; "
              "keep the order of the log, or give distinct times"]
  return []


def dialogs_of_training(part: str, lines, log: interactions_lib.Interactions, raw_ids) -> list[str]:
  """Checks that dialogs lead from training interactions of their user to a later one.

  Args:
    part: for the finding.
    lines: dialogs from `synthetic.Maker`.
    log: the interactions.
    raw_ids: of the item rows 1..I.
  """
  user_of = {raw: user for user, raw in enumerate(log.user_ids)}
  wrong, count = [], 0
  for number, line in enumerate(lines):
    count += 1
    rows_T = log.item_N[span := log.of_user(user_of[line["user"]])]
    trained = [raw_ids[row - 1] for row in rows_T[log.split.train[span]]]
    places = [at for at, raw in enumerate(trained) if raw == line["target"]]
    liked = {each["item"] for each in line["opinions"] if each["kind"] == "liked"}
    if not (any(trained[:at] == line["history"] for at in places)
            and liked <= set(line["history"])):
      wrong.append(number)
  return _told(wrong, f"dialogs/{part}.jsonl: {{count}} of {count} dialogs (first: {{first}}) do "
               "not lead from the training part of their user's log to a later item of it, so "
               "validation or test has leaked: delete dialogs/ and run --stage=targets")


def no_user_in_both(train_lines, validation_lines) -> list[str]:
  """Checks that training and validation dialogs share no user. Args: see `dialogs_of_training`."""
  both = sorted({line["user"] for line in train_lines} & {
      line["user"] for line in validation_lines})
  return [f"dialogs/: {len(both)} users (first: {both[0]}) are in both train.jsonl and "
          "validation.jsonl: delete dialogs/ and run --stage=targets"] if both else []


def of_these_data(folder: str, made_from: dict, data: str) -> list[str]:
  """Checks that a manifest names the fingerprint of the data in data/.

  Args:
    folder: that the manifest describes, for the finding.
    made_from: fingerprints in the manifest.
    data: fingerprint of data/.
  """
  if made_from.get("data") == data:
    return []
  was, is_now = errors.short(made_from.get("data"), data)
  return [f"{folder} was made from data {was}, data/ is {is_now}: run the stage that makes it "
          "again"]


def of_this_run(folder, meta: dict, made_from) -> list[str]:
  """Checks that a checkpoint was made from the inputs and settings of this run.

  Args:
    folder: of the checkpoints.
    meta: metadata of the newest checkpoint.
    made_from: fingerprints and settings of this run.
  """
  try:
    provenance.check(folder, meta, made_from.fingerprints, made_from.settings)
  except errors.UserError as e:
    return [str(e)]
  return []


def of_its_record(folder, meta: dict, settings: dict, record: str) -> list[str]:
  """Checks that a checkpoint was made with the settings in the recorded config.

  Args:
    folder: of the checkpoints.
    meta: metadata of the newest checkpoint.
    settings: in the recorded config.
    record: file name of the recorded config.
  """
  differences = provenance.changed(meta.get("settings", {}), settings)
  return [f"{folder} was trained with other settings than {record} says "
          f"({provenance.words(differences)}): the checkpoint is right; train again to correct the "
          "record"] if differences else []


def _keys(first_N, second_N, log: interactions_lib.Interactions) -> np.ndarray:
  """int64: a number for each pair of entity rows, different for different pairs."""
  return np.asarray(first_N, np.int64) * log.rows.total + second_N


def _read(examples, indices) -> list[dict]:
  """The examples at `indices`; prepared ones are read together."""
  many = getattr(examples, "many", None)
  return many(indices) if many else [examples[number] for number in indices]


def _pair(example: dict) -> tuple[int, int]:
  """(user, target), or the first two entities; -1, which is no row, if there are fewer."""
  if "user" in example:
    return int(example["user"][0]), int(example["target_entity"][0])
  first, second = (*map(int, example["entities"][:2]), -1, -1)[:2]
  return first, second


def _text(ids) -> str:
  """Token ids as text, so that one sequence can be searched for in another."""
  return "".join(f" {int(i)}," for i in ids)


def _told(wrong: list[int], sentence: str) -> list[str]:
  return [sentence.format(count=len(wrong), first=wrong[0])] if wrong else []
