"""Reads the runs of a comparison, checks that they are comparable, and lists how they differ."""
import json
from typing import NamedTuple

import numpy as np
from etils import epath

from ilm_jax import errors, files
from ilm_jax.evaluation import measured, metrics

# Fields of a protocol that must be equal in two runs: else their ranks are not comparable.
SHARED = ("split", "filter", "repeated targets", "tie rule", "task")
_ASSUMED = {"repeated targets": metrics.NO_REPEATS}      # values of fields that a protocol lacks
# Stages whose config changes results.
STAGES = ("targets", "prepare", "cf", "phase1", "phase2", "eval")
SIDE_BY_SIDE = (("phase2", "loss"), ("phase1", "retrieval"))
ABSENT = "(none)"


class Run(NamedTuple):
  """The newest evaluation of a workdir."""
  name: str
  protocol: dict
  users: list
  targets: list
  ranks: dict[str, np.ndarray]     # by method; one rank per user
  configs: dict[str, dict]         # by stage
  tables: dict[str, dict]          # by the names in SIDE_BY_SIDE
  trained: str                     # text of phase2/metrics.jsonl: equal in a copied run; "": none

  @property
  def seed(self) -> int:
    """The training seed."""
    return self.configs.get("phase2", self.configs["eval"])["seed"]


def read(workdirs: list) -> list[Run]:
  """The newest evaluation of each workdir.

  Raises:
    UserError: a workdir has no evaluation or is given twice, or its protocol, users or targets
      differ from those of the first.
  """
  runs = [_read(epath.Path(w), name) for w, name in zip(workdirs, _names(workdirs))]
  for other in runs[1:]:
    _check_same(runs[0], other)
  return runs


def differences(runs: list[Run]) -> list[dict[str, str]]:
  """The settings in which runs differ: {"setting", "stages", name of a run: its value, ..}.

  Settings are compared per stage, between the runs that have that stage's config. Only a stage
  itself and eval read the stage's section (e.g. `phase1`); the section is ignored in other configs.
  """
  values: dict = {}                # (setting, values by run) -> stages
  for stage in STAGES:
    flat = {run.name: _flat(run.configs[stage], stage) for run in runs if stage in run.configs}
    for setting in sorted(set().union(*flat.values())):
      value = {name: of.get(setting, ABSENT) for name, of in flat.items()}
      if len(set(value.values())) > 1:
        values.setdefault((setting, tuple(value.items())), []).append(stage)
  return [{"setting": setting, "stages": ", ".join(stages), **dict(value)}
          for (setting, value), stages in sorted(values.items())]


def by_settings(runs: list[Run]) -> list[list[Run]]:
  """Groups runs that differ in their seed alone."""
  groups: list[list[Run]] = []
  for run in runs:
    same = next((group for group in groups if all(
        row["setting"] == "seed" for row in differences([group[0], run]))), None)
    if same is None:
      groups.append([run])
    else:
      same.append(run)
  return groups


def check_seeds(group: list[Run]) -> None:
  """Raises UserError if two runs of equal settings are the same run: a copy or a repetition."""
  for at, run in enumerate(group):
    for other in group[:at]:
      if run.seed == other.seed:
        fault = (f"runs {other.name} and {run.name} have the same settings and seed {run.seed}: "
                 "a copy or a repetition")
      elif run.trained and run.trained == other.trained:
        fault = f"run {run.name} has the training record of {other.name}: a copy"
      else:
        continue
      raise errors.UserError(f"{fault} is no second seed; leave one out of --compare, or train it "
                             "with another --config.seed")


def _read(workdir, name: str) -> Run:
  newest = {phase: measured.newest(workdir, phase) for phase in ("phase1", "phase2")}
  path = newest["phase2"] and newest["phase2"] / "ranks.json.gz"
  configs = {stage: files.read_json(file, f"run --stage={stage} there again") for stage in STAGES
             if (file := workdir / f"config.{stage}.json").exists()}
  if not path or not path.exists() or "eval" not in configs:
    raise errors.UserError(f"{workdir} has no evaluation to compare (eval/phase2/<step>/"
                           "ranks.json.gz): run --stage=eval there first")
  stored = files.read_json(path, "run --stage=eval there again")
  ranks = {name: np.array([np.inf if r is None else r for r in rank], float)
           for name, rank in stored["ranks"].items() if len(rank) == len(stored["users"])}
  tables = {table: files.read_json(file, "run --stage=eval there again")
            for phase, table in SIDE_BY_SIDE
            if newest[phase] and (file := newest[phase] / f"{table}.json").exists()}
  scalars = workdir / "phase2" / "metrics.jsonl"
  return Run(name, stored["protocol"], stored["users"], stored["targets"], ranks, configs, tables,
             scalars.read_text() if scalars.exists() else "")


def _check_same(first: Run, other: Run) -> None:
  for field in SHARED:
    values = [run.protocol.get(field, _ASSUMED.get(field)) for run in (first, other)]
    if values[0] != values[1]:
      raise errors.UserError(
          f"runs {first.name} and {other.name} cannot be compared: {field} is {values[0]!r} and "
          f"{values[1]!r}, expected the same: run --stage=eval with the same settings in both")
  if first.users != other.users or first.targets != other.targets:
    raise errors.UserError(
        f"runs {first.name} and {other.name} ranked other users or other targets, expected the "
        "same: evaluate all users of the same data in both (eval.users=0)")


def _flat(config: dict, stage: str, before: str = "") -> dict[str, str]:
  """A stage's config as {"phase2.steps": "80"}, without sections that the stage does not read."""
  flat: dict[str, str] = {}
  for name, value in config.items():
    if isinstance(value, dict):
      if before or stage == "eval" or name == stage or name not in STAGES:
        flat |= _flat(value, stage, f"{before}{name}.")
    elif before + name != "tracker":        # it changes no result
      flat[before + name] = json.dumps(value)
  return flat


def _names(workdirs: list) -> list[str]:
  """Short names of the workdirs: as many last folders of each path as make the names unique."""
  paths = [epath.Path(w).resolve() for w in workdirs]
  for at, path in enumerate(paths):
    if path in paths[:at]:
      raise errors.UserError(f"{workdirs[at]} is given twice: name each run once in --workdir and "
                             "--compare")
  for kept in range(1, max(len(path.parts) for path in paths)):
    names = ["/".join(path.parts[-kept:]) for path in paths]
    if len(set(names)) == len(names):
      return names
  return list(map(str, paths))
