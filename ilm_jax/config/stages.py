"""The one list of the stages of a run: their names, in order, and what each needs."""
import dataclasses
import difflib

from ilm_jax import errors


@dataclasses.dataclass(frozen=True)
class Stage:
  """The facts of one stage that are needed to start it."""
  name: str
  does: str                       # in a line, for --help
  example: str = ""               # further flags, as an example for --help
  needs: tuple[str, ...] = ()     # stages that must have run in the same workdir
  in_all: bool = True             # part of --stage=all; else run only by its name
  together: bool = False          # all processes of a job take part; else process 0 alone
  single: bool = False            # refuses a job of several processes
  beside_training: bool = False   # may run while another job trains in the workdir (--watch)
  writes: bool = True             # leaves something in the workdir
  # Sections of the config that decide the stage's results, if its config.<stage>.json is written at
  # its end. Training and evaluation write theirs when they begin.
  reads: tuple[str, ...] = ()
  also: tuple[str, ...] = ()      # other sections that it reads, for --help

  @property
  def sections(self) -> tuple[str, ...]:
    """Sections of the config that --help of this stage lists."""
    return (*self.reads, *self.also)


_TRAINING = ("seed", "prng", "mesh", "tracker", "profile", "vectors", "qformer")
_TRAINED = ("vectors", "qformer", "lm", "phase2")      # sections that describe a trained model

STAGES = (
    # Prepare needs it if there are ELM targets to write or dialogs to make; else it does nothing.
    Stage("targets", "writes the target texts of the ELM tasks, and synthetic dialogs",
          "--config.dialogs.count=500", together=True,
          reads=("seed", "data", "tasks", "targets", "lm", "dialogs", "cf")),
    Stage("prepare", "builds the data set and tokenises all tasks", "--config.data.k_core=10",
          reads=("seed", "data", "tasks", "targets", "lm", "text_encoder")),
    Stage("cf", "factorises the interactions and embeds the item texts",
          needs=("prepare",), together=True, reads=("seed", "data", "cf", "text_encoder")),
    Stage("phase1", "aligns the Q-Former with texts and behaviour", "--config.phase1.steps=800",
          needs=("prepare", "cf"), together=True, also=(*_TRAINING, "text_encoder", "phase1")),
    Stage("phase2", "trains through the frozen language model", "--config.phase2.steps=2000",
          needs=("prepare", "cf"), together=True,      # phase1, or phase2.init_from
          also=(*_TRAINING, "lm", "tasks", "phase2")),
    Stage("eval", "measures ranking, retrieval and text on held-out items", "--watch=60",
          needs=("phase2",), together=True, beside_training=True,
          also=("seed", "mesh", "eval", *_TRAINED)),
    Stage("report", "prints a summary and writes report.html", "--tables",
          needs=("eval",), beside_training=True),
    Stage("audit", "looks for leaks, and for checkpoints and tables that are stale",
          needs=("prepare",), in_all=False, single=True),
    Stage("describe", "prints what the model says about a vector",
          "--items='Heat (1995)'",
          needs=("phase2",), in_all=False, together=True, writes=False,
          also=_TRAINED),
    Stage("recommend", "recommends to a user, or to somebody who liked an item",
          "--liked='Heat (1995)'", needs=("phase2",), in_all=False, together=True, writes=False,
          also=_TRAINED),
    Stage("chat", "talks with you in the terminal", "--questions=2",
          needs=("phase2",), in_all=False, single=True, writes=False, also=_TRAINED),
    Stage("serve", "opens a page to talk to the model, and an API", "--port=8000",
          needs=("phase2",), in_all=False, single=True, writes=False, also=_TRAINED),
    Stage("export", "writes files for numpy, transformers, vLLM and jax alone",
          "--users=all --out=export", needs=("phase2",), in_all=False, single=True,
          also=_TRAINED),
    Stage("plan", "estimates what a training step costs on hardware you do not have",
          "--topology=v5e:4x4", in_all=False, single=True,
          also=("plan", "mesh", "vectors", "qformer", "lm", "phase1", "phase2")),
)
BY_NAME = {stage.name: stage for stage in STAGES}
ALL = tuple(stage.name for stage in STAGES if stage.in_all)
TRAIN = tuple(name for name in ALL if not BY_NAME[name].beside_training)
WATCH = tuple(name for name in ALL if BY_NAME[name].beside_training)


def parse(text: str) -> tuple[str, ...]:
  """The names in "all" or "phase1, phase2".

  Raises:
    UserError: a name is not that of a stage.
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


def check_processes(names: tuple[str, ...], processes: int) -> None:
  """Refuses stages that run in one process, such as export, in a job of more.

  Raises:
    UserError: the job has several, and one of `names` is such a stage.
  """
  single = [name for name in names if BY_NAME[name].single]
  if single and processes > 1:
    raise errors.UserError(f"--stage={single[0]} runs in one process, this job has {processes}: "
                           "start it in a job of one")
