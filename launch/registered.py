"""The tasks of a workdir in SeqIO's registry, for SeqIO's own tools.

    ILM_WORKDIR=runs/quickstart seqio_cache_tasks --module_import=launch.registered \\
        --tasks=ml100k_sequential --output_cache_dir=/data/cache

Those tools know tasks by what happens when a module is imported. So this one, alone of all of ours,
does something then: where $ILM_WORKDIR names a workdir, it registers its tasks. Imported without
the variable it does nothing; `register` does the same when it is called.
"""
import os

from etils import epath

from ilm_jax import errors
from ilm_jax.config import reading as config_lib
from ilm_jax.stages import context, prepare
from ilm_jax.tasks import catalog

VARIABLE = "ILM_WORKDIR"


def register(workdir) -> dict[str, str]:
  """Registers the tasks that stage prepare made in `workdir`, by the config that it recorded.

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
                          run.sentence_vectors, prepare.answers(run))


if os.environ.get(VARIABLE):
  register(os.environ[VARIABLE])
