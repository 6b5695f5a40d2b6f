"""Writes the closing summary as sentences and a table, laid out for a terminal.

`page` lays out the same blocks as HTML.
"""
import re
import shlex
from typing import NamedTuple

from rich import cells

from ilm_jax.config import variants
from ilm_jax.evaluation import lists, plain_text

# Titles in a user's line: (chosen last, recommended). The first pair wins whose titles fit in the
# line, uncut or cut to at least _TITLE columns.
_COUNTS = ((2, 3), (2, 2), (1, 2), (1, 1))
_TITLE = 18
_QUOTES = "\"' "
_YEAR = re.compile(r" \(\d{4}\)$")            # removed from titles, since lines are short
_TEXT = 240              # columns of a description before it is cut
# A short explanation of each row of the table.
MEANING = {
    variants.ILM.label: "trained here", variants.COMPARED["rand"].label: "no phase 1",
    variants.COMPARED["mlp"].label: "a plain network",
    variants.COMPARED["blind"].label: "no vectors", "popularity": "the most chosen",
    "iALS (the vectors themselves)": "ILM's vectors", "BPR-MF": "matrix factors",
    "item-kNN": "chosen together", "transition graph": "what came next", "EASE^R": "linear model",
    **dict.fromkeys(("SASRec, full softmax", "SASRec, sampled softmax", "SASRec, binary loss",
                     "gSASRec", "eSASRec"), "transformer")}


class Block(NamedTuple):
  """A part of the summary: a sentence, then indented sentences, a table or a command."""
  head: str
  sentences: tuple[str, ...] = ()
  rows: tuple[tuple[str, ...], ...] = ()
  command: tuple[str, ...] = ()


def lines(said: dict, width: int = 100) -> list[str]:
  """The summary as lines of at most `width` columns; only a longer path or word is wider.

  Args:
    said: from `closing.summary`. With "report" (path of the page) a line says where all tables
      are; with "command" (the run's command without its stage) the last lines say what to type
      next.
    width: of the terminal, in columns.
  """
  out = []
  for block in blocks(said, width):
    if block.command:
      out += plain_text.typed(block.command, width, block.head)
      continue
    out += plain_text.wrapped(block.head, width)
    for sentence in block.sentences:
      out += plain_text.wrapped(sentence, width, "  ")
    out += plain_text.aligned(block.rows, width) if block.rows else []
  return out


def blocks(said: dict, width: int) -> list[Block]:
  """All parts, in order, with titles cut for lines of `width` columns. Args: see `lines`."""
  made = [Block(_trained(said)), *_of_lists(said, width)]
  if of := said["description"]:
    made.append(Block(f"{of['item']}: never described in training. From its vector ILM says:",
                      tuple(_described(of, said["things"], width - 2))))
  if said["table"]:
    users = max(row["n"] for row in said["table"])
    made.append(Block(f"HR@10: share of {users:,} users whose next {said['thing']} is in a list of "
                      "ten [95 % interval]:", rows=_rows(said["table"], said.get("factors", 0.0))))
  if of := said["phase1"]:
    effect = ("lowers" if of["hi"] < 0 else "raises" if of["lo"] > 0 else "does not clearly move")
    learns = f" ({', '.join(of['learns'])})" if of["learns"] else ""
    made.append(Block(f"Phase 1{learns} {effect} this seed's loss on new texts: "
                      f"{plain_text.estimate(of, sign=True)}."))
  if said.get("report"):
    made.append(Block(f"All tables, curves and lists: {said['report']}"))
  return [*made, *_next(said)] if said.get("command") else made


def _next(said: dict) -> list[Block]:
  """The command to type next: stage recommend, or stage describe for a run without lists."""
  liked = said["lists"]["liked"] if said["lists"] else []
  name = (said["description"] or {}).get("name")
  if liked:
    words = f"Next, talk to it on a page (--stage=serve), or name {said['things']} you like:"
    flags = ("--stage=recommend", *(f"--liked={title}" for title in liked))
  elif name:
    words, flags = "Next, ask ILM more:", ("--stage=describe", f"--items={name}")
  else:
    return []
  return [Block(words, command=(*shlex.split(said["command"]), *flags))]


def _trained(said: dict) -> str:
  """A sentence: what was trained, for how many steps, on which data."""
  steps = " + ".join(f"{step:,}" for phase, step in sorted(said["steps"].items())
                     if phase in ("phase1", "phase2"))
  if not steps:
    return f"Summary of {said['run']}."
  on = f" on {said['data']}" if said["data"] else ""
  how = {"none": "the frozen", "index_tokens": "the frozen (but for index tokens)",
         "lora": "the frozen (but for low-rank updates)",
         "all": "the trained"}.get(said["lm"]["train"])
  ilm = "phase 1 of ILM" if "phase2" not in said["steps"] else "ILM" if how is None else " ".join(
      word for word in ("ILM,", how, "random" if said["lm"]["random"] else "",
                        said["lm"]["asset"], f"reading {said['thing']} vectors") if word)
  return f"Trained {steps} steps{on}: {ilm}."


def _of_lists(said: dict, width: int) -> list[Block]:
  """The users' lists, if there are any, and how much two users' lists share."""
  if not said["lists"]:
    return []
  alike = ", ".join(f"{'' if of['method'] == variants.ILM.label else of['method'] + ' '}"
                    f"{of['value'] * lists.TOP:.1f}{'' if n else f' of {lists.TOP}'}"
                    for n, of in enumerate(said["shared"]))
  shared = f" (shared by two users: {alike})" if alike else ""
  return [Block(f"{said['lists']['title'].capitalize()} -> ILM recommends{shared}:",
                tuple(_recommended(user, width - 2) for user in said["lists"]["users"]))]


def _recommended(user: dict, width: int) -> str:
  """One user's line: "user 1: One; Two -> Three; Four; Five"."""
  for last, recommended in _COUNTS:
    shown = [user["last"][-last:], user["recommended"][:recommended]]
    for most in range(width, _TITLE - 1, -1):
      left, right = ("; ".join(plain_text.cut(_YEAR.sub("", title), most) for title in titles)
                     for titles in shown)
      line = f"user {user['user']}: {left} -> {right}"
      if cells.cell_len(line) <= width:
        return line
  return line


def _described(of: dict, things: str, width: int) -> list[str]:
  """What the model says about the item, and how right such texts are if that was measured."""
  names = {task: task.removeprefix("elm_").replace("_", " ")
           for task in (*of["answers"], *of["right"])}
  text = "; ".join(f"{names[task]}: {answer.strip(_QUOTES)}"
                   for task, answer in of["answers"].items())
  made = [plain_text.cut(text, width if len(of["answers"]) > 1 else _TEXT)]
  for kind, words in (("right", "Right"), ("likeness", "Likeness to the reference")):
    measured = {task: right for task, right in of["right"].items() if right["kind"] == kind}
    if measured:
      count = max(right["n"] for right in measured.values())
      parts = [_how_right(names[task], right) for task, right in measured.items()]
      made.append(f"{words} in {count} such {things}: {', '.join(parts)}.")
  return made


def _how_right(name: str, of: dict) -> str:
  """ "first genre 59 % [44, 75] (always Drama: 34 %)"; a likeness is no percentage."""
  name, free = of.get("name", name), of.get("free")
  if of["kind"] == "likeness":
    return f"{name} {plain_text.estimate(of)}" + (
        f" ({free['name']}: {plain_text.number(free['value'])})" if free else "")
  value, lo, hi = (f"{100 * of[bound]:.0f}" for bound in ("value", "lo", "hi"))
  return f"{name} {value} %" + (
      f" [{lo}, {hi}] ({free['name']}: {100 * free['value']:.0f} %)" if free else "")


def _rows(table: list[dict], factors: float) -> tuple[tuple[str, ...], ...]:
  """Rows of method, HR@10, ILM - method, explanation; empty columns are left out.

  `factors`: the weight of iALS' scores in those of the models (`phase2.head.factors`).
  """
  rows = []
  for row in table:
    meaning = MEANING.get(row["method"], "")
    if factors and row["method"] == variants.ILM.label:
      meaning = "with iALS"
    name = row["method"].partition(" (")[0] if meaning else row["method"]
    rows.append((", ".join(filter(None, (name, row.get("by")))), plain_text.estimate(row),
                 plain_text.estimate(row["lead"], sign=True) if "lead" in row else "", meaning))
  if any(row[2] for row in rows):
    rows[0] = (*rows[0][:2], "ILM's lead (paired):", rows[0][3])
  return tuple(tuple(row[c] for c in range(4) if any(row[c] for row in rows)) for row in rows)
