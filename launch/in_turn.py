"""Commands on this machine, one after the other. SIGTERM and Ctrl-C reach the running one, which
saves and ends; the others are then not started."""
import os
import pathlib
import shlex
import signal
import subprocess

from ilm_jax import errors

ROOT = pathlib.Path(__file__).parents[1]
_STOPPED = (130, 143)            # exit codes of ilm_jax.main after Ctrl-C and SIGTERM


def run(commands: dict[str, list[str]], *, dry_run: bool = False) -> int:
  """Runs each command from the root of the repository.

  Args:
    commands: {name of the experiment: argv}.
    dry_run: only print them.

  Returns:
    0, or 130 or 143 if they were stopped.

  Raises:
    UserError: some failed; the others ran nevertheless.
  """
  failed = {}
  for name, argv in commands.items():
    print(f"{name}: {shlex.join(argv)}", flush=True)
    if dry_run:
      continue
    code = _wait(argv)
    if code in _STOPPED:
      return code
    if code:
      failed[name] = code
  if failed:
    said = ", ".join(f"{name} (exit code {code})" for name, code in failed.items())
    raise errors.UserError(f"{len(failed)} of {len(commands)} experiments failed: {said}: fix the "
                           "cause, then run the same command again: it repeats no finished work")
  return 0


def _wait(argv: list[str]) -> int:
  """Runs a command and forwards SIGINT and SIGTERM to it; returns its exit code as a shell does."""
  asked: list[int] = []
  path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
  running: list[subprocess.Popen] = []

  def hand_on(number, frame):
    del frame
    asked.append(number)
    for process in running:
      process.send_signal(number)

  # Before the command starts: a signal in between would end this program but not the command.
  before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    # In its own session, Ctrl-C reaches it only through `hand_on`, and only once.
    running.append(subprocess.Popen(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
                                    start_new_session=True))
    if asked:
      running[0].send_signal(asked[0])
    code = running[0].wait()
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  if asked:
    return 128 + asked[0]
  return 128 - code if code < 0 else code
