"""The launchers, word for word, against a gcloud, kubectl and git that only write down their words.

The fakes are programs on the PATH: each appends its arguments and input to calls.jsonl, prints what
`says` holds for it, and fails as often as `fail` asks.
"""
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time

import json_schema
import pytest

from ilm_jax import errors
from launch import gke, gke_serve, jobs, shell, tpu_vm, tpus
from tests import test_requirements

ROOT = pathlib.Path(__file__).parents[1]
SCHEMA = json.loads((ROOT / "tests" / "golden" / "jobset_schema.json").read_text())
FAKE = f"""#!{sys.executable}
import json, pathlib, sys
here, name = pathlib.Path(__file__).parent, pathlib.Path(__file__).name
with (here / "calls.jsonl").open("a") as calls:
  stdin = sys.stdin.read() if name == "kubectl" and "apply" in sys.argv else ""
  calls.write(json.dumps([[name, *sys.argv[1:]], stdin]) + "\\n")
says = here / (name + ".says")
if says.exists() and says.read_text():
  first, _, rest = says.read_text().partition("\\n")
  says.write_text(rest)
  print(first)
fail = here / (name + ".fail")
left = int(fail.read_text()) if fail.exists() else 0
if left:
  fail.write_text(str(left - 1))
  print("chatter\\nERROR: (gcloud)", (here / (name + ".why")).read_text(), file=sys.stderr)
  sys.exit(4)
"""


class Fakes:
  """The fake programs of one test."""

  def __init__(self, folder):
    self._folder = folder
    for name in ("gcloud", "kubectl", "git"):
      (folder / name).write_text(FAKE)
      (folder / name).chmod(0o755)

  def fail(self, name, times, why="no capacity in zone"):
    (self._folder / f"{name}.why").write_text(why)
    (self._folder / f"{name}.fail").write_text(str(times))

  def say(self, name, *lines):
    (self._folder / f"{name}.says").write_text("\n".join(lines))

  @property
  def calls(self):
    path = self._folder / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

  @property
  def lines(self):
    return [shlex.join(argv) for argv, _ in self.calls]


@pytest.fixture
def fakes(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
  monkeypatch.setattr(shell, "WAIT_SECONDS", 0.0)
  monkeypatch.setattr(tpu_vm, "POLL_SECONDS", 0.0)
  return Fakes(tmp_path)


def on_tpu_vm(line):
  tpu_vm.act(tpu_vm.parse(shlex.split(line)))


# TPU VMs.

SSH = "gcloud compute tpus tpu-vm ssh a --zone=z"


@pytest.mark.parametrize(("line", "words"), [
    ("create a --zone=z --type=v5litepod-16",
     "gcloud compute tpus tpu-vm create a --zone=z --accelerator-type=v5litepod-16 "
     "--version=v2-alpha-tpuv5-lite"),
    ("create a --zone=z --project=p --type=v5p-8 --spot",
     "gcloud compute tpus tpu-vm create a --zone=z --project=p --accelerator-type=v5p-8 "
     "--version=v2-alpha-tpuv5 --spot"),
    ("create a --zone=z --type=v4-8 --runtime=mine",
     "gcloud compute tpus tpu-vm create a --zone=z --accelerator-type=v4-8 --version=mine"),
    ("create a --zone=z --type=v6e-16 --queued --spot --valid_for=6h",
     "gcloud compute tpus queued-resources create a --node-id=a --zone=z "
     "--accelerator-type=v6e-16 --runtime-version=v2-alpha-tpuv6e --spot "
     "--valid-until-duration=6h"),
    ("delete a --zone=z", "gcloud compute tpus tpu-vm delete a --zone=z --quiet"),
    ("delete a --zone=z --queued",
     "gcloud compute tpus queued-resources delete a --zone=z --force --quiet"),
    ("logs a --zone=z --follow --lines=5",
     f"{SSH} --worker=0 '--command=tail -n 5 -f ilm_jax/runs/job.log'"),
    ("logs a --zone=z --worker=all --job=eval",
     f"{SSH} --worker=all '--command=tail -n 100 ilm_jax/runs/eval.log'"),
    ("stop a --zone=z",
     f"""{SSH} --worker=all '--command=kill -TERM "$(cat ilm_jax/runs/job.pid)"'"""),
    ("tunnel a --zone=z --port=80",
     f"{SSH} --worker=0 -- -N -o ExitOnForwardFailure=yes -L 80:127.0.0.1:80")])
def test_tpu_vm_word_for_word(fakes, line, words):
  on_tpu_vm(line)
  assert fakes.lines == [words]


def test_setup_puts_this_commit_and_the_packages_on_every_host(fakes, monkeypatch):
  monkeypatch.setattr(tpu_vm.tempfile, "gettempdir", lambda: "/t")
  monkeypatch.setattr(tpu_vm, "_pinned_jax", lambda: "1.2.3")
  on_tpu_vm("setup a --zone=z")
  assert [argv for argv, _ in fakes.calls] == [
      ["git", "-C", str(ROOT), "archive", "--format=tar.gz", "--output=/t/ilm_jax.tar.gz", "HEAD"],
      ["gcloud", "compute", "tpus", "tpu-vm", "scp", "/t/ilm_jax.tar.gz", "a:ilm_jax.tar.gz",
       "--zone=z", "--worker=all"],
      ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "a", "--zone=z", "--worker=all",
       "--command=mkdir -p ilm_jax && "
       "find ilm_jax -mindepth 1 -maxdepth 1 ! -name .venv ! -name runs -exec rm -rf {} + && "
       "tar -xzf ilm_jax.tar.gz -C ilm_jax && python3 -m pip install --quiet --user uv && "
       'PATH="$HOME/.local/bin:$PATH" bash ilm_jax/launch/_env.sh && '
       "ilm_jax/.venv/bin/python -m pip install --quiet 'jax[tpu]==1.2.3'"]]


def test_the_lock_pins_the_jax_that_setup_installs():
  assert tpu_vm._pinned_jax() == test_requirements.pins(ROOT / "requirements.lock")["jax"][0]


def on_a_host(argv, home):
  """Runs the command that gcloud would run on a host, in a shell with that home."""
  command = argv[-1].removeprefix("--command=")
  return subprocess.run(["bash", "-c", command], cwd=home, env={**os.environ, "HOME": str(home)},
                        capture_output=True, text=True, check=False)


def test_what_runs_on_a_host_is_detached_written_down_and_started_once(tmp_path):
  """The very words, in a shell: quoting survives, the exit code is kept, a second start refused."""
  (tmp_path / "ilm_jax").mkdir()
  program = "import os, sys, time; print(os.environ['A'], sys.argv[1:]); time.sleep(1); sys.exit(7)"
  c = tpu_vm.options(name="a", zone="z", env=["A=it's"],
                     command=[sys.executable, "-u", "-c", program, "('behavioral',)", "$HOME"])
  run, status = tpu_vm.run(c)[0], tpu_vm.status(c)[0]
  assert on_a_host(run, tmp_path).returncode == 0
  time.sleep(0.5)
  again = on_a_host(run, tmp_path)
  assert again.returncode == 3 and "job runs already" in again.stderr
  assert on_a_host(status, tmp_path).stdout.endswith(": running\n")
  for _ in range(100):
    if "ended" in (said := on_a_host(status, tmp_path).stdout):
      break
    time.sleep(0.1)
  assert said.endswith(": ended with 7\n")
  logs = on_a_host(tpu_vm.logs(c)[0], tmp_path).stdout
  assert logs == "it's [\"('behavioral',)\", '$HOME']\n"


def test_a_job_that_was_killed_is_not_running(tmp_path):
  (tmp_path / "ilm_jax").mkdir()
  c = tpu_vm.options(name="a", zone="z",
                     command=[sys.executable, "-c", "import time; time.sleep(60)"])
  assert on_a_host(tpu_vm.run(c)[0], tmp_path).returncode == 0
  status = tpu_vm.status(c)[0]
  assert on_a_host(status, tmp_path).stdout.endswith(": running\n")
  job = int((tmp_path / "ilm_jax" / "runs" / f"{c.job}.pid").read_text())
  os.killpg(os.getpgid(job), signal.SIGKILL)       # with the shell that would write the exit code
  waits_for(lambda: on_a_host(status, tmp_path).stdout.endswith("it left no exit code\n"))


def test_a_server_on_a_host_ends_by_itself_when_it_is_stopped(tmp_path):
  """The words of `run` and `stop` around one that listens until SIGTERM, as --stage=serve does."""
  (tmp_path / "ilm_jax").mkdir()
  program = (
      "import signal, socket\n"
      "signal.signal(signal.SIGTERM, lambda *_: exit(0))\n"
      "sock = socket.create_server(('127.0.0.1', 0))\n"
      "print(sock.getsockname()[1], flush=True)\n"
      "while True: sock.accept()[0].sendall(b'ready')\n")
  c = tpu_vm.options(name="a", zone="z", job="serve", command=[sys.executable, "-c", program])
  assert on_a_host(tpu_vm.run(c)[0], tmp_path).returncode == 0
  log = tmp_path / "ilm_jax" / "runs" / "serve.log"
  waits_for(lambda: log.exists() and log.read_text().strip())
  with socket.create_connection(("127.0.0.1", int(log.read_text()))) as client:
    assert client.recv(9) == b"ready"
  assert on_a_host(tpu_vm.stop(c)[0], tmp_path).returncode == 0
  waits_for(lambda: on_a_host(tpu_vm.status(c)[0], tmp_path).stdout.endswith(": ended with 0\n"))


def waits_for(true):
  for _ in range(200):
    if true():
      return
    time.sleep(0.1)
  raise AssertionError("it did not come to pass")


def test_wait_ends_when_the_queue_has_given(fakes, capsys):
  fakes.say("gcloud", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
  on_tpu_vm("wait a --zone=z")
  assert fakes.lines == ["gcloud compute tpus queued-resources describe a --zone=z "
                         "'--format=value(state.state)'"] * 3
  assert capsys.readouterr().err == "a: WAITING_FOR_RESOURCES\na: PROVISIONING\n"


def test_wait_asks_again_where_the_service_cannot_answer(fakes, capsys):
  """Not for ever, and not where asking again cannot help."""
  fakes.say("gcloud", "", "", "ACTIVE")
  fakes.fail("gcloud", 2, "UNAVAILABLE: The service is currently unavailable.")
  on_tpu_vm("wait a --zone=z")
  assert len(fakes.calls) == 3
  assert "UNAVAILABLE: The service is currently unavailable.); trying" in capsys.readouterr().err
  fakes.fail("gcloud", 100, "UNAVAILABLE: The service is currently unavailable.")
  with pytest.raises(errors.UserError, match="UNAVAILABLE"):
    on_tpu_vm("wait a --zone=z")
  assert len(fakes.calls) == 3 + 13
  fakes.fail("gcloud", 100, "NOT_FOUND: no such queued resource")
  with pytest.raises(errors.UserError, match="NOT_FOUND"):
    on_tpu_vm("wait a --zone=z")
  assert len(fakes.calls) == 3 + 13 + 1


def test_each_wait_between_tries_is_longer(fakes, monkeypatch):
  slept = []
  monkeypatch.setattr(shell, "WAIT_SECONDS", 15.0)
  monkeypatch.setattr(shell.time, "sleep", slept.append)
  fakes.fail("gcloud", 7, "UNAVAILABLE")
  shell.run(["gcloud"], patient=True)
  assert slept == [15, 30, 60, 120, 240, 300, 300]


def test_what_is_not_committed_is_said(fakes, capsys):
  fakes.say("git", " M launch/shell.py")
  tpu_vm.main(tpu_vm.parse(shlex.split("run a --zone=z -- true")))
  assert capsys.readouterr().err == (
      "not on the hosts, because not committed: launch/shell.py; commit and run setup again to "
      "copy them\n")
  assert [argv[0] for argv, _ in fakes.calls] == ["git", "gcloud"]
  fakes.fail("git", 1, "not a git repository")
  tpu_vm.main(tpu_vm.parse(shlex.split("run a --zone=z -- true")))
  assert capsys.readouterr().err == ""


def test_wait_does_not_wait_for_what_will_not_come(fakes):
  fakes.say("gcloud", "FAILED")
  with pytest.raises(errors.UserError, match="queued resource a is FAILED and will not come"):
    on_tpu_vm("wait a --zone=z")


def test_installing_is_tried_again_and_starting_is_not(fakes):
  fakes.fail("gcloud", 2)
  on_tpu_vm("setup a --zone=z")
  assert [argv[4] for argv, _ in fakes.calls if argv[0] == "gcloud"] == ["scp"] * 3 + ["ssh"]
  fakes.fail("gcloud", 1)
  with pytest.raises(errors.UserError, match=r"failed with exit code 4: .*no capacity in zone"):
    on_tpu_vm("run a --zone=z -- true")
  assert len(fakes.calls) == 6


def test_dry_run_prints_and_runs_nothing(fakes, capsys):
  on_tpu_vm("create a --zone=z --type=v6e-4 --dry_run")
  assert fakes.calls == []
  assert capsys.readouterr().out == (
      "gcloud compute tpus tpu-vm create a --zone=z --accelerator-type=v6e-4 "
      "--version=v2-alpha-tpuv6e\n")


@pytest.mark.parametrize(("line", "says"), [
    ("create a --zone=z --type=v5lite-16", "--type=v5lite-16: .* did you mean v5litepod?"),
    ("create a --zone=z --type=v6e", "expected a number after one of v4, v5litepod, v5p, v6e"),
    ("create a --zone=z --type=v5p-7", "counts TensorCores, of which a chip has 2: make it even"),
    ("create a --zone=z --type=tpu7x-8", "unknown accelerator type"),
    ("run a --zone=z", "no command: write it after --")])
def test_tpu_vm_mistakes(fakes, line, says):
  with pytest.raises(errors.UserError, match=says):
    on_tpu_vm(line)
  assert fakes.calls == []


def test_a_missing_gcloud_is_one_message(tmp_path):
  done = subprocess.run(
      [sys.executable, "-m", "launch.tpu_vm", "delete", "a", "--zone=z"], cwd=ROOT,
      env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
  assert done.returncode == 1
  assert done.stderr == ("error: gcloud is not on the PATH: install the Google Cloud CLI "
                         "(https://cloud.google.com/sdk) and `gcloud auth login`\n")


# GKE.


def on_gke(line):
  gke.act(gke.parse(shlex.split(line)))


def applied(fakes):
  """The manifests that kubectl was given, each checked against the schema."""
  found = []
  for argv, stdin in fakes.calls:
    assert argv == ["kubectl", "apply", "--filename=-"]
    found.append(json.loads(stdin))
    assert json_schema.mistakes(found[-1], SCHEMA) == []
  return found


def test_the_manifest_of_a_slice_of_four_hosts(fakes):
  on_gke("apply my-run --tpu=v5e --topology=4x4 --slices=2 --spot --image=IMAGE "
         "--service_account=ilm --env=A=b=c -- python -m ilm_jax.main --distributed=auto")
  manifest, = applied(fakes)
  assert manifest["metadata"] == {"name": "my-run", "namespace": "default",
                                  "labels": {"app.kubernetes.io/name": "ilm-jax"}}
  assert manifest["spec"]["network"] == {"enableDNSHostnames": True, "subdomain": "my-run"}
  assert manifest["spec"]["failurePolicy"] == {"maxRestarts": 3, "rules": [
      {"name": "preempted", "action": "RestartJobSetAndIgnoreMaxRestarts",
       "onJobFailureReasons": ["PodFailurePolicy"]}]}
  job, = manifest["spec"]["replicatedJobs"]
  assert (job["name"], job["replicas"]) == ("train", 2)
  assert job["template"]["metadata"]["annotations"] == {
      "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
  spec = job["template"]["spec"]
  pod = spec.pop("template")["spec"]
  assert spec == {
      "completionMode": "Indexed", "parallelism": 4, "completions": 4, "backoffLimit": 0,
      "podFailurePolicy": {"rules": [
          {"action": "FailJob",
           "onExitCodes": {"containerName": "ilm", "operator": "In", "values": [143]}},
          {"action": "FailJob",
           "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}}
  container, = pod.pop("containers")
  assert pod == {
      "serviceAccountName": "ilm", "restartPolicy": "Never", "shareProcessNamespace": True,
      "terminationGracePeriodSeconds": 60,
      "nodeSelector": {"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
                       "cloud.google.com/gke-tpu-topology": "4x4",
                       "cloud.google.com/gke-spot": "true"},
      "tolerations": [{"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true",
                       "effect": "NoSchedule"}]}
  assert container == {
      "name": "ilm", "image": "IMAGE",
      "command": ["python", "-m", "ilm_jax.main", "--distributed=auto"],
      "env": [{"name": "A", "value": "b=c"}],
      "ports": [{"containerPort": 8471}, {"containerPort": 8080}],
      "resources": {"requests": {"google.com/tpu": 4}, "limits": {"google.com/tpu": 4}}}


@pytest.mark.parametrize(("line", "words"), [
    ("logs r --follow --lines=7", "kubectl logs --namespace=default --tail=7 --follow "
     "--selector=jobset.sigs.k8s.io/jobset-name=r,jobset.sigs.k8s.io/replicatedjob-name=train,"
     "jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0"),
    ("status r --namespace=n", "kubectl get --namespace=n jobset/r\n"
     "kubectl get --namespace=n pods --selector=jobset.sigs.k8s.io/jobset-name=r"),
    ("delete r", "kubectl delete --namespace=default jobset/r")])
def test_kubectl_word_for_word(fakes, line, words):
  on_gke(line)
  assert fakes.lines == words.splitlines()


@pytest.mark.parametrize(("tpu", "topology", "hosts", "chips", "devices"), [
    ("v5e", "1x1", 1, 1, 1), ("v5e", "2x4", 1, 8, 8), ("v6e", "16x16", 64, 4, 256),
    ("v4", "2x2x1", 1, 4, 4), ("v5p", "4x4x8", 32, 4, 128), ("tpu7x", "2x2x2", 2, 4, 16)])
def test_hosts_and_chips_of_a_topology(tpu, topology, hosts, chips, devices):
  found = tpus.slice_of(tpu, topology)
  assert (found.hosts, found.chips_per_host, found.devices) == (hosts, chips, devices)


@pytest.mark.parametrize(("kind", "hosts", "devices"), [
    ("v6e-8", 1, 8), ("v6e-16", 4, 16), ("v5litepod-4", 1, 4), ("v5p-8", 1, 4), ("v4-32", 4, 16)])
def test_hosts_and_devices_of_a_type(kind, hosts, devices):
  assert (tpus.hosts_of_type(kind), tpus.devices_of_type(kind)) == (hosts, devices)


@pytest.mark.parametrize(("words", "says"), [
    ("r --tpu=v5 --topology=4x4", "--tpu=v5: unknown generation, did you mean v5p?"),
    ("r --tpu=v6e --topology=3x3", "--topology=3x3: v6e does not come in it; expected 1x1, 2x2"),
    ("r --tpu=v5p --topology=4x4", "--topology=4x4: v5p does not come in it; expected 2x2x1"),
    ("r --tpu=v5p --topology=8x4x4", "three ascending multiples of 4"),
    ("r --tpu=v4 --topology=16x16x24", "up to 4096 chips"),
    ("Run --tpu=v6e --topology=4x4", "name 'Run': expected at most 40 of a-z"),
    ("r --tpu=v6e --topology=4x4 --env=1=2", "--env=1=2: expected NAME=VALUE")])
def test_gke_mistakes(fakes, words, says):
  with pytest.raises(errors.UserError, match=says.replace("?", r"\?")):
    on_gke(f"apply {words} --image=I -- true")
  assert fakes.calls == []


def test_a_refused_manifest_is_one_message(fakes):
  fakes.fail("kubectl", 1)
  with pytest.raises(errors.UserError, match="kubectl apply .* failed with exit code 4"):
    on_gke("apply r --tpu=v6e --topology=4x4 --image=I -- true")


def test_the_schema_sees_what_is_wrong():
  c = gke.parse(shlex.split("apply r --tpu=v6e --topology=4x4 --image=I -- true"))
  manifest = json.loads(gke.apply(c)[0][1])
  job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
  job["completions"], job["backofflimit"] = "4", 0
  del job["template"]["spec"]["restartPolicy"]
  at = "$.spec.replicatedJobs[0].template.spec"
  assert json_schema.mistakes(manifest, SCHEMA) == [
      f"{at}.completions: '4' is no integer", f"{at}.template.spec: restartPolicy is missing",
      f"{at}: backofflimit is unknown"]


# A server.

SERVE = "python -m ilm_jax.main --config=c.py --workdir=gs://b/run --stage=serve --host=0.0.0.0"


def serve(line):
  gke_serve.act(gke_serve.parse(shlex.split(line)))


def test_a_server_is_a_deployment_with_a_service(fakes):
  serve("apply ilm --tpu=v5e --topology=2x2 --spot --image=I --env=A=b --token_secret=t "
        f"--service_account=sa -- {SERVE}")
  (argv, stdin), = fakes.calls
  assert argv == ["kubectl", "apply", "--filename=-"]
  deployment, service = json.loads(stdin)["items"]
  assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
  pod = deployment["spec"]["template"]["spec"]
  # But for what only servers have, it is a pod as the JobSet's schema knows it.
  plain = {name: value for name, value in pod["containers"][0].items()
           if not name.endswith("Probe")} | {"env": [{"name": "A", "value": "b"}]}
  assert json_schema.mistakes(pod | {"containers": [plain], "restartPolicy": "Never"},
                              SCHEMA["$defs"]["pod"], SCHEMA) == []
  assert pod["restartPolicy"] == "Always" and pod["terminationGracePeriodSeconds"] == 75
  assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x2"
  container, = pod["containers"]
  assert shlex.join(container["command"]) == SERVE
  assert container["env"] == [{"name": "A", "value": "b"}, {"name": "ILM_TOKEN", "valueFrom": {
      "secretKeyRef": {"name": "t", "key": "token"}}}]
  assert container["resources"]["limits"] == {"google.com/tpu": 4}
  assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 8000}
  assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 8000}
  labels = deployment["spec"]["template"]["metadata"]["labels"]
  assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
  assert service["spec"]["ports"] == [{"name": "http", "port": 8000, "targetPort": 8000}]
  assert service["spec"]["sessionAffinity"] == "ClientIP" and "type" not in service["spec"]


@pytest.mark.parametrize(("words", "says"), [
    (f"ilm --tpu=v6e --topology=4x4 -- {SERVE}", "has 4 hosts: a server is one process on one"),
    (f"ilm --tpu=v6e --topology=2x2 -- {SERVE.replace('--host=0.0.0.0', '')}", "add --host=0.0.0"),
    (f"Ilm --tpu=v6e --topology=2x2 -- {SERVE}", "name 'Ilm': expected at most 40")])
def test_a_server_that_would_not_run_is_refused(fakes, words, says):
  with pytest.raises(errors.UserError, match=says):
    serve(words.replace(" --tpu", " --image=I --tpu", 1).join(("apply ", "")))
  assert fakes.calls == []


def test_a_server_is_looked_at_and_deleted(fakes):
  for action in ("status", "logs", "delete"):
    serve(f"{action} ilm --namespace=n")
  assert fakes.lines == [
      "kubectl get --namespace=n deployments,pods --selector=app.kubernetes.io/instance=ilm",
      "kubectl logs --namespace=n --tail=100 deployment/ilm",
      "kubectl delete --namespace=n deployment/ilm service/ilm"]


# Experiments.

ROWS = ("phase1.batch_size=16", "phase1.pair_batch_size=16", "phase2.rows=16")
PAIR = ("--name=ml --config=configs/tiny.py --workdir=gs://b/ml "
        + "".join(f"--set={row} " for row in ROWS))
ON_GKE = PAIR + "--on=gke --tpu=v6e --topology=4x4 --eval_topology=2x2 --image=I "
TRAIN = "targets,prepare,cf,phase1,phase2"
MAIN = ("python -m ilm_jax.main --config=configs/tiny.py --workdir={} --stage={} "
        + "".join(f"--config.{row} " for row in ROWS))


def launch(line):
  return jobs.launch(jobs.parse(shlex.split(line)))


def commands(manifest):
  """{job: its command, as one line}."""
  return {job["name"]: shlex.join(
      job["template"]["spec"]["template"]["spec"]["containers"][0]["command"])
          for job in manifest["spec"]["replicatedJobs"]}


def test_a_train_job_and_its_watching_eval_job(fakes):
  """Train: 16 chips on 4 hosts. Eval: 4 on one, replaced alone when it is preempted."""
  launch(ON_GKE)
  manifest, = applied(fakes)
  assert manifest["metadata"]["name"] == "ml"
  assert commands(manifest) == {
      "train": MAIN.format("gs://b/ml", TRAIN)
               + "--config.mesh.data=16 --distributed=auto",
      "eval": MAIN.format("gs://b/ml", "eval,report") + "--config.mesh.data=4 --watch=60"}
  train, evaluate = [j["template"]["spec"] for j in manifest["spec"]["replicatedJobs"]]
  assert (train["completions"], train["backoffLimit"]) == (4, 0)
  assert (evaluate["completions"], evaluate["backoffLimit"]) == (1, 3)
  assert {r["action"] for r in evaluate["podFailurePolicy"]["rules"]} == {"Ignore"}


def test_a_sweep_is_one_pair_for_each_variant_and_seed(fakes):
  launch(ON_GKE + "--seeds=0,1 --variant=base: "
                  "--variant=wide:\"qformer.num_queries=8,vectors=('behavioral','semantic')\"")
  found = {m["metadata"]["name"]: commands(m) for m in applied(fakes)}
  assert list(found) == ["ml-base-seed0", "ml-base-seed1", "ml-wide-seed0", "ml-wide-seed1"]
  assert shlex.split(found["ml-wide-seed1"]["train"])[3:] == [
      "--config=configs/tiny.py", "--workdir=gs://b/ml/wide/seed1",
      f"--stage={TRAIN}", *(f"--config.{row}" for row in ROWS),
      "--config.qformer.num_queries=8", "--config.vectors=('behavioral','semantic')",
      "--config.seed=1", "--config.mesh.data=16", "--distributed=auto"]


def test_experiments_of_this_machine_run_in_turn_and_one_that_fails_stops_none(
    tmp_path, monkeypatch, capfd):
  monkeypatch.chdir(tmp_path)
  program = tmp_path / "python"
  program.write_text(f"#!{sys.executable}\nimport os, sys\nprint(os.getcwd(), sys.argv[1:])\n"
                     "sys.exit('--config.seed=1' in sys.argv)\n")
  program.chmod(0o755)
  monkeypatch.setattr(sys, "executable", str(program))
  line = "--on=local --name=ml --config=configs/tiny.py --workdir=runs/ml --seeds=0,1,2"
  with pytest.raises(errors.UserError, match=r"1 of 3 .*failed: ml-seed1 \(exit code 1\)"):
    launch(line)
  said = [l for l in capfd.readouterr().out.splitlines() if l.startswith(str(ROOT))]
  assert said == [f"{ROOT} {['-m', 'ilm_jax.main', '--config=configs/tiny.py', *words]}"
                  for words in ([f"--workdir={tmp_path}/runs/ml/seed{n}",
                                 f"--stage={TRAIN},eval,report", f"--config.seed={n}"]
                                for n in range(3))]
  launch(f"{line} --dry_run")
  assert str(ROOT) + " [" not in capfd.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_experiment_that_runs_and_no_other_begins(tmp_path, number):
  """It may take its time to save."""
  child = ("import pathlib, signal, sys, time\n"
           "def save(*_):\n  time.sleep(.5)\n  pathlib.Path(sys.argv[1]).touch()\n  sys.exit(143)\n"
           "signal.signal(signal.SIGTERM, save)\nsignal.signal(signal.SIGINT, save)\n"
           "print('ready', flush=True)\ntime.sleep(60)\n")
  argv = {name: [sys.executable, "-c", child, str(tmp_path / name)] for name in ("a", "b")}
  program = f"import sys\nfrom launch import in_turn\nsys.exit(in_turn.run({argv!r}))"
  with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE,
                        text=True) as launcher:
    while launcher.stdout.readline() != "ready\n":
      pass
    launcher.send_signal(number)
    assert launcher.wait(timeout=30) == 128 + number
  assert (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_chosen_mesh_is_the_train_jobs(fakes):
  launch(ON_GKE + "--set=mesh.fsdp=4 --set=mesh.data=4")
  found = commands(applied(fakes)[0])
  assert "--config.mesh.fsdp=4 --config.mesh.data=4 --distributed=auto" in found["train"]
  assert "fsdp" not in found["eval"] and "--config.mesh.data=4 --watch" in found["eval"]


def test_an_eval_job_on_several_hosts_with_a_mesh_of_its_own(fakes):
  launch(ON_GKE.replace("eval_topology=2x2", "eval_topology=4x4") + "--eval_set=mesh.fsdp=16")
  manifest, = applied(fakes)
  assert commands(manifest)["eval"].endswith(
      "--config.phase2.rows=16 --config.mesh.fsdp=16 --watch=60 --distributed=auto")
  assert "fsdp" not in commands(manifest)["train"]
  evaluate = manifest["spec"]["replicatedJobs"][1]["template"]["spec"]
  assert (evaluate["completions"], evaluate["backoffLimit"]) == (4, 0)


def test_experiments_on_tpu_vms_are_all_asked_for_before_one_is_waited_for(fakes):
  fakes.say("gcloud", "", "", "", "", *["ACTIVE"] * 4)
  launch(PAIR + "--on=tpu_vm --zone=z --type=v5p-16 --eval_type=v5p-8 --spot --seeds=3,4")
  names = ["ml-seed3", "ml-seed3-eval", "ml-seed4", "ml-seed4-eval"]
  asked = [argv for argv, _ in fakes.calls if argv[0] == "gcloud"]
  assert [(argv[4], argv[5].split(":")[0]) for argv in asked[:8]] == [
      *(("create", n) for n in names), *(("describe", n) for n in names)]
  assert asked[0] == shlex.split(
      "gcloud compute tpus queued-resources create ml-seed3 --node-id=ml-seed3 --zone=z "
      "--accelerator-type=v5p-16 --runtime-version=v2-alpha-tpuv5 --spot")
  started = [argv for argv in asked if "nohup" in argv[-1]]
  assert [argv[5] for argv in started] == names and asked[-4:] == started
  for words in ("--workdir=gs://b/ml/seed3 --stage=eval,report ",
                "--config.phase2.rows=16 --config.seed=3 --config.mesh.data=4 --watch=60"):
    assert words in started[1][-1]


def test_an_eval_vm_of_several_hosts_joins_them(fakes):
  fakes.say("gcloud", "", "", *["ACTIVE"] * 2)
  launch(PAIR + "--on=tpu_vm --zone=z --type=v5p-16 --eval_type=v6e-16")
  started = [argv[-1] for argv, _ in fakes.calls if "nohup" in argv[-1]]
  assert len(started) == 2
  assert "--config.mesh.data=16 --watch=60 --distributed=auto" in started[1]


@pytest.mark.parametrize(("words", "says"), [
    ("--variant=wide", "--variant=wide: expected NAME:FIELD=VALUE"),
    ("--variant=a: --variant=a:seed=1", "--variant=a:... is there twice"),
    ("--variant=a:steps", "--variant=a: steps: expected FIELD=VALUE"),
    ("--set=steps", "--set steps: expected FIELD=VALUE"),
    ("--seeds=0,0", "--seeds=0,0: expected different whole numbers"),
    ("--eval_set=steps", "--eval_set steps: expected FIELD=VALUE"),
    ("--set=phase1.stepz=9", r"no field phase1.stepz: did you mean phase1.steps\?"),
    ("--variant=a: --variant=b:qformer.num_querys=8", r"did you mean qformer.num_queries\?"),
    ("--variant=a:phase1.steps=many", "invalid literal for int"),
    ("--variant=a:cf.solver=cgs", r"did you mean 'cg'\?"),
    ("--set=phase1.batch_size=6", "batch_size=6 does not divide over mesh.data .* = 16"),
    ("--set=mesh.data=8", "needs 8 devices, this job has 16"),
    ("--eval_set=mesh.fsdp=8", "needs 8 devices, this job has 4"),
    ("--config=configs/tyni.py", "--config=configs/tyni.py: there is no such file"),
    ("--workdir=runs/x", "--workdir=runs/x: expected a folder that all hosts reach"),
    ("--workdir=gs:///x", "expected e.g. gs://bucket/run"),
    ("--workdir=gs://b/[x]", "cannot be read again"),
    ("--image=", "--on=gke needs --image")])
def test_a_mistake_starts_no_experiment(fakes, words, says):
  with pytest.raises(errors.UserError, match=says):
    launch(ON_GKE + words)
  assert fakes.calls == []


def test_paths_are_those_of_the_hosts(fakes):
  launch(ON_GKE + "--set=data.name=ml-1m --set=data.path=/on/the/hosts")
  assert len(applied(fakes)) == 1


def test_without_ml_collections_one_line_says_that_nothing_is_checked(fakes, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "ml_collections", None)
  launch(ON_GKE + "--set=phase1.stepz=9")
  assert len(applied(fakes)) == 1
  said, = capsys.readouterr().err.splitlines()
  assert said.startswith("the config is not checked here: ml_collections is not installed")


@pytest.mark.parametrize("name", ["gke", "gke_serve", "jobs", "pod_check", "tpu_vm"])
def test_launching_needs_the_standard_library_alone(name):
  done = subprocess.run([sys.executable, "-S", "-m", f"launch.{name}", "--help"], cwd=ROOT,
                        capture_output=True, text=True, check=False)
  assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


def test_an_experiment_whose_config_is_not_committed_is_refused(fakes):
  fakes.say("git", " M configs/tiny.py")
  with pytest.raises(errors.UserError, match="tiny.py has changes that are not committed"):
    launch(PAIR + "--on=tpu_vm --zone=z --type=v5p-16")
  assert {argv[0] for argv, _ in fakes.calls} == {"git"}


def test_tpu_vm_experiments_need_a_zone(fakes):
  with pytest.raises(errors.UserError, match="--on=tpu_vm needs --zone and --type"):
    launch(PAIR + "--on=tpu_vm")
  assert fakes.calls == []
