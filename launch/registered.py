"""The tasks of a workdir in SeqIO's registry, for SeqIO's own tools.

    ILM_WORKDIR=runs/quickstart seqio_cache_tasks --module_import=launch.registered \\
        --tasks=ml100k_sequential --output_cache_dir=/data/cache

Those tools import a module that must register tasks. So this module is the only one of ours that
acts on import: if $ILM_WORKDIR names a workdir, it registers the tasks of that workdir. Without the
variable an import does nothing; `register` does the same as a call.
"""
import os

from etils import epath

from ilm_jax import errors
from ilm_jax.config import reading as config_lib
from ilm_jax.stages import context, prepare
from ilm_jax.tasks import catalog

VARIABLE = "ILM_WORKDIR"


def register(workdir) -> dict[str, str]:
  """Registers the tasks that stage prepare made in `workdir`, with the config that it recorded.

  Returns:
    Short name -> registered name, as `catalog.register`.

  Raises:
    UserError: the stage has not run there.
  """
  workdir = epath.Path(workdir)
  path = workdir / "config.prepare.json"
  if not path.exists():
    raise errors.UserError(f"{path} does not exist: ${VARIABLE} or the caller names a workdir "
                           "where stage prepare has not run; run it, or name another")
  run = context.Run(config_lib.from_json(path.read_text()), workdir, devices=False)
  return catalog.register(workdir / "data", run.lm_tokenizer, run.text_tokenizer, run.config,
                          run.sentence_vectors, prepare.answers(run), chats=lambda: run.chat)


if os.environ.get(VARIABLE):
  register(os.environ[VARIABLE])
