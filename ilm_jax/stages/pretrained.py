"""Which pretrained files a config names, and the fingerprints of what is made with them."""
import hashlib

from etils import epath

from ilm_jax import files
from ilm_jax.assets import pinned
from ilm_jax.config import settings


def asset_or_path(name: str):
  """The file of an asset with that name, else the path."""
  return pinned.only(name) if name in pinned.ASSETS else epath.Path(name)


def lm_fingerprint(config) -> str:
  """sha256 of which language model the config names, with what changes its numbers."""
  name, fields = config.lm.asset, config.lm.to_dict()
  del fields["remat"]        # the same numbers by another way
  del fields["attention"]    # likewise
  del fields["shape"]        # of no run with weights
  del fields["chat_template"]    # of prepared tasks
  if fields.pop("random"):
    fields["random"] = config.seed
  fields = {field: value for field, value in fields.items()
            if settings.OFF.get(f"lm.{field}", settings) != value}
  return files.sha256_json({**fields, "asset": _identity(name)})


def teacher_files(config) -> tuple:
  """(weights, tokenizer) of a teacher that is a language model of ours."""
  lm, model = config.lm, config.targets.model
  if model:
    return (asset_or_path(model),) * 2
  weights = asset_or_path(lm.asset)
  return weights, asset_or_path(lm.tokenizer) if lm.tokenizer else weights


def teacher_fingerprint(config) -> str:
  """sha256 of all that changes the teacher's text (not timeouts, retries, batch size)."""
  c = config.targets
  identity: dict = {"teacher": c.teacher}
  if c.teacher == "file":
    identity["file"] = hashlib.sha256(epath.Path(c.file).read_bytes()).hexdigest()
  else:
    identity |= {"words": [c.max_tokens, c.temperature, c.top_p]}
  if c.teacher == "endpoint":
    identity |= {"endpoint": c.endpoint, "model": c.model}
  if c.teacher == "lm":
    lm_files = {"gin_file": config.lm.gin_file, "tokenizer": config.lm.tokenizer}
    identity |= {"asset": _identity(c.model or config.lm.asset),
                 "dtype": config.lm.dtype, "chat": c.chat, **({} if c.model else lm_files),
                 **({"seed": config.seed} if c.temperature else {})}
  return files.sha256_json(identity)


def _identity(name: str) -> str:
  """Of an asset without fetching it; of other files by what they hold."""
  if name in pinned.ASSETS:
    return pinned.fingerprint(name)
  from ilm_jax.weights import load
  return load.fingerprint(epath.Path(name))

