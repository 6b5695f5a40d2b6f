"""Files and folders that a config names. Checked where the run will be, not where it is started."""
import importlib.util
import re

from etils import epath

from ilm_jax import elm
from ilm_jax.config import dialog_sources, names, rules

_BUCKET = re.compile(r"(gs|s3)://[^/]")
# "owner/name" may also be a relative path, so this hint comes only if no such path exists.
_OF_THE_HUB = re.compile(r"(?:hf://|https?://(?:www\.)?(?:huggingface\.co|hf\.co)/)?"
                         r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/(?:tree|resolve|blob)/.*)?/?")


def check_paths(c) -> list[str]:
  """A line for each path of config `c` that does not exist, and each tracker not installed."""
  return [*_check_inputs(c), *_check_models(c), *_check_trackers(c)]


def _check_trackers(c) -> list[str]:
  return [f"tracker={c.tracker!r}: {name} is not installed: pip install 'ilm-jax[{name}]', or "
          "leave it out, e.g. --config.tracker=tensorboard"
          for name in rules.listed(c.tracker)
          if (module := names.TRACKERS.get(name)) and importlib.util.find_spec(module) is None]


def _check_inputs(c) -> list[str]:
  d, t = c.data, c.targets
  wrong = []
  if d.path and not (_there(d.path) and epath.Path(d.path).expanduser().is_dir()):
    wrong.append(f"data.path={d.path!r} is no folder: give the one that holds the files of "
                 f"data.name={d.name!r}")
  if c.tasks.prompts and not _there(c.tasks.prompts):
    wrong.append(f"tasks.prompts={c.tasks.prompts!r} does not exist: name a prompt.txt, or \"\"")
  wrong += [f"tasks.dialogs: {source.path!r} does not exist: name a file of JSON lines, or "
            "ReDial's folder or zip behind 'redial:'"
            for source in dialog_sources.parse(c.tasks.dialogs)
            if source.kind != dialog_sources.SYNTHETIC and not _there(source.path)]
  if elm.asks_teacher(c) and t.teacher == "file" and not (t.file and _there(t.file)):
    wrong.append(f"targets.file={t.file!r} does not exist: name a file of JSON lines with task, "
                 "ids and target")
  return wrong


def _check_models(c) -> list[str]:
  lm, t = c.lm, c.targets
  wrong = []
  for field, value in {"asset": lm.asset, "tokenizer": lm.tokenizer or lm.asset}.items():
    if field == "asset" or value != lm.asset:
      wrong += _known_or_path(f"lm.{field}", value, names.LANGUAGE_MODELS)
  if lm.gin_file and not _there(lm.gin_file):
    wrong.append(f"lm.gin_file={lm.gin_file!r} does not exist: name the model's gin file, or \"\"")
  wrong += _known_or_path("lm.chat_template", lm.chat_template, names.CHAT_TEMPLATES)
  wrong += _known_or_path("qformer.init", c.qformer.init, ("", *names.TEXT_ENCODERS))
  if elm.asks_teacher(c) and t.teacher == "lm" and t.model:
    wrong += _known_or_path("targets.model", t.model, names.LANGUAGE_MODELS)
  return wrong


def _known_or_path(field: str, value: str, names: tuple[str, ...]) -> list[str]:
  """No lines for a name of `names` or a path that exists; else a line with the cure."""
  if value in names or _there(value):
    return []
  hub = _OF_THE_HUB.fullmatch(value)
  cure = (f". If it is a model of the Hugging Face Hub: hf download {hub[1]} --local-dir=FOLDER, "
          f"then --config.{field}=FOLDER" if hub else "")
  return [f"{line}; nor is it a path that exists{cure}"
          for line in rules.known(field, value, names)]


def _there(path: str) -> bool:
  """Whether a local path or an object of a bucket exists; False for other addresses."""
  if "://" in path and not _BUCKET.match(path):
    return False
  return epath.Path(path).expanduser().exists()
