"""Experiments: a job that trains and one that evaluates its checkpoints; and sweeps of such pairs.

    python -m launch.jobs --on=gke --name=ml100k --config=configs/ml100k_smollm2.py \\
        --workdir=gs://bucket/ml100k --tpu=v6e --topology=4x4 --eval_topology=2x2 --image=IMAGE \\
        --variant=base: --variant=wide:qformer.num_queries=8,phase1.steps=1600 --seeds=0,1,2
    python -m launch.jobs --on=tpu_vm --name=ml100k --config=configs/ml100k_smollm2.py \\
        --workdir=gs://bucket/ml100k --zone=us-east5-a --type=v6e-16 --eval_type=v6e-4
    python -m launch.jobs --on=local --name=ml100k --config=configs/ml100k_smollm2.py \\
        --workdir=runs/ml100k --seeds=0,1

Each variant and seed is one experiment in its own workdir, WORKDIR/<variant>/seed<n>. Its train job
runs all stages up to phase 2; its eval job waits for checkpoints, evaluates each, and ends after
the last. `mesh.data` is set to the number of devices, unless --set or a variant (for the train job)
or --eval_set (for the eval job) sets the mesh, e.g. --eval_set=mesh.fsdp=4 if one chip cannot hold
the language model. On this machine (--on=local) the experiments run one after the other, with all
stages and the config's own mesh. The config of every job is checked before the first job starts.
--dry_run prints everything and runs nothing.
"""
import argparse
import dataclasses
import os
import re
import sys

from ilm_jax import errors
from ilm_jax.config import stages
from launch import checks, gke, in_turn, shell, tpu_vm, tpus

_WATCH_SECONDS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """One variant with one seed."""
  name: str                     # of its jobs
  config: str
  workdir: str
  overrides: tuple[str, ...]    # "phase2.steps=2000"
  of_eval: tuple[str, ...] = ()    # more of them for the eval job

  def train(self, devices: int) -> list[str]:
    """The command of the train job, the same on every host."""
    return [*self._main(stages.TRAIN, self.train_overrides(devices)), "--distributed=auto"]

  def evaluate(self, devices: int, hosts: int = 1) -> list[str]:
    """The command of the eval job, the same on every host."""
    return [*self._main(stages.WATCH, self.eval_overrides(devices)),
            f"--watch={_WATCH_SECONDS}", *(["--distributed=auto"] if hosts > 1 else [])]

  def alone(self) -> list[str]:
    """The command of all stages in one process of this machine."""
    _, *words = self._main(stages.ALL, list(self.overrides))
    return [sys.executable, *words]

  def train_overrides(self, devices: int) -> list[str]:
    return _with_mesh(self.overrides, devices)

  def eval_overrides(self, devices: int) -> list[str]:
    # It has other devices than the train job, so a mesh that --set chose is for the train job.
    common = [o for o in self.overrides if not o.startswith("mesh.")]
    return _with_mesh([*common, *self.of_eval], devices)

  def _main(self, stages: tuple[str, ...], overrides: list[str]) -> list[str]:
    return ["python", "-m", "ilm_jax.main", f"--config={self.config}",
            f"--workdir={self.workdir}", f"--stage={','.join(stages)}",
            *(f"--config.{o}" for o in overrides)]


def _with_mesh(overrides, devices: int) -> list[str]:
  if any(o.startswith("mesh.") for o in overrides):
    return list(overrides)
  return [*overrides, f"mesh.data={devices}"]


def experiments(c) -> list[Experiment]:
  """One for each variant and seed; a single one keeps the given name and workdir.

  Raises:
    UserError: a variant, an override or a seed cannot be parsed, or is given twice.
  """
  variants = [_variant(text) for text in c.variant] or [("", ())]
  seeds = _seeds(c.seeds)
  names = [name for name, _ in variants]
  if twice := sorted({n for n in names if names.count(n) > 1}):
    raise errors.UserError(f"--variant={twice[0]}:... is there twice: each needs its own name")
  listed = []
  for variant, changes in variants:
    for seed in seeds:
      parts = [p for p in (variant, f"seed{seed}" if c.seeds else "") if p]
      overrides = (*_overrides("--set", c.set), *changes, *([f"seed={seed}"] if c.seeds else []))
      listed.append(Experiment(
          name="-".join([c.name, *parts]), config=c.config,
          workdir="/".join([c.workdir.rstrip("/"), *parts]), overrides=overrides,
          of_eval=_overrides("--eval_set", c.eval_set)))
  return listed


def on_gke(c, experiment: Experiment) -> tuple[list[str], str]:
  """The command that starts both jobs of an experiment as one JobSet, and its manifest."""
  train, evaluate = tpus.slice_of(c.tpu, c.topology), tpus.slice_of(c.tpu, c.eval_topology)
  settings = argparse.Namespace(**{**vars(c), "name": experiment.name})
  return gke.kubectl_apply(gke.jobset(settings, [
      gke.Job(name="train", slice=train, slices=c.slices, spot=c.spot,
              command=tuple(experiment.train(train.devices * c.slices))),
      gke.Job(name="eval", slice=evaluate, spot=c.spot,
              command=tuple(experiment.evaluate(evaluate.devices, evaluate.hosts)))]))


def on_tpu_vm(c, experiment: Experiment) -> list[tuple[str, argparse.Namespace]]:
  """The actions of tpu_vm for both jobs of an experiment, by name, with their options."""
  machines = [(experiment.name, c.type, experiment.train(tpus.devices_of_type(c.type)))]
  if c.eval_type:
    machines.append((f"{experiment.name}-eval", c.eval_type, experiment.evaluate(
        tpus.devices_of_type(c.eval_type), tpus.hosts_of_type(c.eval_type))))
  todo = []
  for name, kind, command in machines:
    run = tpu_vm.options(name=name, type=kind, zone=c.zone, project=c.project, spot=c.spot,
                          env=c.env, queued=True, dry_run=c.dry_run,
                          command=command)
    todo += [(action, run) for action in ("create", "wait", "setup", "run")]
  return todo


def launch(c) -> int:
  """Starts every experiment, after all of them have been checked.

  Returns:
    The exit code.
  """
  if c.on == "local":      # run from the root of the repository
    if c.eval_set:
      raise errors.UserError("--eval_set is for eval jobs, and --on=local has none: use --set")
    c.workdir = c.workdir if "://" in c.workdir else os.path.abspath(os.path.expanduser(c.workdir))
  checks.workdir(c.workdir)
  all_experiments = experiments(c)
  checks.config(c.config, [job for e in all_experiments for job in _configs(c, e)])
  if c.on == "local":
    return in_turn.run({e.name: e.alone() for e in all_experiments}, dry_run=c.dry_run)
  if c.on == "gke":
    for argv, manifest in [on_gke(c, experiment) for experiment in all_experiments]:
      shell.run(argv, stdin=manifest, dry_run=c.dry_run)
    return 0
  todo = [step for experiment in all_experiments for step in on_tpu_vm(c, experiment)]
  if not c.dry_run and c.config in tpu_vm.say_uncommitted():
    raise errors.UserError(f"--config={c.config} has changes that are not committed, but the hosts "
                           "get the last commit: commit it")
  # Request all machines before waiting for any.
  for action in ("create", "wait", "setup", "run"):
    for settings in (settings for name, settings in todo if name == action):
      tpu_vm.act(argparse.Namespace(**{**vars(settings), "action": action}))
  return 0


def _configs(c, experiment: Experiment) -> list[tuple[list[str], int]]:
  """(overrides, devices) of the jobs of an experiment."""
  if c.on == "local":
    return [(list(experiment.overrides), 0)]
  if c.on == "gke":
    _need(c, "tpu", "topology", "eval_topology", "image")
    train = tpus.slice_of(c.tpu, c.topology).devices * c.slices
    evaluate = tpus.slice_of(c.tpu, c.eval_topology).devices
  else:
    _need(c, "zone", "type")
    train = tpus.devices_of_type(c.type)
    evaluate = tpus.devices_of_type(c.eval_type) if c.eval_type else 0
  return [(experiment.train_overrides(train), train),
          *([(experiment.eval_overrides(evaluate), evaluate)] if evaluate else [])]


def parse(argv: list[str] | None) -> argparse.Namespace:
  p = argparse.ArgumentParser(description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
  p.add_argument("--on", choices=("gke", "tpu_vm", "local"), required=True)
  p.add_argument("--name", required=True, help="first word of the jobs' names")
  p.add_argument("--config", required=True, help="path of the config, in the repository")
  p.add_argument("--workdir", required=True, help="gs:// folder that all hosts reach; local: any")
  p.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE",
                 help="a field of the config, for all experiments")
  p.add_argument("--eval_set", action="append", default=[], metavar="FIELD=VALUE",
                 help="a field of the config, for the eval jobs alone")
  p.add_argument("--variant", action="append", default=[], metavar="NAME:FIELD=VALUE,...")
  p.add_argument("--seeds", default="", help="e.g. 0,1,2; default: the config's own")
  p.add_argument("--spot", action="store_true")
  p.add_argument("--dry_run", action="store_true")
  p.add_argument("--tpu", default="", help="gke: generation, e.g. v6e")
  p.add_argument("--topology", default="", help="gke: of the train job's slices")
  p.add_argument("--slices", type=int, default=1)
  p.add_argument("--eval_topology", default="", help="gke: of the eval job's slice")
  p.add_argument("--namespace", default="default")
  gke.container_flags(p, image_required=False)
  p.add_argument("--zone", default="", help="tpu_vm: where")
  p.add_argument("--project", default="", help="tpu_vm: default, gcloud's")
  p.add_argument("--type", default="", help="tpu_vm: accelerator type of the train job")
  p.add_argument("--eval_type", default="", help="tpu_vm: of the eval job; default: none")
  return p.parse_args(argv)


def _need(c, *names: str) -> None:
  if missing := [f"--{n}" for n in names if not getattr(c, n)]:
    raise errors.UserError(f"--on={c.on} needs {' and '.join(missing)}")


def _variant(text: str) -> tuple[str, tuple[str, ...]]:
  """"wide:qformer.num_queries=8,phase1.steps=9" -> name and overrides."""
  name, colon, changes = text.partition(":")
  if not colon or not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
    raise errors.UserError(f"--variant={text}: expected NAME:FIELD=VALUE,... with a name of a-z, "
                           "0-9 and -")
  # A comma inside a value, as in vectors=('behavioral','semantic'), does not begin a field.
  parts = re.split(r",(?=[a-z_]\w*(?:\.\w+)*=)", changes) if changes else []
  return name, _overrides(f"--variant={name}:", parts)


def _overrides(where: str, pairs: list[str]) -> tuple[str, ...]:
  for pair in pairs:
    if not re.match(r"[a-z_]\w*(\.\w+)*=", pair):
      raise errors.UserError(f"{where} {pair}: expected FIELD=VALUE, e.g. phase1.steps=800")
  return tuple(pairs)


def _seeds(text: str) -> list[int]:
  parts = text.split(",") if text else ["0"]
  if not all(p.isdigit() for p in parts) or len(set(parts)) < len(parts):
    raise errors.UserError(f"--seeds={text}: expected different whole numbers, e.g. 0,1,2")
  return [int(p) for p in parts]


if __name__ == "__main__":
  sys.exit(shell.main(lambda: launch(parse(None))))
