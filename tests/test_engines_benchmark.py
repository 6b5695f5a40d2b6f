"""benchmarks/engines.py: what it makes of an engine's answers."""
import numpy as np
import pytest

from benchmarks import engines

LOGITS = np.log(np.array([[.5, .3, .2], [.1, .1, .8]]))      # of the three words the model had


@pytest.mark.parametrize("found, worst, added, first", [
    ([{0: np.log(.5), 1: np.log(.3)}, {2: np.log(.8)}], 0.0, 0, 2),
    ([{0: np.log(.5) - .01, 1: np.log(.3)}, {2: np.log(.8)}], .01, 0, 2),
    ([{1: np.log(.3)}, {3: -.1, 2: np.log(.8)}], 0.0, 1, 0)])
def test_an_engine_beside_our_logits(found, worst, added, first):
  """A word from number 3 on is one that the export added; logits need not be normed."""
  got = engines.compared(found, LOGITS + 7.0, 3)
  assert got == (pytest.approx(worst, abs=1e-9), added, first)


def test_llama_cpp_needs_its_file(tmp_path, capsys):
  with pytest.raises(SystemExit):
    engines.main([str(tmp_path), "--engine=llama.cpp"])
  assert "needs --gguf=FILE" in capsys.readouterr().err
