"""placeholder"""
from configs import ml100k_head


def get_config():
  c = ml100k_head.get_config()
  c.lm.update(train="index_tokens", layers=2, index_only=True)
  c.tasks.update(index="collaborative", index_words=True)
  c.lm.new_tokens = 100
  c.phase2.update(rows=16, rows_per_group=16, examples_per_group=19, slots=52)
  c.phase2.head.update(weight=0.0, rows=0, layer=-1)
  c.eval.update(beam_users=943, exact_users=943)
  return c
