"""Both phases in two processes, resumed on another mesh, reach the losses of one process.

4 processes and more meshes: `python -m benchmarks.equality`.
"""
from benchmarks import equality

STEPS, PHASES = 4, ("phase1", "phase2")


def test_two_processes_resumed_by_one_of_four_devices(tmp_path):
  """With dropout and noise; and the loss of the last checkpoint on other examples."""
  equality.prepare(tmp_path)
  equality.pod(tmp_path / "one", PHASES, STEPS, STEPS, 1, 1, (1, 1, 1))
  equality.pod(tmp_path / "two", PHASES, STEPS, STEPS // 2, 2, 1, (2, 1, 1))
  equality.pod(tmp_path / "two", PHASES, STEPS, STEPS, 1, 4, (1, 2, 2))
  one, two = (equality.losses(tmp_path / n, PHASES) for n in ("one", "two"))
  assert [len(one[k]) for k in one] == [len(two[k]) for k in one] == [STEPS, STEPS, 1]
  assert max(equality.difference(two, one).values()) < 1e-6
  assert abs(one["phase2"][-1] - one["phase2"][0]) > 1e-3, "nothing was learned"
