"""The closing summary of a run: about twenty lines in plain words, for who sees it the first time.

`summary` picks from the content of the report what the lines say, and `lines` writes them. What a
run does not have (lists, texts, ranks) is left out.
"""
import shlex

import numpy as np
from rich import cells

from ilm_jax.config import variants
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import lists, metrics, paired
from ilm_jax.evaluation import rows as rows_lib

_METRIC, _K = "hr@10", 10
_MOST_ROWS = 6           # of the table: models first, popularity last,
_MOST_MODELS = 3         # and between them the best of the other baselines
_USERS, _TITLES = 3, 3   # users whose lists are shown, and how many titles of a list
_TITLE = 32              # columns of a title,
_TEXT = 240              # and of a description, before it is cut
_SENTENCE = 8            # words from which an answer is a description
_MODELS = (variants.ILM.label, *(v.label for v in variants.COMPARED.values()))


def summary(content: dict, *, config: dict, user_ids: list, items, ranks: dict) -> dict:
  """What the lines say, as one JSON object.

  Args:
    content: tables and examples, of `report.collect`.
    config: the resolved config of stage eval; {}: not there.
    user_ids: raw ids of the users.
    items: `interactions.Items`, or None.
    ranks: method -> rank of the target of every user who is ranked, None where it was missed.
  """
  tables = {part["name"]: part for part in content["tables"] if part["phase"] == "phase2"}
  examples = {part["name"]: part for part in content["examples"] if part["phase"] == "phase2"}
  rows = compared_rows(tables.get("recommendation", {}).get("rows", []))
  steps = {part["phase"]: part["step"] for part in content["tables"]}
  return {"run": content["run"], "trained": _trained(config, steps, user_ids, items),
          "lists": _lists(examples.get("examples")),
          "shared": _shared(tables.get("lists", {}).get("rows", []), rows),
          "description": _description(examples.get("generations"), items),
          "table": [{"label": rows_lib.label(row), **row["metrics"][_METRIC]} for row in rows],
          "differences": _differences(rows, ranks, config)}


def compared_rows(rows: list[dict]) -> list[dict]:
  """At most six rows of the table of recommendation, of those that have HR@10.

  Up to three trained models in the table's order, each by its item head, without one by its beams;
  then the best baselines by HR@10; popularity last.
  """
  rows = [row for row in rows if _METRIC in row["metrics"] and "minus" not in row]
  models: dict = {}
  for row in rows:
    by = row.get("by", "")
    if row["method"] in _MODELS and (by == "item head" or row["method"] not in models):
      models[row["method"]] = row
  kept = list(models.values())[:_MOST_MODELS]
  popular = [row for row in rows if row["method"] == "popularity"]
  baselines = sorted((row for row in rows if not row.get("by") and row not in popular),
                     key=lambda row: -row["metrics"][_METRIC]["value"])
  return [*kept, *baselines[:_MOST_ROWS - len(kept) - len(popular)], *popular]


def lines(said: dict, width: int = 100) -> list[str]:
  """The summary as lines no wider than `width` columns, but for a path or word that is wider.

  Args:
    said: of `summary`; with "report", the path of the page, and "command", that of the run
      without its stage, the last lines say where all tables are and what to type next.
    width: of the terminal.
  """
  out = [f"Summary of {said['run']}"]
  for line in said["trained"]:
    out += wrapped(line, width)
  if said["lists"]:
    out += ["", *wrapped(said["lists"]["title"], width)]
    for user in said["lists"]["users"]:
      out += wrapped(f"user {user['user']}: {_joined(user['last'])} -> "
                     f"{_joined(user['recommended'])}", width, "  ")
    if said["shared"]:
      each = ", ".join(f"{of['method']}: {of['value'] * lists.TOP:.1f}" for of in said["shared"])
      out += wrapped("Of the ten recommended to each, two users have in common, on average: "
                     f"{each}.", width, "  ")
  if said["description"]:
    of = said["description"]
    out += ["", *wrapped(f"{of['item']}: never described in training. From its vector alone the "
                         "model says:", width)]
    out += wrapped(cut(of["text"], _TEXT), width, "  ")
  if said["table"]:
    out += ["", *_table(said["table"], width)]
    for difference in said["differences"]:
      out += wrapped(_difference(difference), width, "  ")
  return out + ["", *_next(said, width)]


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
  """The words of `text` in lines of at most `width` columns; all but the first are indented more.

  A letter of a wide script takes two columns.
  """
  out, line = [], indent
  for word in text.split():
    longer = f"{line} {word}" if line.strip() else line + word
    if line.strip() and cells.cell_len(longer) > width:
      out.append(line)
      longer = f"{indent}  {word}"
    line = longer
  return [*out, line] if line.strip() else out


def cut(text: str, width: int) -> str:
  """`text` in one line, cut to `width` columns between words, with "..." where it is cut."""
  text = " ".join(text.split())
  if cells.cell_len(text) <= width:
    return text
  kept = cells.set_cell_size(text, width - 3).rstrip()
  if text[len(kept):len(kept) + 1] != " " and " " in kept[width // 2:]:
    kept = kept[:kept.rindex(" ")]
  return f"{kept.rstrip(' ,;:-')}..."


def _trained(config: dict, steps: dict, user_ids: list, items) -> list[str]:
  """Which data and which language model; how many steps."""
  name = config.get("data", {}).get("name")
  data = f"Data: {name}, {len(user_ids):,} users, {len(items):,} items. " if name and items else ""
  lm = config.get("lm", {})
  how = {"none": "frozen", "index_tokens": "frozen but for its new index tokens",
         "lora": "frozen but for low-rank updates",
         "all": "trained, too"}.get(lm.get("train"))
  model = f"Language model: {lm['asset']} ({how}). " if how else ""
  done = [f"{steps[phase]:,} steps of {what}" for phase, what in (
      ("phase1", "phase 1 (vectors to texts)"),
      ("phase2", "phase 2 (vectors to the language model)")) if phase in steps]
  return [line for line in (f"{data}{model}", f"Trained: {', '.join(done)}." if done else "")
          if line]


def _lists(part: dict | None) -> dict | None:
  """The first users' lists; None where there are none that can be read."""
  users = []
  for example in (part or {}).get("examples", [])[:_USERS]:
    last = next((name for name in example if name.startswith("last ")), "")
    chosen, recommended = example.get(last), example.get("recommended")
    if isinstance(chosen, list) and isinstance(recommended, list) and recommended:
      users.append({"user": example["user"], "last": chosen[-_TITLES:],
                    "recommended": recommended[:_TITLES], "title": last})
  return {"users": users, "title": f"What users {users[0]['title']} -> what ILM recommends them "
          "next:"} if users else None


def _shared(alike: list[dict], rows: list[dict]) -> list[dict]:
  """What two users' lists share, of the methods in the first and the last of the table's rows."""
  share = {rows_lib.label(row): row["metrics"].get("shared by two users") for row in alike}
  return [{"method": row["method"], "value": share[label]["value"]}
          for row in {row["method"]: row for row in [*rows[:1], *rows[-1:]]}.values()
          if share.get(label := rows_lib.label(row))]


def _description(part: dict | None, items) -> dict | None:
  """The first text that the model wrote of an item, and by which name `describe` knows the item."""
  first = next(iter((part or {}).get("examples", [])), None)
  if first is None:
    return None
  item, *answers = first.items()
  texts = {task: " ".join(text.split()) for task, text in answers if text.strip()}
  if not texts:
    return None
  longest = max(texts, key=lambda task: len(texts[task].split()))
  shown = [longest] if len(texts[longest].split()) >= _SENTENCE else texts
  text = "; ".join(f"{task.removeprefix('elm_').replace('_', ' ')}: {texts[task]}"
                   for task in shown)
  return {"item": item[1], "text": text, "name": _name(item[1], items)}


def _name(text: str, items) -> str:
  """The full title with which `text` begins, or the item's id if others have it too; "": none."""
  if items is None:
    return ""
  titles = [interactions_lib.full_title(items, row) for row in range(1, len(items) + 1)]
  name = max((title for title in titles if text.startswith(title)), key=len, default="")
  if sum(title.casefold() == name.casefold() for title in titles) > 1:
    texts = [interactions_lib.item_text(items, row) for row in range(1, len(items) + 1)]
    return f"item:{items.ids[texts.index(text)]}" if text in texts else ""
  return name


def _differences(rows: list[dict], ranks: dict, config: dict) -> list[dict]:
  """Paired differences of HR@10: ILM minus the best baseline, and minus ILM-rand."""
  if not rows or rows[0]["method"] != variants.ILM.label:
    return []
  ilm, *others = rows
  baselines = [row for row in others if row["method"] not in _MODELS]
  best = max(baselines, key=lambda row: row["metrics"][_METRIC]["value"], default=None)
  rand = next((row for row in others if row["method"] == variants.COMPARED["rand"].label), None)
  bootstrap = paired.Bootstrap(config.get("eval", {}).get("bootstrap", 1000), config.get("seed", 0))
  hits = {method: metrics.hit_rate([np.inf if rank is None else rank for rank in rank_U], _K)
          for method, rank_U in ranks.items()}
  made = []
  for row, what in ((best, "the best baseline"), (rand, "no phase 1")):
    labels = [rows_lib.label(ilm), rows_lib.label(row)] if row else []
    if row and all(label in hits for label in labels) and len({len(hits[n]) for n in labels}) == 1:
      made.append({"minus": row["method"], "what": what,
                   **bootstrap.mean(hits[labels[0]] - hits[labels[1]])})
  return made


def _table(rows: list[dict], width: int) -> list[str]:
  users = max(row["n"] for row in rows)
  out = wrapped("HR@10, how often a user's next item is among the ten recommended "
                f"({users:,} users, 95 % interval):", width)
  longest = max(cells.cell_len(cut(row["label"], width - 30)) for row in rows)
  for row in rows:
    name = cells.set_cell_size(cut(row["label"], width - 30), longest)
    out.append(f"  {name}  {row['value']:.3f}  [{row['lo']:.3f}, {row['hi']:.3f}]")
  return out


def _difference(of: dict) -> str:
  meaning = ("ILM is better" if of["lo"] > 0 else "ILM is worse" if of["hi"] < 0 else
             "no clear difference")
  return (f"ILM minus {of['minus']} ({of['what']}), paired: {of['value']:+.3f} "
          f"[{of['lo']:+.3f}, {of['hi']:+.3f}], {meaning}.")


def _joined(titles: list[str]) -> str:
  return "; ".join(cut(title, _TITLE) for title in titles)


def _next(said: dict, width: int) -> list[str]:
  """Where everything is, and a command that can be typed."""
  out = []
  if path := said.get("report"):
    out += [f"All tables, curves and lists: {path}", *wrapped(
        "(on the terminal: the same command with --stage=report --tables)", width, "  ")]
  name = (said["description"] or {}).get("name")
  if name and said.get("command"):
    out += ["Next, ask the model about an item, by its vector:"]
    words = [*shlex.split(said["command"]), "--stage=describe", f"--items={name}"]
    command = "  "
    for word in map(_quoted, words):
      longer = f"{command} {word}" if command.strip() else command + word
      if command.strip() and cells.cell_len(longer) > width - 2:
        out.append(f"{command} \\")
        longer = f"      {word}"
      command = longer
    out.append(command)
  return out


def _quoted(word: str) -> str:
  """A word for a shell, as a person writes it: --items='Heat (1995)'."""
  flag, equals, value = word.partition("=")
  return f"{flag}={shlex.quote(value)}" if equals and flag.startswith("-") else shlex.quote(word)
