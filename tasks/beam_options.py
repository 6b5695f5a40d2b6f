"""What is said to Apache Beam, and what it says to the user. Imports Beam when called."""
import contextlib
import importlib.util
import re

from ilm_jax import errors

# A user's mistake that a worker met, as the runner tells of it: somewhere in a remote stack trace.
_MISTAKE = re.compile(r"^(?:\w+\.)*UserError: (.*?)(?: \[while running .*)?$", re.MULTILINE)


def check(beam: tuple[str, ...]) -> None:
  """Raises a UserError if a pipeline is asked for that cannot start."""
  if beam and importlib.util.find_spec("apache_beam") is None:
    raise errors.UserError(
        f"{beam[0].replace('--runner', '--beam_runner')} needs Apache Beam, which is not "
        "installed: run 'pip install -r requirements-beam.lock', or leave --beam_runner out")


def parsed(beam: tuple[str, ...]):
  """Options of a pipeline.

  Args:
    beam: "--runner=FlinkRunner", "--flink_master=localhost:8081", ...
  """
  from apache_beam.options import pipeline_options
  return pipeline_options.PipelineOptions(list(beam))


@contextlib.contextmanager
def mistakes_told():
  """Raises the UserError that a worker raised, in place of the runner's error around it."""
  try:
    yield
  except errors.UserError:
    raise
  except Exception as error:     # each runner has its own
    if mistake := _MISTAKE.search(str(error)):
      raise errors.UserError(mistake[1]) from error
    raise
