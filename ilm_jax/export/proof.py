"""Expected results of an export: check.safetensors and check.json, which check.py reads."""
import json
import pathlib
import shutil
from typing import NamedTuple

import numpy as np

from ilm_jax.export.shipped import check
from ilm_jax.weights import tensor_file

LIMIT = {"float32": 1e-3}       # largest allowed difference of a logit in transformers, in float32;
_ROUNDED = 0.1                  # the same if weights and soft tokens are rounded to fewer bits
BELOW = 1000                    # no added word may be among this many most likely words


class Prompts(NamedTuple):
  """Prompts with their expected logits, and histories with the item head's expected states."""
  ids: list[list[int]]
  texts: list[str]               # of each prompt; "": no text has exactly its ids
  logit_NV: np.ndarray
  histories: list[list[int]]
  state_HP: np.ndarray
  layers: int                    # the head reads the output of so many layers; -1: of all
  first_word: int                # the id of the first added word
  dtype: str


def write(folder: pathlib.Path, arrays: dict[str, np.ndarray], prompts: Prompts | None) -> None:
  """Writes both files, and the programs of `shipped` beside them.

  Args:
    folder: of the export.
    arrays: expected results of lists and of jax.export functions, by name.
    prompts: None: there is no Hugging Face folder.
  """
  asked = {"prompts": [], "texts": [], "histories": []}
  if prompts is not None:
    arrays = {**arrays, "logits": prompts.logit_NV, "history_states": prompts.state_HP}
    known = prompts.logit_NV.shape[1]
    asked = {"prompts": prompts.ids, "texts": prompts.texts, "histories": prompts.histories,
             "layers": prompts.layers, "first_word": prompts.first_word,
             "limit": LIMIT.get(prompts.dtype, _ROUNDED),
             "words_below": BELOW if known > 2 * BELOW else 0}
  with open(folder / "check.safetensors", "wb") as file:
    tensor_file.write(file, [tensor_file.of(*entry) for entry in arrays.items()],
                      {"format": "np"})
  (folder / "check.json").write_text(json.dumps(asked, ensure_ascii=False), encoding="utf-8")
  for source in sorted(pathlib.Path(check.__file__).parent.glob("[a-z]*.py")):
    shutil.copy(source, folder / source.name)
