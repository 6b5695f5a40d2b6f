"""The catalog of tasks: the only writer of the SeqIO registry, and only when called.

Names are <dataset>_<task>: ml100k_sequential, ml100k_item_text. The mixture of the phase 2 tasks at
the config's rates is <dataset>_ilm, that of ELM's 24 tasks at equal rates <dataset>_elm_24;
<dataset>_catalogue lists every item's index.
"""
import dataclasses
import importlib

import numpy as np
import seqio
import tensorflow as tf

from ilm_jax import elm as elm_names
from ilm_jax import errors
from ilm_jax.config import own_tasks
from ilm_jax.tasks import conversations, elm, features, item_text, openp5, templates
from ilm_jax.tasks import material as material_lib


def register(data_folder, lm_tokenizer, text_tokenizer, config, sentence_vectors=None,
             answer=None, chats=None) -> dict[str, str]:
  """Registers all tasks of a workdir; those of another workdir with these names are replaced.

  Args:
    data_folder: the workdir's data/.
    lm_tokenizer: the language model's.
    text_tokenizer: the Q-Former's.
    config: seed, data, tasks, targets.
    sentence_vectors: texts -> [N, W]; for semantic indices.
    answer: request -> a teacher's text; for the tasks of `elm.written`.
    chats: () -> the language model's chat template; for conversations.

  Returns:
    Short name ("sequential") -> name in the registry ("ml100k_sequential"). "ilm" and "elm_24" are
    the mixtures.
  """
  material = material_lib.read(
      data_folder, lm_tokenizer, text_tokenizer, config, sentence_vectors, answer, chats)
  return add(material, definitions(material), dataset_name(config), config.tasks.mixture)


def dataset_name(config) -> str:
  """ "ml-100k" -> "ml100k", the first word of the tasks' names."""
  return config.data.name.replace("-", "").replace("_", "")


def definitions(material: material_lib.Material) -> dict[str, features.Definition]:
  """All tasks by short name; conversations only if they have a rate."""
  user_tasks = _own(material)   # first, so that its mistakes are reported before the rest is made
  said = {**openp5.definitions(material), **elm.definitions(material),
          **conversations.definitions(material), **user_tasks}
  return {**item_text.definitions(material), **_alike(material, said),
          "catalogue": _catalogue(material)}


def _alike(material, tasks: dict[str, features.Definition]) -> dict[str, features.Definition]:
  """The tasks of phase 2. If one has the features of conversations, all get them: SeqIO requires
  equal features in a mixture."""
  wanted = features.conversation(material.lm, material.rows)
  if not any(set(task.output_features) == set(wanted) for task in tasks.values()):
    return tasks
  return {name: task if set(task.output_features) == set(wanted) else dataclasses.replace(
      task, preprocessors=[*task.preprocessors, features.no_replies], output_features=wanted)
          for name, task in tasks.items()}


def import_module(name: str):
  """A user's module of tasks; families of templates check themselves when the module makes them.

  Raises:
    UserError: a template is wrong, or nothing defines the tasks.
  """
  with templates.named(f"--tasks_module={name}"):
    module = importlib.import_module(name)
    if not callable(getattr(module, "definitions", None)):
      raise errors.UserError("has no function definitions(material), which returns the tasks")
  return module


def _own(material: material_lib.Material) -> dict[str, features.Definition]:
  """The tasks of a user's module."""
  if not material.module:
    return {}
  with templates.named(f"--tasks_module={material.module}"):
    given = importlib.import_module(material.module).definitions(material)
  rates = own_tasks.mixture(material.module)
  if set(given) != set(rates):
    raise errors.UserError(
        f"--tasks_module={material.module}: definitions() gives {sorted(given)}, MIXTURE has "
        f"{sorted(rates)}: name the same tasks in both")
  known = [set(of(material.lm, material.rows)) for of in (features.language, features.conversation)]
  for name, definition in given.items():
    if set(definition.output_features) not in known or "test" not in definition.source.splits:
      raise errors.UserError(
          f"task {name} of {material.module} has features {sorted(definition.output_features)} and "
          f"splits {list(definition.source.splits)}: expected features.language(..) or "
          "features.conversation(..), and at least "
          "train and test")
    with templates.named(f"--tasks_module={material.module}"):
      _ = [own_tasks.metric_name(fn) for fn in definition.metric_fns]
  return given


def add(material, tasks: dict[str, features.Definition], dataset: str, rates) -> dict[str, str]:
  """Writes tasks and their mixture into the registry."""
  names = {short: f"{dataset}_{short}" for short in tasks}
  for short, task in tasks.items():
    seqio.TaskRegistry.remove(names[short])
    seqio.TaskRegistry.add(
        names[short], source=task.source, preprocessors=_cacheable(task.preprocessors),
        output_features=task.output_features, metric_fns=list(task.metric_fns))
  mixed = [(names[short], rate) for short, rate in rates.items() if rate]
  names["ilm"] = f"{dataset}_ilm"
  seqio.MixtureRegistry.remove(names["ilm"])
  if mixed:
    seqio.MixtureRegistry.add(names["ilm"], mixed)
  _add_elm_24(names, dataset)
  return names


def _cacheable(preprocessors: list) -> list:
  """`preprocessors`, ending with the placeholder that `seqio_cache_tasks` needs if they lack it."""
  if any(isinstance(p, seqio.CacheDatasetPlaceholder) for p in preprocessors):
    return preprocessors
  return [*preprocessors, seqio.CacheDatasetPlaceholder()]


def _add_elm_24(names: dict[str, str], dataset: str) -> None:
  """Adds the mixture of those of the 24 tasks that are registered, at equal rates."""
  present = [names[task] for task in elm_names.ELM_24 if task in names]
  names["elm_24"] = f"{dataset}_elm_24"
  seqio.MixtureRegistry.remove(names["elm_24"])
  if present:
    seqio.MixtureRegistry.add(names["elm_24"], present, default_rate=1.0)


@seqio.map_over_dataset
def _name(example, answers):
  """{"target_entity": [5]} -> {"target_entity": [5], "targets": " Heat (1995)"}"""
  return {**example, "targets": tf.gather(answers, example["target_entity"][0])}


def _catalogue(material: material_lib.Material) -> features.Definition:
  """Every item's index as target, in the order of the rows: the texts that decoding allows."""
  rows = np.arange(1, len(material.items) + 1)
  answers = tf.constant(material.names)
  output = features.language(material.lm, material.rows)
  return features.Definition(
      by_example=True,
      source=features.in_memory({"test": {"target_entity": features.column(rows)}}),
      preprocessors=[lambda ds: _name(ds, answers=answers), features.tokenize],
      output_features={key: output[key] for key in ("targets", "target_entity")})
