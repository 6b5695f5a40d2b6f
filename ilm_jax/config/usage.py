"""The parts of the command line that are no absl flags: a command in front, --help and --version.

    ilm eval --config=quickstart --workdir=runs/quickstart

means `--stage=eval`; `run` means `--stage=all`. `ilm eval --help` explains that stage alone.
"""
import configparser
import difflib
import importlib.metadata
import re
import textwrap
from collections.abc import Mapping, Sequence

import ilm_jax
from ilm_jax import errors
from ilm_jax.config import reading, stages

_WIDTH = 80
_RUN = "run"
_HEAD = """\
ILM-JAX {version}: the Item-Language Model, a recommender that talks

  ilm COMMAND --config=CONFIG --workdir=FOLDER [--flag=value ...]

The same without the script `ilm`, and several stages at once:
  python -m ilm_jax.main --config=CONFIG --workdir=FOLDER --stage=eval,report

CONFIG is the name of a config of the package, e.g. quickstart, or a file of
yours, e.g. my_config.py.
"""


def with_command(argv: Sequence[str]) -> list[str]:
  """The command line with the command in front, if there is one, replaced by --stage.

  >>> with_command(["ilm", "eval", "--tables"])
  ['ilm', '--stage=eval', '--tables']

  Raises:
    UserError: there is no such command, or --stage is given, too.
  """
  argv = list(argv)
  if len(argv) < 2 or argv[1].startswith("-"):
    return argv
  command = argv[1]
  known = (_RUN, *stages.BY_NAME)
  for name in map(str.strip, command.split(",")):
    if name not in known:
      close = difflib.get_close_matches(name, known, 1)
      hint = f"did you mean {close[0]}? " if close else ""
      raise errors.UserError(f"unknown command {name!r}: {hint}expected one of {', '.join(known)}")
  if any(re.match(r"--?stage(=|$)", argument) for argument in argv[2:]):
    raise errors.UserError(f"command {command!r} and --stage: give one of them")
  return [argv[0], f"--stage={'all' if command == _RUN else command}", *argv[2:]]


def answer(argv: Sequence[str], flags_of: Mapping[str, Sequence], common: Sequence) -> str:
  """The answer to --help, -h or --version on the command line; "" if none of them is there.

  Args:
    argv: the command line, the program's name first.
    flags_of: stage -> the absl flags that not all stages read, but this one does.
    common: the absl flags that all stages read.
  """
  if "--version" in argv[1:]:
    return f"ilm-jax {version()}"
  if not {"-h", "--help", "-help"} & set(argv[1:]) and argv[1:2] != ["help"]:
    return ""
  names = _stages_in([word for word in argv[1:] if word != "help"])
  return stage_help(names, flags_of, common) if names else help_text(flags_of, common)


def _stages_in(words: Sequence[str]) -> tuple[str, ...]:
  """The stages that a command in front or --stage names; () if none or all are named."""
  value = re.search(r"(?:^|\0)--?stage[=\0]([^\0]*)", "\0".join(with_command(["ilm", *words])))
  return () if not value or value[1] in ("", "all") else stages.parse(value[1])


def version() -> str:
  """The version: of setup.cfg in a checkout, else of the installed package's metadata."""
  if ilm_jax.CHECKOUT:
    parser = configparser.ConfigParser()
    parser.read(ilm_jax.CHECKOUT / "setup.cfg")
    return parser["metadata"]["version"]
  return importlib.metadata.version("ilm-jax")


def help_text(flags_of: Mapping[str, Sequence], common: Sequence) -> str:
  """Every stage with what it does, an example and the flags of this stage alone; then all others.

  Args: see `answer`.

  Returns:
    Lines of at most 80 columns.
  """
  out = [_HEAD.format(version=version()), f"{_RUN}: all of {', '.join(stages.ALL)}",
         f"  ilm {_RUN} --config=quickstart --workdir=runs/quickstart"]
  shared = {flag.name: flag for its in flags_of.values() for flag in its
            if sum(flag in others for others in flags_of.values()) > 1}
  for stage in stages.STAGES:
    out += _of_stage(stage)
    for flag in flags_of.get(stage.name, ()):
      if flag.name not in shared:
        out += _of_flag(flag, f"With --stage={stage.name}: ")
  out += ["", "Flags of several commands:"]
  for flag in shared.values():
    out += _of_flag(flag)
  out += ["", "ilm COMMAND --help: flags and config fields of that command alone"]
  return "\n".join([*out, *_of_all(common)])


def stage_help(names: Sequence[str], flags_of: Mapping[str, Sequence], common: Sequence) -> str:
  """What the named stages do, their flags, and the fields of the config that they read.

  Args:
    names: names of the stages.
    flags_of, common: see `answer`.

  Returns:
    Lines of at most 80 columns.
  """
  out, flags, sections = [], {}, {}
  for name in names:
    out += _of_stage(stages.BY_NAME[name])
    flags |= {flag.name: flag for flag in flags_of.get(name, ())}
    sections |= dict.fromkeys(stages.BY_NAME[name].sections)
  if flags:
    out += ["", "Flags:"]
  for flag in flags.values():
    out += _of_flag(flag, f"With --stage={names[0]}: " if len(names) == 1 else "")
  if sections:
    out += ["", "Of the config, e.g. --config.seed=1 (configs/base.py explains each field):"]
  config = reading.defaults()
  for section in sections:
    fields = ", ".join(_fields(config[section]))
    out += _wrapped(f"{section}: {fields}" if fields else section, "    ", "        ")
  return "\n".join([*out[1:], *_of_all(common)])


def _of_stage(stage: stages.Stage) -> list[str]:
  typed = f"ilm {stage.name} --config=.. --workdir=.. {stage.example}"
  return ["", *_wrapped(f"{stage.name}: {stage.does}", "", "  "), *_wrapped(typed, "  ", "    ")]


def _of_all(common: Sequence) -> list[str]:
  out = ["", "Flags of all commands:"]
  for flag in common:
    out += _of_flag(flag)
  return [*out, *_wrapped("--config.section.field=value: a field of the config, e.g. "
                          "--config.phase2.steps=10", "    ", "        ")]


def _fields(section, start: str = "") -> list[str]:
  """Dotted names of the fields of a section; [] if it is a single value."""
  if not hasattr(section, "items"):
    return []
  return [inner for name, value in section.items()
          for inner in _fields(value, f"{start}{name}.") or [f"{start}{name}"]]


def _of_flag(flag, start: str = "") -> list[str]:
  default = f" (default: {flag.default})" if flag.default not in (None, "", [], False) else ""
  switch = "" if flag.boolean else "=.."
  # absl puts the values of an enum in front, and a remark on repeated flags at the end.
  text = re.sub(r"^<.*?>: |;\s+repeat this option to specify a list of values$", "", flag.help)
  return _wrapped(f"--{flag.name}{switch}: {text.removeprefix(start)}{default}", "    ",
                  "        ")


def _wrapped(text: str, first: str, others: str) -> list[str]:
  return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=others,
                       break_long_words=False, break_on_hyphens=False)
