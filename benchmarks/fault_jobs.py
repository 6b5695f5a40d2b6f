"""Cases of benchmarks.faults: jobs that are stopped, hang, share a workdir, or get NaN losses."""
import json
import shutil
import signal
import time

from benchmarks import fault_bench, jobs

NAMED_WITHIN = 75.0          # seconds until a hang is reported: heartbeat.DEAD_AFTER + a beat


def clock(bench: fault_bench.Bench):
  """An hour earlier, two seconds after the job began."""
  def back():
    real, begin = time.time, time.time()
    time.time = lambda: real() - 3600 * (real() - begin > 2)
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, setup=back)
  wrong = f"exit code {code}" if (code := job.wait(fault_bench.LIMIT)) else ""
  beat = json.loads((workdir / "heartbeat.phase1.json").read_text())
  if not 0 <= (beat["goodput"] or 0) <= 1:
    wrong = wrong or f"goodput {beat['goodput']}"
  yield fault_bench.row("clock set back an hour", 1, [wrong or bench.goes_on("phase1", workdir)],
            "a fake of time.time")


def two_jobs(bench: fault_bench.Bench):
  workdir = bench.copy("phase1")
  first = bench.job("phase1", workdir, *fault_bench.LONG)
  fault_bench.when(workdir / "heartbeat.phase1.json", first)
  second = jobs.Job((*bench.flags, f"--workdir={workdir}", "--stage=phase1"),
                    bench.root / "second.log")
  wrong = bench.in_one_line(second, f"another job writes in .*pid {first.pid}")
  first.kill()
  first.wait(60)
  shutil.rmtree(workdir / "phase1")
  yield fault_bench.row("two jobs in one workdir", 1, [wrong or bench.goes_on("phase1", workdir)],
            "the lock dies with its owner")


def nan(bench: fault_bench.Bench):
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, *fault_bench.LONG, setup=_not_a_number)
  wrong = bench.in_one_line(job, "not finite at step .*learning_rate")
  saved = list((workdir / "phase1" / "checkpoints").glob("[0-9]*"))
  yield fault_bench.row("NaN loss", 1, [wrong or (f"saved {saved}" if saved else "")],
            "the step is named, nothing of it is saved")


def _not_a_number() -> None:
  import jax.numpy as jnp

  from ilm_jax.training import loop
  real = loop.train_step

  def step(state, *args, **kwargs):
    after, metrics = real(state, *args, **kwargs)
    broken = jnp.where(state.step >= 5, jnp.nan, metrics["loss"])
    return after, {**metrics, "loss": broken,
                   "finite": metrics["finite"] & jnp.isfinite(broken)}
  loop.train_step = step


def notice(bench: fault_bench.Bench):
  """SIGTERM, as a preempted host sends it; then the same command again."""
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, *fault_bench.LONG)
  fault_bench.when(workdir / "heartbeat.phase1.json", job)
  job.kill("main", signal.SIGTERM)
  code, said = job.wait(120), job.said()
  wrong = "" if code == 143 and "saved step" in said else f"exit code {code}: {said[-300:]!r}"
  yield fault_bench.row("preemption notice", 1, [wrong], "SIGTERM: saved, exit code 143")


def hang(bench: fault_bench.Bench):
  """The heartbeat must report a process that hangs."""
  from ilm_jax.monitoring import heartbeat
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, *fault_bench.LONG)
  fault_bench.when(workdir / "heartbeat.phase1.json", job)
  job.kill("main", signal.SIGSTOP)
  began, said = time.monotonic(), ""
  while "seems" not in said and time.monotonic() - began < 2 * NAMED_WITHIN:
    time.sleep(1)
    said = heartbeat.tell(heartbeat.read(workdir, "phase1"), time.time())
  seconds = time.monotonic() - began
  job.kill()
  job.wait(60)
  yield fault_bench.row("a process that hangs", 1, ["" if seconds <= NAMED_WITHIN else said],
            f"named after {seconds:.0f} s: {said}")


def coordinator(bench: fault_bench.Bench):
  """Kills the first process of a job of two: the other one must not wait for it."""
  workdir = bench.copy("phase1")
  job = bench.job("phase1", workdir, *fault_bench.LONG, "--config.mesh.data=2", processes=2)
  fault_bench.when(workdir / "heartbeat.phase1.json", job)
  pids, began = jobs.descendants(job.pid), time.monotonic()
  job.kill("0")
  code = job.wait(120)
  seconds, left = time.monotonic() - began, jobs.lingering(pids, 5)
  named = "process 0 of 2 was lost (killed by SIGKILL)" in job.said()
  wrong = "" if code == 137 and named and not left else (
      f"exit code {code}, {len(left)} left: {job.said()[-300:]!r}")
  yield fault_bench.row("coordinator lost", 1, [wrong], f"the pod ended after {seconds:.0f} s")
