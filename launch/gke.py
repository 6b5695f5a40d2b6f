"""Jobs on GKE: JobSet manifests for TPU slices, and kubectl to start, read and delete them.

    python -m launch.gke apply my-run --tpu=v6e --topology=4x4 --image=IMAGE -- \\
        python -m ilm_jax.main --distributed=auto --config=configs/ml100k_smollm2.py \\
        --workdir=gs://bucket/run --stage=phase1,phase2
    python -m launch.gke logs my-run --follow
    python -m launch.gke delete my-run

The manifest is JSON, which kubectl reads; --dry_run prints it with the command, and runs nothing.
The cluster needs JobSet 0.6 or newer and a pool of nodes of that topology.

A job ends when all its hosts exit with 0. It is restarted and resumes from its checkpoints after
exit code 143 (it saved and stopped on SIGTERM) or a lost node, without limit, and after any other
exit code --max_restarts times. An eval job on one host is restarted alone while train continues.
"""
import argparse
import dataclasses
import json
import re
import sys

from ilm_jax import errors
from launch import shell, tpus

_NODE_POOL = "cloud.google.com/gke-nodepool"
_SAVED = 143              # exit code of ilm_jax.main after SIGTERM
_SECONDS_TO_SAVE = 60     # from SIGTERM to SIGKILL; a spot node may give less
_LONGEST_NAME = 40        # GKE appends the names of job and pod, and 63 is the limit of the sum


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """One command on one or more slices of a JobSet."""
  name: str                       # "train" or "eval"
  slice: tpus.Slice
  command: tuple[str, ...]
  slices: int = 1
  spot: bool = False


def jobset(c, jobs: list[Job]) -> dict:
  """The manifest of a JobSet.

  Args:
    c: name, image, namespace, service_account, max_restarts and env (["NAME=VALUE"]).
    jobs: they run at the same time.

  Raises:
    UserError: a name or variable that Kubernetes would refuse.
  """
  check_name(c.name)
  return {
      "apiVersion": "jobset.x-k8s.io/v1alpha2",
      "kind": "JobSet",
      "metadata": {"name": c.name, "namespace": c.namespace,
                   "labels": {"app.kubernetes.io/name": "ilm-jax"}},
      "spec": {
          # Hosts find each other through a headless service of this name.
          "network": {"enableDNSHostnames": True, "subdomain": c.name},
          "failurePolicy": {
              "maxRestarts": c.max_restarts,
              "rules": [{"name": "preempted", "action": "RestartJobSetAndIgnoreMaxRestarts",
                         "onJobFailureReasons": ["PodFailurePolicy"]}]},
          "replicatedJobs": [_replicated(c, job) for job in jobs]}}


def check_name(name: str) -> None:
  """Raises a UserError if Kubernetes would refuse the name."""
  if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) or len(name) > _LONGEST_NAME:
    raise errors.UserError(f"name {name!r}: expected at most {_LONGEST_NAME} of a-z, 0-9 and -, "
                           "beginning with a letter and not ending with -")


def _replicated(c, job: Job) -> dict:
  """A job of the set: one pod per host, all of them or none."""
  many = job.slice.hosts > 1
  # Each slice of several hosts needs its own pool of nodes: other pools are not wired to it.
  exclusive = {"alpha.jobset.sigs.k8s.io/exclusive-topology": _NODE_POOL} if many else {}
  # A single eval host is replaced while train continues; several hosts must restart together.
  action = "FailJob" if many or job.name == "train" else "Ignore"
  return {
      "name": job.name, "replicas": job.slices,
      "template": {
          **({"metadata": {"annotations": exclusive}} if exclusive else {}),
          "spec": {
              "completionMode": "Indexed",
              "parallelism": job.slice.hosts, "completions": job.slice.hosts,
              "backoffLimit": 0 if action == "FailJob" else c.max_restarts,
              "podFailurePolicy": {"rules": [
                  {"action": action, "onExitCodes": {
                      "containerName": "ilm", "operator": "In", "values": [_SAVED]}},
                  {"action": action, "onPodConditions": [
                      {"type": "DisruptionTarget", "status": "True"}]}]},
              "template": {"spec": pod(c, job)}}}}


def pod(c, job: Job) -> dict:
  """The pod of one host of a job, as a JobSet runs it."""
  chips = {"google.com/tpu": job.slice.chips_per_host}
  spot = {"nodeSelector": {"cloud.google.com/gke-spot": "true"},
          "tolerations": [{"key": "cloud.google.com/gke-spot", "operator": "Equal",
                           "value": "true", "effect": "NoSchedule"}]} if job.spot else {}
  return {
      **({"serviceAccountName": c.service_account} if c.service_account else {}),
      "restartPolicy": "Never",
      # The program is then not process 1, which SIGTERM would not end outside training.
      "shareProcessNamespace": True,
      "terminationGracePeriodSeconds": _SECONDS_TO_SAVE,
      "nodeSelector": {"cloud.google.com/gke-tpu-accelerator": job.slice.generation.gke_accelerator,
                       "cloud.google.com/gke-tpu-topology": job.slice.topology,
                       **spot.get("nodeSelector", {})},
      **({"tolerations": spot["tolerations"]} if spot else {}),
      "containers": [{
          "name": "ilm", "image": c.image, "command": list(job.command),
          **({"env": _environment(c.env)} if c.env else {}),
          "ports": [{"containerPort": 8471}, {"containerPort": 8080}],
          "resources": {"requests": chips, "limits": chips}}]}


def _environment(pairs: list[str]) -> list[dict]:
  wrong = [pair for pair in pairs if not re.match(r"[A-Za-z_]\w*=", pair)]
  if wrong:
    raise errors.UserError(f"--env={wrong[0]}: expected NAME=VALUE")
  return [dict(zip(("name", "value"), pair.split("=", 1))) for pair in pairs]


def apply(c) -> list[tuple]:
  """The command that starts the job, with its manifest as stdin."""
  job = Job(name="train", slice=tpus.slice_of(c.tpu, c.topology), slices=c.slices, spot=c.spot,
            command=tuple(shell.required(c.command)))
  return [kubectl_apply(jobset(c, [job]))]


def kubectl_apply(manifest: dict) -> tuple[list[str], str]:
  """(argv, what it reads)."""
  return ["kubectl", "apply", "--filename=-"], json.dumps(manifest, indent=2) + "\n"


def logs(c) -> list[tuple]:
  """The command for the log of host 0 of the first slice."""
  return [(["kubectl", "logs", f"--namespace={c.namespace}", f"--tail={c.lines}",
            *(["--follow"] if c.follow else []),
            f"--selector=jobset.sigs.k8s.io/jobset-name={c.name},"
            f"jobset.sigs.k8s.io/replicatedjob-name={c.job},jobset.sigs.k8s.io/job-index=0,"
            "batch.kubernetes.io/job-completion-index=0"], None)]


def status(c) -> list[tuple]:
  """The commands for the set with its number of restarts, and for its pods."""
  return [(["kubectl", "get", f"--namespace={c.namespace}", f"jobset/{c.name}"], None),
          (["kubectl", "get", f"--namespace={c.namespace}", "pods",
            f"--selector=jobset.sigs.k8s.io/jobset-name={c.name}"], None)]


def delete(c) -> list[tuple]:
  return [(["kubectl", "delete", f"--namespace={c.namespace}", f"jobset/{c.name}"], None)]


_ACTIONS = {"apply": apply, "logs": logs, "status": status, "delete": delete}


def act(c, actions=_ACTIONS) -> None:
  """Does one action: runs its commands in order, each with its stdin."""
  for argv, stdin in actions[c.action](c):
    shell.run(argv, dry_run=c.dry_run, stdin=stdin)


def parse(argv: list[str] | None) -> argparse.Namespace:
  parser, of_action = shell.parsers(__doc__, _ACTIONS, "of the JobSet")
  for name, p in of_action.items():
    p.add_argument("--namespace", default="default")
    if name == "apply":
      p.add_argument("--tpu", required=True, help=f"one of {', '.join(tpus.GENERATIONS)}")
      p.add_argument("--topology", required=True, help="of a slice, e.g. 4x4")
      p.add_argument("--slices", type=int, default=1)
      p.add_argument("--spot", action="store_true", help="cheaper, and may be taken away")
      container_flags(p)
    if name == "logs":
      p.add_argument("--job", default="train", help="train or eval (train)")
      p.add_argument("--lines", type=int, default=100)
      p.add_argument("--follow", action="store_true")
  return shell.parsed(parser, argv)


def container_flags(p: argparse.ArgumentParser, image_required: bool = True) -> None:
  """Adds the flags that every launcher with a manifest has."""
  p.add_argument("--image", required=image_required, default="",
                 help="container with the repository and its packages")
  p.add_argument("--service_account", default="", help="of Kubernetes, with access to the bucket")
  p.add_argument("--max_restarts", type=int, default=3)
  p.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")


if __name__ == "__main__":
  sys.exit(shell.main(lambda: act(parse(None))))
