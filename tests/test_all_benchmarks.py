"""benchmarks/all.py: ratios, goals and verdicts from what the programs wrote."""
import argparse
import json

import pytest

from benchmarks import all as all_


def test_the_step_beside_its_peer_and_the_backward_pass_beside_the_forward():
  rows = [{"what": what, "peer": peer, "seconds": seconds, "tokens_per_second": 512 / seconds}
          for peer, times in (("ilm_jax", (1.0, 2.25, 1.0, 2.0)),
                              ("transformers", (2.0, 4.05, 1.5, 5.0)))
          for what, seconds in zip(("forward", "forward+backward", "prefill", "prefill+decode"),
                                   times)]
  for dtype, verdict in (("float32", "missed"), ("bfloat16", "reached")):
    figures = {f.name: f for f in all_.lm_step({"results": rows, "dtype": dtype})}
    forward = figures[f"forward in {dtype}, times transformers"]
    assert (forward.value, forward.verdict) == (2.0, "")
    both = figures[f"forward+backward in {dtype}, times transformers"]
    assert both.value == pytest.approx(1.8) and both.verdict == verdict
    backward = figures[f"GFLOP/s backward in {dtype}, of forward's"]
    assert backward.value == pytest.approx(0.8) and backward.verdict == "missed"


def test_growth_is_the_exponent_and_may_not_be_more():
  rows = [{"items": 10_000, "seconds": 1.0, "build_seconds": 1.0},
          {"items": 1_000_000, "seconds": 1.0, "build_seconds": 1000.0}]
  search, build = all_.search_growth({"growing": rows})
  assert (search.value, search.verdict) == (0.0, "reached")
  assert (build.value, build.verdict) == (pytest.approx(1.5), "missed")


def test_readers_and_servers_are_divided_by_their_peers():
  rows = [{"batches": way, "reader": reader, "examples_per_second": rate}
          for way, rates in (("packed", (90, 10)), ("one example a row", (300, 20)))
          for reader, rate in zip(("prepared", "SeqIO"), rates)]
  assert [(f.value, f.verdict) for f in all_.reader({"rows": rows})] == [
      (9.0, "missed"), (15.0, "reached")]
  told = [{"route": r, "requests_per_second": n, "errors": e}
          for r, n, e in (("/v1/recommend", 60.0, 0), ("plain loop", 3.0, 1))]
  assert [f.verdict for f in all_.served(told)] == ["reached", "missed"]


def test_what_was_measured_is_read_and_what_lacks_says_why(tmp_path):
  args = argparse.Namespace(out=tmp_path, quick=False, again=False, workdir="")
  run = all_.Run("step_flops", all_.flops)
  (tmp_path / "6_step_flops.json").write_text(json.dumps({"ratio": 1.05}))
  assert all_.measured(run, 6, args)[0].verdict == "reached"
  lacking = all_.Run("serving", all_.served, needs=("workdir",))
  assert all_.measured(lacking, 7, args) == "needs --workdir, a finished quickstart"
  lacking = all_.Run("ials", all_.sweeps, needs=("a_package_of_nobody",))
  assert all_.measured(lacking, 4, args) == "a_package_of_nobody is not installed"


def test_a_program_that_fails_is_named_with_its_log(tmp_path):
  args = argparse.Namespace(out=tmp_path, quick=False, again=False, workdir="")
  told = all_.measured(all_.Run("no_such_program", all_.flops), 0, args)
  assert told == f"failed, see {tmp_path / '0_no_such_program.log'}"
  assert "No module named" in (tmp_path / "0_no_such_program.log").read_text()
