"""Which tasks of a mixture are trained, and in which rows of phase 2's batches."""
HISTORY_TASKS = ("sequential", "straightforward", "next_item")     # predict the next item of a log
DIALOG_HEAD_TASKS = ("conv_next", "conv_critique", "redial_recommend")   # .. of a conversation
HEAD_TASKS = HISTORY_TASKS + DIALOG_HEAD_TASKS                     # tasks that the item head reads


def task_names(config) -> tuple[str, ...]:
  """The tasks of the mixture with a rate other than 0, in the order of the config."""
  return tuple(name for name, rate in config.tasks.mixture.items() if rate)


def rank_tasks(config) -> tuple[str, ...]:
  """The tasks of `task_names` that only the item head trains on (`phase2.head.rows`)."""
  apart = config.phase2.head.weight and config.phase2.head.rows
  return tuple(name for name in task_names(config) if apart and name in HEAD_TASKS)


def said_tasks(config) -> tuple[str, ...]:
  """All other tasks of `task_names`: the language model trains on their text targets."""
  return tuple(name for name in task_names(config) if name not in rank_tasks(config))


def ranks_items_only(config) -> bool:
  """Whether there are `rank_tasks` and none of their prompts has a slot for a user."""
  ranked = set(rank_tasks(config))
  return bool(ranked) and ranked <= {"next_item", *DIALOG_HEAD_TASKS}
