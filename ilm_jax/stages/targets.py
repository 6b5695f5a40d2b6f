"""Stage targets: a teacher answers the requests in targets/requests.jsonl.

Answers are stored batch by batch, so a killed stage continues where it was. The processes of a job
share the requests by their hashes; none needs to know what another has done.
"""
import collections
import time
from collections.abc import Callable

import tqdm

from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import targets, teachers
from ilm_jax.runtime import distributed
from ilm_jax.stages import context


def run(run: context.Run, make_teacher=None) -> None:
  """Writes targets/<teacher>/ until every request has its answer; prints counts.

  Args:
    run: the run; its requests exist.
    make_teacher: () -> a teacher; None: the config's.

  Raises:
    UserError: the teacher failed for good; its earlier answers are kept.
  """
  requests = targets.read_requests(run.workdir / "targets")
  store = targets.Store(run.workdir / "targets", run.teacher_fingerprint)
  answer(run, requests, store, make_teacher or (
      lambda: teacher(run, lambda row: _raw_id(run, row), lambda row: _name(run, row))))
  if distributed.is_main():
    report = counts(requests, store.read(), store.teacher)
    store.write_report({"teacher": teacher_words(run), **report})
    _show(report)


def answer(run: context.Run, requests: list[targets.Request], store: targets.Store,
           make_teacher) -> None:
  """Lets a teacher answer the requests that the store lacks; returns when all processes are done.
  """
  have, here = store.read(), distributed.here()
  waiting = {key: request for request in requests
             if (key := request.key(store.teacher)) not in have}
  mine = [item for item in waiting.items() if int(item[0][:8], 16) % here.count == here.process]
  if mine:
    _write(run, make_teacher(), store, mine)
  distributed.wait("targets_written")


def counts(requests: list[targets.Request], answers: dict, teacher: str) -> dict:
  """{"tasks": {task: {"asked": .., "written": .., "empty": .., ..}}, "answers": how many distinct}.
  """
  tasks: dict[str, collections.Counter] = {}
  for request in requests:
    answer = answers.get(request.key(teacher))
    verdict = "missing" if answer is None else answer.rejected or "written"
    tasks.setdefault(request.task, collections.Counter()).update(["asked", verdict])
  distinct = {request.key(teacher) for request in requests}
  return {"tasks": {task: dict(found) for task, found in tasks.items()},
          "answers": len(distinct & answers.keys())}


def teacher_words(run: context.Run) -> str:
  """A name of the teacher, for people."""
  c = run.config.targets
  return {"lm": f"{c.model or run.config.lm.asset} ({run.config.lm.dtype})",
          "endpoint": f"{c.model} at {c.endpoint}", "file": c.file}[c.teacher]


def _write(run: context.Run, teacher, store: targets.Store, mine: list) -> None:
  size, start, done = run.config.targets.batch_size, time.perf_counter(), 0
  with tqdm.tqdm(total=len(mine), desc="targets", unit="text", mininterval=1.0) as bar:
    for first in range(0, len(mine), size):
      part = mine[first:first + size]
      try:
        _keep(store, part, teacher.write([request for _, request in part]))
      except teachers.TeacherFailed as failed:
        _keep(store, part, failed.done, absent=False)
        raise
      bar.update(len(part))
      done += len(part)
  print(f"targets: {done} texts in {time.perf_counter() - start:.1f} s", flush=True)


def _keep(store: targets.Store, part: list, said: list, absent: bool = True) -> None:
  """Stores a batch; with `absent`, a request that the teacher does not know is stored as absent."""
  answers = {}
  for (key, request), found in zip(part, said, strict=True):
    if found is not None:
      answers[key] = targets.judged(request, *found)
    elif absent:
      answers[key] = targets.Answer("", "absent")
  store.add(answers)


def teacher(run: context.Run, raw_id: Callable[[int], str], name: Callable[[int], str]):
  """The teacher of `config.targets`.

  Args:
    run: the run.
    raw_id: a request's row -> its id in a file of targets.
    name: a request's row -> its name in messages.
  """
  c = run.config.targets
  if c.teacher == "endpoint":
    return teachers.Endpoint(c, lambda rows: " and ".join(map(name, rows)))
  if c.teacher == "file":
    return teachers.File(c.file, raw_id)
  from ilm_jax.stages import lm_teacher  # imports model code, which other teachers do not need
  return lm_teacher.LmTeacher(run)


def _raw_id(run: context.Run, row: int) -> str:
  log, items, _ = run.data
  return log.user_ids[log.rows.user_number(row)] if log.rows.is_user(row) else items.ids[row - 1]


def _name(run: context.Run, row: int) -> str:
  log, items, _ = run.data
  if log.rows.is_user(row):
    return f"user {_raw_id(run, row)}"
  return f"item {_raw_id(run, row)} ({interactions_lib.full_title(items, row)})"


def _show(report: dict) -> None:
  for task, found in report["tasks"].items():
    print(f"targets: {task}: " + ", ".join(f"{n} {what}" for what, n in found.items()), flush=True)
