"""What a checkpoint was made from: its inputs, and the settings that affect its numbers.

A checkpoint's `meta` holds

  fingerprints  {name: sha256} of every input
  settings      {dotted config field: value} of every field that affects the numbers
  history       [{"until_step": n, "settings": {field: earlier value}}], oldest first: settings that
                were changed on purpose while it was trained
  digests       of its arrays (leaf_digests.py)

so that a run can tell which settings led to a result, and cannot use old weights with new settings.
"""
import json

from ilm_jax import errors, files

ABSENT = "nothing"


def plain(settings: dict) -> dict:
  """The settings after writing and reading JSON: tuples become lists."""
  return json.loads(json.dumps(settings))


def changed(was: dict, now: dict) -> dict[str, tuple]:
  """{field: (old value, new value)} of the settings that differ, in the order of the fields."""
  was, now = plain(was), plain(now)
  return {field: (was.get(field, ABSENT), now.get(field, ABSENT))
          for field in sorted(was.keys() | now.keys())
          if was.get(field, ABSENT) != now.get(field, ABSENT)}


def words(differences: dict[str, tuple]) -> str:
  """"phase1.losses.ui: 0.5 -> 0.0, seed: 0 -> 1" of what `changed` returns."""
  return ", ".join(f"{field}: {old} -> {new}" for field, (old, new) in differences.items())


def check(folder, meta: dict, fingerprints: dict[str, str], settings: dict, *,
          steps: int | None = None, accept: bool = False) -> None:
  """Refuses checkpoints with other inputs, and with other settings unless these are accepted.

  Args:
    folder: of the checkpoints, for the message.
    meta: of the newest of them.
    fingerprints: {name: sha256} of this run's inputs.
    settings: of this run.
    steps: the last step of this run; None: it does not train, it only reads.
    accept: whether to accept changed settings (--accept_changed_settings); other inputs are always
      refused.

  Raises:
    UserError: it names each setting that differs, with old and new value, and the possible cures.
      With `accept` and `steps`: only if no step is left to train with the new settings.
  """
  if "settings" not in meta:
    raise errors.UserError(f"the checkpoints in {folder} are of an older version, which did not "
                           f"record their settings: give another --workdir, or delete {folder} to "
                           "train this phase again")
  differences = changed(meta["settings"], settings)
  _check_inputs(folder, meta["fingerprints"], fingerprints, differences)
  if not differences or (accept and steps is not None and meta["step"] < steps):
    return
  begun = f"{folder} was trained to step {meta['step']} with other settings"
  if accept and steps is not None:
    raise errors.UserError(
        f"{begun} ({words(differences)}), and no step is left to train with the new ones: raise "
        f"the phase's steps above {meta['step']} as well, give another --workdir, or delete "
        f"{folder} to train it again")
  raise errors.UserError(
      f"{begun}: {words(differences)}. Give another --workdir; or delete {folder} to train it "
      "again; or, if you want the change (a longer run, a lower rate), add "
      "--accept_changed_settings: training continues from that step, and its checkpoints record "
      "both")


def _check_inputs(folder, was: dict[str, str], now: dict[str, str], differences: dict) -> None:
  for name in sorted(was.keys() | now.keys()):
    if was.get(name) != now.get(name):
      before, here = errors.short(was.get(name), now.get(name))
      why = f" (settings that differ: {words(differences)})" if differences else ""
      raise errors.UserError(
          f"the checkpoints in {folder} were trained with {name} {before}, this run has {here}"
          f"{why}: give another --workdir, or delete {folder} to train this phase again")


def history(meta: dict, settings: dict) -> list[dict]:
  """The history of a checkpoint that continues from `meta` with `settings`."""
  past = list(meta.get("history", []))
  if meta.get("step") and (differences := changed(meta.get("settings", {}), settings)):
    past.append({"until_step": meta["step"],
                 "settings": {field: old for field, (old, _) in differences.items()}})
  return past


def identity(meta: dict) -> str:
  """sha256 of the step and the trained weights, by their digests."""
  weights = {name: digest for name, digest in meta.get("digests", {}).items()
             if name.startswith("trainable")}
  return files.sha256_json({"step": meta["step"], "weights": weights})


def record(meta: dict) -> dict:
  """What a table records about the checkpoint that it measured, for `still_there`."""
  return {"step": meta["step"], "identity": identity(meta), "made_from": _made_from(meta)}


def still_there(kept: dict, at_step: dict | None, newest: dict | None) -> bool:
  """Whether a table was made from the weights of the run that is in the workdir now.

  Training keeps only its newest checkpoints. If the table's checkpoint is gone, the run must have
  the same inputs and settings, and a newer checkpoint.

  Args:
    kept: what `record` returned.
    at_step: meta of the checkpoint at that step; None: there is none.
    newest: meta of the newest checkpoint; None: there is none.
  """
  if at_step is not None:
    return identity(at_step) == kept["identity"]
  return (newest is not None and newest["step"] > kept["step"]
          and _made_from(newest) == kept["made_from"])


def _made_from(meta: dict) -> str:
  return files.sha256_json({name: meta.get(name, {}) for name in ("fingerprints", "settings")})
