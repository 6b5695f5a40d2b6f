"""Runs a function in a child process, which ends whenever this process ends."""
import concurrent.futures
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading

from ilm_jax import errors
from ilm_jax.monitoring import progress

_PR_SET_PDEATHSIG = 1        # prctl of Linux: the signal that a process gets when its parent ends


def run(name: str, function, *arguments) -> None:
  """Calls `function(*arguments)` in a spawned process and waits until it is done.

  Args:
    name: of the stage, for messages.
    function: a module's function, because it is pickled by its name.
    *arguments: of the call.

  Raises:
    errors.Preempted: this process got SIGTERM or SIGINT; it ends the child.
    UserError: the child was killed.
    Exception: what the function raised.
  """
  spawn = multiprocessing.get_context("spawn")
  others = multiprocessing.active_children()
  with concurrent.futures.ProcessPoolExecutor(
      1, mp_context=spawn, initializer=_end_with_parent, initargs=(os.getpid(),)) as pool:
    work = pool.submit(function, *arguments)
    try:
      with progress.StopSignals() as signals:
        while not (work.done() or signals.came):
          concurrent.futures.wait([work], timeout=0.2)
      if signals.came and not work.done():
        raise errors.Preempted(f"{name}: {signals.came.name}", signals.came)
      work.result()
    except concurrent.futures.process.BrokenProcessPool as error:
      raise errors.UserError(
          f"the process of stage {name} was killed before it was done, perhaps because memory ran "
          "out: free some memory and run the same command again") from error
    finally:
      if not work.done():       # the pool would wait for it
        for process in multiprocessing.active_children():
          if process not in others:
            process.kill()


def import_quietly(name: str) -> None:
  """Imports a module and hides what its libraries print on stderr, unless the import fails.

  While it loads, TensorFlow 2.21 prints messages about CUDA and oneDNN, past Python's sys.stderr,
  which no variable turns off. Its later messages can be turned off by a variable.

  Args:
    name: of the module, dotted.
  """
  sys.stderr.flush()
  kept = os.dup(2)
  with tempfile.TemporaryFile() as heard:
    os.dup2(heard.fileno(), 2)
    try:
      importlib.import_module(name)
    except BaseException:
      heard.seek(0)
      os.write(kept, heard.read())
      raise
    finally:
      sys.stderr.flush()
      os.dup2(kept, 2)
      os.close(kept)


def _end_with_parent(parent: int) -> None:
  """Ends this process when its parent is gone: after SIGKILL the parent cannot end it.

  On Linux the kernel does it, at once: a thread must wait until a library in C lets Python run.
  """
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:       # gone before the call
      os._exit(1)

  def wait():
    multiprocessing.parent_process().join()
    os._exit(1)
  threading.Thread(target=wait, daemon=True).start()
