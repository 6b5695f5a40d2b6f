"""One job at a time writes what a workdir holds of a kind; the lock dies with its owner.

    with locks.held(workdir, ["train"]):     # until it ends, or the process does, however

The lock is the kernel's (flock) on `<workdir>/.<kind>.lock`; the file stays and says who holds it.
Of the processes of one job, process 0 locks for all. Buckets (gs://) have no such lock, nor have
some network file systems: there, two jobs in one workdir are not told apart.
"""
import contextlib
import errno
import fcntl
import os
import socket

from etils import epath

from ilm_jax import errors

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(workdir, kinds):
  """Holds the locks of `kinds` within the context.

  Args:
    workdir: folder of the run, made if need be; of a bucket: nothing is locked.
    kinds: names of what is written, e.g. ["train", "eval"].

  Raises:
    UserError: another job holds one of them.
  """
  if "://" in os.fspath(workdir):
    yield
    return
  with contextlib.ExitStack() as stack:
    for kind in sorted(kinds):
      epath.Path(workdir).mkdir(parents=True, exist_ok=True)
      _lock(stack.enter_context(open(epath.Path(workdir) / f".{kind}.lock", "a+")), workdir, kind)
    yield


def _lock(file, workdir, kind: str) -> None:
  """Locks the open `file` and writes into it who holds it."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    file.seek(0)
    holder = file.read().strip() or "of unknown pid"
    raise errors.UserError(
        f"another job writes in {workdir} ({kind}: {holder}): wait until it ends, stop it, or give "
        "another --workdir") from error
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
  file.truncate(0)
  file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
  file.flush()
