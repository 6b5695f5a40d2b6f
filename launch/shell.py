"""Runs gcloud and kubectl, or prints the commands with --dry_run; errors are one message."""
import argparse
import itertools
import re
import shlex
import subprocess
import sys
import time

from ilm_jax import errors

# Before the second try, doubled before each further one: a machine that has just started refuses
# ssh at first, and an overloaded service should not get many requests.
WAIT_SECONDS, LONGEST_WAIT = 15.0, 300.0
_PATIENT_TRIES = 13     # 40 minutes
_FOR_NOW = re.compile(r"UNAVAILABLE|DEADLINE_EXCEEDED|INTERNAL\b|ABORTED|Too Many Requests|"
                      r"\b(429|50[0234])\b|timed out|[Cc]onnection|name resolution|"
                      r"Remote end closed|Unable to find the server")

_CURES = {
    "gcloud": "install the Google Cloud CLI (https://cloud.google.com/sdk) and `gcloud auth login`",
    "kubectl": "`gcloud components install kubectl`, then `gcloud container clusters "
               "get-credentials CLUSTER`",
    "git": "install git, and launch from a checkout of the repository"}


def run(argv: list[str], *, dry_run: bool = False, stdin: str | None = None, tries: int = 1,
        read: bool = False, patient: bool = False) -> str:
  """Runs a command; its output goes to the terminal, or is returned if `read`.

  Args:
    argv: the command.
    dry_run: only print it (and `stdin`).
    stdin: text for its stdin.
    tries: how often to try; more than once only for commands that may run twice.
    read: return its output.
    patient: try again for 40 minutes while the service is unavailable; only for queries.

  Raises:
    UserError: the command is not found, or failed too often.
  """
  if dry_run:
    print(shlex.join(argv) + (f" <<'EOF'\n{stdin}EOF" if stdin else ""))
    return ""
  for tried in itertools.count(1):
    try:
      done = subprocess.run(argv, input=stdin, stdout=subprocess.PIPE if read else None,
                            stderr=subprocess.PIPE, text=True, check=False)
    except FileNotFoundError as e:
      raise errors.UserError(f"{argv[0]} is not on the PATH: {_CURES[argv[0]]}") from e
    if not done.returncode:
      sys.stderr.write(done.stderr)
      return done.stdout or ""
    if tried >= (_PATIENT_TRIES if patient and _FOR_NOW.search(done.stderr) else tries):
      break
    seconds = min(WAIT_SECONDS * 2 ** (tried - 1), LONGEST_WAIT)
    print(f"{argv[0]} failed ({_last(done.stderr)}); trying again in {seconds:g} s",
          file=sys.stderr)
    time.sleep(seconds)
  raise errors.UserError(f"`{shlex.join(argv)}` failed with exit code {done.returncode}: "
                         f"{_last(done.stderr)}")


def split(argv: list[str] | None) -> tuple[list[str], list[str]]:
  """(arguments of the launcher, the command after the first `--`)."""
  argv = sys.argv[1:] if argv is None else argv
  at = argv.index("--") if "--" in argv else len(argv)
  return argv[:at], argv[at + 1:]


def parsers(doc: str, actions, of: str):
  """(parser, {action: its parser}) of a launcher; each action takes the name of its target.

  Args:
    doc: of the launcher's module.
    actions: their names.
    of: whose name that is, e.g. "of the JobSet".
  """
  parser = argparse.ArgumentParser(description=doc,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  choices, of_action = parser.add_subparsers(dest="action", required=True), {}
  for name in actions:
    of_action[name] = p = choices.add_parser(name)
    p.add_argument("name", help=of)
    p.add_argument("--dry_run", action="store_true", help="print the commands, run none")
  return parser, of_action


def parsed(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
  """The launcher's arguments; `command` has the words after the first `--`."""
  ours, command = split(argv)
  return parser.parse_args(ours, argparse.Namespace(command=command))


def required(command: list[str]) -> list[str]:
  """The command, or a UserError if it is empty."""
  if not command:
    raise errors.UserError("no command: write it after --, e.g. -- python -m ilm_jax.main "
                           "--config=configs/quickstart.py --workdir=gs://bucket/run")
  return command


def main(program) -> int:
  """The exit code of `program()`: see `errors.exit_code`."""
  return errors.exit_code(program)


def _last(text: str) -> str:
  """The last three lines that are not empty: gcloud prints its reason last."""
  return " ".join([line.strip() for line in text.splitlines() if line.strip()][-3:]) or "no reason"
