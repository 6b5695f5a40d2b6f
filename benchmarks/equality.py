"""Compares losses on 1 and 8 devices, in 1, 2 and 4 processes, and resumed across them.

    python -m benchmarks.equality --workdir=runs/equality [--cases=2x1,resume]

Trains phase 1 and phase 2 of a small model with the project's own batches, losses, placement, loop
and checkpoints, through `launch/local_pod.py`. Dropout and noise are on, and phase 2 starts with a
whitening. A case is PROCESSESxDEVICES (devices per process), with its mesh unless that is data
alone. "resume" starts as 1x1 and continues as 2x1, 4x1 and 1x8 with another mesh, each from the
previous checkpoint. The table shows the largest relative difference from 1x1: of the losses of all
steps, and of the last checkpoint's loss without dropout on held-out examples, which one process
measures as in stage eval.

Measured (with JAX_DISABLE_MOST_OPTIMIZATIONS=1 for faster compilation):

                                    phase1    phase2      eval
  1x8                              8.4e-08   2.3e-07   3.1e-08
  1x8 data 2 fsdp 2 tensor 2       8.4e-08   9.3e-07   7.8e-09
  2x1                              8.5e-08   2.3e-07   3.1e-08
  4x1                              1.4e-07   2.3e-07   7.8e-09
  2x4 data 2 fsdp 4                1.4e-07   4.6e-07   3.1e-08
  resume                           8.5e-08   2.3e-07   7.8e-09
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import jax
import ml_collections
import numpy as np

from ilm_jax.data import batches, packing, store
from ilm_jax.models import decoder, ilm, language_model
from ilm_jax.models.qformer import QFormerConfig
from ilm_jax.monitoring import scalars
from ilm_jax.objectives import phase1, phase1_config, phase2, whitening
from ilm_jax.runtime import axes, distributed
from ilm_jax.training import checkpoint, loop, optimizer

ROOT = pathlib.Path(__file__).parents[1]
# name -> (processes, devices of each, mesh) in order; each starts from the previous one.
CASES = {
    "1x1": [(1, 1, (1, 1, 1))],
    "1x8": [(1, 8, (8, 1, 1))],
    "1x8 data 2 fsdp 2 tensor 2": [(1, 8, (2, 2, 2))],
    "2x1": [(2, 1, (2, 1, 1))],
    "4x1": [(4, 1, (4, 1, 1))],
    "2x4 data 2 fsdp 4": [(2, 4, (2, 4, 1))],
    "resume": [(1, 1, (1, 1, 1)), (2, 1, (2, 1, 1)), (4, 1, (2, 2, 1)), (1, 8, (2, 2, 2))],
    "1, 2, 4, 1 processes": [(1, 1, (1, 1, 1)), (2, 1, (2, 1, 1)), (4, 1, (4, 1, 1)),
                             (1, 1, (1, 1, 1))],
    "8, 4, 1 devices": [(1, 8, (8, 1, 1)), (1, 4, (4, 1, 1)), (1, 1, (1, 1, 1))],
}
R, SLOT, VOCAB = 203, 1, 61
FORM = ilm.Form(skip=False, per_query=False, soft_norm=False, equal_head=False)
QFORMER = QFormerConfig(vectors=(("behavioral", 12),), num_layers=2, cross_every=1,
                        cross_init="width", cross_reads="own", query_pool="nearest",
                        reader_hidden=0, members=0,
                        width=16,
                        num_heads=4, mlp_width=32, vocab_size=VOCAB, max_text=8, num_queries=2,
                        kv_tokens=1, kv_width=0, proj_width=8, user_projection=False,
                        proj_init="normal",
                        text_pool="cls", temperature=0.07, min_temperature=0.01, dropout=0.1,
                        text_dropout=0.0, vector_noise=0.2,
                        vector_dropout=0.0, remat=False, matmul_precision="default")
PHASE1 = phase1_config.Phase1Config(
    itc=1.0, itm=1.0, itg=1.0, ii=1.0, ui=1.0, cf=0.0, rec=0.0, uni=0.0, label_smoothing=0.1,
    contrastive="infonce", logq=True)
LM = decoder.DecoderConfig(num_layers=2, width=16, num_heads=4, num_kv_heads=2, head_dim=4,
                           mlp_width=32, vocab_size=VOCAB)
TASKS = ("sequential", "elm_title")
SPEC = packing.LmBatchSpec(rows=8, length=24, slots=4, targets=8, queries=2, slot_id=SLOT,
                           examples_per_group=2, rows_per_group=1, task_names=TASKS,
                           whole_words=0)


def arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  names = lambda text: text.split(",")                                    # noqa: E731
  cases = lambda text: text.split(";" if ";" in text else ",")            # noqa: E731
  parser.add_argument("--workdir", type=pathlib.Path, required=True,
                      help="folder for data and checkpoints")
  parser.add_argument("--cases", type=cases, default=[],
                      help="cases, separated by , or ;; empty: all. 1x1 always runs")
  parser.add_argument("--phases", type=names, default=["phase1", "phase2"], help="phases to train")
  parser.add_argument("--out", type=pathlib.Path, help="JSON file")
  parser.add_argument("--steps", type=int, default=12, help="steps of each phase")
  pod = parser.add_argument_group("of a process of the pod")
  pod.add_argument("--run", default="", help="folder under workdir")
  pod.add_argument("--until", type=int, default=0, help="the step to stop at")
  pod.add_argument("--mesh", type=names, default=[], help="data, fsdp, tensor")
  return parser.parse_args()


def main() -> None:
  args = arguments()
  if args.run:
    return worker(args)
  root = args.workdir
  prepare(root)
  chosen = [n for n in CASES if n == "1x1" or not args.cases or n in args.cases]
  table, want = {}, None
  print(f"{'largest relative difference':<32}" + "".join(f"{c:>10}" for c in (
      *args.phases, "eval")))
  for number, name in enumerate(chosen):
    stops = np.linspace(0, args.steps, len(CASES[name]) + 1).astype(int)[1:]
    for part, until in zip(CASES[name], stops):
      pod(root / f"case{number}", args.phases, args.steps, int(until), *part)
    case_losses = losses(root / f"case{number}", args.phases)
    want = want or case_losses
    table[name] = difference(case_losses, want)
    print(f"{name:<32}" + "".join(f"{d:10.1e}" for d in table[name].values()), flush=True)
  if args.out:
    args.out.write_text(json.dumps(table, indent=1))


def pod(run, phases, steps: int, until: int, processes: int, devices: int, mesh) -> None:
  """Trains in the folder `run` of the workdir, up to a step, in so many processes."""
  command = [sys.executable, ROOT / "launch" / "local_pod.py", "-n", processes,
             f"--devices={devices}", "--", sys.executable, "-m", "benchmarks.equality",
             f"--workdir={run.parent}", f"--run={run.name}", f"--until={until}",
             f"--steps={steps}", f"--mesh={','.join(map(str, mesh))}",
             f"--phases={','.join(phases)}"]
  done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True,
                        check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
  if done.returncode:
    raise RuntimeError(f"{run} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def losses(run, phases) -> dict[str, np.ndarray]:
  """The losses of every step of both phases, and after phase 2 on held-out examples."""
  by_phase = {p: np.array([r["loss"] for r in scalars.read(run / p / "metrics.jsonl")])
              for p in phases}
  return {**by_phase, "eval": np.array([evaluated(run)])} if "phase2" in phases else by_phase


def difference(got: dict, want: dict) -> dict[str, float]:
  """Largest relative difference of each loss."""
  return {k: float(np.max(np.abs(v / want[k] - 1))) for k, v in got.items()}


def prepare(root) -> None:
  """Examples of all tasks, equal in every run; "valid" is held out."""
  rng = np.random.default_rng(0)
  row = lambda n: rng.integers(1, R, n)                                   # noqa: E731
  words = lambda least, most: rng.integers(5, VOCAB, rng.integers(least, most))   # noqa: E731
  pairs = [{"entities": row(2)} for _ in range(80)]
  texts = [{"entities": row(1), "text": words(3, 9)} for _ in range(80)]
  for name, examples in (("item_text", texts), ("item_item", pairs), ("user_item", pairs[::-1])):
    store.write(root / name, examples, {})
  for name in (*TASKS, "valid"):
    store.write(root / name, ({
        "inputs": np.concatenate([words(2, 6), [SLOT], words(1, 3), [SLOT]]),
        "entities": row(2), "targets": words(2, 5)} for _ in range(80)), {})


def settings(steps: int) -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(dict(
      learning_rate=1e-2, warmup=2, steps=steps, final_fraction=0.1, weight_decay=0.01, b2=0.98,
      clip=1.0, text_scale=0.5))


def built(phase: str):
  """(graphdef, loss, trainable) of a phase."""
  if phase == "phase1":
    graphdef, trainable = phase1.build_phase1(QFORMER, 0)
    return graphdef, phase1.phase1_loss(graphdef, PHASE1), trainable
  graphdef, trainable = phase2.build_phase2(QFORMER, LM.width, FORM, 0.1, 0)
  return graphdef, phase2.phase2_loss(graphdef, LM, TASKS), trainable


def frozen(mesh) -> dict:
  """The entity table and a language model of random weights, as training places them."""
  rng = np.random.default_rng(1)
  put = lambda x: axes.put_rows(mesh, x)                                  # noqa: E731
  return {"vectors": {"behavioral": put(rng.normal(size=(R, 12)).astype(np.float32))},
          "present": {"behavioral": put(np.arange(R) > 0)},
          "log_draws": put(rng.normal(size=R).astype(np.float32)),
          "lm": axes.place(mesh, language_model.init(LM, 5))}


def feeds(root, share: int, shares: int) -> dict[str, batches.Batches]:
  """One process's share of the batches of both phases."""
  read = lambda *names: {n: store.Prepared(root / n) for n in names}      # noqa: E731
  return {
      "phase1": batches.phase1_batches(
          *read("item_text", "item_item", "user_item").values(),
          batches.Phase1Spec(batch_size=8, pair_batch_size=8, user_batch_size=8, max_text=8),
          seed=3, process_index=share, process_count=shares),
      "phase2": batches.lm_batches(read(*TASKS), dict.fromkeys(TASKS, 1.0), SPEC, seed=3,
                                   process_index=share, process_count=shares)}


def worker(args: argparse.Namespace) -> None:
  """Trains the phases in this process of the pod, from the newest checkpoint to step --until."""
  distributed.start()
  mesh = axes.make_mesh(dict(zip(axes.MESH_AXES, map(int, args.mesh))))
  by_phase = feeds(args.workdir, *axes.batch_share(mesh))
  tx = optimizer.make_optimizer(settings(args.steps))
  for phase in args.phases:
    graphdef, loss, trainable = built(phase)
    held = frozen(mesh)
    if phase == "phase2":
      trainable = whitening.spread(graphdef, axes.place(mesh, trainable), held, mesh, rows=R)
    folder = args.workdir / args.run / phase
    with checkpoint.Checkpointer(folder / "checkpoints", {}) as saved:
      state = checkpoint.start(saved, loop.init_state(trainable, tx, mesh), "", {})
      loop.fit(state, mesh, loop.Objective(loss, held, by_phase[phase]),
               loop.Optimization(tx, seed=3),
               loop.Cadence(steps=args.until, log_every=1, checkpoint_every=100),
               loop.Outputs(phase, saved, scalars.Writer(folder / "metrics.jsonl")))
    distributed.wait(phase)


def evaluated(run) -> float:
  """Mean loss per token of the newest phase 2 checkpoint on held-out examples."""
  mesh = axes.make_mesh(dict.fromkeys(axes.MESH_AXES, 1), jax.devices()[:1])
  _, loss, fresh = built("phase2")
  trainable = checkpoint.read_trainable(run / "phase2" / "checkpoints", fresh)
  held, measure, total = frozen(mesh), jax.jit(lambda *a: loss(*a, None)[1]["nll"]), np.zeros(2)
  examples = store.Prepared(run.parent / "valid")
  for at in range(0, len(examples), SPEC.rows):
    batch = batches.lm_eval_batch(
        [{**examples[i], "task": 0} for i in range(at, at + SPEC.rows)], SPEC)
    total += np.array(measure(trainable, held, batch))
  return float(total[0] / total[1])


if __name__ == "__main__":
  main()
