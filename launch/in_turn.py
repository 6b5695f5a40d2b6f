"""Commands on this machine, one after the other: SIGTERM and Ctrl-C reach the one that runs, which
saves first; the others are then not begun."""
import os
import pathlib
import shlex
import signal
import subprocess

from ilm_jax import errors

ROOT = pathlib.Path(__file__).parents[1]
_STOPPED = (130, 143)            # what ilm_jax.main ends with after Ctrl-C and SIGTERM


def run(commands: dict[str, list[str]], *, dry_run: bool = False) -> int:
  """Runs each command from the root of the repository.

  Args:
    commands: {name of the experiment: argv}.
    dry_run: only print them.

  Returns:
    0, or 130 or 143 where they were stopped.

  Raises:
    UserError: some failed; the others were run all the same.
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
    raise errors.UserError(f"{len(failed)} of {len(commands)} experiments failed: {said}: mend "
                           "it, then run the same command again: what is done is not repeated")
  return 0


def _wait(argv: list[str]) -> int:
  """The exit code of a command, to which signals to end are handed on; as a shell counts them."""
  asked: list[int] = []
  path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
  running: list[subprocess.Popen] = []

  def hand_on(number, frame):
    del frame
    asked.append(number)
    for process in running:
      process.send_signal(number)

  # Before the command runs: a signal in between would end this program and leave that one.
  before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    # A session of its own: Ctrl-C reaches it through `hand_on` alone, and once.
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
