"""The pretrained files that a config names, and their fingerprints."""
import hashlib

from etils import epath

from ilm_jax import files
from ilm_jax.assets import pinned
from ilm_jax.config import settings


def asset_or_path(name: str):
  """The file of the asset `name`, or `name` as a path if there is no such asset."""
  return pinned.only(name) if name in pinned.ASSETS else epath.Path(name)


def lm_fingerprint(config) -> str:
  """sha256 of the config's language model and of the settings that change its numbers."""
  name, fields = config.lm.asset, config.lm.to_dict()
  del fields["remat"]        # does not change the numbers
  del fields["attention"]    # likewise
  del fields["shape"]        # empty in every run with weights
  del fields["chat_template"]    # affects prepared tasks only
  if fields.pop("random"):
    fields["random"] = config.seed
  fields = {field: value for field, value in fields.items()
            if settings.OFF.get(f"lm.{field}", settings) != value}
  of_files = {field: _identity(fields[field]) for field in ("gin_file", "tokenizer")
              if fields[field]}
  return files.sha256_json({**fields, **of_files, "asset": _identity(name)})


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
    lm_files = {name: path and _identity(path) for name, path in (
        ("gin_file", config.lm.gin_file), ("tokenizer", config.lm.tokenizer))}
    identity |= {"asset": _identity(c.model or config.lm.asset),
                 "dtype": config.lm.dtype, "chat": c.chat, **({} if c.model else lm_files),
                 **({"seed": config.seed} if c.temperature else {})}
  return files.sha256_json(identity)


def _identity(name: str) -> str:
  """The pinned fingerprint of an asset, which need not be fetched; of other files, of the content.
  """
  if name in pinned.ASSETS:
    return pinned.fingerprint(name)
  from ilm_jax.weights import load
  return load.fingerprint(epath.Path(name))

