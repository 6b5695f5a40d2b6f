"""Logs as tests compare them."""


def listed(log) -> tuple:
  """The columns of `lines.Events` as lists; None stays None."""
  return tuple(column if column is None else list(column) for column in log)
