"""Locks, so that only one job at a time writes files of a kind in a workdir.

    with locks.held(workdir, ["train"]):     # until the block or the process ends, in any way

The lock is the kernel's (flock) on `<workdir>/.<kind>.lock`; the file stays and names the last
holder. Process 0 locks for all processes of its job. Buckets (gs://) and some network file systems
have no such lock: there, nothing stops two jobs from writing in one workdir.
"""
import contextlib
import errno
import fcntl
import os
import socket
import sys
import time

from etils import epath

from ilm_jax import errors

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(workdir, kinds, wait: float = 0.0):
  """Holds the locks of `kinds` within the context.

  Args:
    workdir: folder of the run, made if it does not exist; nothing is locked in a bucket.
    kinds: names of the kinds of files that the job writes, e.g. ["train", "eval"].
    wait: seconds until it tries again where another job holds one of them, which it says once;
      0: it refuses.

  Raises:
    UserError: another job holds one of them, and `wait` is 0.
  """
  if "://" in os.fspath(workdir):
    yield
    return
  with contextlib.ExitStack() as stack:
    for kind in sorted(kinds):
      epath.Path(workdir).mkdir(parents=True, exist_ok=True)
      file = stack.enter_context(open(epath.Path(workdir) / f".{kind}.lock", "a+"))
      if not _locked(file):
        other = f"another job writes in {workdir} ({kind}: {_holder(file)})"
        if not wait:
          raise errors.UserError(
              f"{other}: wait until it ends, stop it, or give another --workdir")
        print(f"waiting: {other}", file=sys.stderr, flush=True)
        while not _locked(file):
          time.sleep(wait)
      file.truncate(0)
      file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
      file.flush()
    yield


def _locked(file) -> bool:
  """Locks the open `file`; False if another job holds it."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
  return True


def _holder(file) -> str:
  file.seek(0)
  return file.read().strip() or "of unknown pid"
