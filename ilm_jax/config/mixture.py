"""Which tasks of a mixture are trained, and in which rows of phase 2's batches."""
HISTORY_TASKS = ("sequential", "straightforward", "next_item")     # a user's next item in the log
DIALOG_HEAD_TASKS = ("conv_next", "conv_critique", "redial_recommend")   # in a conversation
HEAD_TASKS = HISTORY_TASKS + DIALOG_HEAD_TASKS                     # what the item head reads


def task_names(config) -> tuple[str, ...]:
  """The tasks of the mixture that have a rate, in the order of the config."""
  return tuple(name for name, rate in config.tasks.mixture.items() if rate)


def rank_tasks(config) -> tuple[str, ...]:
  """Of these, those whose rows the item head alone reads (`phase2.head.rows`)."""
  apart = config.phase2.head.weight and config.phase2.head.rows
  return tuple(name for name in task_names(config) if apart and name in HEAD_TASKS)


def said_tasks(config) -> tuple[str, ...]:
  """Of these, those whose targets are said in words: all others."""
  return tuple(name for name in task_names(config) if name not in rank_tasks(config))


def ranks_items_only(config) -> bool:
  """Whether the rows that only rank hold items alone: no user has a slot in them."""
  ranked = set(rank_tasks(config))
  return bool(ranked) and ranked <= {"next_item", *DIALOG_HEAD_TASKS}
