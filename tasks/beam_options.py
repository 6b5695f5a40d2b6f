"""Options for Apache Beam, and the users' mistakes that its workers report. Imports Beam lazily."""
import contextlib
import importlib.util
import re

from ilm_jax import errors

# A UserError of a worker, somewhere in the remote stack trace that the runner reports.
_MISTAKE = re.compile(r"^(?:\w+\.)*UserError: (.*?)(?: \[while running .*)?$", re.MULTILINE)


def check(beam: tuple[str, ...]) -> None:
  """Raises a UserError if a pipeline is requested but Beam is not installed."""
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
  """Replaces the runner's error by the UserError that a worker raised, if there is one."""
  try:
    yield
  except errors.UserError:
    raise
  except Exception as error:     # each runner has its own
    if mistake := _MISTAKE.search(str(error)):
      raise errors.UserError(mistake[1]) from error
    raise
