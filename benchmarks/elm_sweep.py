"""Measures how texts from vectors depend on the number of queries, phase 1's losses and whitening.

    python -m ilm_jax.main --config=configs/elm_ml100k_small.py --workdir=runs/elm_small \\
        --stage=targets,prepare,cf
    python -m benchmarks.elm_sweep --workdir=runs/elm_small --out=runs/elm_sweep [--variants=q1,itm]

Each variant has the paper's cross-attention. It runs phase 1, phase 2 with half of the config's
steps, and evaluation, in its own workdir under --out, with the data, vectors and targets of
--workdir. Finished variants are not run again. The table shows retrieval of held-out items among
all items (R@10), the log perplexity of the written tasks and of genres on held-out items, and the
difference to shuffled vectors.
"""
import argparse
import json
import pathlib
import subprocess
import sys

from ilm_jax.evaluation.rows import label

ROOT = pathlib.Path(__file__).parents[1]
SHARED = ("data", "entities", "prepared", "targets", "tfds", "factors.npz")
# The paper's cross-attention. The table needs losses only: generate and rank as little as possible.
HALF = ("qformer.cross_init='bert'", "qformer.cross_every=2", "qformer.cross_reads='all'",
        "phase2.skip=False", "phase2.steps=120", "phase2.compare=()",
        "eval.references=('shuffled',)", "eval.consistency_examples=1", "eval.compared_examples=0",
        "eval.interpolations=0", "eval.users=1", "eval.beam_users=1", "eval.generations=1")
VARIANTS = {
    "base": (),                                   # 4 queries, ITC and .25 UI
    "q1": ("qformer.num_queries=1",),
    "q2": ("qformer.num_queries=2",),
    "q8": ("qformer.num_queries=8",),
    "no_itc": ("phase1.losses.itc=0",),
    "no_ui": ("phase1.losses.ui=0",),
    "itm": ("phase1.losses.itm=0.5",),
    "itg": ("phase1.losses.itg=0.5",),
    "ii": ("phase1.losses.ii=0.25",),
    "all": ("phase1.losses.itm=0.5", "phase1.losses.itg=0.5", "phase1.losses.ii=0.25"),
    "nospread": ("phase2.spread=False",),
}
SHUFFLED = "ILM minus ILM, vectors shuffled"


def run(variant: str, config: str, source: pathlib.Path, out: pathlib.Path) -> None:
  """Trains and evaluates a variant in the folder out/variant."""
  workdir = out / variant
  workdir.mkdir(parents=True, exist_ok=True)
  for name in SHARED:
    if (source / name).exists() and not (workdir / name).exists():
      (workdir / name).symlink_to((source / name).absolute())
  subprocess.run(
      [sys.executable, "-m", "ilm_jax.main", f"--config={config}", f"--workdir={workdir}",
       "--stage=phase1,phase2,eval", *(f"--config.{o}" for o in (*HALF, *VARIANTS[variant]))],
      cwd=ROOT, check=True)


def rows(workdir: pathlib.Path) -> list[str]:
  """The cells of a variant's row."""
  def table(pattern):
    path = max(workdir.glob(f"eval/{pattern}"), key=lambda p: int(p.parent.name))
    return {label(row): row["metrics"] for row in json.loads(path.read_text())["rows"]}

  losses = table("phase2/*/loss.json")
  retrieval = next(iter(table("phase1/*/retrieval.json").values()))
  mean = next(name for name in losses["ILM"] if name.startswith("mean of"))
  cell = lambda row, name: "{value:.3f} [{lo:.3f}, {hi:.3f}]".format(  # noqa: E731
      **losses[row][name])
  return [*(f"{retrieval[f'{way} R@10']['value']:.3f}" for way in ("item to text", "text to item")),
          cell("ILM", mean), cell(SHUFFLED, mean), cell("ILM", "elm_genres"),
          cell(SHUFFLED, "elm_genres")]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", type=pathlib.Path, required=True,
                      help="after stages targets, prepare and cf")
  parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the variants")
  parser.add_argument("--config", default="configs/elm_ml100k_small.py")
  parser.add_argument("--variants", type=lambda text: text.split(","), default=list(VARIANTS),
                      help=f"some of {', '.join(VARIANTS)}")
  args = parser.parse_args()
  if unknown := [v for v in args.variants if v not in VARIANTS]:
    parser.error(f"--variants: unknown {unknown}; expected some of {', '.join(VARIANTS)}")
  for variant in args.variants:
    run(variant, args.config, args.workdir, args.out)
  print("| | item to text | text to item | mean of written tasks | minus shuffled | genres "
        "| minus shuffled |\n|" + "---|" * 7)
  for variant in args.variants:
    print(f"| {variant} | {' | '.join(rows(args.out / variant))} |", flush=True)


if __name__ == "__main__":
  main()
