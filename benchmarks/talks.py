"""Prints conversations between simulated users and a finished run, unselected, in Markdown.

    python -m benchmarks.talks --run=FOLDER --policy=0.0,2,hard

It takes ten users of the log, drawn at random, and leaves none out. Each names the last three films
before the validation target, then answers questions and gives critiques. In every other
conversation the user asks "why?" after the first list. A conversation ends when the target is shown
or after five turns. Results: docs/results/conversations.md.
"""
import argparse
import pathlib

import numpy as np

from benchmarks import simulator as bench
from ilm_jax.config import variants
from ilm_jax.conversation import policy, simulator
from ilm_jax.conversation import session as s
from ilm_jax.data import splits
from ilm_jax.stages import talker

COUNT, TURNS = 10, 5               # conversations; turns of the user


def rule(text: str) -> policy.Policy:
  """ "0.9,2,hard": entropy, questions, what is asked for; "": no questions."""
  if not text:
    return policy.NEVER
  entropy, questions, kind = text.split(",")
  return policy.Policy(float(entropy), int(questions), hard=kind == "hard")


def conversation(asked: talker.Talker, known, target: int, before, seed: int, why: bool
                 ) -> tuple[list[tuple[str, str]], int]:
  """((speaker, text) of all turns; the turn in which the target was shown, 0: never)."""
  rng, user = np.random.default_rng(seed), simulator.Simulator(known, target)
  session, said, shown = s.Session(), [], []
  text = simulator.opening(asked.items, before[-bench.NAMED:])
  for turn in range(1, TURNS + 1):
    reply = asked.reply(session, text)
    session = reply.session
    said += [("User", text), ("ILM", session.turns[-1].text)]
    if reply.cards:
      shown = [asked.row_of[card.id] for card in reply.cards]
      if target in shown:
        return [*said, ("User", f"{asked.title(target)}, good.")], turn
    if why and shown:
      text, why = "Why?", False
    elif question := policy.read(reply.text) if reply.act == s.ASK else None:
      text = user.answer(question)
    elif shown:
      text = simulator.refusal(asked.items, shown, user.critique(shown[0], rng))
    else:
      text = simulator.EITHER
  return said, 0


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--run", type=pathlib.Path, required=True)
  parser.add_argument("--policy", type=rule, default=policy.NEVER,
                      help="ENTROPY,QUESTIONS,hard|soft; none: no questions")
  parser.add_argument("--model", default="ilm")
  args = parser.parse_args()
  material = bench.Trained(args.run, args.model)
  asked = talker.Talker(material.run, variants.named(material.run.config, args.model),
                        bench.SHOWN, asks=args.policy)
  users = material.users(splits.VALID, 0)
  for number, at in enumerate(np.random.default_rng(2).permutation(len(users))[:COUNT], 1):
    user, target, before = users[at]
    said, turn = conversation(asked, material.known, target, before, user, number % 2 == 1)
    ends = f"shown in turn {turn}" if turn else "not shown"
    genres = ", ".join(material.films.genres[target - 1])
    print(f"### {number}. User {material.log.user_ids[user]}\n\nThe target, {asked.title(target)} "
          f"({genres}), was {ends}.\n")
    for who, text in said:
      print(f"**{who}:** " + text.replace("\n", "  \n") + "\n", flush=True)


if __name__ == "__main__":
  main()
