"""Stage cf: one row of vectors per item and user, from training interactions and item text."""
import io

import numpy as np

from ilm_jax import files
from ilm_jax.cf import ials
from ilm_jax.data import entities as entities_lib
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.data import store
from ilm_jax.stages import context


def run(this: context.Run) -> None:
  """Writes entities/ unless it is there and was made from this data and these settings."""
  interactions, items, data = this.data
  folder = this.workdir / "entities"
  made_from = {"data": data, "cf": str(sorted(this.config.cf.to_dict().items())),
               "seed": this.config.seed,
               "text_encoder": this.config.text_encoder.asset}
  if (store.read_manifest(folder) or {}).get("made_from") == made_from:
    return
  c = this.config.cf
  histories = interactions_lib.train_histories(interactions)
  user_UC, item_I1C = ials.ials(histories, interactions.num_items, c.width, reg=c.reg,
                                alpha=c.alpha, iterations=c.iterations, seed=this.config.seed,
                                mesh=this.own_mesh)
  texts = [interactions_lib.item_text(items, row + 1) for row in range(len(items))]
  semantic_IW = this.sentence_vectors(texts)
  standard_I1C = np.zeros_like(item_I1C)
  standard_I1C[1:] = standardised(item_I1C[1:])
  table = entities_lib.make(
      interactions.num_items, interactions.num_users,
      behavioral=(standard_I1C, standardised(user_UC)),
      semantic=(np.concatenate([np.zeros_like(semantic_IW[:1]), semantic_IW]), None))
  _save_factors(this, user_UC, item_I1C)
  table.save(folder, made_from)


def standardised(vectors_NC) -> np.ndarray:
  """Each dimension with mean 0 and standard deviation 1 over the rows (constant ones: 0)."""
  spread_C = vectors_NC.std(axis=0)
  centred_NC = vectors_NC - vectors_NC.mean(axis=0)
  return (centred_NC / np.where(spread_C > 0, spread_C, 1.0)).astype(np.float32)


def factors(this: context.Run) -> tuple[np.ndarray, np.ndarray]:
  """(user_UC, item_I1C): the factors as iALS left them, whose dot products rank items."""
  with np.load(io.BytesIO((this.workdir / "factors.npz").read_bytes())) as stored:
    return stored["user_UC"], stored["item_I1C"]


def _save_factors(this: context.Run, user_UC, item_I1C) -> None:
  buffer = io.BytesIO()
  np.savez(buffer, user_UC=user_UC, item_I1C=item_I1C)
  files.write_bytes(this.workdir / "factors.npz", buffer.getvalue())
