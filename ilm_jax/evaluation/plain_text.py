"""Lays out text for a terminal: wrapped words, titles cut between words, aligned columns, commands.

Widths are in terminal columns; a letter of a wide script takes two.
"""
import re
import shlex

from rich import cells


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
  """The words of `text` in lines of at most `width` columns; later lines are indented by 2 more.

  A word wider than that gets its own line.
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
  """`text` in one line of at most `width` columns; if too long it is cut after a word and "..."."""
  text = " ".join(text.split())
  if cells.cell_len(text) <= width:
    return text
  kept = cells.set_cell_size(text, width - 3).rstrip()
  if text[len(kept):len(kept) + 1] != " " and " " in kept[width // 2:]:
    kept = kept[:kept.rindex(" ")]
  return f"{kept.rstrip(' ,;:-')}..."


def number(value: float, sign: bool = False) -> str:
  """Three digits without the 0 in front: ".171", "+.006", "-1.250"."""
  text = f"{value:+.3f}" if sign else f"{value:.3f}"
  return re.sub(r"^([+-]?)0\.", r"\1.", text)


def estimate(of: dict, sign: bool = False) -> str:
  """A value with its interval if it has one: ".171 [.147, .196]"."""
  value = number(of["value"], sign)
  return f"{value} [{number(of['lo'], sign)}, {number(of['hi'], sign)}]" if "lo" in of else value


def aligned(rows: list[list[str]], width: int) -> list[str]:
  """One line per row of cells, aligned and each after two spaces; columns that do not fit are left
  out.

  The first two columns are always kept; the first is cut to make room for the second.
  """
  size = [max(cells.cell_len(row[c]) for row in rows) for c in range(len(rows[0]))]
  size[0] = min(size[0], max(width - 4 - size[1], 8)) if size[1:] else size[0]
  kept = [c for c in range(len(size))
          if sum(size[:c + 1]) + 2 * (c + 1) <= width or c < 2]
  return ["".join("  " + cells.set_cell_size(cut(row[c], size[c]), size[c])
                  for c in kept).rstrip() for row in rows]


def typed(words: list[str], width: int, start: str = "") -> list[str]:
  r"""`start` and a command, in lines that a shell joins: all but the last end in " \\"."""
  out, line = [], start
  for word in map(quoted, words):
    longer = f"{line} {word}" if line.strip() else line + word
    if line.strip() and cells.cell_len(longer) > width - 2:
      out.append(f"{line} \\" if line != start else line)
      longer = f"    {word}"
    line = longer
  return [*out, line]


def quoted(word: str) -> str:
  """A word quoted for a shell as a person would write it: --items='Heat (1995)'."""
  flag, equals, value = word.partition("=")
  return f"{flag}={shlex.quote(value)}" if equals and flag.startswith("-") else shlex.quote(word)
