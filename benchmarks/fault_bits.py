"""Cases of benchmarks.faults: flipped bits and incomplete copies of folders."""
import random

from benchmarks import fault_bench, jobs, workdirs


def flips(bench: fault_bench.Bench):
  from benchmarks import flips as flips_lib
  workdir = bench.copy("")
  for of in jobs.call(flips_lib.run, workdir, bench.args.flips, bench.args.seed):
    yield fault_bench.row(f"bit of {of['kind']}", of["flips"], of["unnoticed"],
              f"{of['named']} named, {of['same']} say the same")
  yield fault_bench.row("files without a digest", 0, [], ", ".join(
      f"{count} {kind}" for kind, count in flips_lib.not_read(workdir).items()))


def checkpoints(bench: fault_bench.Bench):
  """An incomplete copy of a folder: files are missing or truncated."""
  rng, wrong, tried = random.Random(bench.args.seed), [], 12
  for number in range(tried):
    workdir = bench.copy("")
    newest = max((workdir / "phase1" / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))
    files = sorted(p for p in newest.rglob("*") if p.is_file() and p.stat().st_size)
    for path in rng.sample(files, rng.randint(1, len(files))):
      if number % 2:
        path.unlink()
      else:
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    wrong.append(jobs.call(_half_copied, newest.parent, int(newest.name),
                           bench.expected[str(newest.relative_to(workdir))]))
  yield fault_bench.row("checkpoint copied in part", tried, wrong,
            "named, not taken for a checkpoint, or all arrays are there")


def _half_copied(folder, step: int, whole: str) -> str:
  from ilm_jax import errors
  from ilm_jax.training import checkpoint
  if step not in checkpoint.steps(folder):
    return ""
  try:
    checkpoint.verify(folder, step)
  except errors.UserError as e:
    return "" if str(folder) in str(e) and "delete" in str(e) else f"no name or cure: {e}"
  except Exception as e:
    return f"{type(e).__name__}: {e}"[:300]
  # The lost file may be one that only Orbax's own tools read.
  same = workdirs.of_checkpoint(folder / str(step)) == whole
  return "" if same else "used unnoticed"
