"""Where conversations come from: `tasks.dialogs`, e.g. "synthetic,redial:data/redial"."""
from typing import NamedTuple

SYNTHETIC, REDIAL, FILE = "synthetic", "redial", "file"


class Source(NamedTuple):
  kind: str
  path: str = ""


def parse(text: str) -> list[Source]:
  """The sources in `text`, in order; [] for "". `path` is set for redial and files."""
  sources = []
  for part in filter(None, (part.strip() for part in text.split(","))):
    if part == SYNTHETIC:
      sources.append(Source(SYNTHETIC))
    elif part.startswith(f"{REDIAL}:"):
      sources.append(Source(REDIAL, part.removeprefix(f"{REDIAL}:")))
    else:
      sources.append(Source(FILE, part))
  return sources
