"""What an export must compute, kept beside it: check.safetensors and check.json, for check.py."""
import json
import pathlib
import shutil
from typing import NamedTuple

import numpy as np

from ilm_jax.export.shipped import check
from ilm_jax.weights import tensor_file

LIMIT = {"float32": 1e-3}       # largest difference of a logit by transformers, in float32;
_ROUNDED = 0.1                  # where weights and soft tokens are rounded to fewer bits
BELOW = 1000                    # added words must not be among so many most likely ones


class Prompts(NamedTuple):
  """What the language model must say behind prompts, and what the head reads behind histories."""
  ids: list[list[int]]
  texts: list[str]               # of each prompt; "": it cannot be written as text
  logit_NV: np.ndarray
  histories: list[list[int]]
  state_HP: np.ndarray
  layers: int                    # whose output the head reads; -1: the last
  first_word: int                # the id of the first added word
  dtype: str


def write(folder: pathlib.Path, arrays: dict[str, np.ndarray], prompts: Prompts | None) -> None:
  """Writes both files, and the programs of `shipped` beside them.

  Args:
    folder: of the export.
    arrays: what lists and functions of jax.export must give, by name.
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
