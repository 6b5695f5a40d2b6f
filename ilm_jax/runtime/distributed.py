"""The processes of one job: how they find each other, which one writes, and where they wait.

A job of several processes runs the same program on every host of a pod. The address of the first
process comes from flags, from the environment (`launch/local_pod.py` sets it), or from the pod
itself (`--distributed=auto`). Process 0 alone writes files and prints tables. `here` and `is_main`
use no device, so the child processes of `prepare` may call them, too.
"""
import dataclasses
import functools
import itertools
import os
import sys

from ilm_jax import errors

COORDINATOR, NUM_PROCESSES, PROCESS_ID = "ILM_COORDINATOR", "ILM_NUM_PROCESSES", "ILM_PROCESS_ID"

# Time limits to reach the first process, and to wait for one that works alone (in stage prepare,
# process 0 tokenises everything).
START_SECONDS, WAIT_SECONDS = 300, 6 * 3600


@dataclasses.dataclass(frozen=True)
class Place:
  """The number of this process, from 0, and the number of processes."""
  process: int = 0
  count: int = 1


_here = Place()
_waits = itertools.count()     # numbers barriers: a name serves once; all processes count alike


def start(mode: str = "", coordinator: str = "", num_processes: int | None = None,
          process_id: int | None = None) -> Place:
  """Joins the job; call it before any device is used. Does nothing for a job of one process.

  Args:
    mode: "auto": the TPU pod tells the processes. "": flags and environment do.
    coordinator: host:port of process 0; by default $ILM_COORDINATOR.
    num_processes: number of processes; by default $ILM_NUM_PROCESSES.
    process_id: 0 ... num_processes - 1; by default $ILM_PROCESS_ID.

  Returns:
    The place of this process.

  Raises:
    UserError: only some of the three are set, they contradict, or process 0 cannot be reached.
  """
  global _here
  if mode not in ("", "auto"):
    raise errors.UserError(f"--distributed={mode}: expected auto, or leave the flag out")
  given = None if mode == "auto" else _given(coordinator, num_processes, process_id)
  if mode or given:
    _here = _join(given)
  return _here


def here() -> Place:
  """The place of this process in the job; that of a single process before `start`."""
  return _here


def is_main() -> bool:
  """Whether this process writes files and prints tables."""
  return _here.process == 0


def wait(name: str) -> None:
  """Waits until every process of the job calls this.

  Waits through the coordinator, not the devices: a collective would time out after seconds.
  """
  if _here.count > 1:
    from orbax.checkpoint import multihost
    multihost.sync_global_processes(
        f"ilm_{next(_waits)}_{name}", timeout=WAIT_SECONDS, processes=set(range(_here.count)))


def first(value: int) -> int:
  """Broadcasts process 0's value, for state that may change between two reads."""
  if _here.count == 1:
    return value
  import numpy as np
  from jax.experimental import multihost_utils
  return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


class Agreement:
  """Tells all processes, at the same call, whether any of them said true one call before.

  A signal reaches the hosts of a pod at different steps, but a checkpoint needs all hosts at the
  same step. Each call sends this process's value and reads the result of the call before. The
  devices have finished that result long ago, so no process waits.
  """

  def __init__(self, mesh):
    self._mesh = mesh
    self._before = None

  def any(self, mine: bool, *, last: bool = False) -> bool:
    """Whether any process said true at the call before; in a job of one process, `mine`.

    Args:
      mine: the value that this process sends now.
      last: True for the last call: it waits for the values of this call, too.
    """
    if not self._mesh.is_multi_process:
      return mine
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec
    everyone = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
    said = jax.make_array_from_callback(
        (self._mesh.size,), everyone, lambda index: np.full(self._mesh.size, mine)[index])
    before, self._before = self._before, _any(NamedSharding(self._mesh, PartitionSpec()))(said)
    return (before is not None and bool(before)) or (last and bool(self._before))


@functools.lru_cache
def _any(everywhere):
  import jax
  return jax.jit(lambda said: said.any(), out_shardings=everywhere)


def _given(coordinator, num_processes, process_id) -> tuple[str, int, int] | None:
  """(coordinator, processes, this process) by flags, else by environment; None for one process."""
  given = {"--coordinator": coordinator or os.environ.get(COORDINATOR) or None,
           "--num_processes": _number(num_processes, NUM_PROCESSES),
           "--process_id": _number(process_id, PROCESS_ID)}
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given):
    return None
  if missing:
    raise errors.UserError(
        f"{' and '.join(missing)} is not set, but others of {', '.join(given)} are: a job of "
        f"several processes needs all three, as flags or in the environment as {COORDINATOR}, "
        f"{NUM_PROCESSES}, {PROCESS_ID}")
  address, count, process = given.values()
  host, _, port = address.rpartition(":")
  if not host or not port.isdigit():
    raise errors.UserError(f"--coordinator={address}: expected host:port, e.g. localhost:8476")
  if count < 1:
    raise errors.UserError(f"--num_processes={count}: expected at least 1")
  if not 0 <= process < count:
    raise errors.UserError(f"--process_id={process}: expected 0 to {count - 1}, since "
                           f"--num_processes={count}")
  return address, count, process


def _number(flag: int | None, variable: str) -> int | None:
  text = os.environ.get(variable, "") if flag is None else str(flag)
  if text and not text.removeprefix("-").isdigit():
    raise errors.UserError(f"{variable}={text}: expected a whole number")
  return int(text) if text else None


def _pass_proxy(host: str) -> None:
  """Makes gRPC reach `host` ("": not known yet) directly: through a proxy it would hang."""
  proxy = next((name for name in ("grpc_proxy", "https_proxy", "http_proxy")
                if os.environ.get(name)), None)
  exceptions = "no_grpc_proxy" if os.environ.get("no_grpc_proxy") else "no_proxy"
  names = [name.strip() for name in os.environ.get(exceptions, "").split(",") if name.strip()]
  if proxy is None or any(host.endswith(name) for name in names):
    return
  if host:
    os.environ[exceptions] = ",".join([*names, host])
    print(f"{proxy} is set: process 0 on {host} is reached without it", file=sys.stderr)
  else:
    print(f"{proxy} is set: if the hosts do not find each other, name them in no_proxy",
          file=sys.stderr)


def _join(given: tuple[str, int, int] | None) -> Place:
  import jax
  _pass_proxy(given[0].rpartition(":")[0] if given else "")
  try:
    if given is None:
      jax.distributed.initialize(initialization_timeout=START_SECONDS)
    elif given[1] > 1:
      jax.distributed.initialize(*given, initialization_timeout=START_SECONDS)
    else:
      return Place()
  except (RuntimeError, ValueError) as e:
    who = "the pod names no coordinator" if given is None else (
        f"process {given[2]} of {given[1]} did not reach {given[0]}")
    raise errors.UserError(
        f"{who} ({' '.join(str(e).split())[:160]}): start every process of the job within "
        f"{START_SECONDS} s; outside a pod give --coordinator, --num_processes and "
        "--process_id") from e
  return Place(jax.process_index(), jax.process_count())
