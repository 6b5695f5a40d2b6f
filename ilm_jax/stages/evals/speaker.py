"""A trained ILM for inference: prompts in; rankings, losses and texts out."""
import copy
import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from flax import nnx

from ilm_jax import errors
from ilm_jax.config import variants
from ilm_jax.data import batches as batches_lib
from ilm_jax.data import filling
from ilm_jax.decode import beam, exact, generate, trie
from ilm_jax.decode import prompt as prompt_lib
from ilm_jax.evaluation import dot_scores
from ilm_jax.models import ilm, language_model
from ilm_jax.objectives import inputs
from ilm_jax.runtime import axes, distributed, placement
from ilm_jax.stages import context, recipe
from ilm_jax.stages.evals import trained
from ilm_jax.training import checkpoint


class Speaker:
  """One checkpoint of phase 2 with the frozen language model.

  Args:
    run: the run.
    variant: which model; None: the language model alone, without slots.
  """

  def __init__(self, run: context.Run, variant: variants.Variant | None):
    self.run, self.variant = run, variant
    self.lm_config, self.lm_params = run.lm
    self.lm_graphdef = nnx.split(language_model.bind(self.lm_config, self.lm_params))[0]
    self.graphdef, self.trainable, self.step = None, {}, 0
    if variant is None:
      self.entities = recipe.entity_arrays(run)
      return
    step = checkpoint.newest(run.workdir / variant.folder / "checkpoints")
    built, trained_params = trained.phase2(run, variant, step)
    assert step is not None      # without a checkpoint the line above raises
    self.step = step
    self.graphdef = built.graphdef
    self.entities = {name: built.frozen[name] for name in ("vectors", "present", "members")
                     if name in built.frozen}
    self.trainable, self.lm_params = inputs.whole(trained_params, built.frozen)

  def frozen(self) -> dict:
    return {"lm": self.lm_params, **self.entities}

  def knowing(self, vectors, members=None) -> tuple["Speaker", np.ndarray]:
    """(a copy that knows more entities, their rows).

    Args:
      vectors: for each of N, name -> float [C] of the vectors that it has.
      members: int [N, S] entity rows that belong to each; None: none.
    """
    grown = copy.copy(self)
    grown.entities = with_more(self.run, self.entities, vectors, members)
    first = self.run.entities.rows.total
    return grown, np.arange(first, first + len(vectors), dtype=np.int32)

  def losses(self, examples, spec: batches_lib.LmBatchSpec) -> tuple[np.ndarray, np.ndarray]:
    """(nll, tokens), each [len(examples)]: summed over the tokens of each example's target."""
    nll, count = [], []
    for part in _batches(examples, spec.rows, "log perplexity"):
      batch = placement.over_rows(self.run.mesh, batches_lib.lm_eval_batch(part, spec))
      sums = _example_losses(
          self.graphdef, self.lm_config, self.trainable, self.frozen(), batch)
      nll.append(placement.fetch(sums[0])[:len(part)])
      count.append(placement.fetch(sums[1])[:len(part)])
    return np.concatenate(nll), np.concatenate(count)

  def rank(self, examples, spec, catalogue: trie.Trie, *, width: int, blocked=None):
    """[len(examples), width] item rows by constrained beam search, best first; 0: no item is left.

    Args:
      examples: prepared examples.
      spec: with one example per row.
      catalogue: the trie.
      width: beams.
      blocked: item rows not to propose, per example; None: none.
    """
    return self.rank_scored(examples, spec, catalogue, width=width, blocked=blocked)[0]

  def rank_scored(self, examples, spec, catalogue: trie.Trie, *, width: int, blocked=None):
    """As `rank`: (item rows, float32 log-probabilities of their indices, -inf where none is left).
    """
    # For all examples at once: one lookup of leaves, and one shape of the search to compile.
    rows = list(blocked[:len(examples)] if blocked else [[]] * len(examples))
    rows += [[]] * spec.rows                   # the last batch may be filled up
    leaf_NK, made = trie.blocked_leaves(catalogue, rows), []
    for first, part in _numbered(examples, spec.rows, f"beam {width}"):
      searched = beam.beam_search(
          self.lm_graphdef, self.lm_params, catalogue, self.prompt(part, spec),
          placement.over_rows(self.run.mesh, leaf_NK[first:first + spec.rows]), width=width)
      made.append([placement.fetch(x)[:len(part)] for x in searched])
    return tuple(np.concatenate(parts) for parts in zip(*made))

  def score(self, examples, spec, catalogue: trie.Trie, chunk: int = 256) -> np.ndarray:
    """[len(examples), I + 1] exact log-probabilities of every item's index."""
    plan = placement.everywhere(self.run.mesh, exact.plan(catalogue, chunk))
    scores = []
    for part in _batches(examples, spec.rows, "exact"):
      score_BI = exact.score_catalogue(
          self.lm_graphdef, self.lm_params, catalogue, plan, self.prompt(part, spec))
      scores.append(placement.fetch(score_BI)[:len(part)])
    return np.concatenate(scores)

  def head_score(self, examples, spec) -> np.ndarray:
    """[len(examples), I + 1] scores of every item by the item head, without generating text.

    `spec`: from `common.head_spec`.
    """
    scores = []
    for hidden_BD, count in self._head_hidden(examples, spec):
      score_BI = dot_scores.head_score(
          self.graphdef, self.trainable, hidden_BD, self.head_items)
      scores.append(placement.fetch(score_BI)[:count])
    return np.concatenate(scores)

  def head_states(self, examples, spec) -> np.ndarray:
    """float32 [len(examples), P]: the states that `head_score` multiplies with the items' keys."""
    return np.concatenate([
        placement.fetch(_queries(self.graphdef, self.trainable, hidden_BD))[:count]
        for hidden_BD, count in self._head_hidden(examples, spec)])

  @property
  def head_layers(self) -> int:
    """After how many layers of the language model the item head reads; -1: after all."""
    return self.run.config.phase2.head.layer if recipe.rank_tasks(self.run.config) else -1

  def _head_hidden(self, examples, spec):
    """Yields ([B, D] hidden states for the item head, how many rows are of examples) by batch."""
    for part in _batches(examples, spec.rows, "item head"):
      filled = [part[min(b, len(part) - 1)] for b in range(spec.rows)]
      batch = batches_lib.lm_eval_batch(filled, spec)
      batch["target_at"] = filling.read_at(filled, batch["slot"], spec)[:, None]
      hidden_BD = _states(self.graphdef, self.lm_config, self.trainable, self.frozen(),
                          placement.over_rows(self.run.mesh, batch), self.head_layers,
                          spec.queries)
      yield hidden_BD, len(part)

  @functools.cached_property
  def head_items(self) -> dot_scores.HeadItems:
    """The item head's keys of the catalogue; copies that `knowing` makes later share it."""
    frozen = {**self.entities, **recipe.log_draws(self.run)}
    return dot_scores.head_items(
        self.graphdef, self.trainable, frozen, self.run.data.log.num_items)

  def say(self, examples, spec, max_new: int) -> list[str]:
    """The greedy answer to each example's prompt.

    Raises:
      UserError: the model generates only indices.
    """
    if self.lm_config.index_only:
      raise errors.UserError("lm.index_only=True: this model generates indices of items and no "
                             "words, so it describes nothing: set it to False and train again")
    tokenizer, texts = self.run.lm_tokenizer, []
    for part in _batches(examples, spec.rows, "generate"):
      tokens, lengths = generate.generate(
          self.lm_graphdef, self.lm_params, self.prompt(part, spec), max_new=max_new,
          eos_id=tokenizer.eos_id, ends=tokenizer.ends)
      texts += [tokenizer.decode(t[:n]).strip()
                for t, n in zip(placement.fetch(tokens)[:len(part)], placement.fetch(lengths))]
    return texts

  def last_logits(self, examples, spec) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [len(examples), V] logits after each prompt, [M, D] final hidden states of all
    prompts' tokens), computed in float32 for weights of any dtype. Decoders only."""
    config, logits, hidden = dataclasses.replace(self.lm_config, dtype="float32"), [], []
    for part in _batches(examples, spec.rows, "logits"):
      batch = placement.over_rows(self.run.mesh, batches_lib.prompts_batch(part, spec))
      made = _last_logits(self.graphdef, config, self.trainable, self.frozen(), batch)
      logit_BV, hidden_BLD = (placement.fetch(x)[:len(part)] for x in made)
      logits.append(logit_BV)
      hidden.append(hidden_BLD[placement.fetch(batch["valid"])[:len(part)]])
    return np.concatenate(logits), np.concatenate(hidden)

  def soft_tokens(self, rows, batch: int = 256) -> Iterator[np.ndarray]:
    """float32 [.., Q, D]: the soft tokens of a few entity rows at a time, in order."""
    for first in range(0, len(rows), batch):
      some = np.asarray(rows[first:first + batch], np.int32)
      padded = np.pad(some, (0, batch - len(some)))[:, None]
      yield placement.fetch(_soft_tokens(self.graphdef, self.trainable, self.entities, padded)
                            )[:len(some)]

  def prompt(self, examples, spec) -> prompt_lib.Prompt:
    """The examples' prompts as embeddings, with soft tokens in their slots."""
    batch = placement.over_rows(self.run.mesh, batches_lib.prompts_batch(examples, spec))
    embeds_BLD = _prompt_embeds(
        self.graphdef, self.lm_config, self.trainable, self.frozen(), batch)
    return prompt_lib.Prompt(embeds_BLD, batch["position"], batch["valid"])


def with_more(run: context.Run, arrays: dict, vectors, members=None) -> dict:
  """Entity arrays (`recipe.entity_arrays`) with N rows after those of the run's entity table.

  Args:
    run: the run.
    arrays: vectors, present and members by name, on the mesh.
    vectors, members: as in `Speaker.knowing`.
  """
  first = run.entities.rows.total
  more: dict = {"vectors": {}, "present": {}}
  for name, table_RC in arrays["vectors"].items():
    empty_C = np.zeros(table_RC.shape[1], np.float32)
    more["vectors"][name] = np.stack([v.get(name, empty_C) for v in vectors]).astype(np.float32)
    more["present"][name] = np.array([name in v for v in vectors])
  if "members" in arrays:
    width = arrays["members"].shape[1]
    more["members"] = (np.zeros((len(vectors), width), np.int32) if members is None
                       else np.asarray(members, np.int32))

  # A power of two of further rows, so that few shapes compile; the table stays on the devices.
  total = axes.padded_rows(run.mesh, first + (1 << (len(vectors) - 1).bit_length()))
  grown = jax.jit(_grown, static_argnums=2, out_shardings=axes.row_sharding(run.mesh))

  def one(known, new):
    spare = [(0, total - first - len(new))] + [(0, 0)] * (new.ndim - 1)
    return grown(known, axes.put(np.pad(new, spare), axes.sharding(run.mesh)), first)

  return jax.tree.map(one, arrays, more)


def _grown(known_R, new_N, first: int) -> jax.Array:
  return jnp.concatenate([known_R[:first], new_N])


def catalogue(run: context.Run) -> tuple[trie.Trie, list[str]]:
  """(trie of all items' indices, their texts by item row; row 0 is empty)."""
  stored = run.prepared("catalogue", "test")
  by_row = {int(e["target_entity"][0]): e["targets"].tolist()
            for e in map(stored.__getitem__, range(len(stored)))}
  indices = [by_row[row] for row in range(1, len(by_row) + 1)]
  names = ["", *(run.lm_tokenizer.decode(ids[:-1]).strip() for ids in indices)]
  if run.config.lm.index_only:         # its indices have no EOS
    built = trie.build([ids[:-1] for ids in indices], None, names[1:])
  else:
    built = trie.build(indices, run.lm_tokenizer.eos_id, names[1:])
  return placement.everywhere(run.mesh, built), names


def _embed(graphdef, lm_config, trainable, frozen, batch, queries: int = 0):
  embeds_BLD = language_model.embed_prompt(
      language_model.bind(lm_config, frozen["lm"]), batch)
  if graphdef is None:
    return embeds_BLD
  soft_BXD = inputs.soft_tokens(
      nnx.merge(graphdef, trainable), frozen, batch["entities"], queries=queries)
  return ilm.splice(embeds_BLD, soft_BXD, batch["slot"])


@functools.partial(jax.jit, static_argnums=(0, 1, 5, 6))
def _states(graphdef, lm_config, trainable, frozen, batch, layers: int, queries: int):
  """[B, D]: the hidden state after `layers` layers (-1: all) at the first of each target_at."""
  model = language_model.bind(lm_config, frozen["lm"])
  embeds_BLD = _embed(graphdef, lm_config, trainable, frozen, batch, queries)
  deep = {} if layers < 0 else {"layers": layers}
  return model.target_hidden(embeds_BLD, batch, **deep)[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def _queries(graphdef, trainable, hidden_BD):
  return nnx.merge(graphdef, trainable).head.query(hidden_BD.astype(jnp.float32))


_prompt_embeds = jax.jit(_embed, static_argnums=(0, 1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _last_logits(graphdef, lm_config, trainable, frozen, batch):
  model = language_model.bind(lm_config, frozen["lm"])
  hidden_BLD = model.hidden(_embed(graphdef, lm_config, trainable, frozen, batch),
                            batch["position"], batch["valid"].astype(jnp.int32), batch["valid"])
  last_B1 = batch["length"][:, None, None] - 1
  return model.logits(jnp.take_along_axis(hidden_BLD, last_B1, axis=1)[:, 0]), hidden_BLD


@functools.partial(jax.jit, static_argnums=0)
def _soft_tokens(graphdef, trainable, entities, rows_B1):
  soft_BQD = inputs.soft_tokens(nnx.merge(graphdef, trainable), entities, rows_B1)
  return soft_BQD.astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _example_losses(graphdef, lm_config, trainable, frozen, batch):
  """(nll, tokens) of each row: [B] float32, summed over its target tokens."""
  model = language_model.bind(lm_config, frozen["lm"])
  embeds_BLD = _embed(graphdef, lm_config, trainable, frozen, batch)
  nll_BX, _ = model.token_nll(model.target_hidden(embeds_BLD, batch), batch["targets"])
  return jnp.sum(nll_BX * batch["weights"], axis=1), jnp.sum(batch["weights"], axis=1)


def _batches(examples, rows: int, what: str):
  for _, part in _numbered(examples, rows, what):
    yield part


def _numbered(examples, rows: int, what: str):
  """Yields (index of the first, up to `rows` examples); a progress bar if there are several."""
  with tqdm.tqdm(total=len(examples), desc=what, unit="ex", mininterval=1.0,
                 disable=len(examples) <= rows or not distributed.is_main()) as bar:
    for first in range(0, len(examples), rows):
      part = [examples[i] for i in range(first, min(first + rows, len(examples)))]
      yield first, part
      bar.update(len(part))
