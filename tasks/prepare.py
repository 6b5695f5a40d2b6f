"""Stage prepare, second half: runs every task once and stores its examples for random access.

    prepared/ml100k_sequential/train/...

A split that is there and was made from the same data, vocabularies, prompts and config stays.
"""
import dataclasses
import hashlib
import json

import seqio
import tqdm
from etils import epath

from ilm_jax import files, own_tasks
from ilm_jax.data import store, targets
from tasks import catalog, elm_requests
from tasks import material as material_lib

# Raised when the code of the tasks changes what they yield.
VERSION = 3
_TOGETHER = 512


def prepare(workdir, lm_tokenizer, text_tokenizer, config,
            sentence_vectors=None, answer=None) -> dict[str, str]:
  """Prepares all tasks of a workdir whose data/ is there.

  Args:
    workdir: reads data/, writes prepared/.
    lm_tokenizer: the language model's.
    text_tokenizer: the Q-Former's.
    config: seed, data, tasks, targets.
    sentence_vectors: texts -> [N, W]; for semantic indices.
    answer: request -> what a teacher wrote; for the tasks of `elm.written`.

  Returns:
    Short name -> registered name, as `catalog.register`.
  """
  workdir = epath.Path(workdir)
  material = material_lib.read(
      workdir / "data", lm_tokenizer, text_tokenizer, config, sentence_vectors, answer)
  _save_index(workdir / "prepared", material)
  definitions = catalog.definitions(material)
  names = catalog.add(material, definitions, catalog.dataset_name(config), config.tasks.mixture)
  own = own_tasks.mixture(material.module) if material.module else {}
  for short, definition in definitions.items():
    made_from = _made_from(material, definition)
    if short in own:
      made_from["module"] = own_tasks.fingerprint(material.module)
    for split in definition.source.splits:
      folder = workdir / "prepared" / names[short] / split
      found = store.read_manifest(folder) or {}
      if found.get("made_from") == made_from and found.get("format") == store.FORMAT:
        continue
      store.write(folder, examples(names[short], split),
                  {"task": names[short], "split": split, "made_from": made_from,
                   "templates": list(definition.prompts.all) if definition.prompts else [],
                   "seen": len(definition.prompts.seen) if definition.prompts else 0})
  return names


def write_requests(workdir, lm_tokenizer, text_tokenizer, config) -> None:
  """Writes targets/requests.jsonl: all that a teacher is to write for the config's tasks."""
  workdir = epath.Path(workdir)
  material = material_lib.read(workdir / "data", lm_tokenizer, text_tokenizer, config)
  targets.write_requests(workdir / "targets", [
      request for task in material.written for request in elm_requests.requests(material, task)])


def examples(name: str, split: str):
  """The examples of a registered task as dicts of arrays, with a progress bar."""
  task = seqio.get_mixture_or_task(name)
  dataset = task.get_dataset(sequence_length=None, split=split, shuffle=False)
  with tqdm.tqdm(desc=f"prepare {name} {split}", total=task.num_input_examples(split), unit="ex",
                 mininterval=1.0) as bar:
    # Batched only on the way out of TensorFlow: one example a time costs ten times as much.
    for batch in dataset.ragged_batch(_TOGETHER).as_numpy_iterator():
      columns = [batch[key] for key in task.output_features]
      yield from (dict(zip(task.output_features, row)) for row in zip(*columns))
      bar.update(len(columns[0]))


def _save_index(folder, material: material_lib.Material) -> None:
  """prepared/index.json: how items are named, how long that is, and the name of every raw id."""
  found = {"data": material.fingerprint, "scheme": dataclasses.asdict(material.scheme),
           "report": material.index_report,
           "names": dict(zip(material.items.ids, material.names[1:]))}
  folder.mkdir(parents=True, exist_ok=True)
  files.write_text(folder / "index.json", json.dumps(found, indent=1, ensure_ascii=False))


def _made_from(material: material_lib.Material, definition) -> dict[str, str]:
  settings = [VERSION, material.history, material.draws, material.max_train_examples,
              material.prompt_targets, material.heldout_fraction, material.seed,
              dataclasses.astuple(material.scheme), material.as_text]
  written = {"targets": definition.targets} if definition.targets else {}
  return {**written, "data": material.fingerprint,
          "lm_vocabulary": material.lm.tokenizer.fingerprint,
          "text_vocabulary": material.text.tokenizer.fingerprint,
          "prompts": definition.prompts.fingerprint if definition.prompts else "",
          "config": hashlib.sha256(json.dumps(settings).encode()).hexdigest()}
