"""benchmarks.latency: lists of a synthetic catalogue."""
from benchmarks import latency


def test_lists_of_a_synthetic_catalogue(capsys):
  makes = latency.files(items=3000, width=4, users=5, of_items=7)
  items_NK, score_NK = makes.top([[1, 2, 3], [4]], 10)
  assert items_NK.shape == score_NK.shape == (2, 10)
  assert not set(items_NK[0]) & {0, 1, 2, 3}
  said = capsys.readouterr().out
  assert "3,000 items x 4" in said and "lists of 5 users" in said
  assert "neighbours of 7 items" in said


def test_a_call_is_timed_with_so_many_users_after_two_that_warm_up():
  asked = []
  taken_C = latency.seconds(asked.append, [[1], [2], [3]], users=2, calls=3)
  assert len(taken_C) == 3 and (taken_C >= 0).all()
  assert asked == [[[1], [2]], [[3], [1]], [[2], [3]], [[1], [2]], [[3], [1]]]
