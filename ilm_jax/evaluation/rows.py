"""Rows of tables: fields name what was measured, and the label is made from them for display.

A row is a JSON object {"metrics": {column: estimate}} with any of these fields:

  method   the model or baseline measured
  minus    the method that was subtracted, example by example: the row is a paired difference
  by       how it was measured, among which items or for which users: "beam 20, first 64 users"
  task     the task that the row belongs to
"""


def row(metrics: dict, *, method: str = "", minus: str = "", by: str = "", task: str = "") -> dict:
  """A row of a table. Args: see the module."""
  fields = {"task": task, "method": method, "minus": minus, "by": by}
  return {**{name: text for name, text in fields.items() if text}, "metrics": metrics}


def label(fields: dict) -> str:
  """The text in front of the row's figures: "ILM minus ILM-rand, item head"."""
  method = fields.get("method", "")
  if fields.get("minus"):
    method += f" minus {fields['minus']}"
  return ", ".join(part for part in (fields.get("task", ""), method, fields.get("by", "")) if part)
