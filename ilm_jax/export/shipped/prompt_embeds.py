"""Sends a prompt to vLLM as embeddings, for new entities, which are no words of hf/.

    vllm serve export/hf --enable-prompt-embeds
    python prompt_embeds.py --url=http://localhost:8000 --prompt='Film<item_50_0><item_50_1> ...'

    from prompt_embeds import Embedder, complete
    embeds_LD = Embedder("export").embeds(["Summary of the film", soft_QD, ":"])
    print(complete("http://localhost:8000", "export/hf", embeds_LD, max_tokens=40))

`soft_QD` are soft tokens of soft_tokens.jaxexport (docs/reference/exported_files.md).
Needs tokenizers and torch.
"""
import argparse
import base64
import io
import json
import pathlib
import sys
import urllib.error
import urllib.request

import numpy as np

try:
  import top_k
except ImportError:           # as a module of ilm_jax
  from ilm_jax.export.shipped import top_k


class Embedder:
  """Turns texts and soft tokens into input embeddings of the language model."""

  def __init__(self, folder):
    import tokenizers
    folder = pathlib.Path(folder)
    self._table_VD = top_k.read(folder / "hf" / "model.safetensors")["model.embed_tokens.weight"]
    self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "hf" / "tokenizer.json"))
    self._scale = json.loads((folder / "export.json").read_text())["soft_token_scale"]

  def embeds(self, parts, engine_scales: bool = False) -> np.ndarray:
    """float32 [L, D]: the parts, one after another.

    Args:
      parts: texts, which may spell added words such as <item_17_0>, and float [Q, D] soft tokens.
      engine_scales: whether the engine multiplies the embeddings by soft_token_scale, as some
        versions of vLLM do with Gemma; 0.33 does not.
    """
    rows, start = [], True
    for part in parts:
      if isinstance(part, str):
        rows.append(self.rows(self._tokenizer.encode(part, add_special_tokens=start).ids))
      else:
        rows.append(np.asarray(part, np.float32))
      start = False
    embeds_LD = np.concatenate(rows)
    return embeds_LD / self._scale if engine_scales else embeds_LD

  def rows(self, ids) -> np.ndarray:
    """float32 [L, D] of token ids."""
    return _wide(self._table_VD[ids]) * self._scale


def _wide(rows) -> np.ndarray:
  """Rows as float32; rows of uint16 are the bits of bfloat16."""
  if rows.dtype == np.uint16:
    return (rows.astype(np.uint32) << 16).view(np.float32)
  return np.asarray(rows, np.float32)


def body(model: str, embeds_LD, **options) -> dict:
  """The body of a request to /v1/completions: base64 of torch.save of a tensor [L, D].

  `options`: of the request, e.g. max_tokens, temperature.
  """
  import torch
  file = io.BytesIO()
  torch.save(torch.tensor(np.asarray(embeds_LD, np.float32)), file)
  return {"model": model, "prompt_embeds": base64.b64encode(file.getvalue()).decode(),
          **options}


def complete(url: str, model: str, embeds_LD, *, token: str = "", timeout: float = 60.0,
             **options) -> str:
  """The text with which the server's model continues the embeddings.

  Raises:
    RuntimeError: the server refuses, cannot be reached, or answers something else; one line.
  """
  bearer = {"Authorization": f"Bearer {token}"} if token else {}
  request = urllib.request.Request(
      f"{url.rstrip('/')}/v1/completions", json.dumps(body(model, embeds_LD, **options)).encode(),
      {"Content-Type": "application/json", **bearer})
  try:
    with urllib.request.urlopen(request, timeout=timeout) as answer:
      return json.load(answer)["choices"][0]["text"]
  except urllib.error.HTTPError as e:
    said = " ".join(e.read().decode(errors="replace").split())[:300]
    raise RuntimeError(f"{url} refused with {e.code}: {said}; vLLM takes embeddings only if it was "
                       "started with --enable-prompt-embeds") from e
  except (OSError, ValueError, KeyError, IndexError, TypeError) as e:
    raise RuntimeError(f"{url}/v1/completions: no completion ({type(e).__name__}: {e}): is vLLM "
                       "running there?") from e


def main(argv=None) -> int:
  """Prints a completion and returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--folder", default=pathlib.Path(__file__).parent)
  parser.add_argument("--url", default="http://localhost:8000")
  parser.add_argument("--model", default="", help="name on the server; by default the path of hf/")
  parser.add_argument("--prompt", required=True)
  parser.add_argument("--max_tokens", type=int, default=40)
  parser.add_argument("--engine_scales", action="store_true")
  args = parser.parse_args(argv)
  try:
    embeds_LD = Embedder(args.folder).embeds([args.prompt], args.engine_scales)
    print(complete(args.url, args.model or str(pathlib.Path(args.folder) / "hf"), embeds_LD,
                   max_tokens=args.max_tokens, temperature=0))
    return 0
  except (RuntimeError, OSError, KeyError, ValueError) as e:
    print(f"error: {e}", file=sys.stderr)
    return 1


if __name__ == "__main__":
  sys.exit(main())
