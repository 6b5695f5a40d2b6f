"""What is saved comes back, or one clear error says why not."""
import contextlib
import json
import logging
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import toy
from orbax.checkpoint._src.path import step as step_lib

from ilm_jax import errors, files
from ilm_jax.config import settings as settings_lib
from ilm_jax.runtime import axes
from ilm_jax.training import checkpoint, leaf_digests, loop, orbax_io, provenance

ROOT = pathlib.Path(__file__).parents[1]


def mesh_of(data, tensor=1):
  return jax.make_mesh((data, tensor), ("data", "tensor"), devices=jax.devices()[:data * tensor],
                       axis_types=(jax.sharding.AxisType.Auto,) * 2)


def toy_state(mesh=None, step=0, seed=0):
  state = loop.init_state(toy.parameters(seed)[0], toy.TX, mesh or mesh_of(1))
  return state._replace(step=state.step + step)


def big_state(step, kib):
  """A state that does not compress."""
  noise = np.random.default_rng(step).integers(0, 2**31, 256 * kib, dtype=np.int32)
  return loop.TrainState(jax.numpy.int32(step), {"qformer": {"noise": jax.device_put(noise)}}, ())


def save(folder, *states, fingerprints=toy.FINGERPRINTS, settings=None, keep=2, totals=None):
  with checkpoint.Checkpointer(folder, fingerprints, settings, keep=keep) as saved:
    for state in states:
      saved.save(state, totals)


def assert_equal(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_a_state_comes_back_on_another_mesh(tmp_path):
  before = toy_state(mesh_of(4, 2), step=7)
  save(tmp_path, before)
  with checkpoint.Checkpointer(tmp_path, toy.FINGERPRINTS) as saved:
    after = saved.restore(toy_state(mesh_of(1, 4), seed=1))
  assert_equal(before, after)
  kernel = after.trainable["qformer"]["query"]["kernel"]
  assert dict(kernel.sharding.mesh.shape) == {"data": 1, "tensor": 4}
  assert kernel.addressable_shards[0].data.shape == (toy.C, toy.W // 4)
  assert type(after.opt_state) is type(before.opt_state)


def test_a_phase_is_finished_at_its_last_step_and_of_these_inputs_alone(tmp_path):
  assert not checkpoint.finished(tmp_path / "none", toy.FINGERPRINTS, 7)
  save(tmp_path, toy_state(step=7))
  assert checkpoint.finished(tmp_path, toy.FINGERPRINTS, 7)
  assert not checkpoint.finished(tmp_path, toy.FINGERPRINTS, 8)
  name = next(iter(toy.FINGERPRINTS))
  with pytest.raises(errors.UserError, match=f"were trained with {name} "):
    checkpoint.finished(tmp_path, {**toy.FINGERPRINTS, name: "another"}, 7)


def test_a_save_holds_the_step_it_names_although_the_state_is_donated(tmp_path):
  bump = jax.jit(lambda s: s._replace(step=s.step + 1, trainable=jax.tree.map(
      lambda x: x + 1, s.trainable)), donate_argnums=0)
  state = big_state(0, kib=4096)
  first = np.asarray(state.trainable["qformer"]["noise"]).copy()
  with checkpoint.Checkpointer(tmp_path, {}, keep=5) as saved:
    for _ in range(3):
      saved.save(state)
      for _ in range(4):
        state = bump(state)
    saved.wait()
    for step in (0, 4, 8):
      got = saved.restore(big_state(0, kib=4096), step)
      np.testing.assert_array_equal(got.trainable["qformer"]["noise"], first + step)


def test_the_newest_are_kept_and_a_step_is_not_written_twice(tmp_path):
  save(tmp_path, *(toy_state(step=s) for s in (3, 5, 8)))
  assert checkpoint.steps(tmp_path) == [5, 8]
  written = (tmp_path / "8").stat().st_mtime_ns
  save(tmp_path, toy_state(step=8, seed=1))
  assert (tmp_path / "8").stat().st_mtime_ns == written


def test_nothing_frozen_is_on_disk(tmp_path):
  _, frozen = toy.fit(tmp_path, 4)
  on_disk = {p for p in _names(tmp_path / "checkpoints") if "lm" in p or "vectors" in p}
  assert frozen["lm"]["embed"].shape and not on_disk


def _names(folder):
  return json.loads((folder / "4" / "state" / "_METADATA").read_text())["tree_metadata"]


# --- the start ladder ---

def test_ladder_own_newest_then_phase_1_then_fresh(tmp_path):
  phase1 = toy_state(step=9, seed=1)
  fresh = toy_state(seed=2)
  with checkpoint.Checkpointer(tmp_path / "phase2", {}) as own:
    assert checkpoint.start(own, fresh, "", {}) is fresh

    save(tmp_path / "workdir/phase1/checkpoints", phase1)
    begun = checkpoint.start(own, fresh, tmp_path / "workdir", toy.FINGERPRINTS)
    assert_equal(begun.trainable["qformer"], phase1.trainable["qformer"])
    assert_equal(begun.trainable["projection"], fresh.trainable["projection"])
    assert int(begun.step) == 0
    assert_equal(begun.opt_state, fresh.opt_state)

    own.save(toy_state(step=4, seed=3))
    own.wait()
    resumed = checkpoint.start(own, fresh, tmp_path / "workdir", toy.FINGERPRINTS)
    assert_equal(resumed, toy_state(step=4, seed=3))


def test_phase_2_takes_only_the_leaves_it_has(tmp_path):
  """Phase 1's text tower (here: the norm) stays behind; what phase 2 takes is sharded anew."""
  phase1 = toy_state(step=9, seed=1)
  save(tmp_path / "phase1/checkpoints", phase1)
  fresh = toy_state(mesh_of(2, 4))
  del fresh.trainable["qformer"]["norm"]
  with checkpoint.Checkpointer(tmp_path / "phase2", {}) as own:
    begun = checkpoint.start(own, fresh, tmp_path, {})
  assert begun.trainable["qformer"].keys() == {"query"}
  kernel = begun.trainable["qformer"]["query"]["kernel"]
  np.testing.assert_array_equal(kernel, phase1.trainable["qformer"]["query"]["kernel"])
  assert kernel.sharding.mesh.shape["tensor"] == 4


@pytest.mark.parametrize("change, message", [
    (lambda q: q["query"].update(gate=jax.numpy.ones(3)),
     r"query/gate: expected \(3,\), found noth"),
    (lambda q: q["query"].update(bias=jax.numpy.ones(5)), r"bias: expected \(5,\), found \(8,\)"),
])
def test_a_leaf_that_phase_1_lacks_is_named(tmp_path, change, message):
  save(tmp_path / "phase1/checkpoints", toy_state(step=9))
  fresh = toy_state()
  change(fresh.trainable["qformer"])
  with (checkpoint.Checkpointer(tmp_path / "phase2", {}) as own,
        pytest.raises(errors.UserError, match=message)):
    checkpoint.start(own, fresh, tmp_path, {})


def test_phase_1_of_another_entity_table_is_refused(tmp_path):
  save(tmp_path / "phase1/checkpoints", toy_state(step=9))
  with (checkpoint.Checkpointer(tmp_path / "phase2", {}) as own,
        pytest.raises(errors.UserError, match="entities a1b2, this run has ffff.*init_from")):
    checkpoint.start(own, toy_state(), tmp_path, {"entities": "ffff"})


@pytest.mark.parametrize("theirs, mine, says", [
    ({"qformer.user_projection": True}, {}, "qformer.user_projection: True -> False"),
    ({}, {"qformer.user_projection": True}, "qformer.user_projection: False -> True"),
    ({"qformer.num_queries": 4}, {"qformer.num_queries": 2}, "qformer.num_queries: 4 -> 2"),
    ({"phase1.steps": 12}, {}, "stands at step 9 of 12: finish it with --stage=phase1"),
    ({"phase1.steps": 9, "qformer.gone": 1}, {}, ""), ({}, {}, "")])
def test_phase_1_of_another_q_former_or_half_trained_is_refused(tmp_path, theirs, mine, says):
  save(tmp_path / "phase1/checkpoints", toy_state(step=9), settings=theirs)
  fits = contextlib.nullcontext() if not says else pytest.raises(errors.UserError, match=says)
  with checkpoint.Checkpointer(tmp_path / "phase2", {}) as own, fits:
    checkpoint.start(own, toy_state(), tmp_path, {}, settings_lib.shared_with_phase1(mine))


def test_phase_1_that_went_on_meanwhile_is_refused(tmp_path):
  save(tmp_path / "phase1/checkpoints", toy_state(step=9))
  identity = provenance.identity(checkpoint.read_meta(tmp_path / "phase1/checkpoints"))
  for recorded in (identity, "another"):
    with checkpoint.Checkpointer(tmp_path / recorded, {"phase 1": recorded}) as own, (
        contextlib.nullcontext() if recorded == identity else
        pytest.raises(errors.UserError, match="was trained on while this run began")):
      checkpoint.start(own, toy_state(), tmp_path, {})


def test_own_checkpoint_of_other_inputs_is_refused(tmp_path):
  save(tmp_path, toy_state(step=9))
  changed = {**toy.FINGERPRINTS, "lm": "eeee"}
  with (checkpoint.Checkpointer(tmp_path, changed) as own,
        pytest.raises(errors.UserError, match="lm c3d4, this run has eeee.*--workdir")):
    checkpoint.start(own, toy_state(), "", {})


def test_own_checkpoint_of_another_model_is_refused(tmp_path):
  save(tmp_path, toy_state(step=9))
  other = toy_state()
  del other.trainable["projection"]
  with (checkpoint.Checkpointer(tmp_path, toy.FINGERPRINTS) as own,
        pytest.raises(errors.UserError, match="projection/kernel: expected nothing, found")):
    checkpoint.start(own, other, "", {})


def test_init_from_without_a_checkpoint(tmp_path):
  with (checkpoint.Checkpointer(tmp_path / "phase2", {}) as own,
        pytest.raises(errors.UserError, match=r"phase1/checkpoints holds no checkpoint.*=phase1")):
    checkpoint.start(own, toy_state(), tmp_path / "nowhere", {})


def test_a_part_can_be_read_alone(tmp_path):
  save(tmp_path, toy_state(step=5, seed=1), toy_state(step=9, seed=2))
  want = {"projection": toy_state().trainable["projection"]}
  for step, seed in ((None, 2), (5, 1)):
    got = checkpoint.read_trainable(tmp_path, want, step)
    assert_equal(got, {"projection": toy_state(seed=seed).trainable["projection"]})
  assert checkpoint.read_meta(tmp_path)["fingerprints"] == toy.FINGERPRINTS
  with pytest.raises(errors.UserError, match=r"no checkpoint of step 6, expected one of \[5, 9\]"):
    checkpoint.read_trainable(tmp_path, want, 6)


# --- folders that something went wrong with ---

def test_what_a_killed_save_left_is_ignored_and_removed(tmp_path):
  save(tmp_path, toy_state(step=5))
  shutil.copytree(tmp_path / "5", tmp_path / "9.orbax-checkpoint-tmp-17")
  shutil.rmtree(tmp_path / "9.orbax-checkpoint-tmp-17" / "meta")
  assert checkpoint.steps(tmp_path) == [5]
  with checkpoint.Checkpointer(tmp_path, toy.FINGERPRINTS) as own:
    assert own.latest() == 5
    assert_equal(checkpoint.start(own, toy_state(seed=1), "", {}), toy_state(step=5))
    own.save(toy_state(step=9))
  assert sorted(p.name for p in tmp_path.iterdir()) == ["5", "9"]


def test_an_old_step_half_deleted_is_no_obstacle(tmp_path):
  """A kill while the oldest checkpoint was being removed."""
  save(tmp_path, toy_state(step=5), toy_state(step=9))
  shutil.rmtree(tmp_path / "5" / "state")
  save(tmp_path, toy_state(step=12))
  assert checkpoint.steps(tmp_path) == [9, 12]


def test_a_step_that_training_deletes_while_it_is_looked_at(tmp_path, monkeypatch):
  """A job with --watch ended there, once in forty looks at a checkpoint every five seconds."""
  save(tmp_path, toy_state(step=5), toy_state(step=9))
  looks, info = [], step_lib.Metadata.commit_timestamp.fget

  def gone(metadata):
    if metadata.step == 5 and len(looks) < most:
      looks.append(metadata)
      raise FileNotFoundError(metadata.path)
    return info(metadata)

  monkeypatch.setattr(step_lib.Metadata, "commit_timestamp", property(gone))
  most = 2
  assert checkpoint.read_meta(tmp_path)["fingerprints"] == toy.FINGERPRINTS and len(looks) == 2
  most = 99
  with pytest.raises(errors.UserError, match="a checkpoint was deleted while it was looked at"):
    checkpoint.read_meta(tmp_path)


def test_a_step_of_a_bucket_that_is_still_written_is_none(tmp_path, monkeypatch):
  """There Orbax writes under the final name and commits last; a local folder stands in for one."""
  from orbax.checkpoint._src.path import gcs_utils
  monkeypatch.setattr(gcs_utils, "_GCS_PATH_PREFIX", ("gs://", str(tmp_path)))
  save(tmp_path, toy_state(step=5))
  shutil.copytree(tmp_path / "5", tmp_path / "10")
  (tmp_path / "10" / "commit_success.txt").unlink()       # step 10 is being written
  assert checkpoint.steps(tmp_path) == [5] and checkpoint.newest(tmp_path) == 5
  assert not checkpoint.finished(tmp_path, toy.FINGERPRINTS, 10)
  save(tmp_path, toy_state(step=10))                      # the job that is started again
  assert checkpoint.steps(tmp_path) == [5, 10]
  assert checkpoint.finished(tmp_path, toy.FINGERPRINTS, 10)


@pytest.mark.parametrize("damage", [
    lambda step: shutil.rmtree(step / "state"),
    lambda step: [p.write_bytes(p.read_bytes()[:9]) for p in (step / "state").rglob("d/*")],
    lambda step: [shutil.rmtree(p) if p.is_dir() else p.unlink() for p in step.iterdir()],
])
def test_a_damaged_checkpoint_is_an_error_not_skipped(tmp_path, damage):
  save(tmp_path, toy_state(step=5), toy_state(step=9))
  damage(tmp_path / "9")
  with (checkpoint.Checkpointer(tmp_path, toy.FINGERPRINTS) as own,
        pytest.raises(errors.UserError, match="/9 cannot be read .*delete that folder") as e):
    checkpoint.start(own, toy_state(), "", {})
  assert "\n" not in str(e.value)
  shutil.rmtree(tmp_path / "9")
  with checkpoint.Checkpointer(tmp_path, toy.FINGERPRINTS) as own:
    assert_equal(checkpoint.start(own, toy_state(seed=1), "", {}), toy_state(step=5))


def flip(path, at, bit=3):
  data = bytearray(path.read_bytes())
  data[at] ^= 1 << bit
  path.write_bytes(data)


def largest(folder):
  return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_a_flipped_bit_of_an_array_is_named_wherever_it_is_read(tmp_path):
  """Noise does not compress, so that its numbers stand in the file as they are."""
  folder = tmp_path / "phase1" / "checkpoints"
  noise, step = big_state(9, kib=64), folder / "9" / "state"
  save(folder, noise)
  flip(largest(step), largest(step).stat().st_size // 2)
  message = "checkpoints/9 is damaged: trainable/qformer/noise has digest .*delete that folder"
  with (checkpoint.Checkpointer(folder, toy.FINGERPRINTS) as own,
        pytest.raises(errors.UserError, match=message) as e):
    own.restore(big_state(0, kib=64))
  assert "\n" not in str(e.value)
  with pytest.raises(errors.UserError, match=message):
    checkpoint.read_trainable(folder, noise.trainable)


def test_what_is_not_read_is_not_checked(tmp_path):
  small = jax.numpy.arange(8.0)
  state = big_state(9, kib=64)
  state.trainable["projection"] = {"kernel": small}
  save(tmp_path, state)
  flip(largest(tmp_path), largest(tmp_path).stat().st_size // 2)
  got = checkpoint.read_trainable(tmp_path, {"projection": {"kernel": small}})
  np.testing.assert_array_equal(got["projection"]["kernel"], small)


def test_a_digest_that_is_missing_or_wrong_is_named_and_one_of_before_digests_is_read(tmp_path):
  save(tmp_path, toy_state(step=9))
  path = tmp_path / "9" / "meta" / "metadata"
  meta = files.unstamped(json.loads(path.read_text()))
  digests = meta["digests"]
  for lost in ({k: v for k, v in digests.items() if k != "step"},
               {**digests, "step": "int32 [] 0000000000000000"}):
    path.write_text(json.dumps({**meta, "digests": lost}))
    with (checkpoint.Checkpointer(tmp_path, toy.FINGERPRINTS) as own,
          pytest.raises(errors.UserError, match="9 is damaged: step has digest int32")):
      own.restore(toy_state())
  del meta["digests"]
  path.write_text(json.dumps(meta))
  with checkpoint.Checkpointer(tmp_path, toy.FINGERPRINTS) as own:
    assert_equal(own.restore(toy_state()), toy_state(step=9))


def test_shapes_are_read_from_the_digests(tmp_path, monkeypatch):
  """Reading them from the arrays costs memory that never comes back."""
  state = toy_state(step=9)
  save(tmp_path, state)
  monkeypatch.setattr(orbax_io, "saved_shapes", lambda *_: pytest.fail("arrays were opened"))
  assert_equal(checkpoint.read_trainable(tmp_path, state.trainable), state.trainable)
  with checkpoint.Checkpointer(tmp_path, toy.FINGERPRINTS) as own:
    assert_equal(own.restore(toy_state()), state)


def test_an_array_that_has_a_digest_but_no_file_is_an_error(tmp_path):
  save(tmp_path, toy_state(step=9))
  path = tmp_path / "9" / "meta" / "metadata"
  meta = files.unstamped(json.loads(path.read_text()))
  meta["digests"]["trainable/lost"] = "float32 [3] 0000000000000000"
  path.write_text(json.dumps(meta))
  with pytest.raises(errors.UserError, match="9 cannot be read .*delete"):
    checkpoint.read_trainable(tmp_path, {"lost": jax.numpy.zeros(3)})


def test_a_flipped_bit_of_the_meta_is_named(tmp_path):
  save(tmp_path, toy_state(step=9), totals={"loss": [2.0, 4]})
  checkpoint.verify(tmp_path, 9)
  path = tmp_path / "9" / "meta" / "metadata"
  path.write_text(path.read_text().replace("2.0", "3.0"))
  with pytest.raises(errors.UserError, match="9 cannot be read .its meta is damaged.*delete"):
    checkpoint.read_meta(tmp_path)


def test_verify_reads_all_of_a_checkpoint_without_its_model(tmp_path):
  save(tmp_path, toy_state(step=9))
  path = tmp_path / "9" / "meta" / "metadata"
  meta = files.unstamped(json.loads(path.read_text()))
  digests = {**meta["digests"], "trainable/lost": "float32 [2] 0000000000000000"}
  path.write_text(json.dumps({**meta, "digests": digests}))
  with pytest.raises(errors.UserError, match="9 is damaged: trainable/lost has digest none"):
    checkpoint.verify(tmp_path, 9)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "int8", "bool"])
def test_every_single_bit_changes_a_digest(dtype):
  array = np.random.default_rng(0).integers(0, 2, (3, 5)).astype(jax.numpy.dtype(dtype))
  bits = array.view(f"u{array.itemsize}")
  different = {leaf_digests.digests({"a": jax.numpy.asarray(array)})["a"]}
  for place in np.ndindex(bits.shape):
    for bit in range(1 if dtype == "bool" else 8 * array.itemsize):
      bits[place] ^= bits.dtype.type(1 << bit)
      different.add(leaf_digests.digests({"a": jax.numpy.asarray(array)})["a"])
      bits[place] ^= bits.dtype.type(1 << bit)
  assert len(different) == 1 + array.size * (1 if dtype == "bool" else 8 * array.itemsize)
  if dtype == "float32":        # in a plain weighted sum, two highest bits cancel each other
    assert leaf_digests.digests({"a": -array})["a"] not in different


def test_a_digest_follows_the_order_and_not_the_mesh():
  noise = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)
  spec = jax.sharding.PartitionSpec("data", "tensor")
  found = {leaf_digests.digests({"a": jax.device_put(
      noise, jax.sharding.NamedSharding(mesh_of(*shape), spec))})["a"]
      for shape in ((1, 1), (4, 2), (2, 4), (8, 1))}
  assert len(found) == 1
  assert leaf_digests.digests({"a": noise[::-1]})["a"] not in found
  assert leaf_digests.digests({"a": noise.T.copy()})["a"] not in found


# --- a full disk ---

@contextlib.contextmanager
def tmpfs(folder, mib):
  folder.mkdir()
  made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)],
                        capture_output=True, text=True, check=False)
  if made.returncode:
    pytest.skip(f"cannot mount a tmpfs: {made.stderr.strip()}")
  try:
    yield folder
  finally:
    subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def largest_file(num_bytes):
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fails_in_one_line(folder, state):
  with checkpoint.Checkpointer(folder, toy.FINGERPRINTS) as saved:
    with pytest.raises(errors.UserError, match=f"no room to write in {folder} .*free some") as e:
      saved.save(state)
      saved.wait()
  assert "\n" not in str(e.value)


def test_a_full_disk_is_one_line_and_leaves_the_earlier_checkpoint(tmp_path, caplog):
  with tmpfs(tmp_path / "small", mib=3) as folder:
    save(folder, big_state(1, kib=1024))
    fails_in_one_line(folder, big_state(2, kib=4096))
    assert not [record.message for record in caplog.records if record.exc_info]
    assert [p.name for p in folder.iterdir()] == ["1"]
    with checkpoint.Checkpointer(folder, toy.FINGERPRINTS) as own:
      assert_equal(own.restore(big_state(0, kib=1024)), big_state(1, kib=1024))
      own.save(big_state(3, kib=512))      # and there is room again for what fits
    assert checkpoint.steps(folder) == [1, 3]


def test_a_write_that_is_refused_is_one_line(tmp_path):
  save(tmp_path, big_state(1, kib=64))
  with largest_file(1 << 20):
    fails_in_one_line(tmp_path, big_state(2, kib=4096))
  assert checkpoint.steps(tmp_path) == [1]
  with checkpoint.Checkpointer(tmp_path, toy.FINGERPRINTS) as own:
    assert_equal(own.restore(big_state(0, kib=64)), big_state(1, kib=64))


def test_place_copies_when_asked():
  mesh = mesh_of(1)
  mine = jax.device_put(np.ones((4, 4), np.float32), axes.sharding(mesh))
  axes.place(mesh, {"w": mine}, copy=True)["w"].delete()
  np.testing.assert_array_equal(mine, np.ones((4, 4)))


TWO_PROCESSES = """
import sys
import types
import jax, numpy as np
from ilm_jax import errors
from ilm_jax.runtime import axes, distributed
from ilm_jax.training import checkpoint, loop
distributed.start()
folder, do = sys.argv[1:]
mesh = axes.make_mesh({"data": jax.device_count(), "fsdp": 1, "tensor": 1})
noise = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
put = lambda x: jax.make_array_from_callback(x.shape, rows, lambda i: x[i])
step = jax.make_array_from_callback((), axes.sharding(mesh), lambda i: np.int32(7))
state = loop.TrainState(step, {"noise": put(noise if do == "save" else 0 * noise)}, ())
with checkpoint.Checkpointer(folder, {}) as saved:
  if do == "save":
    saved.save(state)
  else:
    try:
      saved.restore(state)
      print("restored")
    except errors.UserError as e:
      print(e)
"""


def test_digests_of_arrays_that_two_processes_share(tmp_path):
  """What two save one reads, and both see a flipped bit in what the other holds."""
  (tmp_path / "program.py").write_text(TWO_PROCESSES)
  folder = tmp_path / "checkpoints"

  def two(do):
    done = subprocess.run(
        [sys.executable, ROOT / "launch" / "local_pod.py", "-n", "2", "--", sys.executable,
         tmp_path / "program.py", folder, do], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout

  two("save")
  like = loop.TrainState(jax.numpy.int32(0), {"noise": np.zeros((64, 512), np.float32)}, ())
  with checkpoint.Checkpointer(folder, {}) as saved:
    assert int(saved.restore(like).step) == 7
  assert two("restore").count("restored") == 2
  flip(largest(folder), largest(folder).stat().st_size // 2)
  assert two("restore").count("7 is damaged: trainable/noise has digest") == 2


def test_what_ends_after_a_failed_save_is_not_printed(caplog):
  orbax_io._hear_less()
  printed = []
  for error in (RuntimeError("Event loop is closed"), RuntimeError("ours"), OSError("ours")):
    orbax_io._unless_loop_closed(types.SimpleNamespace(exc_value=error), printed.append)
  assert [str(args.exc_value) for args in printed] == ["ours", "ours"]
  for error in (ValueError("RESOURCE_EXHAUSTED: Error writing x"), ValueError("ours")):
    logging.getLogger("asyncio").error("Future exception was never retrieved", exc_info=error)
  assert [record.exc_info[1].args for record in caplog.records] == [("ours",)]


def test_reading_warns_of_nothing(tmp_path, caplog):
  """Orbax says at each opening that a folder opened to read is read only."""
  save(tmp_path, toy_state(step=1))
  caplog.clear()
  checkpoint.read_meta(tmp_path)
  assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
