"""Model card (README.md) and data card of an export: measured tables, licences, fingerprints."""
import pathlib

from ilm_jax import errors, files
from ilm_jax.assets import pinned
from ilm_jax.evaluation import page, rows

_SHOWN = ("recommendation", "lists", "consistency")     # tables of report.json; else its first two
_REPORT_AGAIN = "run --stage=report again, then --stage=export"


def write(folder: pathlib.Path, run, facts: dict, left_out: list[str]) -> None:
  """Writes README.md and data_card.md.

  Args:
    folder: of the export, with all other files.
    run: `stages.context.Run`: config, data, workdir.
    facts: of export.json.
    left_out: the parts that are left out, each with its reason.
  """
  report = run.workdir / "report.json"
  tables = _read(report)["tables"] if report.exists() else []
  (folder / "README.md").write_text(
      model_card(run.config, facts, tables, left_out,
                 sorted(path.name for path in folder.iterdir())), encoding="utf-8")
  (folder / "data_card.md").write_text(
      data_card(run.config, run.data, facts), encoding="utf-8")


def _read(report) -> dict:
  content = files.read_json(report, _REPORT_AGAIN)
  if not isinstance(content, dict) or not isinstance(content.get("tables"), list):
    raise errors.UserError(f"{report} has no list of tables: {_REPORT_AGAIN}")
  return content


def model_card(config, facts: dict, tables: list[dict], left_out: list[str], names: list[str]
               ) -> str:
  """Text of README.md, with the YAML header that Hugging Face reads."""
  licence = _licence(config.lm.asset)
  said = [
      "---", f"license: {'apache-2.0' if licence == 'Apache-2.0' else 'other'}",
      "library_name: transformers", "tags: [recommender-system, item-language-model]", "---", "",
      f"# Item-Language Model: {config.data.name} with {config.lm.asset}", "",
      f"{facts['model']}, step {facts['step']}: {facts['items']} items"
      + (f" and {facts['users']} users" if facts["users"] else "")
      + f", {facts['queries']} soft tokens each. Exported by ilm_jax; the language model is "
      + ("frozen." if config.lm.train == "none" else f"trained (lm.train={config.lm.train!r})."),
      "", "## Files", "",
      *(f"- `{name}`: {what}" for name, what in _FILES.items() if name in names),
      *(f"- left out: {reason}" for reason in left_out)]
  if "items.safetensors" in names:
    layer = config.phase2.head.layer
    said += ["", "The scores of all items are `state @ keys.T + bias`. A state is "
             f"`hidden @ query`, where `hidden` is the normed hidden state "
             f"{f'after layer {layer} ' if layer >= 0 else ''}at the last soft token of a history."]
    if "factors" in facts:
      said[-1] += (" The scores of the factorisation are added: a state ends with the history "
                   "folded in, `top_k.folded_in`, and a key with the item's factors.")
  if "hf" in names:
    said += _hf_words(facts)
  said += ["", "## Prove parity", "", "    python check.py", "",
           "## Measured", ""]
  said += _tables(tables) if tables else ["Nothing: the run has no report.json "
                                          "(`--stage=eval,report`, then export again)."]
  said += ["", "## Licences", "", f"- language model {config.lm.asset}: {licence}",
           f"- text encoder {config.text_encoder.asset}: {_licence(config.text_encoder.asset)}",
           f"- data {config.data.name}: {_licence(config.data.name)}; data_card.md", "",
           "If you pass this folder on, the licences of the language model and of the data apply.",
           "", "## Fingerprints", "",
           *(f"- {name}: `{value}`" for name, value in facts["fingerprints"].items()), ""]
  return "\n".join(said)


def data_card(config, data, facts: dict) -> str:
  """Text of data_card.md."""
  log, parts = data.log, config.data
  counts = {"users": log.num_users, "items": log.num_items, "interactions": len(log.item_N)}
  return "\n".join([
      f"# Data: {parts.name}", "",
      *(f"- {name}: {count}" for name, count in counts.items()),
      f"- kept: users and items with {parts.k_core} or more interactions (k-core)"
      + "; items that dialogs name" * parts.dialog_items,
      f"- split: {parts.split}; titles of {parts.heldout_fraction:.0%} of the items were never "
      "trained on",
      f"- licence: {_licence(parts.name)}",
      f"- fingerprint: `{facts['fingerprints']['data']}`", "",
      "This export holds ids and titles of all items, and vectors made from the interactions of "
      "all users in the training part.",
      ("It holds the histories of all users (users.safetensors), under their ids in the log: "
       "personal data, if the ids can be traced to people." if facts["users"] else
       "It holds no user's id. check.safetensors holds the histories of a few users, without ids, "
       "to prove parity: if you must not pass these on, delete it before you pass the folder on."),
      "",
      "The recommendations follow what these users did: they repeat their tastes and leave out "
      "items that they never met.", ""])


_FILES = {
    "items.safetensors": "keys, biases and the query of the item head",
    "items.json": "ids and titles, in the order of the keys",
    "users.safetensors": "states and histories of all users", "users.json": "their ids",
    "top_k.py": "makes lists with numpy alone: `python top_k.py --like=ID`",
    "hf": "the language model with soft tokens as words, for transformers, vLLM, llama.cpp",
    "soft_tokens.jaxexport": "turns vectors of new entities into soft tokens, with jax alone",
    "item_keys.jaxexport": "turns vectors of new items into keys and biases, with jax alone",
    "state.jaxexport": "turns a hidden state into a state, with jax alone",
    "prompt_embeds.py": "sends prompts to vLLM as embeddings",
    "check.py": "proves parity on this machine", "data_card.md": "what it was trained on"}


def _hf_words(facts: dict) -> list[str]:
  scale = facts["soft_token_scale"]
  said = [
      "", "## Soft tokens as words (hf/)", "",
      "`<item_17_0><item_17_1>` in a prompt stands for the item with the id 17. In a history the "
      "item head reads the first `phase2.head.queries` words of each item (0: all).", "",
      "Greedy decoding does not generate added words. Their rows of the output head are the "
      "mean of the rows of the least likely words: for any prompt an added word is never the "
      "single most likely one, and at most as likely as those words are on average. "
      "transformers' `generate` suppresses them completely (generation_config.json, "
      "suppress_tokens); vLLM does so with `allowed_token_ids` or `bad_words` of a request."]
  if scale != 1:
    said += ["", f"soft_token_scale is {scale:.6g}: this language model multiplies embeddings by "
             "it, and the rows in hf/ are divided by it. prompt_embeds.py multiplies prompt "
             "embeddings by it before it sends them, unless the engine does so."]
  return said


def _tables(tables: list[dict]) -> list[str]:
  chosen = [part for part in tables if part["name"] in _SHOWN] or tables[:2]
  said = []
  for part in chosen:
    names = page.columns(part)
    said += [f"### {part['title']}", "", f"| | {' | '.join(names)} |",
             "|---" * (len(names) + 1) + "|"]
    for row in part["rows"]:
      cells = [page.cell_text(row["metrics"].get(name), " ") for name in names]
      said.append(f"| {rows.label(row)} | {' | '.join(cells)} |")
    said.append("")
  return said[:-1]


def _licence(name: str) -> str:
  asset = pinned.ASSETS.get(name)
  return asset.licence if asset else "not known: it is no asset of ilm_jax, ask its source"
