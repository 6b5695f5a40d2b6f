"""The frozen step pays for no gradient of a frozen weight."""
import dataclasses

from benchmarks import step_flops


def test_a_phase2_step_costs_what_it_must():
  """By XLA's count at most 1.08 of the least; a gradient of the kernels would add half of it."""
  counted, least = step_flops.drawn_out(step_flops.LM, step_flops.QFORMER, step_flops.SPEC)
  assert least < counted <= 1.08 * least


def test_remat_is_counted_too():
  """Running each layer again in the backward pass costs one forward pass more of its kernels."""
  lm = dataclasses.replace(step_flops.LM, num_layers=2)
  plain = step_flops.step_flops(lm, step_flops.QFORMER, step_flops.SPEC)
  again = step_flops.step_flops(dataclasses.replace(lm, remat="full"), step_flops.QFORMER,
                                step_flops.SPEC)
  assert again > 1.05 * plain
