"""Directions guessed from words (`conversation.open_words`): tables for `critiques`."""
import numpy as np

from benchmarks import critique_gamma, critiques
from benchmarks.conversations import BOOTSTRAP, cell, header
from ilm_jax.conversation import directions, open_words
from ilm_jax.data import splits
from ilm_jax.evaluation import gamma, metrics, target_sets

AGREES = (0.3, 0.4, 0.5, 0.6, 0.7)
STEPS = (0.25, 0.75)     # for an item head in conversations; for factors


def agreement_table(material, sortings, counts) -> str:
  """Guesses by how far their two sources agree: every other attribute chooses, the rest measures.

  Args: `counts`: from `critique_gamma.measure`.
  """
  every, text = counts[critique_gamma.GUESSED], counts[critique_gamma.TEXT]
  halves = [[name for name in sortings.attributes[at::2] if name in every] for at in (0, 1)]
  out = header(["agree by", "attributes of one half", "gamma", "attributes of the other", "gamma",
                "gamma, the attribute's words", "gamma of what is refused"])
  for least in AGREES:
    passes = critique_gamma.guess(material, sortings, {"agree": least}, "both")
    kept = [[name for name in half if name in passes] for half in halves]
    cells = [each for half in kept for each in (str(len(half)), _gamma(every, half))]
    out.append(f"| {least} | " + " | ".join([
        *cells, _gamma(text, kept[1]),
        _gamma(every, [name for name in halves[1] if name not in passes])]) + " |")
  return "\n".join(out)


def _gamma(counts, names) -> str:
  return cell(gamma.estimate(BOOTSTRAP, *critique_gamma.table_of(counts, names))) if names else ""


def success_table(material, sortings) -> str:
  """Critiques by tags: S@10 with directions guessed without tags and with the tags' own
  directions, on validation targets and on test targets."""
  item_I1C, guessed = material.form.item_I1C, critique_gamma.guesser(material, sortings)
  own = {name: way_C for name, way_C in material.ways(0.1, False).items()
         if material.kind(name) == "tag"}
  guesses = {name: open_words.agreed(item_I1C, *guessed(name)) for name in own}
  ways = {name: way_C for name, way_C in guesses.items() if way_C is not None}
  met = np.flatnonzero(material.met_I1)
  like = [np.corrcoef(item_I1C[met] @ ways[name], item_I1C[met] @ own[name])[0, 1] for name in ways]
  out = [f"{len(ways)} of {len(own)} tags are guessed; correlation with the tag's direction: "
         f"{np.mean(like):.2f} on average, {np.mean(np.array(like) > 0):.2f} of them above 0", ""]
  for part, of in ((splits.VALID, "validation"), (splits.TEST, "test")):
    every, _ = critiques.cases(material, part, set(own))
    every = [case for case in every if case["name"] in ways]
    out += [f"{of}: {len(every)} critiques of {len({case['user'] for case in every})} users", "",
            *header(["row", "S@10", "minus before"]), *_rows(material, every, own, ways), ""]
  return "\n".join(out)


def _rows(material, every: list[dict], own: dict, ways: dict) -> list[str]:
  user_NC = np.stack([case["user_C"] for case in every])
  blocked = [np.r_[case["before"], case["shown"]] for case in every]
  spread_N1 = directions.spread(material.form.item_I1C, user_NC)[:, None]
  sign_N1, names = np.array([[case["sign"]] for case in every]), list(ways)
  rng = np.random.default_rng(0)
  others = [names[(names.index(case["name"]) + int(rng.integers(1, len(names)))) % len(names)]
            for case in every]
  move = {"the tag's direction": sign_N1 * np.stack([own[case["name"]] for case in every]),
          "guessed": sign_N1 * np.stack([ways[case["name"]] for case in every]),
          "its opposite": -sign_N1 * np.stack([ways[case["name"]] for case in every]),
          "another tag's, guessed": sign_N1 * np.stack([ways[name] for name in others])}

  def hits(vectors_NC):
    return metrics.hit_rate(critiques.ranks_of(
        material, vectors_NC, [case["target"] for case in every], blocked), 10)

  before_N, user_N = hits(user_NC), np.array([case["user"] for case in every])
  got = {"before": before_N, **{f"{name}, step {step}": hits(user_NC + step * spread_N1 * move_NC)
                                for step in STEPS for name, move_NC in move.items()}}
  out = []
  for name, hit_N in got.items():
    shown = target_sets.estimates(BOOTSTRAP, {"S": hit_N, "more": hit_N - before_N}, user_N)
    out.append(f"| {name} | {cell(shown['S'])} | {cell(shown['more'])} |")
  return out
