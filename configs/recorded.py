"""The config that a run recorded, as a file to start from.

    python -m ilm_jax.main --config=configs/recorded.py:runs/a/config.phase2.json \\
        --workdir=runs/b --config.phase2.steps=400

A field that is newer than the record gets the value that changes nothing. Without a path: base.py.
"""
import pathlib

import ml_collections

from ilm_jax import errors
from ilm_jax.config import reading, settings
from ilm_jax.configs import base


def get_config(path: str = "") -> ml_collections.ConfigDict:
  """The locked config in a config.<stage>.json.

  Raises:
    UserError: the file is missing, or is not a config.
  """
  if not path:
    return base.get_config()
  try:
    record = reading.from_json(pathlib.Path(path).expanduser().read_text())
  except (OSError, ValueError, AttributeError) as e:
    raise errors.UserError(f"{path} is no recorded config ({e}): expected a workdir's "
                           "config.<stage>.json") from e
  c = base.get_config()
  with c.unlocked():
    c.update_from_flattened_dict(settings.OFF)
    c.update(record)
  return c
