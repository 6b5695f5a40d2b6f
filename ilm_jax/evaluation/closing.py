"""Picks the content of a run's closing summary from the report, by stated rules.

`sentences` puts it into words. The summary leaves out what a run lacks (lists, texts, ranks).
"""
import types

import numpy as np

from ilm_jax import elm
from ilm_jax.config import variants
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.evaluation import metrics, paired
from ilm_jax.evaluation import rows as rows_lib

_METRIC, _K = "hr@10", 10
_MOST_ROWS = 6           # rows of the table: models, the best other baselines, popularity
_MOST_MODELS = 3
_USERS = 3               # users whose lists are shown
_LIKED = 2               # titles of the first list in the command to type next
_SENTENCE = 8            # an answer of so many words is a description
_HEAD = "item head"      # the "by" of rows that an item head ranked
_MODELS = (variants.ILM.label, *(v.label for v in variants.COMPARED.values()))
# What phase 1 learns -> the losses that teach it.
_LEARNS = {"texts": ("itc", "itm", "itg"), "collaborative scores": ("cf",),
           "who chose what": ("ui",), "what goes together": ("ii",)}


def summary(content: dict, *, config: dict, items, ranks: dict) -> dict:
  """The content of the summary as one JSON object; a missing part is None or empty.

  Args:
    content: tables and examples, from `report.collect`.
    config: the resolved config of stage eval; {}: there is none.
    items: `interactions.Items`, or None.
    ranks: method -> one rank per ranked user, of the user's target; None where it was missed.
  """
  tables = {part["name"]: part for part in content["tables"] if part["phase"] == "phase2"}
  examples = {part["name"]: part for part in content["examples"] if part["phase"] == "phase2"}
  rows = compared_rows(tables.get("recommendation", {}).get("rows", []))
  data = types.SimpleNamespace(**{"domain": "", "name": "", **config.get("data", {})})
  words = elm.words(data)
  return {"run": content["run"], "thing": words.thing, "things": words.things, "data": data.name,
          "lm": {name: config.get("lm", {}).get(name, "") for name in ("asset", "train", "random")},
          "steps": {part["phase"]: part["step"] for part in content["tables"]},
          "lists": _lists(examples.get("examples"), items, config.get("tasks", {})),
          "shared": _shared(tables.get("lists", {}).get("rows", []), rows),
          "description": _description(examples.get("generations"), items,
                                      tables.get("consistency", {})),
          "table": _table(rows, ranks, config),
          "factors": tables.get("recommendation", {}).get("protocol", {}).get("factors", 0.0),
          "phase1": _phase1(tables.get("loss", {}).get("rows", []), config)}


def compared_rows(rows: list[dict]) -> list[dict]:
  """At most six rows of the recommendation table, out of those with HR@10.

  First up to three trained models in the table's order, each by its item head or else by its
  beams; then the best baselines by HR@10; popularity last.
  """
  rows = [row for row in rows if _METRIC in row["metrics"] and "minus" not in row]
  models: dict = {}
  for row in rows:
    if row["method"] in _MODELS and (row.get("by") == _HEAD or row["method"] not in models):
      models[row["method"]] = row
  kept = list(models.values())[:_MOST_MODELS]
  popular = [row for row in rows if row["method"] == "popularity"]
  baselines = sorted((row for row in rows if not row.get("by") and row not in popular),
                     key=lambda row: -row["metrics"][_METRIC]["value"])
  return [*kept, *baselines[:_MOST_ROWS - len(kept) - len(popular)], *popular]


def _lists(part: dict | None, items, tasks: dict) -> dict | None:
  """The first users' lists; None if there are none.

  "liked" holds the first recommendations of the first user, for the command to type next; empty
  unless tasks.entities is "slots", which stage recommend needs.
  """
  users, title = [], ""
  for example in (part or {}).get("examples", [])[:_USERS]:
    last = next((name for name in example if name.startswith("last ")), "")
    chosen, recommended = example.get(last), example.get("recommended")
    if isinstance(chosen, list) and isinstance(recommended, list) and recommended:
      users.append({"user": example["user"], "last": chosen, "recommended": recommended})
      title = last
  if not users:
    return None
  liked = [_name(text, items) for text in users[0]["recommended"][:_LIKED]
           if tasks.get("entities", "slots") == "slots"]
  return {"users": users, "title": title, "liked": [name for name in liked if name]}


def _shared(alike: list[dict], rows: list[dict]) -> list[dict]:
  """What two users' lists share, for the methods in the first and last row of the table."""
  share = {rows_lib.label(row): row["metrics"].get("shared by two users") for row in alike}
  return [{"method": row["method"], "value": share[label]["value"]}
          for row in {row["method"]: row for row in [*rows[:1], *rows[-1:]]}.values()
          if share.get(label := rows_lib.label(row))]


def _description(part: dict | None, items, measured: dict) -> dict | None:
  """What the model says about the first item of the examples, which are drawn, not picked.

  This is the longest text if it is a description. Else it is the short answers, the task that is
  right most often first; tasks that are never right are left out, unless all are.

  Args:
    part: the examples.
    items: `interactions.Items`, or None.
    measured: the table of how right such texts are; {}: there is none.

  Returns:
    {"item", "name": of the item for `describe`, "answers": {task: text}, "right": {task: result of
    `_right`}}, or None.
  """
  first = next(iter((part or {}).get("examples", [])), None)
  if first is None:
    return None
  item, *answers = first.items()
  texts = {task: " ".join(text.split()) for task, text in answers if text.strip()}
  if not texts:
    return None
  right = {row.get("task"): _right(row, measured.get("protocol", {}))
           for row in measured.get("rows", [])}
  longest = max(texts, key=lambda task: len(texts[task].split()))
  shown = [longest] if len(texts[longest].split()) >= _SENTENCE and longest not in elm.KNOWN else (
      sorted(texts, key=lambda task: -right.get(task, {}).get("value", 0)))
  hit = [task for task in shown if right.get(task, {}).get("value") != 0]
  return {"item": item[1], "name": _name(item[1], items),
          "answers": {task: texts[task] for task in hit or shown},
          "right": {task: right[task] for task in shown if right.get(task)}}


def _right(row: dict, protocol: dict) -> dict:
  """How right the texts of a task are: "kind" "right" or "likeness", and an estimate; {}: unknown.

  "name" is set if only a part of the text is judged. "free" is set if there is also a value for a
  text that knows nothing about the item: {"name", "value", ..}.
  """
  columns = row["metrics"]
  kind, name, column, free, beside = (
      "likeness", "", "semantic consistency", "another's text", "with another item's reference")
  if row.get("task") in elm.KNOWN:
    kind, column, beside = "right", "exact match", ""
  if "first genre right" in columns:
    name, column, beside = "first genre", "first genre right", "commonest genre right"
    free = f"always {protocol.get('commonest genre')}"
  if column not in columns:
    return {}
  return {"kind": kind, **({"name": name} if name else {}), **columns[column],
          **({"free": {"name": free, **columns[beside]}} if beside in columns else {})}


def _name(text: str, items) -> str:
  """The full title with which `text` begins; "item:<id>" if items share the title; "": none."""
  if items is None:
    return ""
  titles = [interactions_lib.full_title(items, row) for row in range(1, len(items) + 1)]
  name = max((title for title in titles if text.startswith(title)), key=len, default="")
  if sum(title.casefold() == name.casefold() for title in titles) > 1:
    texts = [interactions_lib.item_text(items, row) for row in range(1, len(items) + 1)]
    return f"item:{items.ids[texts.index(text)]}" if text in texts else ""
  return name


def _table(rows: list[dict], ranks: dict, config: dict) -> list[dict]:
  """{"method", "by" unless it is the item head, HR@10, "lead": ILM - method, paired by user}.

  There is a lead if ILM is the first row and both methods ranked the same users.
  """
  bootstrap = paired.Bootstrap(config.get("eval", {}).get("bootstrap", 1000), config.get("seed", 0))
  hits = {method: metrics.hit_rate([np.inf if rank is None else rank for rank in rank_U], _K)
          for method, rank_U in ranks.items()}
  first = rows_lib.label(rows[0]) if rows and rows[0]["method"] == variants.ILM.label else ""
  made = []
  for row in rows:
    label, by = rows_lib.label(row), row.get("by", "")
    lead = (bootstrap.mean(hits[first] - hits[label])
            if label != first and first in hits and len(hits.get(label, ())) == len(hits[first])
            else None)
    made.append({"method": row["method"], **({"by": by} if by not in ("", _HEAD) else {}),
                 **row["metrics"][_METRIC], **({"lead": lead} if lead else {})})
  return made


def _phase1(rows: list[dict], config: dict) -> dict | None:
  """How much phase 1 changes the loss on all test texts (ILM minus ILM-rand), and what it learnt.

  None if the difference was not measured.
  """
  rand = variants.COMPARED["rand"].label
  loss = next((row["metrics"]["all"] for row in rows if row["method"] == variants.ILM.label
               and row.get("minus") == rand and "all" in row["metrics"]), None)
  weights = config.get("phase1", {}).get("losses", {})
  return loss and {"learns": [what for what, losses in _LEARNS.items()
                              if any(weights.get(name) for name in losses)], **loss}
