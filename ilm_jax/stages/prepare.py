"""Stage prepare: raw log to data/, tasks to prepared/. The only stage that imports TensorFlow."""
from ilm_jax.stages import context


def run(this: context.Run) -> None:
  """Builds the data set through TFDS and writes every task's examples through SeqIO."""
  import tasks.prepare
  from ilm_jax.data import interactions as interactions_lib
  from ilm_jax.data import store
  from tasks.datasets import builder, registry
  folder, data = this.workdir / "data", this.config.data
  found = registry.find(data)
  made_from = {"dataset": data.name, "files": found.fingerprint, "k_core": data.k_core,
               "split": str(this.rule),
               "time": "seconds" if found.timed else "unknown: the order of the log"}
  if (store.read_manifest(folder) or {}).get("made_from") != made_from:
    interactions, items = builder.load(found, this.workdir / "tfds", data.k_core, this.rule)
    interactions_lib.save(folder, interactions, items, made_from)
  tasks.prepare.prepare(this.workdir, this.lm_tokenizer, this.text_tokenizer, this.config,
                        this.sentence_vectors)
