"""Shared by the tables of stage eval: examples, shapes of batches, intervals, protocol."""
import dataclasses

import numpy as np

from ilm_jax.data import splits
from ilm_jax.evaluation import metrics, paired
from ilm_jax.runtime import axes
from ilm_jax.stages import context, recipe

HITS, NDCGS = (1, 5, 10, 20), (5, 10, 20)


def bootstrap(run: context.Run) -> paired.Bootstrap:
  """The bootstrap of the run's confidence intervals."""
  return paired.Bootstrap(run.config.eval.bootstrap, run.config.seed)


def sample(run: context.Run, task: str, count: int) -> list[dict]:
  """`count` examples of a task's test split (0: all), drawn with the run's seed."""
  stored = run.prepared(task, "test")
  return [stored[i] for i in drawn(len(stored), count, run.config.seed)]


def drawn(have: int, want: int, seed: int) -> np.ndarray:
  """int [min(want, have)]: `want` numbers below `have` (0: all), drawn with the seed."""
  if not want or want >= have:
    return np.arange(have)
  return np.random.default_rng(seed).permutation(have)[:want]


def item_rows(examples: list[dict]) -> list[int]:
  """The entity row that each example is about."""
  return [int(example["target_entity"][0]) for example in examples]


def spec(run: context.Run, groups, **changes):
  """A spec with one example per row, long enough for all of `groups` (a multiple of 16).

  It has `eval.batch_size` rows, or the next number that the devices can share. `changes`: fields of
  the spec to replace.
  """
  ways = axes.ways(run.mesh, "batch")
  shape = recipe.lm_spec(run, rows=-(-run.config.eval.batch_size // ways) * ways, one_a_row=True)
  shape = dataclasses.replace(shape, **changes)
  sizes = [shape.sizes_of(e) for examples in groups for e in examples]
  longest = {k: max((s[k] for s in sizes), default=1) for k in ("length", "slots", "targets")}
  return dataclasses.replace(shape, length=-(-longest["length"] // 16) * 16,
                             slots=max(longest["slots"], 1), targets=longest["targets"])


def head_spec(run: context.Run, groups):
  """Likewise for rows that only the item head reads: no text is generated."""
  queries = run.config.phase2.head.queries or run.config.qformer.num_queries
  return spec(run, groups, queries=queries, head_only=True)


def users_and_filter(run: context.Run, examples, part: int = splits.TEST
                     ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], dict[str, str]]:
  """For examples about the next item of `part`: (users from 0, target item rows, item rows to
  filter, the protocol's words about the filter).

  The filter takes out the user's history, as `metrics.rows_to_filter` says, and the user's training
  part: with split cold_items training interactions may come after the target, and a model that was
  trained on them would rank their items high. With other splits all of them come before the target.
  """
  log = run.data.log
  user_U = np.array([log.rows.user_number(int(e["user"][0])) for e in examples])
  target_U = np.array(item_rows(examples))
  histories = [log.before_target(user, part) for user in user_U]
  trained = [log.item_N[span][log.split.train[span]] for span in map(log.of_user, user_U)]
  known = [np.r_[pair] for pair in zip(histories, trained)]
  words = metrics.filter_protocol(known, target_U)
  if any(np.setdiff1d(*pair).size for pair in zip(trained, histories)):
    words["filter"] = "items of the user's history and training part are taken out"
  return user_U, target_U, metrics.rows_to_filter(known, target_U), words


def protocol(run: context.Run) -> dict:
  """The protocol lines of every table."""
  return {"language model": run.config.lm.asset, "vectors": ", ".join(run.config.vectors),
          "queries": run.config.qformer.num_queries, "seed": run.config.seed}


def added_scores(run: context.Run) -> dict:
  """{"factors": weight} of the factorisation's scores, where they are added to an item head's."""
  head = run.config.phase2.head
  return {"factors": head.factors} if head.weight and head.factors else {}


def text_protocol(run: context.Run) -> dict:
  """Likewise, for tables about generated texts."""
  return {**protocol(run), "decoding": "greedy", "sentence encoder": run.config.text_encoder.asset}
