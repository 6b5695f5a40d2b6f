"""Where the scalars of a phase are shown: TensorBoard, Weights & Biases, MLflow, trackio.

`config.tracker` names one or several. Each is a `Tracker`; only process 0 has them. When a run is
killed and resumed, the steps since the last checkpoint are sent again, with the same numbers.
TensorBoard records are written through tensorboard's own protocol buffers, because
`clu.metric_writers` would import TensorFlow.

The other three may send to a server. Each works in its own thread (`Background`), so training does
not wait for them. A tracker that fails prints one warning and gets no more records. Without a
server they write into the workdir: WANDB_MODE=offline, MLFLOW_TRACKING_URI unset, and trackio
unless TRACKIO_DIR names another folder.
"""
import hashlib
import os
import pathlib
import queue
import sys
import threading
import time
from typing import Protocol

from etils import epath
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer import record_writer

from ilm_jax import files
from ilm_jax.config import rules
from ilm_jax.runtime import distributed

_PROJECT = "ilm-jax"
_SECONDS_TO_SEND = 60.0      # after the last step; records not sent by then are lost


class Tracker(Protocol):
  """Shows the scalars of one phase."""

  def start(self, step: int) -> None:
    """Called first: records after `step` follow, some perhaps for the second time."""

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Adds one record."""

  def close(self) -> None:
    """Called after the last record, when the phase is complete or stopped."""


def make(names: str, workdir, phase: str, settings: dict) -> tuple[Tracker, ...]:
  """The trackers of one phase, not started; (), except in process 0.

  Args:
    names: `config.tracker`, e.g. "tensorboard,wandb".
    workdir: of the run.
    phase: e.g. "phase1".
    settings: {dotted field: value} of the config, shown with the scalars.
  """
  if not distributed.is_main():
    return ()
  made = []
  for name in rules.listed(names):
    if name == "tensorboard":
      made.append(TensorBoard(epath.Path(workdir) / "tensorboard" / phase))
    else:
      made.append(Background(name, _REMOTE[name](workdir, phase, settings)))
  return tuple(made)


class TensorBoard:
  """Events in a folder, which may be in a bucket."""

  def __init__(self, folder):
    self._folder, self._events = epath.Path(folder), None

  def start(self, step: int) -> None:
    self._folder.mkdir(parents=True, exist_ok=True)
    self._events = (self._folder / f"events.out.tfevents.{time.time_ns()}.ilm").open("wb")
    self._event(file_version="brain.Event:2")
    self._event(step=step + 1,
                session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

  def write(self, step: int, scalars: dict[str, float]) -> None:
    values = [summary_pb2.Summary.Value(tag=name, simple_value=value)
              for name, value in scalars.items()]
    self._event(step=step, summary=summary_pb2.Summary(value=values))

  def close(self) -> None:
    if self._events is not None:
      self._events.close()
      self._events = None

  def _event(self, **fields) -> None:
    event = event_pb2.Event(wall_time=time.time(), **fields)
    try:
      record_writer.RecordWriter(self._events).write(event.SerializeToString())
      self._events.flush()
    except OSError as e:
      if e.errno in files.FULL_DISK:
        raise files.full_disk(self._folder, e) from e
      raise


class Background:
  """A tracker in its own thread; if it fails, it prints one line on stderr.

  Args:
    name: for that line.
    tracker: used by the thread alone.
    patience: seconds that `close` waits for records that are not sent yet.
  """

  def __init__(self, name: str, tracker: Tracker, patience: float = _SECONDS_TO_SEND):
    self._name, self._tracker, self._patience = name, tracker, patience
    self._calls: queue.SimpleQueue = queue.SimpleQueue()
    self._thread = threading.Thread(target=self._work, daemon=True, name=f"tracker {name}")

  def start(self, step: int) -> None:
    self._calls.put(("start", step))
    self._thread.start()

  def write(self, step: int, scalars: dict[str, float]) -> None:
    self._calls.put(("write", step, scalars))

  def close(self) -> None:
    if self._thread.ident is None:
      return
    self._calls.put(("close",))
    self._thread.join(self._patience)
    if self._thread.is_alive():
      self._warn(f"has not sent all records within {self._patience:g} s")

  def _work(self) -> None:
    name = ""
    while name != "close":
      name, *arguments = self._calls.get()
      try:
        getattr(self._tracker, name)(*arguments)
      except (Exception, SystemExit) as e:   # server, network and client may fail in any way
        self._warn(f"failed ({type(e).__name__}: {' '.join(str(e).split())[:200]})")
        return

  def _warn(self, what: str) -> None:
    print(f"warning: tracker {self._name!r} {what}; training continues without it, metrics.jsonl "
          "has all records", file=sys.stderr, flush=True)


class _Remote:
  """What the three have in common; `start` sets `_run`, except in MLflow."""

  def __init__(self, workdir, phase: str, settings: dict):
    self._workdir, self._phase, self._settings = workdir, phase, settings

  def write(self, step: int, scalars: dict[str, float]) -> None:
    self._run.log(scalars, step=step)

  def close(self) -> None:
    self._run.finish()


class _Wandb(_Remote):
  """Weights & Biases; its environment variables configure it (WANDB_MODE, WANDB_PROJECT, ..)."""

  def start(self, step: int) -> None:
    import wandb
    local = _local(self._workdir)
    if local:
      local.mkdir(parents=True, exist_ok=True)
    self._run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT), group=_title(self._workdir),
        name=f"{_title(self._workdir)} {self._phase}", id=_identity(self._workdir, self._phase),
        resume="allow", config=self._settings, dir=local)


class _Mlflow(_Remote):
  """MLflow: the server at MLFLOW_TRACKING_URI, or files in the workdir if it is not set."""

  def start(self, step: int) -> None:
    import mlflow
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
      local = _local(self._workdir)
      if local is None:
        raise ValueError("a workdir in a bucket needs MLFLOW_TRACKING_URI")
      # MLflow 3 refuses to write files unless this is set.
      os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
      uri = (local / "mlflow").absolute().as_uri()
    self._client = mlflow.MlflowClient(uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
    experiment = self._client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
    identity = _identity(self._workdir, self._phase)
    before = self._client.search_runs([experiment_id], f"tags.ilm_phase = '{identity}'")
    if before:
      self._id = before[0].info.run_id
      self._client.update_run(self._id, status="RUNNING")
      return
    self._id = self._client.create_run(
        experiment_id, tags={"ilm_phase": identity},
        run_name=f"{_title(self._workdir)} {self._phase}").info.run_id
    for field, value in self._settings.items():
      self._client.log_param(self._id, field, str(value)[:500])

  def write(self, step: int, scalars: dict[str, float]) -> None:
    from mlflow import entities
    now = int(time.time() * 1000)
    self._client.log_batch(self._id, metrics=[
        entities.Metric(name, float(value), now, step) for name, value in scalars.items()])

  def close(self) -> None:
    self._client.set_terminated(self._id)


class _Trackio(_Remote):
  """trackio: a database in TRACKIO_DIR, by default in a local workdir."""

  def start(self, step: int) -> None:
    if local := _local(self._workdir):
      os.environ.setdefault("TRACKIO_DIR", str((local / "trackio").absolute()))
    import trackio
    self._run = trackio.init(
        project=_PROJECT, name=f"{_title(self._workdir)}-{self._phase}-"
        f"{_identity(self._workdir, self._phase)}", group=_title(self._workdir), resume="allow",
        config=self._settings, embed=False)


_REMOTE = {"wandb": _Wandb, "mlflow": _Mlflow, "trackio": _Trackio}


def _local(workdir) -> pathlib.Path | None:
  """The workdir as a local path; None: it is in a bucket."""
  return None if "://" in str(workdir) else pathlib.Path(workdir)


def _title(workdir) -> str:
  """The last part of the workdir's path."""
  return str(workdir).rstrip("/").split("/")[-1]


def _identity(workdir, phase: str) -> str:
  """An id of the phase in this workdir, the same in every process that continues it."""
  local = _local(workdir)
  where = str(local.absolute()) if local else str(workdir)
  return hashlib.sha256(f"{where}\0{phase}".encode()).hexdigest()[:12]
