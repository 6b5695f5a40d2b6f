"""Rows of tables: fields say whose figures they are, and the label is made of them last.

A row is a JSON object {"metrics": {column: estimate}} with those of these fields that it has:

  method   the model or baseline measured
  minus    what was subtracted from it, example by example: the row is a paired difference
  by       how, among what or of whom: "beam 20, first 64 users"
  task     where a row belongs to a task
"""


def row(metrics: dict, *, method: str = "", minus: str = "", by: str = "", task: str = "") -> dict:
  """A row of a table. Args: see the module."""
  fields = {"task": task, "method": method, "minus": minus, "by": by}
  return {**{name: text for name, text in fields.items() if text}, "metrics": metrics}


def label(fields: dict) -> str:
  """What a person reads before the figures: "ILM minus ILM-rand, item head"."""
  method = fields.get("method", "")
  if fields.get("minus"):
    method += f" minus {fields['minus']}"
  return ", ".join(part for part in (fields.get("task", ""), method, fields.get("by", "")) if part)
