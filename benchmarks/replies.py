"""Checks the films that a run's language model names when it writes replies in dialogs.

    python -m benchmarks.replies --run=FOLDER [--replies=60] [--task=redial_respond]

The model writes the recommender's next turn of test dialogs, greedily. Counted are titles with a
year, "Heat (1995)". A title is valid if the catalogue has a film of that title and year, or of a
year beside it (catalogues differ by one), new if the prompt does not name this film. Prompts are
changed as in stage eval (`stages.evals.talks`). The last row has the replies of people. Intervals
are over dialogs. Results: docs/results/redial.md.
"""
import argparse
import pathlib
import re

import numpy as np

from benchmarks.conversations import BOOTSTRAP, cell, header
from ilm_jax.config import reading, variants
from ilm_jax.conversation import heard, titles
from ilm_jax.evaluation import metrics
from ilm_jax.stages import context
from ilm_jax.stages.evals import common, methods, speaker, talks

WORDS = 48               # tokens of a reply
_YEAR = re.compile(r"\(\d{4}\)")


def named(text: str, known: titles.Titles) -> tuple[int, list[int]]:
  """(how many titles with a year a text has, the item rows of those in the catalogue)."""
  return len(_YEAR.findall(text)), [
      each.row for each in heard.mentions(text, known) if _YEAR.search(text[each.start:each.end])]


def counted(replies: list[str], people: list[str], shown: list, known: titles.Titles) -> dict:
  """name -> int [N], for each reply: its titles, valid ones, new ones, and the human's among these.

  Args:
    replies: of the model.
    people: the replies of people in the same places.
    shown: for each reply the rows of the items that its prompt names.
    known: the catalogue.
  """
  counts = []
  for reply, theirs, before in zip(replies, people, shown, strict=True):
    titled, rows = named(reply, known)
    new = set(rows) - set(map(int, before))
    counts.append((titled, len(rows), len(new), len(new & set(named(theirs, known)[1]))))
  return dict(zip(("titles", "valid", "new", "the human's"), np.array(counts).T, strict=True))


def row(label: str, replies: list[str], counts: dict, dialog_N) -> str:
  """A line of the table."""
  def share(count_N, of_N):
    return cell(BOOTSTRAP.mean(*talks.of_groups(dialog_N, count_N, of_N))) if of_N.any() else ""
  titled, one = counts["titles"], np.ones(len(replies))
  cells = [share(titled, one), share(counts["valid"], titled), share(counts["new"], titled),
           share(counts["the human's"], one)]
  return " | ".join([f"| {label}", *cells, *(f"{metrics.distinct(replies, n):.2f}"
                                             for n in (1, 2))]) + " |"


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
  parser.add_argument("--run", type=pathlib.Path, required=True)
  parser.add_argument("--replies", type=int, default=60)
  parser.add_argument("--task", default="redial_respond", choices=talks.SAID)
  args = parser.parse_args()
  config = reading.load(f"configs/recorded.py:{args.run}/config.phase2.json")
  config.eval.loss_examples = args.replies
  run = context.Run(config, args.run)
  known = titles.Titles(run.data.items)
  (_, examples, dialog_N), = talks.samples(run, [args.task])
  model = methods.methods(run, speaker.Speaker(run, variants.ILM))[:1]
  people = [run.lm_tokenizer.decode(e["targets"]).strip() for e in examples]
  shown, spec, said = [e["entities"] for e in examples], common.spec(run, [examples]), {}
  print("\n".join(header(["replies", "titles a reply", "valid, of its titles", "new, of its titles",
                          "human's film named", "distinct-1", "distinct-2"])))
  for label, method, changed in talks.prompts(run, model, examples):
    said[label] = method.model.say(changed, spec, max_new=WORDS)
    print(row(label, said[label], counted(said[label], people, shown, known), dialog_N), flush=True)
  print(row("people", people, counted(people, people, shown, known), dialog_N))
  for label, replies in ({**said, "people": people}).items():
    print(f"\n{label}: " + " // ".join(" ".join(reply.split()) for reply in replies[:8]))


if __name__ == "__main__":
  main()
