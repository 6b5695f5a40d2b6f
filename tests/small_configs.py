"""Configs that most tests share but for a few fields; what a test is about, it says itself."""
from ilm_jax.data import packing
from ilm_jax.models import ilm
from ilm_jax.models.qformer import QFormerConfig
from ilm_jax.objectives import phase2 as phase2_lib
from ilm_jax.objectives.phase1_config import Phase1Config

QFORMER = dict(cross_every=2, cross_init="bert", cross_reads="all", query_pool="nearest",
               kv_tokens=1, kv_width=0, reader_hidden=0, members=0, max_text=64, proj_width=256,
               user_projection=False, proj_init="normal", text_pool="cls", dropout=0.1,
               text_dropout=0.0, vector_noise=0.0, vector_dropout=0.0, temperature=0.07,
               min_temperature=0.01, remat=False, matmul_precision="default")
PHASE1 = dict(itc=1.0, itm=1.0, itg=1.0, ii=1.0, ui=1.0, cf=0.0, rec=0.0, uni=0.0,
              label_smoothing=0.1, contrastive="infonce", logq=False)
FORM = ilm.Form(skip=False, per_query=False, soft_norm=False, equal_head=False)   # the paper's
LM_BATCH = dict(examples_per_group=1, rows_per_group=1, task_names=(), whole_words=0)


def qformer(**changes) -> QFormerConfig:
  """A Q-Former of the vectors, widths, layers, heads, queries and words in `changes`."""
  return QFormerConfig(**QFORMER | changes)


def phase1(**changes) -> Phase1Config:
  """Phase 1 with all its losses at the same weight."""
  return Phase1Config(**PHASE1 | changes)


def lm_batch(**changes) -> packing.LmBatchSpec:
  """One example a row, of no named task; sizes and the slot's word are in `changes`."""
  return packing.LmBatchSpec(**LM_BATCH | changes)


def phase2(config: QFormerConfig, lm_width: int, soft_token_rms: float, seed: int, form=FORM,
           **more):
  """(graphdef, trainable) of the paper's form, as `phase2.build_phase2` makes them."""
  return phase2_lib.build_phase2(config, lm_width, form, soft_token_rms, seed, **more)
