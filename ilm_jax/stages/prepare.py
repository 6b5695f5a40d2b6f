"""Stage prepare: raw log to data/, tasks to prepared/. The only stage that imports TensorFlow.

It also makes the requests of stage targets, from the tasks' prompts.
"""
import importlib
import platform
from collections.abc import Callable

from ilm_jax import elm, errors, files
from ilm_jax.config import dialog_sources
from ilm_jax.data import targets
from ilm_jax.stages import context, dialogs


def load_tasks(load: Callable[[str], object] = importlib.import_module) -> None:
  """Imports the tasks, and with them TensorFlow and SeqIO.

  Args:
    load: imports a module by its name.

  Raises:
    UserError: a package that they need is not installed, or cannot be loaded.
  """
  try:
    load("ilm_jax.tasks.datasets.builder")
    load("ilm_jax.tasks.prepare")
  except ImportError as e:
    package = (e.name or str(e)).split(".")[0]
    if package in ("tasks", "ilm_jax", "configs"):
      raise
    raise errors.UserError(
        f"stage prepare cannot import {package} in Python {platform.python_version()}: install "
        "the extra data in Python 3.11 (pip install 'ilm-jax[data]'), or prepare on a machine "
        "that has it, copy the workdir here and run the later stages "
        "(docs/python_versions.md)") from e


def run(run: context.Run) -> None:
  """Builds the data set through TFDS and writes every task's examples through SeqIO."""
  from ilm_jax.tasks import prepare
  prepare.check(run.config)
  make_data(run)
  if any(source.kind == dialog_sources.SYNTHETIC
         for source in dialog_sources.parse(run.config.tasks.dialogs)):
    dialogs.check(run)
  prepare.prepare(run.workdir, run.lm_tokenizer, run.text_tokenizer, run.config,
                  run.sentence_vectors, answers(run), run.beam, chats=lambda: run.chat)


def answers(run: context.Run):
  """A function: request -> the answer of the config's teacher; None if no task needs a teacher."""
  if elm.written(run.config):
    return targets.Store(run.workdir / "targets", run.teacher_fingerprint).lookup()
  return None


def requests(run: context.Run) -> None:
  """Builds the data set and writes targets/requests.jsonl."""
  from ilm_jax.tasks import prepare
  make_data(run)
  prepare.write_requests(run.workdir, run.lm_tokenizer, run.text_tokenizer, run.config)


def make_data(run: context.Run) -> None:
  """Builds data/ through TFDS, unless it exists and was made with this config."""
  from ilm_jax.conversation import corpora
  from ilm_jax.data import interactions as interactions_lib
  from ilm_jax.data import kept as kept_lib
  from ilm_jax.data import store
  from ilm_jax.tasks import beam_options
  from ilm_jax.tasks.datasets import builder, registry
  beam_options.check(run.beam)
  folder, data = run.workdir / "data", run.config.data
  dataset = registry.find(data)
  talks = corpora.redial_training(run.config.tasks.dialogs) if data.dialog_items else []
  made_from = {"dataset": data.name, "files": dataset.fingerprint, "k_core": data.k_core,
               "split": str(run.rule),
               "time": "seconds" if dataset.timed else "unknown: the order of the log"}
  if data.dialog_items:
    made_from["dialog_items"] = files.sha256_json([talk.films for talk in talks])
  if (store.read_manifest(folder) or {}).get("made_from") != made_from:
    interactions, items, kept = builder.load(dataset, run.workdir / "tfds", data.k_core, run.rule,
                                             run.beam, talks)
    kept_lib.save(folder, kept)
    interactions_lib.save(folder, interactions, items, made_from)
  for line in kept.lines() if (kept := kept_lib.load(folder)) else ():
    print(errors.plain(line), flush=True)
