"""One step, the loop around it, and what happens when it is stopped."""
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

from ilm_jax import errors
from ilm_jax.monitoring import scalars
from ilm_jax.runtime import axes
from ilm_jax.training import checkpoint, loop, optimizer, totals

ROOT = pathlib.Path(__file__).parents[1]


def mesh_of(**shape):
  count = int(np.prod(list(shape.values())))
  return jax.make_mesh(tuple(shape.values()), tuple(shape), devices=jax.devices()[:count],
                       axis_types=(jax.sharding.AxisType.Auto,) * len(shape))


# --- the optimizer ---

def test_schedule_by_hand():
  """Peak .05 after 2 of 24 steps, then half a cosine over 22 down to a tenth of it."""
  rate = optimizer.schedule(toy.CONFIG)
  middle = 0.05 * (0.1 + 0.9 * 0.5)
  np.testing.assert_allclose([rate(0), rate(1), rate(2), rate(13), rate(24), rate(99)],
                             [0, 0.025, 0.05, middle, 0.005, 0.005], rtol=1e-5, atol=1e-9)


def test_schedule_without_warmup_starts_at_the_peak():
  c = toy.CONFIG.copy_and_resolve_references()
  c.warmup = 0
  np.testing.assert_allclose(optimizer.schedule(c)(0), 0.05, rtol=1e-6)


def test_decay_spares_norms_biases_and_temperatures():
  """Also where layers are stacked, so that a bias is a matrix."""
  ones = np.ones((2, 3))
  tree = {"layers": {"attention_norm": ones, "query": {"kernel": ones, "bias": ones},
                     "ln": {"scale": ones}, "mlp_in_bias": ones},
          "queries": ones, "log_temperature_itc": np.ones((1, 1)), "vector": np.ones(3)}
  assert optimizer.decayed(tree) == {
      "layers": {"attention_norm": False, "query": {"kernel": True, "bias": False},
                 "ln": {"scale": False}, "mlp_in_bias": False},
      "queries": True, "log_temperature_itc": False, "vector": False}


def test_clipping_and_decay_by_hand():
  """The gradient (3, 4) has norm 5, is clipped to (.6, .8), and Adam's mean takes a tenth."""
  params = {"w": jnp.array([[2.0, -3.0]]), "bias": jnp.array([5.0])}
  gradient = {"w": jnp.array([[3.0, 4.0]]), "bias": jnp.array([0.0])}
  state = toy.TX.init(params)
  for _ in range(3):                            # step 2 is the first with the full rate .05
    updates, state = toy.TX.update(gradient, state, params)
  mean = (1 - 0.9 ** 3) * np.array([[0.6, 0.8]])
  np.testing.assert_allclose(optax.tree.get(state, "mu")["w"], mean, rtol=1e-5)
  np.testing.assert_allclose(
      updates["w"], -0.05 * (np.ones((1, 2)) + 0.01 * np.array([[2.0, -3.0]])), rtol=1e-4)
  np.testing.assert_array_equal(updates["bias"], [0.0])


@pytest.mark.parametrize(("name", "slower"), [
    ("text_scale", {"qformer/stack/layer/attention/key/kernel", "qformer/text_embed/word"}),
    ("qformer_scale", {"qformer/stack/layer/attention/key/kernel", "qformer/text_embed/word",
                       "qformer/stack/layer/query_mlp/mlp_in/kernel"}),
    ("mlp_scale", {"skip/mlp_in/kernel"})])
def test_a_part_learns_at_a_fraction_of_the_rate(name, slower):
  c = toy.CONFIG.copy_and_resolve_references().unlock()
  c[name] = 0.1
  paths = ["qformer/stack/layer/attention/key/kernel", "qformer/text_embed/word",
           "qformer/stack/layer/query_mlp/mlp_in/kernel", "projection/kernel", "lm/qformer/kernel",
           "skip/mlp_in/kernel", "mlp_in/kernel"]
  params = {path: jnp.ones((2, 2)) for path in paths}

  def second_update(tx):
    state = tx.init(params)
    for _ in range(2):
      updates, state = tx.update(params, state, params)
    return updates

  whole, scaled = second_update(toy.TX), second_update(optimizer.make_optimizer(c))
  for path in paths:
    assert float(whole[path][0, 0]) < 0
    np.testing.assert_allclose(scaled[path], whole[path] * (0.1 if path in slower else 1.0),
                               rtol=1e-6)


# --- one step ---

@pytest.mark.parametrize("prng", [None, "unsafe_rbg"])
def test_noise_comes_from_the_generator_asked_for(prng):
  def loss_fn(trainable, frozen, batch, rng):
    return jnp.sum(trainable["w"]), {"drawn": jax.random.uniform(rng)}

  mesh = mesh_of(data=1)
  state = loop.init_state({"w": jnp.ones(2)}, toy.TX, mesh)
  _, metrics = loop.compile_step(loss_fn, toy.TX, 3, state, prng=prng)(state, {}, {})
  key = jax.random.fold_in(jax.random.key(3, impl=prng or "threefry2x32"), 0)
  np.testing.assert_allclose(metrics["drawn"], jax.random.uniform(key), rtol=1e-6)


def run_steps(mesh, count=5):
  trainable, frozen = toy.parameters()
  state = loop.init_state(trainable, toy.TX, mesh)
  frozen = axes.place(mesh, frozen)
  update = loop.compile_step(toy.loss_fn, toy.TX, 3, state)
  losses = []
  for step in range(count):
    state, metrics = update(state, frozen, loop.to_devices(mesh, toy.Batches().at(step)))
    losses.append(float(metrics["loss"]))
  return losses, state, frozen


def test_one_device_and_a_4x2_mesh_agree():
  one, state_1, _ = run_steps(mesh_of(data=1))
  eight, state_8, frozen = run_steps(mesh_of(data=4, tensor=2))
  np.testing.assert_allclose(one, eight, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5),
               state_1.trainable, state_8.trainable)
  kernel = state_8.trainable["qformer"]["query"]["kernel"]
  assert kernel.addressable_shards[0].data.shape == (toy.C, toy.W // 2)
  assert frozen["lm"]["embed"].addressable_shards[0].data.shape == (toy.V // 2, toy.D)
  moment = optax.tree.get(state_8.opt_state, "mu")["qformer"]["query"]["kernel"]
  assert moment.sharding == kernel.sharding


def test_the_batch_is_split_over_data_and_fsdp():
  batch = loop.to_devices(mesh_of(data=2, fsdp=2, tensor=2), toy.Batches().at(0))
  assert batch["entity"].addressable_shards[0].data.shape == (2,)
  assert batch["dropped"].shape == ()
  with pytest.raises(errors.UserError, match="entity has 6 rows, .* data x fsdp = 4: make"):
    loop.to_devices(mesh_of(data=2, fsdp=2), toy.Batches(rows=6).at(0))


def test_frozen_has_no_slots_and_keeps_its_bytes(tmp_path):
  trainable, before = toy.parameters()
  state, frozen = toy.fit(tmp_path, 20)
  jax.tree.map(np.testing.assert_array_equal, before, frozen)
  for moment in ("mu", "nu"):
    slots = optax.tree.get(state.opt_state, moment)
    assert jax.tree.structure(slots) == jax.tree.structure(trainable)
  moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)), state.trainable, trainable)
  assert all(jax.tree.leaves(moved))


def test_the_callers_parameters_survive_the_donation():
  mesh = mesh_of(data=1)
  mine = axes.place(mesh, toy.parameters()[0])
  state = loop.init_state(mine, toy.TX, mesh)
  update = loop.compile_step(toy.loss_fn, toy.TX, 3, state)
  update(state, axes.place(mesh, toy.parameters()[1]), toy.Batches().at(0))
  assert state.trainable["projection"]["kernel"].is_deleted()
  jax.tree.map(np.testing.assert_array_equal, mine, toy.parameters()[0])


def test_a_weakly_typed_parameter_does_not_compile_the_step_twice():
  mesh = mesh_of(data=1)
  state = loop.init_state({"w": jnp.full(3, 0.5), "log_t": jnp.array(0.1)}, toy.TX, mesh)
  update = loop.compile_step(
      lambda trained, *_: (jnp.sum(trained["w"]) * jnp.exp(trained["log_t"]), {}),
      toy.TX, 3, state)
  for _ in range(3):
    state, _ = update(state, {}, {})
  assert update._cache_size() == 1


# --- the log ---

def test_the_last_step_is_logged_and_saved_whatever_the_cadence():
  cadence = loop.Cadence(steps=7, log_every=3, checkpoint_every=4)
  assert [step for step in range(1, 8) if cadence.logs(step)] == [3, 6, 7]
  assert [step for step in range(1, 8) if cadence.saves(step)] == [4, 7]


def test_totals_weigh_pairs_by_count_and_scalars_by_step():
  sums = totals.Totals({"nll": [2.0, 4.0]}, AssertionError)
  sums.add(1, {"loss": jnp.array(1.0), "nll": (jnp.array(3.0), jnp.array(1)), "finite": True,
                 "rare": (jnp.array(0.0), jnp.array(0))})
  sums.add(2, {"loss": jnp.array(2.0), "nll": (jnp.array(5.0), jnp.array(3)), "finite": True,
                 "rare": (jnp.array(0.0), jnp.array(0))})
  assert sums.sums() == {"loss": [3.0, 2.0], "nll": [10.0, 8.0], "rare": [0.0, 0.0]}
  assert sums.means() == {"loss": 1.5, "nll": 1.25}
  assert sums.finished == 2
  assert sums.means() == {}


def test_the_log_is_exact_and_in_both_places(tmp_path):
  """Loss of step n at the state before it: recomputed one by one outside the loop."""
  losses, _, _ = run_steps(mesh_of(data=1), count=8)
  toy.fit(tmp_path, 8, tensorboard=tmp_path / "tensorboard")
  records = scalars.read(tmp_path / "metrics.jsonl")
  assert [r["step"] for r in records] == [4, 8]
  np.testing.assert_allclose([r["loss"] for r in records],
                             [np.mean(losses[:4]), np.mean(losses[4:])], rtol=1e-6)
  np.testing.assert_allclose(records[0]["learning_rate"], optimizer.schedule(toy.CONFIG)(3))

  seen = {}
  for event in read_events(tmp_path / "tensorboard"):
    for value in event.summary.value:
      seen.setdefault(value.tag, []).append((event.step, value.simple_value))
  assert seen.keys() >= {"loss", "grad_norm", "nll", "steps_per_second", "input_wait_seconds"}
  np.testing.assert_allclose(seen["loss"], [(r["step"], r["loss"]) for r in records], rtol=1e-6)


def read_events(folder):
  for path in sorted(folder.iterdir()):
    reader = PyRecordReader_New(str(path))
    while True:
      try:
        reader.GetNext()
      except Exception:             # the stub raises its own OutOfRange at the end
        break
      yield event_pb2.Event.FromString(reader.record())


# --- stopping ---

def test_a_loss_that_is_not_finite_names_the_step_and_the_last_good_checkpoint(tmp_path):
  """Step 7 is bad and nobody looks before step 10, when it would have been saved."""
  with pytest.raises(errors.UserError, match="not finite at step 7; .* good checkpoint is step 5"):
    toy.fit(tmp_path, 20, batches=toy.Batches(poison_at=6), log_every=100)
  assert checkpoint.steps(tmp_path / "checkpoints") == [5]
  toy.fit(tmp_path, 20)
  assert checkpoint.steps(tmp_path / "checkpoints") == [15, 20]


def test_a_bad_first_step(tmp_path):
  with pytest.raises(errors.UserError, match="at step 1; there is no checkpoint yet"):
    toy.fit(tmp_path, 3, batches=toy.Batches(poison_at=0))
  assert checkpoint.steps(tmp_path / "checkpoints") == []


def test_resume_on_another_mesh_goes_on(tmp_path):
  straight, _ = toy.fit(tmp_path / "straight", 12)
  toy.fit(tmp_path / "moved", 6)
  moved, _ = toy.fit(tmp_path / "moved", 12, mesh=mesh_of(data=2, fsdp=2, tensor=2))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5),
               straight.trainable, moved.trainable)
  a, b = (scalars.read(tmp_path / run / "metrics.jsonl") for run in ("straight", "moved"))
  np.testing.assert_allclose(a[-1]["loss"], b[-1]["loss"], rtol=1e-4)


def test_a_finished_run_is_left_alone(tmp_path):
  first, _ = toy.fit(tmp_path, 8)
  before = (tmp_path / "metrics.jsonl").read_text()

  def unused(*_):
    raise AssertionError("a finished run computes nothing")

  again, _ = toy.fit(tmp_path, 8, loss=unused)
  assert toy.digest(again) == toy.digest(first)
  assert (tmp_path / "metrics.jsonl").read_text() == before


STEPS = 60


def toy_process(folder, sleep):
  env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu",
         "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
         "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  return subprocess.Popen([sys.executable, str(ROOT / "tests/toy.py"), str(folder), str(STEPS),
                           str(sleep)], env=env, stdout=subprocess.PIPE, text=True)


def wait_for_a_log(folder, after, process, seconds=60):
  """Waits until a step later than `after` has been logged."""
  wait_until(lambda: any(r["step"] > after for r in scalars.read(folder / "metrics.jsonl")),
             process, f"nothing logged after {after}", seconds)


def wait_until(there, process, missing, seconds=60):
  end = time.monotonic() + seconds
  while not there():
    assert time.monotonic() < end and process.poll() is None, missing
    time.sleep(0.01)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
  """(output with the digest of the final state, metrics.jsonl) of a run in one go."""
  folder = tmp_path_factory.mktemp("straight")
  process = toy_process(folder, 0)
  out, _ = process.communicate(timeout=120)
  assert process.returncode == 0
  return out, (folder / "metrics.jsonl").read_text()


def test_killed_at_any_point_ends_in_the_same_bits(tmp_path, never_stopped):
  """SIGKILL at a random moment: once while starting, then while training, logging, saving."""
  chance, newest = random.Random(11), [0]
  for attempt in range(4):
    process = toy_process(tmp_path, sleep=0.02)
    assert process.stdout.readline() == "ready\n"
    if attempt:
      wait_for_a_log(tmp_path, newest[-1], process)
    if attempt == 3:       # on a busy machine the others may all come before the first checkpoint
      wait_until(lambda: checkpoint.steps(tmp_path / "checkpoints"), process, "no checkpoint")
    time.sleep(chance.uniform(0, 0.3))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    newest.append(max(checkpoint.steps(tmp_path / "checkpoints"), default=0))
  assert 0 < newest[-1] < STEPS, f"newest checkpoint after each kill: {newest}"
  out, _ = toy_process(tmp_path, 0).communicate(timeout=120)
  assert (out, (tmp_path / "metrics.jsonl").read_text()) == never_stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_step_it_is_at(tmp_path, never_stopped, number):
  process = toy_process(tmp_path, sleep=0.03)
  wait_for_a_log(tmp_path, 0, process)
  process.send_signal(number)
  out, _ = process.communicate(timeout=60)
  assert process.returncode == 128 + number
  saved = checkpoint.steps(tmp_path / "checkpoints")[-1]
  assert 4 <= saved < STEPS
  assert f"{number.name}; saved step {saved} of {STEPS}" in out
  out, _ = toy_process(tmp_path, 0).communicate(timeout=120)
  assert (out, (tmp_path / "metrics.jsonl").read_text()) == never_stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_last_save_is_heard(tmp_path, monkeypatch, number):
  """The phase is finished, but the next one must not begin."""
  def interrupted(self):
    monkeypatch.undo()
    signal.raise_signal(number)
    self.wait()

  monkeypatch.setattr(checkpoint.Checkpointer, "wait", interrupted)
  with pytest.raises(errors.Preempted, match=f"phase1: {number.name}; saved step 8 of 8 in ") as e:
    toy.fit(tmp_path, 8)
  assert e.value.signal == number
  assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 8
  assert scalars.read(tmp_path / "metrics.jsonl")[-1]["step"] == 8
  toy.fit(tmp_path, 8)


def test_a_signal_to_another_process_during_the_last_save_is_heard(tmp_path, monkeypatch):
  """After the last save all processes agree once more, so none waits for one that has stopped."""
  asked = []

  class Agreement:
    def __init__(self, mesh):
      pass

    def any(self, mine, *, last=False):
      asked.append((mine, last))
      return len(asked) == 9                # 8 steps, and once more

  monkeypatch.setattr(loop.distributed, "Agreement", Agreement)
  with pytest.raises(errors.Preempted, match="phase1: SIGTERM; saved step 8 of 8 in "):
    toy.fit(tmp_path, 8)
  assert asked == [(False, False)] * 7 + [(False, True)] * 2


DEAF = """
import time
from ilm_jax.monitoring import progress
with progress.StopSignals() as signals:
  print("ready", flush=True)
  while signals.came is None:
    time.sleep(0.01)
  print(signals.came.name, flush=True)
  time.sleep(60)
"""


def test_a_second_ctrl_c_ends_at_once():
  process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True,
                             cwd=pathlib.Path(__file__).parents[1])
  assert process.stdout.readline() == "ready\n"
  process.send_signal(signal.SIGINT)
  assert process.stdout.readline() == "SIGINT\n"
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=10)
  assert process.returncode == -signal.SIGINT
