"""Mistakes in a config's data, tasks and targets. Each check gives a line for each mistake."""
import codecs

from ilm_jax import elm
from ilm_jax.config import dialog_sources, mixture, names, rules, settings


def check_data(c) -> list[str]:
  d = c.data
  wrong = [*rules.known("data.name", d.name, names.DATASETS),
           *rules.known("data.split", d.split, names.SPLITS)]
  if d.name in names.DATASETS and d.name not in names.FETCHED and not d.path:
    wrong.append(f"data.path is empty: data.name={d.name!r} is read from your files: give their "
                 "folder, e.g. --config.data.path=data/files; docs/data_sets.md lists the files")
  if d.domain:
    wrong += rules.known("data.domain", d.domain, tuple(elm.DOMAINS))
  if d.split in ("global_time", "cold_items"):
    if d.name in names.UNTIMED or (d.name == "table" and not d.columns.time):
      wrong.append(f"data.split={d.split!r} needs times, and data.name={d.name!r} has none"
                   f"{': name data.columns.time, or' * (d.name == 'table') or ':'} choose "
                   f"{'cold_drawn' if d.split == 'cold_items' else 'loo_stable'!r}")
  if d.split in ("cold_items", "cold_drawn") and "semantic" not in c.vectors:
    wrong.append(f"data.split={d.split!r} with vectors={tuple(c.vectors)}: a cold item has no "
                 "behavioral vector, so all cold items would look the same: name 'semantic' too")
  if d.split == "loo_last" and c.cf.sasrec.patience and settings.needs_sasrec(c):
    wrong.append(f"data.split='loo_last' with cf.sasrec.patience={c.cf.sasrec.patience}: there are "
                 "no validation targets to choose the SASRec's epoch by: set cf.sasrec.patience=0, "
                 "and cf.sasrec.epochs to the best epoch with data.split='loo_stable'")
  if d.split == "global_time":
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
  wrong += _check_text(columns, "interactions_file", ("user", "item", "time", "value"),
                       columns.delimiter)
  wrong += _check_text(columns, "items_file", ("id", "title", "year", "genres"),
                       columns.items_delimiter or columns.delimiter)
  try:
    codecs.lookup(columns.encoding)
  except (LookupError, ValueError):
    wrong.append(f"data.columns.encoding={columns.encoding!r} is unknown: expected e.g. 'utf-8', "
                 "'latin-1', 'utf-16' or 'cp1252'")
  return wrong


def _check_text(columns, file: str, fields: tuple[str, ...], delimiter: str) -> list[str]:
  """Mistakes in how a file of delimited text is cut into columns."""
  name = columns[file].lower().removesuffix(".gz")
  ending = next((e for e in names.DELIMITED if name.endswith(e)), None)
  if ending is None:
    return []
  wrong = []
  if not delimiter and not names.DELIMITED[ending]:
    wrong.append(f"data.columns.{file}={columns[file]!r}: the ending {ending} does not tell the "
                 "delimiter: give e.g. --config.data.columns.delimiter=::")
  if any(c in "\r\n\"" for c in delimiter):
    wrong.append(f"data.columns.delimiter={delimiter!r}: expected no line break and no quote mark")
  given = {field: columns[field] for field in fields if columns[field]}
  numbers = [field for field, value in given.items() if value.isdecimal()]
  if numbers and (others := [field for field in given if field not in numbers]):
    wrong.append(
        f"data.columns.{others[0]}={given[others[0]]!r} beside {numbers[0]}={given[numbers[0]]!r}: "
        "the columns of a file without a header are all given by number: give the number, or '' "
        "for none")
  if "0" in given.values():
    wrong.append(f"data.columns of {file}: columns are counted from 1, found '0'")
  return wrong


def check_tasks(c) -> list[str]:
  t = c.tasks
  wrong = rules.known("tasks.index", t.index, names.INDICES)
  wrong += rules.known("tasks.entities", t.entities, ("slots", "names"))
  if t.index_words and not c.lm.new_tokens:
    wrong.append("tasks.index_words=True needs new words in the vocabulary: set lm.new_tokens")
  if t.index_words and t.index == "title":
    wrong.append("tasks.index_words=True with tasks.index='title': titles are spelled in ordinary "
                 "words; set it to False, or choose another tasks.index")
  if t.index_clusters == 1:
    wrong.append("tasks.index_clusters=1 does not divide the items: make it 2 or more")
  if t.index == "collaborative" and t.index_size <= t.index_clusters:
    wrong.append(f"tasks.index_size={t.index_size} is not more than tasks.index_clusters="
                 f"{t.index_clusters}: the numbers of clusters run modulo the size, so two items "
                 f"could get one code; make it {t.index_clusters + 1} or more")
  if t.index_apart and not t.index_words:
    wrong.append("tasks.index_apart=True with tasks.index_words=False: it gives codes words of "
                 "their own; set tasks.index_words too")
  wrong += _check_index_only(c) if c.lm.index_only else []
  wrong += _check_dialogs(c)
  for name in () if t.module else c.tasks.mixture:
    wrong += rules.known("tasks.mixture", name, names.TASKS)
  if not any(rate > 0 for rate in c.tasks.mixture.values()):
    wrong.append("tasks.mixture has no task with a rate above 0: give one to some of "
                 f"{names.TASKS}")
  return wrong


def _check_dialogs(c) -> list[str]:
  """Conversations need dialogs, and the item head has no teacher for them."""
  kinds = {source.kind for source in dialog_sources.parse(c.tasks.dialogs)}
  own = kinds - {dialog_sources.REDIAL}
  wrong = [f"tasks.mixture.{name}={c.tasks.mixture[name]} with tasks.dialogs={c.tasks.dialogs!r}: "
           f"the task learns from dialogs; name {cure}, or set the rate to 0"
           for tasks, there, cure in (
               (names.CONVERSATIONS, own, "a file of JSON lines, or 'synthetic'"),
               (names.REDIAL, kinds - own, "ReDial's folder or zip by 'redial:PATH'"))
           for name in tasks if c.tasks.mixture.get(name, 0) > 0 and not there]
  if dialog_sources.SYNTHETIC in kinds and not c.dialogs.count:
    wrong.append(f"tasks.dialogs={c.tasks.dialogs!r} with dialogs.count=0: no synthetic dialogs "
                 "are made; set the count above 0, e.g. --config.dialogs.count=2000")
  if c.cf.dialogs and not kinds - {dialog_sources.SYNTHETIC}:
    wrong.append(f"cf.dialogs={c.cf.dialogs} with tasks.dialogs={c.tasks.dialogs!r}: only dialogs "
                 "of real people add likes to those of the log; name a file or redial:PATH in "
                 "tasks.dialogs, or set cf.dialogs to 0")
  if c.data.dialog_items and dialog_sources.REDIAL not in kinds:
    wrong.append(f"data.dialog_items=True with tasks.dialogs={c.tasks.dialogs!r}: only ReDial's "
                 "dialogs add items; name ReDial's folder or zip by 'redial:PATH', or set it to "
                 "False")
  factored = c.cf.dialogs and "behavioral" in c.vectors
  if c.data.dialog_items and not factored and "semantic" not in c.vectors:
    wrong.append(f"data.dialog_items=True with cf.dialogs={c.cf.dialogs} and vectors="
                 f"{tuple(c.vectors)}: the items that it adds have no interaction, so all would "
                 "look the same: set cf.dialogs above 0 and name 'behavioral' in vectors, or name "
                 "'semantic'")
  if c.dialogs.reword and not c.dialogs.count:
    wrong.append("dialogs.reword=True with dialogs.count=0: there is nothing to reword; set the "
                 "count above 0, e.g. --config.dialogs.count=2000")
  read = [name for name in mixture.DIALOG_HEAD_TASKS if c.tasks.mixture.get(name, 0) > 0]
  if read and c.phase2.head.weight and c.phase2.head.distil:
    wrong.append(f"phase2.head.distil={c.phase2.head.distil} with tasks.mixture.{read[0]}="
                 f"{c.tasks.mixture[read[0]]}: the head's teacher cannot read conversations; set "
                 "one of them to 0")
  return wrong


def _check_index_only(c) -> list[str]:
  wrong, others = [], [n for n, rate in c.tasks.mixture.items() if rate and n != "next_item"]
  if not c.tasks.index_words:
    wrong.append("lm.index_only=True with tasks.index_words=False: the model can then generate no "
                 "word that names an item; set tasks.index_words, and tasks.index to a code")
  if c.lm.train in ("none", "lora"):
    wrong.append(f"lm.index_only=True with lm.train={c.lm.train!r}: the index tokens would stay "
                 "untrained; set lm.train='index_tokens'")
  if others:
    wrong.append(f"lm.index_only=True with tasks.mixture.{others[0]}={c.tasks.mixture[others[0]]}: "
                 "only the targets of next_item are indices alone; leave out "
                 f"{', '.join(others)} (rate 0)")
  if c.tasks.entities == "names":
    wrong.append("lm.index_only=True with tasks.entities='names': histories must be soft tokens; "
                 "set tasks.entities='slots'")
  if c.phase2.head.rows:
    wrong.append(f"lm.index_only=True with phase2.head.rows={c.phase2.head.rows}: then only the "
                 "item head trains on next_item, and no index is generated; set the rows to 0")
  return wrong


def check_targets(c) -> list[str]:
  t = c.targets
  wrong = rules.known("targets.teacher", t.teacher, ("lm", "endpoint", "file"))
  wrong += rules.known("targets.chat", t.chat, ("auto", "chatml", "gemma", "none"))
  for name in t.tasks:
    wrong += rules.known("targets.tasks", name, elm.WRITTEN)
  absent = [n for n in elm.WRITTEN if c.tasks.mixture.get(n, 0) > 0 and n not in t.tasks]
  if t.tasks and absent:
    wrong.append(f"tasks.mixture has {', '.join(absent)}, which targets.tasks={tuple(t.tasks)} "
                 "leaves out, so no teacher writes their answers: name them too, or give ()")
  if not elm.asks_teacher(c):
    return wrong
  if t.teacher == "endpoint" and not t.endpoint.startswith(("http://", "https://")):
    wrong.append(f"targets.endpoint={t.endpoint!r}: expected the address of an OpenAI-compatible "
                 "server, e.g. 'http://localhost:8000/v1'")
  if t.teacher == "endpoint" and not t.model:
    wrong.append("targets.model is empty: name the model to use at targets.endpoint")
  return wrong
