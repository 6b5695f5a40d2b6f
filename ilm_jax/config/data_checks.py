"""What can be wrong with a config's data, tasks and targets."""
from etils import epath

from ilm_jax import elm
from ilm_jax.config import names, rules


def check_data(c) -> list[str]:
  d = c.data
  wrong = [*rules.known("data.name", d.name, names.DATASETS),
           *rules.known("data.split", d.split, names.SPLITS)]
  if d.name in names.DATASETS and d.name not in names.FETCHED and not d.path:
    wrong.append(f"data.path is empty: data.name={d.name!r} is read from files of yours, give "
                 "their folder, e.g. --config.data.path=data/files; docs/data_sets.md says which "
                 "they are")
  if d.path and not epath.Path(d.path).expanduser().is_dir():
    wrong.append(f"data.path={d.path!r} is no folder: give the one that holds the files of "
                 f"data.name={d.name!r}")
  if not (isinstance(d.k_core, int) and d.k_core >= 0):
    wrong.append(f"data.k_core={d.k_core}: expected 1 or more, or 0 (items that nobody met stay, "
                 "too)")
  if d.domain:
    wrong += rules.known("data.domain", d.domain, tuple(elm.DOMAINS))
  if d.split == "global_time":
    if d.name in names.UNTIMED or (d.name == "table" and not d.columns.time):
      wrong.append(f"data.split='global_time' needs times, and data.name={d.name!r} has none"
                   f"{': name data.columns.time, or' * (d.name == 'table') or ':'} choose "
                   "'loo_stable'")
    fractions = tuple(d.time_fractions)
    if len(fractions) != 2 or not 0 < fractions[0] < fractions[1] < 1:
      wrong.append(f"data.time_fractions={fractions}: expected two ascending numbers between 0 and "
                   "1, where validation and test begin, e.g. (0.8, 0.9)")
  return wrong + (_check_columns(d.columns) if d.name == "table" else [])


def _check_columns(columns) -> list[str]:
  wrong = [f"data.columns.{name} is empty: name the column" for name in ("user", "item")
           if not columns[name]]
  if columns.items_file and not columns.id:
    wrong.append("data.columns.id is empty: name the column of the items file with the item's id")
  wrong += rules.known("data.columns.time_unit", columns.time_unit, ("s", "ms", "us", "ns"))
  if not columns.interactions_file:
    wrong.append("data.columns.interactions_file is empty: name the file, e.g. 'interactions.csv'")
  for name in ("interactions_file", "items_file"):
    if columns[name] and not columns[name].lower().endswith(names.TABLES):
      wrong.append(f"data.columns.{name}={columns[name]!r}: expected a file ending in "
                   f"{', '.join(names.TABLES)}")
  return wrong


def check_tasks(c) -> list[str]:
  t = c.tasks
  wrong = rules.positive(c, *(f"tasks.{n}" for n in (
      "history", "draws", "index_clusters", "index_size", "index_levels", "index_codes")))
  wrong += rules.known("tasks.index", t.index, names.INDICES)
  wrong += rules.known("tasks.entities", t.entities, ("slots", "names"))
  if t.index_words and not c.lm.new_tokens:
    wrong.append("tasks.index_words=True needs words in the vocabulary: set lm.new_tokens")
  if t.index_words and t.index == "title":
    wrong.append("tasks.index_words=True with tasks.index='title': titles are spelled as they are")
  if t.index_clusters == 1:
    wrong.append("tasks.index_clusters=1 divides nothing: make it 2 or more")
  if t.prompts and not epath.Path(t.prompts).exists():
    wrong.append(f"tasks.prompts={t.prompts!r} does not exist: name a prompt.txt, or \"\"")
  wrong += [f"tasks.{name}={t[name]}: expected 0 (all) or more"
            for name in ("max_train_examples", "prompt_targets") if t[name] < 0]
  for name, rate in c.tasks.mixture.items():
    if not t.module:
      wrong += rules.known("tasks.mixture", name, names.TASKS)
    if rate < 0:
      wrong.append(f"tasks.mixture.{name}={rate}: expected 0 (left out) or more")
  if not any(rate > 0 for rate in c.tasks.mixture.values()):
    wrong.append("tasks.mixture has no task with a rate above 0: give one to some of "
                 f"{names.TASKS}")
  return wrong


def check_targets(c) -> list[str]:
  t = c.targets
  wrong = rules.positive(c, "targets.max_tokens", "targets.batch_size", "targets.timeout")
  wrong += [f"targets.{name}={t[name]}: expected 0 or more"
            for name in ("max_items", "max_heldout", "retries", "backoff", "temperature")
            if t[name] < 0]
  wrong += rules.known("targets.teacher", t.teacher, ("lm", "endpoint", "file"))
  wrong += rules.known("targets.chat", t.chat, ("auto", "chatml", "gemma", "none"))
  if not 0 < t.top_p <= 1:
    wrong.append(f"targets.top_p={t.top_p}: expected above 0, at most 1")
  for name in t.tasks:
    wrong += rules.known("targets.tasks", name, elm.WRITTEN)
  absent = [n for n in elm.WRITTEN if c.tasks.mixture.get(n, 0) > 0 and n not in t.tasks]
  if t.tasks and absent:
    wrong.append(f"tasks.mixture has {', '.join(absent)}, which targets.tasks={tuple(t.tasks)} "
                 "leaves out: nobody writes their answers; name them too, or give ()")
  if not elm.written(c):
    return wrong
  if t.teacher == "lm" and t.model:
    wrong += rules.known_or_path("targets.model", t.model, names.LANGUAGE_MODELS)
  if t.teacher == "endpoint" and not t.endpoint.startswith(("http://", "https://")):
    wrong.append(f"targets.endpoint={t.endpoint!r}: expected the address of an OpenAI-compatible "
                 "server, e.g. 'http://localhost:8000/v1'")
  if t.teacher == "endpoint" and not t.model:
    wrong.append("targets.model is empty: name the model that targets.endpoint is to use")
  if t.teacher == "file" and not (t.file and epath.Path(t.file).exists()):
    wrong.append(f"targets.file={t.file!r} does not exist: name a file of JSON lines with task, "
                 "ids and target")
  return wrong
