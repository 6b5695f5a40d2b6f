"""Stage prepare, second half: runs every task once and stores its examples for random access.

    prepared/ml100k_sequential/train/...

Tasks of rate 0 get no split "train". A split that exists and was made from the same data,
vocabularies, prompts and config is kept.
"""
import dataclasses
import json
from typing import NamedTuple

import seqio
import tqdm
from etils import epath

from ilm_jax import files
from ilm_jax.config import own_tasks
from ilm_jax.config import settings as settings_lib
from ilm_jax.data import store, targets
from ilm_jax.tasks import catalog, elm_requests, features, openp5, pieces
from ilm_jax.tasks import material as material_lib

# Increase it when a change of code changes the examples.
VERSION = 3


class _Todo(NamedTuple):
  """A split to be prepared."""
  folder: epath.Path
  definition: features.Definition
  manifest: dict
  module: str                    # of a task of the user's


def check(config) -> None:
  """Checks before there is data: the templates of a user's module.

  Raises:
    UserError: see `catalog.import_module`.
  """
  if config.tasks.module:
    catalog.import_module(config.tasks.module)


def prepare(workdir, lm_tokenizer, text_tokenizer, config,
            sentence_vectors=None, answer=None, beam: tuple[str, ...] = (),
            chats=None) -> dict[str, str]:
  """Prepares all tasks of a workdir whose data/ is there.

  Args:
    workdir: reads data/, writes prepared/.
    lm_tokenizer: the language model's.
    text_tokenizer: the Q-Former's.
    config: seed, data, tasks, targets.
    sentence_vectors: texts -> [N, W]; for semantic indices.
    answer: request -> a teacher's text; for the tasks of `elm.written`.
    beam: options of an Apache Beam pipeline that does the work; (): this process does. The stored
      files are the same.
    chats: () -> the language model's chat template; for conversations.

  Returns:
    Short name -> registered name, as `catalog.register`.

  Raises:
    UserError: a trained task has no targets; see `openp5.check`.
  """
  workdir = epath.Path(workdir)
  material = material_lib.read(
      workdir / "data", lm_tokenizer, text_tokenizer, config, sentence_vectors, answer, chats)
  openp5.check(material, config.tasks.mixture)
  definitions = catalog.definitions(material)
  _save_index(workdir / "prepared", material)
  names = catalog.add(material, definitions, catalog.dataset_name(config), config.tasks.mixture)
  untrained = {name for name, rate in config.tasks.mixture.items() if not rate}
  todo = _todo(workdir / "prepared", material, definitions, names, config, untrained)
  if beam:
    _by_beam(todo, beam)
  else:
    for split in todo:
      store.write(split.folder, examples(split.manifest["task"], split.folder.name),
                  split.manifest, _shards(split))
  return names


def write_requests(workdir, lm_tokenizer, text_tokenizer, config) -> None:
  """Writes targets/requests.jsonl: all requests to the teacher for the config's tasks."""
  workdir = epath.Path(workdir)
  material = material_lib.read(workdir / "data", lm_tokenizer, text_tokenizer, config)
  targets.write_requests(workdir / "targets", [
      request for task in material.written for request in elm_requests.requests(material, task)])


def examples(name: str, split: str):
  """The examples of a registered task as dicts of arrays, with a progress bar."""
  task = seqio.get_mixture_or_task(name)
  with tqdm.tqdm(desc=f"prepare {name} {split}", total=task.num_input_examples(split), unit="ex",
                 mininterval=1.0) as bar:
    for some in pieces.examples(task, split):
      yield from some
      bar.update(len(some))


def _todo(folder, material, definitions, names, config, untrained: set[str]) -> list[_Todo]:
  """The splits that are missing, damaged, or made from other inputs.

  Nothing reads the training examples of an untrained task, and a large log takes minutes for each.
  Those of an earlier config are kept up to date. Its other splits are also read when lists are
  asked for or texts are written.
  """
  theirs = own_tasks.mixture(material.module) if material.module else {}
  todo = []
  for short, definition in definitions.items():
    of_task = _made_from(material, definition)
    if short in theirs:
      of_task["module"] = own_tasks.fingerprint(material.module)
    for split in definition.source.splits:
      made_from = of_task | {"settings": settings_lib.of_prepared(config, short, split)}
      if split == "train" and short in untrained and not (folder / names[short] / split).exists():
        continue
      manifest = store.read_manifest(folder / names[short] / split) or {}
      if (manifest.get("made_from"), manifest.get("format")) != (
          made_from, store.FORMAT) or store.damage(folder / names[short] / split, manifest):
        todo.append(_Todo(
            folder / names[short] / split, definition,
            {"task": names[short], "split": split, "made_from": made_from,
             "templates": list(definition.prompts.all) if definition.prompts else [],
             "seen": len(definition.prompts.seen) if definition.prompts else 0,
             **({"mention": definition.prompts.mention}      # for prompts in conversations
                if definition.prompts and "reply_at" in definition.output_features else {}),
             "metric_fns": [own_tasks.metric_name(fn) for fn in definition.metric_fns]},
            material.module if short in theirs else ""))
  return todo


def _by_beam(todo: list[_Todo], beam: tuple[str, ...]) -> None:
  """Cuts the splits into pieces, makes them in a pipeline, joins them."""
  from ilm_jax.tasks import beam_prepare
  works = []
  try:
    for split in tqdm.tqdm(todo, desc="prepare: pieces for Beam", unit="split"):
      works.append(pieces.cut(split.folder, split.definition, split.module))
    beam_prepare.make(works, beam)
    for split, work in zip(todo, works):
      pieces.join(work, split.manifest)
  finally:
    for work in works:
      pieces.clear(work)


def _shards(split: _Todo) -> int:
  return store.shards_of(split.definition.source.num_input_examples(split.folder.name))


def _save_index(folder, material: material_lib.Material) -> None:
  """Writes prepared/index.json: the naming scheme, its size, and the name of every raw id."""
  index = {"data": material.fingerprint, "scheme": dataclasses.asdict(material.scheme),
           "report": material.index_report,
           "names": dict(zip(material.items.ids, material.names[1:]))}
  folder.mkdir(parents=True, exist_ok=True)
  files.write_text(folder / "index.json",
                   json.dumps(files.stamped(index), indent=1, ensure_ascii=False))


def _made_from(material: material_lib.Material, definition) -> dict[str, str]:
  written = {"targets": definition.targets} if definition.targets else {}
  return {**written, "data": material.fingerprint,
          "lm_vocabulary": material.lm.tokenizer.fingerprint,
          "text_vocabulary": material.text.tokenizer.fingerprint,
          "prompts": definition.prompts.fingerprint if definition.prompts else "",
          "version": VERSION}
