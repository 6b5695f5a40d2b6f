"""TPU VMs from your machine: create one, copy the code to every host, run, read logs, delete.

    python -m launch.tpu_vm create my-tpu --zone=us-east5-a --type=v6e-16 --queued --spot
    python -m launch.tpu_vm wait my-tpu --zone=us-east5-a
    python -m launch.tpu_vm setup my-tpu --zone=us-east5-a
    python -m launch.tpu_vm run my-tpu --zone=us-east5-a -- python -m launch.pod_check auto
    python -m launch.tpu_vm run my-tpu --zone=us-east5-a -- python -m ilm_jax.main \\
        --distributed=auto --config=configs/ml100k_smollm2.py --workdir=gs://bucket/run
    python -m launch.tpu_vm logs my-tpu --zone=us-east5-a --follow
    python -m launch.tpu_vm delete my-tpu --zone=us-east5-a --queued

A job runs detached on every host, so a lost connection does not end it. `stop` sends it SIGTERM: it
saves and ends. --dry_run prints the commands and runs none.

A server is a job on a TPU VM with one host. It listens only on that host; a tunnel forwards its
port to this machine until Ctrl-C:

    python -m launch.tpu_vm run my-tpu --zone=us-east5-a --job=serve -- python -m ilm_jax.main \\
        --config=configs/ml100k_smollm2.py --workdir=gs://bucket/run --stage=serve
    python -m launch.tpu_vm tunnel my-tpu --zone=us-east5-a --port=8000
"""
import argparse
import pathlib
import re
import shlex
import sys
import tempfile
import time

from ilm_jax import errors
from launch import shell, tpus

ROOT = pathlib.Path(__file__).parents[1]
POLL_SECONDS = 30.0
_LISTED = 5              # paths that are not committed, by name
_GCLOUD = ["gcloud", "compute", "tpus"]
_WILL_NOT_COME = ("FAILED", "SUSPENDING", "SUSPENDED", "DELETING")


def create(c) -> list[list[str]]:
  """The commands that create a TPU VM, at once or through the queue."""
  runtime = c.runtime or tpus.of_type(c.type).runtime
  spot = ["--spot"] if c.spot else []
  if c.queued:
    until = [f"--valid-until-duration={c.valid_for}"] if c.valid_for else []
    return [[*_GCLOUD, "queued-resources", "create", c.name, f"--node-id={c.name}", *_where(c),
             f"--accelerator-type={c.type}", f"--runtime-version={runtime}", *spot, *until]]
  return [[*_GCLOUD, "tpu-vm", "create", c.name, *_where(c), f"--accelerator-type={c.type}",
           f"--version={runtime}", *spot]]


def state(c) -> list[list[str]]:
  """The command that asks for the state in the queue."""
  return [[*_GCLOUD, "queued-resources", "describe", c.name, *_where(c),
           "--format=value(state.state)"]]


def setup(c) -> list[list[str]]:
  """The commands that copy this commit and its packages to every host; can be run again."""
  archive = f"{tempfile.gettempdir()}/ilm_jax.tar.gz"
  return [["git", "-C", str(ROOT), "archive", "--format=tar.gz", f"--output={archive}", "HEAD"],
          [*_GCLOUD, "tpu-vm", "scp", archive, f"{c.name}:ilm_jax.tar.gz", *_where(c),
           "--worker=all"],
          _ssh(c, "all", " && ".join([
              "mkdir -p ilm_jax",
              # Remove files of an older commit; keep the packages and the runs.
              "find ilm_jax -mindepth 1 -maxdepth 1 ! -name .venv ! -name runs -exec rm -rf {} +",
              "tar -xzf ilm_jax.tar.gz -C ilm_jax",
              "python3 -m pip install --quiet --user uv",
              'PATH="$HOME/.local/bin:$PATH" bash ilm_jax/launch/_env.sh',
              f"ilm_jax/.venv/bin/python -m pip install --quiet 'jax[tpu]=={_pinned_jax()}'"]))]


def run(c) -> list[list[str]]:
  """The command that starts a job on every host, detached; refuses if it already runs."""
  words = [*(["env", *c.env] if c.env else []), *shell.required(c.command)]
  inside = (f"{shlex.join(words)} & echo $! > runs/{c.job}.pid; wait $!; "
            f"echo $? > runs/{c.job}.exit")
  return [_ssh(c, "all", "; ".join([
      "cd ilm_jax && mkdir -p runs || exit 1",
      f'if [ -f runs/{c.job}.pid ] && kill -0 "$(cat runs/{c.job}.pid)" 2>/dev/null',
      f'then echo "{c.job} runs already: stop it, or give another --job" >&2', "exit 3", "fi",
      f"rm -f runs/{c.job}.exit runs/{c.job}.pid", 'export PATH="$PWD/.venv/bin:$PATH"',
      f"nohup setsid bash -c {shlex.quote(inside)} > runs/{c.job}.log 2>&1 < /dev/null & "
      f"for _ in $(seq 100); do [ -s runs/{c.job}.pid ] && break; sleep .1; done"]))]


def logs(c) -> list[list[str]]:
  follow = " -f" if c.follow else ""
  return [_ssh(c, c.worker, f"tail -n {c.lines}{follow} ilm_jax/runs/{c.job}.log")]


def status(c) -> list[list[str]]:
  """The command that asks every host: running, ended with an exit code, or neither."""
  return [_ssh(c, "all", f"cd ilm_jax/runs && if [ -f {c.job}.exit ]; "
                         f'then echo "$(hostname): ended with $(cat {c.job}.exit)"; '
                         f'elif [ -f {c.job}.pid ] && kill -0 "$(cat {c.job}.pid)" 2>/dev/null; '
                         'then echo "$(hostname): running"; '
                         'else echo "$(hostname): not running, and it left no exit code"; fi')]


def stop(c) -> list[list[str]]:
  """The command that sends SIGTERM to the job on every host: it saves and ends with 143."""
  return [_ssh(c, "all", f'kill -TERM "$(cat ilm_jax/runs/{c.job}.pid)"')]


def tunnel(c) -> list[list[str]]:
  """The command that forwards a port of host 0 to this machine while it runs."""
  return [[*_GCLOUD, "tpu-vm", "ssh", c.name, *_where(c), "--worker=0", "--", "-N",
           "-o", "ExitOnForwardFailure=yes", "-L", f"{c.port}:127.0.0.1:{c.port}"]]


def delete(c) -> list[list[str]]:
  """The command that deletes the TPU VM; with --queued, its queued resource and with it the VM."""
  kind, force = ("queued-resources", ["--force"]) if c.queued else ("tpu-vm", [])
  return [[*_GCLOUD, kind, "delete", c.name, *_where(c), *force, "--quiet"]]


def wait(c) -> None:
  """Returns when the queue has provided the TPU VM.

  Raises:
    UserError: the queue reports that it will never come.
  """
  while (now := shell.run(*state(c), dry_run=c.dry_run, read=True,
                          patient=True).strip()) != "ACTIVE":
    if c.dry_run:
      return
    if now in _WILL_NOT_COME:
      raise errors.UserError(f"queued resource {c.name} is {now} and will not come: delete it "
                             f"(--queued) and create it again")
    print(f"{c.name}: {now}", file=sys.stderr)
    time.sleep(POLL_SECONDS)


def say_uncommitted() -> list[str]:
  """Prints and returns the paths of changes that `setup` does not ship, as it ships the commit."""
  try:
    status = shell.run(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=all"],
                       read=True)
  except errors.UserError:       # no checkout: `setup` reports it, the other actions need none
    return []
  paths = [line[3:].strip('"') for line in status.splitlines()]
  if paths:
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    print(f"not on the hosts, because not committed: {', '.join(paths[:_LISTED])}{more}; commit "
          "and run setup again to copy them", file=sys.stderr)
  return paths


def main(c) -> None:
  """Runs the command line."""
  if c.action in ("setup", "run") and not c.dry_run:
    say_uncommitted()
  act(c)


def act(c) -> None:
  """Does one action: its commands, in order."""
  if c.action == "wait":
    return wait(c)
  # Copying and installing may be done twice; starting a job may not.
  tries = 3 if c.action == "setup" else 1
  for argv in _ACTIONS[c.action](c):
    shell.run(argv, dry_run=c.dry_run, tries=tries)
  return None


_ACTIONS = {"create": create, "wait": state, "setup": setup, "run": run, "logs": logs,
            "status": status, "stop": stop, "tunnel": tunnel, "delete": delete}


def options(**fields) -> argparse.Namespace:
  """What `parse` would return, for code that builds commands: defaults, and `fields`."""
  return argparse.Namespace(**{
      "project": "", "dry_run": False, "runtime": "", "spot": False, "queued": False,
      "valid_for": "", "job": "job", "env": [], "worker": "0", "lines": 100, "follow": False,
      **fields})


def parse(argv: list[str] | None) -> argparse.Namespace:
  parser, of_action = shell.parsers(
      __doc__, _ACTIONS, "of the TPU VM, and of its place in the queue")
  for name, p in of_action.items():
    p.add_argument("--zone", required=True)
    p.add_argument("--project", default="", help="default: gcloud's")
    if name == "create":
      p.add_argument("--type", required=True, help="accelerator type, e.g. v5litepod-16")
      p.add_argument("--runtime", default="", help="software version; default: by the type")
      p.add_argument("--spot", action="store_true", help="cheaper, and may be taken away")
      p.add_argument("--valid_for", default="", help="leave the queue after, e.g. 6h")
    if name in ("create", "delete"):
      p.add_argument("--queued", action="store_true", help="through the queue")
    if name in ("run", "logs", "status", "stop"):
      p.add_argument("--job", default="job", help="name of the job on the hosts (job)")
    if name == "run":
      p.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    if name == "tunnel":
      p.add_argument("--port", type=int, default=8000, help="on the host and here (8000)")
    if name == "logs":
      p.add_argument("--worker", default="0", help="which host, or all (0)")
      p.add_argument("--lines", type=int, default=100)
      p.add_argument("--follow", action="store_true")
  return shell.parsed(parser, argv)


def _where(c) -> list[str]:
  return [f"--zone={c.zone}", *([f"--project={c.project}"] if c.project else [])]


def _ssh(c, worker: str, command: str) -> list[str]:
  return [*_GCLOUD, "tpu-vm", "ssh", c.name, *_where(c), f"--worker={worker}",
          f"--command={command}"]


def _pinned_jax() -> str:
  return re.search(r"^jax==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[1]


if __name__ == "__main__":
  sys.exit(shell.main(lambda: main(parse(None))))
