"""Stage export: a trained model as files for numpy, transformers, vLLM and jax.

    python -m ilm_jax.main --config=.. --workdir=W --stage=export
    python -m ilm_jax.main --config=.. --workdir=W --stage=export --users=all --out=/tmp/export

Writes W/export, completely or not at all; docs/export.md lists its files. Without --users=all it
holds no user of the log, except a few states and histories that prove parity.
"""
import functools
import json
import pathlib
from typing import NamedTuple

import numpy as np

from ilm_jax import errors, files
from ilm_jax.config import variants
from ilm_jax.export import cards, functions, hf, items, proof
from ilm_jax.models import language_model
from ilm_jax.stages import context, recipe, recommender
from ilm_jax.stages.evals import common

FORMAT = 1
_PROMPTS, _LIST = 4, 20                  # to prove parity: prompts per task, length of a list;
_USERS, _WITH_USERS = 32, 1024           # users, and users if all users are exported


class Wish(NamedTuple):
  """What the command line asks for."""
  model: str = "ilm"      # key of the model to export, see `variants.named`
  users: str = ""         # "all": also the users of the log
  out: str = ""           # a folder; "": export/ in the workdir


def run(run: context.Run, wish: Wish) -> None:
  """Writes the export.

  Raises:
    UserError: the wish is not possible, or an input is missing or does not fit the config.
  """
  folder, variant = _check(run, wish), variants.named(run.config, wish.model)
  made = _Export(run, variant, with_users=wish.users == "all")
  with files.writing_folder(folder) as temporary:
    made.write(temporary)
  size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
  print(f"{folder}: {variant.label} with {made.counted}, {size / 1e6:.0f} MB; "
        f"prove parity: python -m ilm_jax.serving.check {folder}")
  for reason in made.left_out:
    print(f"left out: {reason}")


def _check(run: context.Run, wish: Wish) -> pathlib.Path:
  """The folder to write."""
  if wish.users not in ("", "all"):
    raise errors.UserError(f"--users={wish.users}: expected all, or no --users to export none")
  if not wish.out and "://" in str(run.workdir):
    raise errors.UserError(f"--stage=export writes a local folder, and --workdir={run.workdir} is "
                           "remote: name a local folder with --out, and copy it where you need it")
  folder = pathlib.Path(wish.out or run.workdir / "export")
  if folder.exists() and not (folder / "export.json").exists():
    raise errors.UserError(f"--out={folder} exists and is no export (it has no export.json): "
                           "name another folder, or delete it")
  return folder


class _Export:
  """One model of a run, and the functions that write each part of its export."""

  def __init__(self, run: context.Run, variant: variants.Variant, with_users: bool):
    self.run, self.with_users, self.left_out = run, with_users, []
    self.recommender = recommender.Recommender(run, variant)
    self.speaker = self.recommender.speaker
    self.rows = run.data.log.rows
    self.queries = run.config.qformer.num_queries
    # Rows 1..known have words; items come first.
    self.known = self.rows.total - 1 if with_users else self.rows.num_items
    if with_users and (words := self.known * self.queries) > hf.MOST_WORDS:
      self.left_out.append(f"users as words of hf/: with {self.queries} words each, items and "
                           f"users have {words:,}, expected {hf.MOST_WORDS:,} at most")
      self.known = self.rows.num_items
    self.counted = f"{self.rows.num_items} items" + (
        f" and {self.rows.num_users} users" if with_users else "")

  def write(self, folder: pathlib.Path) -> None:
    lm = hf.Decoder(self.run.lm.config, self.speaker.lm_params, self.run.lm_tokenizer,
                    hf.positions(self.run.lm_path))
    arrays, prompts = {}, None
    if self.recommender.by == recommender.HEAD:
      arrays |= self._items(folder)
    else:
      self.left_out.append(f"items.safetensors: this run has no item head ({self.recommender.by})")
    try:
      plan = self._plan(lm)
    except errors.UserError as e:
      self.left_out.append(f"hf/: {e}")
    else:
      prompts = self._hugging_face(folder, lm, plan)
    arrays |= self._functions(folder)
    proof.write(folder, arrays, prompts)
    facts = self._facts()
    cards.write(folder, self.run, facts, self.left_out)
    (folder / "export.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")

  # The item matrix.

  def _items(self, folder) -> dict[str, np.ndarray]:
    log, of = self.run.data.log, self.recommender
    users = common.drawn(log.num_users, _WITH_USERS if self.with_users else _USERS,
                         self.run.config.seed)
    histories = [log.item_N[log.of_user(user)] for user in users]
    state_UP = of.states(histories)
    items_UK, score_UK = of.top(histories, min(_LIST, self.rows.num_items))
    head, query = self.speaker.head_items, self.speaker.trainable["head"]["query"]["kernel"]
    items.write(folder, of.keys(), head.bias_I, query, self.run.data.items)
    if self.with_users:
      items.write_users(folder, self._states(), state_UP.shape[1], log.offsets_U1, log.item_N,
                        log.user_ids)
    seen = np.concatenate(histories)
    return {"states": state_UP, "lists": items_UK.astype(np.int32) - 1, "list_scores": score_UK,
            "seen": seen.astype(np.int32) - 1,
            "seen_offsets": np.cumsum([0, *map(len, histories)]).astype(np.int64)}

  def _states(self):
    """[.., P]: the states of all users, a few at a time."""
    log, together = self.run.data.log, self.recommender.together
    for first in range(0, log.num_users, together):
      some = range(first, min(first + together, log.num_users))
      yield self.recommender.states([log.item_N[log.of_user(user)] for user in some])

  # The Hugging Face folder.

  def _plan(self, lm: hf.Decoder) -> hf.Plan:
    if language_model.is_encoder_decoder(lm.config):
      raise errors.UserError("the language model is an encoder-decoder, and soft tokens can be "
                             "words of decoders only")
    if not recipe.has_phase1(self.run.config):
      raise errors.UserError("the prompts of this run name entities and have no soft tokens")
    if (count := self.known * self.queries) > hf.MOST_WORDS:
      raise errors.UserError(f"items have {count:,} words, {self.queries} each, expected "
                             f"{hf.MOST_WORDS:,} at most")
    if not self._examples:
      raise errors.UserError("all test prompts name users, which have no words: export with "
                             "--users=all")
    added = hf.words("item", self.run.data.items.ids, self.queries)
    if self.known > self.rows.num_items:
      added += hf.words("user", self.run.data.log.user_ids, self.queries)
    return hf.plan(lm, added)

  @functools.cached_property
  def _examples(self) -> list[dict]:
    """Test prompts whose entities have words."""
    return [example for task in recipe.task_names(self.run.config)
            for example in common.sample(self.run, task, 8 * _PROMPTS)[:_PROMPTS]
            if np.all(example["entities"] <= self.known)]

  def _hugging_face(self, folder, lm: hf.Decoder, plan: hf.Plan) -> proof.Prompts:
    examples = self._examples
    logit_NV, hidden_MD = self.speaker.last_logits(
        examples, common.spec(self.run, [examples], rows=_PROMPTS))
    soft = (part_RQD.reshape(-1, part_RQD.shape[-1])
            for part_RQD in self.speaker.soft_tokens(np.arange(1, self.known + 1)))
    hf.write(folder / "hf", lm, plan, soft, hidden_MD)
    ids = [self._ids(example, self.queries) for example in examples]
    asked, states = self._histories()
    return proof.Prompts(
        ids, [hf.text(plan.tokenizer_json, i) for i in ids], logit_NV[:, :plan.known],
        asked, states, self.speaker.head_layers, lm.tokenizer.vocab_size, lm.config.dtype)

  def _histories(self) -> tuple[list[list[int]], np.ndarray]:
    """(prompts of histories, the item head's states); none if there is no item head, or prompts
    also name the user."""
    if self.recommender.by != recommender.HEAD or self.recommender.prompt.has_user:
      return [], np.zeros((0, 0), np.float32)
    log = self.run.data.log
    histories = [log.item_N[log.of_user(user)] for user in common.drawn(
        log.num_users, _PROMPTS, self.run.config.seed)]
    queries = self.run.config.phase2.head.queries or self.queries
    prompts = [self._ids(example, queries) for example in self.recommender.examples(histories)]
    width = self.speaker.head_items.key_IP.shape[1]        # without the factors
    return prompts, self.recommender.states(histories)[:, :width]

  def _ids(self, example: dict, queries: int) -> list[int]:
    """A prompt's ids in the folder's vocabulary: each slot becomes the words of its entity."""
    tokenizer, entities, ids = self.run.lm_tokenizer, iter(example["entities"].tolist()), []
    for token in (*tokenizer.before, *example["inputs"].tolist(), *tokenizer.after):
      if token != tokenizer.slot_id:
        ids.append(int(token))
        continue
      first = tokenizer.vocab_size + (next(entities) - 1) * self.queries
      ids += range(first, first + queries)
    return ids

  # jax.export, and export.json.

  def _functions(self, folder) -> dict[str, np.ndarray]:
    """Rows spread evenly over the exported entities prove parity: items, and users if exported."""
    if not recipe.has_phase1(self.run.config):
      return {}
    rows = np.unique(np.linspace(1, self.known, _PROMPTS * 2).astype(np.int32))
    frozen = {**self.speaker.entities, **recipe.log_draws(self.run)}
    return functions.write(folder, self.speaker.graphdef, self.speaker.trainable, frozen,
                           self.run.lm.config.width, rows)

  def _facts(self) -> dict:
    config, run = self.run.config, self.run
    added = common.added_scores(run)
    return {
        **({"factors": {"weight": added["factors"], "reg": config.cf.reg,
                        "alpha": config.cf.alpha}} if added else {}),
        "format": FORMAT, "model": self.recommender.method, "step": int(self.speaker.step),
        "items": self.rows.num_items, "users": self.rows.num_users if self.with_users else 0,
        "queries": self.queries, "language_model": config.lm.asset,
        "soft_token_scale": float(getattr(run.lm.config, "embed_scale", 1.0)),
        "fingerprints": {"data": run.data.fingerprint, "entities": run.entities.fingerprint,
                         "language model": run.lm_fingerprint,
                         "vocabulary": run.lm_tokenizer.fingerprint}}
