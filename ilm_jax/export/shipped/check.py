"""Proves on this machine that an export computes the same as the run that made it.

    python check.py                    in the folder of the export; or: python check.py FOLDER
    python check.py --skip=hf          without transformers; --skip=jax: without jax

Prints one line and exits with 0, or says in one line what differs and exits with 1.

It compares lists from items.safetensors, in numpy; with hf/, logits, ids of prompts and states of
histories, in transformers; with *.jaxexport, soft tokens, keys and states, in jax.
"""
import argparse
import json
import pathlib
import sys

import numpy as np

try:
  import top_k
except ImportError:           # as a module of ilm_jax
  from ilm_jax.export.shipped import top_k

JAX = 1e-3            # largest allowed difference of jax.export, relative to max(1, largest number)
TIES = 1e-4           # items whose scores differ by less may change places
SCORES = 1 << 22      # scores that are computed at a time


class Different(Exception):
  """What differs, in one line."""


def check(folder, skip=()) -> str:
  """Compares an export with the results of its run; returns the line to print.

  Args:
    folder: of the export.
    skip: what to leave out: "hf", "jax".

  Raises:
    Different: the export is incomplete or computes something else; one line.
  """
  folder = pathlib.Path(folder)
  if not (folder / "export.json").exists():
    raise Different(f"{folder} is no export: expected export.json in it")
  kept, said = top_k.read(folder / "check.safetensors"), []
  asked = json.loads((folder / "check.json").read_text(encoding="utf-8"))
  if (folder / "items.safetensors").exists():
    said.append(_lists(folder, kept))
  if (folder / "hf").exists():
    said.append("hf/ skipped" if "hf" in skip else _hugging_face(folder, kept, asked))
  if list(folder.glob("*.jaxexport")):
    said.append("jax.export skipped" if "jax" in skip else _jax(folder, kept))
  return "; ".join(said)


def _lists(folder, kept) -> str:
  items = top_k.read(folder / "items.safetensors")
  seen = np.split(kept["seen"], kept["seen_offsets"][1:-1])
  want_NK, score_NK = kept["lists"], kept["list_scores"]
  if items["keys"].shape[:1] != items["bias"].shape:
    raise Different(f"items.safetensors: {len(items['bias'])} biases of {len(items['keys'])} keys: "
                    "the file was changed")
  together = max(1, min(256, SCORES // max(1, len(items["keys"]))))
  for first in range(0, len(want_NK), together):
    part = slice(first, first + together)
    got_NK, got_score_NK = top_k.top_k(
        kept["states"][part], items["keys"], items["bias"], want_NK.shape[1], seen[part])
    same_NK = np.isclose(got_score_NK, score_NK[part], rtol=0, atol=TIES)
    swapped = (got_NK != want_NK[part]) & ~same_NK
    if swapped.any():
      n, k = np.argwhere(swapped)[0]
      raise Different(f"items.safetensors: place {k + 1} of list {first + n + 1} is item "
                      f"{got_NK[n, k]}, expected {want_NK[first + n, k]}: the file was changed")
  return f"lists of {len(want_NK)} users equal"


def _hugging_face(folder, kept, asked) -> str:
  try:
    import torch
    import transformers
  except ImportError as e:
    raise Different(f"hf/ needs torch and transformers ({e}): pip install torch transformers, or "
                    "leave it out with --skip=hf") from None
  transformers.logging.set_verbosity_error()
  model = transformers.AutoModelForCausalLM.from_pretrained(
      folder / "hf", dtype=torch.float32, attn_implementation="eager", use_safetensors=True,
      trust_remote_code=False).eval()
  worst, highest = 0.0, model.config.vocab_size
  for ids, want_V in zip(asked["prompts"], kept["logits"]):
    with torch.no_grad():
      got_V = model(torch.tensor([ids])).logits[0, -1].numpy()
    known = len(want_V)
    worst = max(worst, float(np.max(np.abs(got_V[:known] - want_V))))
    added_V = got_V[asked["first_word"]:]
    if len(added_V):
      highest = min(highest, int(np.sum(got_V[:known] > added_V.max())) + 1)
  if not worst < asked["limit"]:
    raise Different(f"hf/: logits differ by {worst:.2g}, expected less than "
                    f"{asked['limit']:g}: the files were changed, or run in another precision")
  if asked["words_below"] and highest <= asked["words_below"]:
    raise Different(f"hf/: an added word is number {highest} of the most likely words, expected "
                    f"none among the first {asked['words_below']}: the files were changed")
  return (f"logits of {len(asked['prompts'])} prompts differ by {worst:.1e} at most"
          f"{_texts(folder, asked)}{_states(model, folder, kept, asked)}, the most likely added "
          f"word is number {highest}")


def _texts(folder, asked) -> str:
  import transformers
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf")
  texts = [(text, ids) for text, ids in zip(asked["texts"], asked["prompts"]) if text]
  for text, ids in texts:
    if (got := tokenizer(text)["input_ids"]) != ids:
      raise Different(f"hf/: the text {text[:60]!r} has the ids {got[:8]}.., expected {ids[:8]}..")
  return f", ids of {len(texts)} prompts from plain text are equal"


def _states(model, folder, kept, asked) -> str:
  """Compares the item head's states of histories: from the hidden state, after `layers` layers, at
  the last added word."""
  if not asked["histories"]:
    return ""
  import torch
  query_DP = torch.tensor(np.asarray(top_k.read(folder / "items.safetensors")["query"]))
  worst = 0.0
  for ids, want_P in zip(asked["histories"], kept["history_states"]):
    last = max(n for n, i in enumerate(ids) if i >= asked["first_word"])
    with torch.no_grad():
      out = model(torch.tensor([ids]), output_hidden_states=True)
      hidden_LD = out.hidden_states[asked["layers"]][0]
      if asked["layers"] >= 0 and asked["layers"] < model.config.num_hidden_layers:
        hidden_LD = model.model.norm(hidden_LD)
      got_P = (hidden_LD[last] @ query_DP).numpy()
    worst = max(worst, float(np.max(np.abs(got_P - want_P)) / max(1.0, np.max(np.abs(want_P)))))
  if not worst < asked["limit"]:
    raise Different(f"hf/: states of histories differ by {worst:.2g}, expected less than "
                    f"{asked['limit']:g}: the files were changed, or run in another precision")
  return f", states of {len(asked['histories'])} histories differ by {worst:.1e} at most"


def _jax(folder, kept) -> str:
  try:
    from jax import export
  except ImportError as e:
    raise Different(f"*.jaxexport needs jax ({e}): pip install jax, or leave it out with "
                    "--skip=jax") from None

  def named(kind):
    return {name[len(kind) + 1:]: np.asarray(x) for name, x in kept.items()
            if name.startswith(f"{kind}/")}

  worst, entities = 0.0, (named("vectors"), {k: v > 0 for k, v in named("present").items()})
  calls = {"soft_tokens": (entities, ["soft_tokens"]),
           "item_keys": ((*entities, np.asarray(kept["log_draws"])), ["keys", "bias"]),
           "state": ((np.asarray(kept["hidden"]),), ["hidden_states"])}
  done = []
  for name, (arguments, wanted) in calls.items():
    path = folder / f"{name}.jaxexport"
    if not path.exists():
      continue
    got = export.deserialize(bytearray(path.read_bytes())).call(*arguments)
    for one, want in zip(got if isinstance(got, tuple | list) else [got], wanted):
      scale = max(1.0, float(np.max(np.abs(kept[want]))))
      worst = max(worst, float(np.max(np.abs(np.asarray(one) - kept[want]))) / scale)
    if not worst < JAX:
      raise Different(f"{name}.jaxexport: {wanted} differ by {worst:.2g}, expected less than "
                      f"{JAX:g}: the file was changed")
    done.append(name)
  return f"results of {', '.join(done)} by jax.export differ by {worst:.1e} at most"


def main(argv=None, folder=None) -> int:
  """Checks the folder of the command line and returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("folder", nargs="?", default=folder or pathlib.Path(__file__).parent)
  parser.add_argument("--skip", action="append", default=[], choices=["hf", "jax"])
  args = parser.parse_args(argv)
  try:
    print(f"parity proved: {check(args.folder, args.skip)}")
    return 0
  except Different as e:
    print(f"parity NOT proved: {e}", file=sys.stderr)
  except Exception as e:       # a damaged file may fail in any way
    print(f"parity NOT proved: {args.folder} cannot be read ({type(e).__name__}: "
          f"{top_k.letters(' '.join(str(e).split())[:200])}): export again", file=sys.stderr)
  return 1


if __name__ == "__main__":
  sys.exit(main())
