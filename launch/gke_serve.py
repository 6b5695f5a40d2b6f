"""A server on GKE: a Deployment and its Service, next to the JobSet that trains.

    python -m launch.gke_serve apply my-server --tpu=v5e --topology=1x1 --image=IMAGE \\
        --token_secret=my-token -- python -m ilm_jax.main --config=configs/ml100k_smollm2.py \\
        --workdir=gs://bucket/run --stage=serve --host=0.0.0.0
    kubectl create secret generic my-token --from-literal=token="$(openssl rand -hex 24)"
    kubectl port-forward service/my-server 8000
    python -m launch.gke_serve delete my-server

A pod is one TPU host with one process. Sessions live in its memory, so a client stays with its pod.
A pod gets requests when /readyz succeeds, is restarted if /healthz does not answer, and finishes
running requests before it is deleted. The Service can be reached only from inside the cluster.
"""
import argparse
import sys

from ilm_jax import errors
from launch import gke, shell, tpus

_PORT = 8000
_SECONDS_TO_FINISH = 75      # from SIGTERM to SIGKILL; an answer takes at most 60


def manifest(c) -> dict:
  """The Deployment and its Service as one list.

  Args:
    c: name, namespace, tpu, topology, spot, replicas, token_secret, command, and the fields of
      `gke.container_flags`.

  Raises:
    UserError: a slice of several hosts, no command, a name that Kubernetes would refuse.
  """
  gke.check_name(c.name)
  slice_ = tpus.slice_of(c.tpu, c.topology)
  if slice_.hosts > 1:
    raise errors.UserError(f"--topology={c.topology} has {slice_.hosts} hosts: a server is one "
                           f"process on one host; e.g. --tpu={c.tpu} --topology=2x2")
  command = shell.required(c.command)
  if not any(word.startswith("--host") for word in command):
    raise errors.UserError("the server would listen inside its pod alone: add --host=0.0.0.0 to "
                           "the command")
  pod = gke.pod(c, gke.Job(name="serve", slice=slice_, command=tuple(command), spot=c.spot))
  labels = {"app.kubernetes.io/name": "ilm-jax", "app.kubernetes.io/instance": c.name}
  metadata = {"name": c.name, "namespace": c.namespace, "labels": labels}
  return {"apiVersion": "v1", "kind": "List", "items": [
      {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
       "spec": {"replicas": c.replicas, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": _serving(c, pod)}}},
      {"apiVersion": "v1", "kind": "Service", "metadata": metadata,
       "spec": {"selector": labels, "sessionAffinity": "ClientIP",
                "ports": [{"name": "http", "port": _PORT, "targetPort": _PORT}]}}]}


def _serving(c, pod: dict) -> dict:
  """The pod of `gke.pod`, changed for serving."""
  container, = pod["containers"]
  secret = [{"name": "ILM_TOKEN", "valueFrom": {
      "secretKeyRef": {"name": c.token_secret, "key": "token"}}}] if c.token_secret else []
  env = [*container.get("env", []), *secret]

  def probe(path, **more):
    return {"httpGet": {"path": path, "port": _PORT}, "periodSeconds": 10, **more}

  return {**pod, "restartPolicy": "Always", "terminationGracePeriodSeconds": _SECONDS_TO_FINISH,
          "containers": [{
              **container, "ports": [{"containerPort": _PORT}], **({"env": env} if env else {}),
              # It listens when data and code are read, which takes less than ten minutes.
              "startupProbe": probe("/healthz", failureThreshold=60),
              "readinessProbe": probe("/readyz"),
              "livenessProbe": probe("/healthz", failureThreshold=6)}]}


def apply(c) -> list[tuple]:
  """The command that starts or changes the server, with its manifest as stdin."""
  return [gke.kubectl_apply(manifest(c))]


def status(c) -> list[tuple]:
  """The command that shows the Deployment and its pods."""
  return [(["kubectl", "get", f"--namespace={c.namespace}", "deployments,pods",
            f"--selector=app.kubernetes.io/instance={c.name}"], None)]


def logs(c) -> list[tuple]:
  """The command for the server's log."""
  return [(["kubectl", "logs", f"--namespace={c.namespace}", "--tail=100",
            f"deployment/{c.name}"], None)]


def delete(c) -> list[tuple]:
  return [(["kubectl", "delete", f"--namespace={c.namespace}", f"deployment/{c.name}",
            f"service/{c.name}"], None)]


_ACTIONS = {"apply": apply, "logs": logs, "status": status, "delete": delete}


def act(c) -> None:
  """Does one action."""
  gke.act(c, _ACTIONS)


def parse(argv: list[str] | None) -> argparse.Namespace:
  parser, of_action = shell.parsers(__doc__, _ACTIONS, "of the Deployment and the Service")
  for name, p in of_action.items():
    p.add_argument("--namespace", default="default")
    if name == "apply":
      p.add_argument("--tpu", required=True, help=f"one of {', '.join(tpus.GENERATIONS)}")
      p.add_argument("--topology", required=True, help="of one host, e.g. 1x1 or 2x2")
      p.add_argument("--replicas", type=int, default=1)
      p.add_argument("--spot", action="store_true", help="cheaper, and may be taken away")
      p.add_argument("--token_secret", default="",
                     help="a Secret whose key `token` clients must know")
      gke.container_flags(p)
  return shell.parsed(parser, argv)


if __name__ == "__main__":
  sys.exit(shell.main(lambda: act(parse(None))))
