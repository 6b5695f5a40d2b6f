"""Stage prepare: raw log to data/, tasks to prepared/. The only stage that imports TensorFlow."""
from ilm_jax.stages import context


def run(this: context.Run) -> None:
  """Builds the data set through TFDS and writes every task's examples through SeqIO."""
  import tasks.prepare
  from ilm_jax.data import interactions as interactions_lib
  from ilm_jax.data import store
  from tasks.datasets import movielens
  folder = this.workdir / "data"
  made_from = {"dataset": this.config.data.name, "k_core": this.config.data.k_core}
  if (store.read_manifest(folder) or {}).get("made_from") != made_from:
    interactions, items = movielens.load(this.workdir / "tfds", k=this.config.data.k_core)
    interactions_lib.save(folder, interactions, items, made_from)
  tasks.prepare.prepare(this.workdir, this.lm_tokenizer, this.text_tokenizer, this.config)
