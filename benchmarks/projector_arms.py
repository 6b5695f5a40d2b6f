"""The arms of `benchmarks.projectors`: models of phase 1 or 2 under changes of the config."""
import dataclasses
import importlib

from ilm_jax.config import variants

# The paper's form; arms change it.
PAPER = {"qformer.cross_init": "bert", "qformer.cross_every": 2, "qformer.cross_reads": "all",
         "qformer.temperature": 0.15, "qformer.min_temperature": 0.15, "qformer.vector_noise": 0.5,
         "qformer.dropout": 0.2, "qformer.user_projection": False,
         "phase1.candidates": "batch", "phase1.logq": True, "phase1.pair_batch_size": 64,
         "phase1.label_smoothing": 0.1, "phase1.losses.itc": 0.5, "phase1.losses.ii": 0.0,
         "phase1.losses.ui": 1.0, "phase1.losses.cf": 0.0, "phase1.losses.rec": 0.0,
         "phase2.skip": False, "phase2.qformer_scale": 1.0}
# Only ranking rows, after two layers: a run takes minutes.
COMMON = PAPER | {
    "phase2.head.rows": 16, "phase2.head.length": 64, "phase2.head.slots": 52,
    "phase2.head.examples_per_group": 19, "phase2.head.rows_per_group": 16,
    "phase2.head.layer": 2, "phase2.head.weight": 1.0, "phase2.spread": False,
    "phase2.learning_rate": 3e-3, "phase2.steps": 400, "phase2.warmup": 30,
    "phase2.checkpoint_every": 10 ** 6, "phase2.log_every": 50, "eval.batch_size": 64,
    "eval.users": 0, "eval.beam_users": 0, "eval.exact_users": 0, "eval.rank_compared": False,
    "tasks.max_train_examples": 20000}
FULL = {"qformer.cross_init": "width", "qformer.cross_every": 1, "phase2.qformer_scale": 0.3}
OWN = FULL | {"qformer.cross_reads": "own"}
UI = {"phase1.losses.itc": 0.0, "phase1.pair_batch_size": 256}
CATALOGUE = UI | {"phase1.candidates": "catalogue", "phase1.logq": False,
                  "qformer.min_temperature": 0.03, "qformer.temperature": 0.1,
                  "phase1.label_smoothing": 0.0}
DISTIL = {"phase1.losses.ui": 0.0, "phase1.losses.cf": 1.0}
PHASE1 = CATALOGUE | {"qformer.user_projection": True, "qformer.vector_noise": 0.2,
                      "qformer.dropout": 0.1, "phase1.losses.itc": 0.5, "phase1.losses.ui": 0.0,
                      "phase1.losses.cf": 1.0, "phase1.losses.ii": 0.5, "phase1.losses.rec": 0.2}
WORDS = {"phase2.head.weight": 0.0, "phase2.head.rows": 0, "phase2.head.layer": -1}


@dataclasses.dataclass(frozen=True)
class Arm:
  """A model of phase 2 under changes of the config."""
  variant: str
  changes: dict


ARMS = {
    "mlp": Arm("mlp", {}),
    "paper": Arm("rand", {"phase2.spread": True}),
    "size": Arm("rand", {"qformer.cross_init": "width"}),
    "every": Arm("rand", {"qformer.cross_every": 1}),
    "cross": Arm("rand", FULL),
    "hidden": Arm("rand", FULL | {"qformer.reader_hidden": 10}),
    "equal_head": Arm("rand", FULL | {"phase2.equal_head": True}),
    "soft_norm": Arm("rand", FULL | {"phase2.soft_norm": True}),
    "own": Arm("rand", OWN),
    "skip": Arm("rand", OWN | {"phase2.skip": True}),
    "ilm": Arm("ilm", OWN | PHASE1 | {"phase2.skip": True}),
    "ilm_cross": Arm("ilm", FULL | PHASE1),
    "mlp_random": Arm("mlp", {"lm.random": True}),
    "ui_batch": Arm("phase1", FULL | UI),
    "ui_catalogue": Arm("phase1", FULL | CATALOGUE),
    "ui_catalogue_noise0": Arm("phase1", FULL | CATALOGUE | {"qformer.vector_noise": 0.0}),
    "ui_catalogue_long": Arm("phase1", FULL | CATALOGUE | {"phase1.steps": 600}),
    "ui_catalogue_all": Arm("phase1", FULL | CATALOGUE | {
        "phase1.pair_batch_size": 1024, "phase1.learning_rate": 2e-3}),
    "cf": Arm("phase1", FULL | CATALOGUE | DISTIL),
    "cf_quiet": Arm("phase1", FULL | CATALOGUE | DISTIL | {
        "qformer.vector_noise": 0.2, "qformer.dropout": 0.1}),
    "cf_users": Arm("phase1", FULL | CATALOGUE | DISTIL | {"qformer.user_projection": True}),
    "cf_users_quiet": Arm("phase1", FULL | CATALOGUE | DISTIL | {
        "qformer.user_projection": True, "qformer.vector_noise": 0.2, "qformer.dropout": 0.1}),
    "mlp_0": Arm("mlp", {"phase2.head.layer": 0}),
    "mlp_sasrec": Arm("mlp", {"vectors": ("behavioral", "sequential"), "cf.sequential": "sasrec"}),
    # Item vectors are SASRec's, as in LLM-SRec; prompts hold no words.
    "llm_srec": Arm("mlp", {"vectors": ("sequential",), "cf.sequential": "sasrec",
                            "phase2.head.distil": 1.0}),
    **{f"{name}_distil{suffix}": Arm(variant, changes | {"phase2.head.distil": weight})
       for name, variant, changes in (("mlp", "mlp", {}),
                                      ("skip", "rand", FULL | {"phase2.skip": True}))
       for suffix, weight in (("_half", 0.5), ("", 1.0), ("_twice", 2.0))},
    # Trained on words, with --config=configs/ml100k_index.py; an item head ranks if there is one.
    "mlp_words": Arm("mlp", WORDS),
    "mlp_words_head": Arm("mlp", WORDS | {"phase2.head.weight": 1.0}),
}


def configured(config_file: str, seed: int, arm: Arm, more: dict):
  """The config of an arm."""
  c = importlib.import_module(config_file.removesuffix(".py").replace("/", ".")).get_config()
  for name, value in {**COMMON, **arm.changes, **more, "seed": seed}.items():
    *path, last = name.split(".")
    node = c
    for part in path:
      node = node[part]
    node[last] = value
  c.phase2.compare = (arm.variant,) if arm.variant in variants.COMPARED else ()
  return c
