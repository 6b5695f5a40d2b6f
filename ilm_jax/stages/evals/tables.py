"""Stage eval, second half: does the frozen language model recommend and describe from vectors?

Tables of the log perplexity of test targets, of recommendation over the full catalogue, and of the
meaning of texts about items never described in training (`text`); texts and lists to read.
"""
import json

from ilm_jax import files
from ilm_jax.config import variants
from ilm_jax.evaluation import measured
from ilm_jax.runtime import distributed
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import (
    between,
    cold,
    losses,
    made_from,
    methods,
    prompts,
    ranking,
    speaker,
    talks,
    text,
    user_tasks,
)


def run(run: context.Run) -> None:
  """Writes eval/phase2/<step>/ for the newest checkpoint, unless its tables are up to date.

  All processes of a job measure, and process 0 writes.
  """
  made = made_from.of_phase2(run)
  if measured.done(_folder(run, made), made):
    return
  ilm = speaker.Speaker(run, variants.ILM)
  compared = methods.methods(run, ilm)
  # Training may have saved another checkpoint meanwhile: what was read counts.
  made = made_from.of_phase2(run, {method.model.variant.folder: method.model.step
                                   for method in compared if method.model.variant})
  folder = _folder(run, made)
  measured.begin(folder)
  if distributed.is_main():
    run.record("eval")

  def write_bytes(name, data):
    if distributed.is_main():
      files.write_bytes(folder / name, data)

  def write(name, part):
    write_bytes(f"{name}.json", json.dumps(part, indent=1).encode())

  if recipe.said_tasks(run.config):
    write("loss", losses.table(run, compared))
  behaviour = text.behaviour(run)
  for name, part in text.generations(run, compared, behaviour).items():
    write(name, part)
  if run.config.eval.interpolations and (part := between.table(run, ilm, behaviour)):
    write("between", part)
  for name, part in user_tasks.tables(run, compared).items():
    write(name, part)
  for name, talked in (("conversations", talks.table(run, compared)),
                       ("replies", talks.replies(run, compared))):
    if talked:
      write(name, talked)
  if run.config.eval.prompt_users:
    write("prompts", prompts.table(run, ilm))
  if run.rule.cold:
    for name, part in cold.tables(run, compared).items():
      write(name, part)
  parts, stored = ranking.recommendation(run, compared)
  for name, data in stored.items():
    write_bytes(name, data)
  for name, part in parts.items():
    write(name, part)
  measured.mark(folder, made)


def _folder(run: context.Run, made: dict):
  return run.workdir / "eval" / "phase2" / str(made["checkpoints"]["phase2"]["step"])
