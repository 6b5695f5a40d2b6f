"""The stages of a run: their names, in order, and what each needs. The one list of them."""
import dataclasses
import difflib

from ilm_jax import errors


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage, as far as those who start it must know it."""
  name: str
  needs: tuple[str, ...] = ()     # stages that must have run in the same workdir
  in_all: bool = True             # part of --stage=all; else run only by its name
  together: bool = False          # all processes of a job take part; else process 0 alone
  beside_training: bool = False   # may run while another job trains in the workdir (--watch)
  writes: bool = True             # leaves something in the workdir
  # Sections of the config that decide what it leaves, where its config.<stage>.json is written when
  # it has run; of training and evaluation it is written when they begin to do so.
  reads: tuple[str, ...] = ()


STAGES = (
    # Nothing to do where no ELM target is to be written and no dialog made; else prepare needs it.
    Stage("targets", together=True,
          reads=("seed", "data", "tasks", "targets", "lm", "dialogs", "cf")),
    Stage("prepare", reads=("seed", "data", "tasks", "targets", "lm", "text_encoder")),
    Stage("cf", needs=("prepare",), together=True, reads=("seed", "data", "cf", "text_encoder")),
    Stage("phase1", needs=("prepare", "cf"), together=True),
    Stage("phase2", needs=("prepare", "cf"), together=True),     # phase1, or phase2.init_from
    Stage("eval", needs=("phase2",), together=True, beside_training=True),
    Stage("report", needs=("eval",), beside_training=True),
    Stage("audit", needs=("prepare",), in_all=False),
    Stage("describe", needs=("phase2",), in_all=False, together=True, writes=False),
    Stage("recommend", needs=("phase2",), in_all=False, together=True, writes=False),
    Stage("chat", needs=("phase2",), in_all=False, writes=False),
    Stage("serve", needs=("phase2",), in_all=False, writes=False),
    Stage("plan", in_all=False),
)
BY_NAME = {stage.name: stage for stage in STAGES}
ALL = tuple(stage.name for stage in STAGES if stage.in_all)
TRAIN = tuple(name for name in ALL if not BY_NAME[name].beside_training)
WATCH = tuple(name for name in ALL if BY_NAME[name].beside_training)


def parse(text: str) -> tuple[str, ...]:
  """The names in "all" or "phase1, phase2".

  Raises:
    UserError: a name that no stage has.
  """
  names = tuple(name.strip() for name in text.split(","))
  if names == ("all",):
    return ALL
  if unknown := [name for name in names if name not in BY_NAME]:
    close = difflib.get_close_matches(unknown[0], BY_NAME, 1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise errors.UserError(f"--stage={text}: unknown stage {unknown[0]!r}: {hint}expected all, or "
                           f"some of {','.join(BY_NAME)}")
  return names
