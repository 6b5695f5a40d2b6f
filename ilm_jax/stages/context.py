"""What the stages share: the config, the workdir, and everything that is loaded from it once."""
import functools
import json
import math
import pathlib

from etils import epath

from ilm_jax import errors, files
from ilm_jax.assets import pinned
from ilm_jax.config import gin_overlay, mixture, settings
from ilm_jax.config import reading as config_lib
from ilm_jax.data import chat_template, splits, store, tokenizer, tokenizer_files
from ilm_jax.data import entities as entities_lib
from ilm_jax.data import interactions as interactions_lib
from ilm_jax.stages import pretrained
from ilm_jax.training import provenance


class Run:
  """One config in one workdir. Attributes are loaded on first use.

  Args:
    config: a ConfigDict, validated here.
    workdir: folder of the run.
    devices: False if no device will be used (stage prepare).
    beam: options of the Apache Beam pipeline that prepares; (): none.
    accept_changes: a phase may continue from a checkpoint that was made with other settings.
    tables: stage report prints all tables, not only the closing summary.
    command: the command line without the stage; "": unknown.
  """

  def __init__(self, config, workdir, devices: bool = True, beam: tuple[str, ...] = (),
               accept_changes: bool = False, tables: bool = False, command: str = ""):
    self.config, self.beam, self.accept_changes = config, beam, accept_changes
    self.tables, self.command = tables, command
    self.workdir = epath.Path(workdir)
    self._devices = devices
    config_lib.validate(config, self._device_count())
    if devices:
      self._settle_dtype()
    if config.lm.shape:
      raise errors.UserError(f"lm.shape={config.lm.shape!r} is a shape without weights, for "
                             "--stage=plan only: name weights by lm.asset and set lm.shape to ''")

  def record(self, stage: str, sections: tuple[str, ...] = ()) -> None:
    """Writes the resolved config of a stage to config.<stage>.json and config.<stage>.gin.

    Args:
      stage: the stage that has used the config.
      sections: an old record that is equal in these sections stays: nothing was made anew.
    """
    path, text = self.workdir / f"config.{stage}.json", config_lib.to_json(self.config)
    if sections and path.exists():
      was, now = _json_or_nothing(path), json.loads(text)
      if all(was.get(section) == now[section] for section in sections):
        return
    # The JSON comes last, as it is compared above: after a kill in between, both are rewritten.
    files.write_text(self.workdir / f"config.{stage}.gin", gin_overlay.to_gin(self.config))
    files.write_text(path, text)

  def check_groups(self) -> None:
    """Raises a UserError, already before phase 1, if the processes cannot share phase 2's batches.
    """
    from ilm_jax.runtime import axes
    c, (_, shares) = self.config.phase2, axes.batch_share(self.mesh)
    if c.head.weight and c.head.rows // c.head.rows_per_group % shares:
      raise errors.UserError(
          f"phase2.head.rows={c.head.rows} / phase2.head.rows_per_group={c.head.rows_per_group} "
          f"makes groups that do not divide over the {shares} processes that share a batch: make "
          f"them a multiple, e.g. --config.phase2.head.rows={shares * c.head.rows_per_group}")
    groups = c.rows // c.rows_per_group if mixture.said_tasks(self.config) else 0
    if groups % shares:
      raise errors.UserError(
          f"phase2.rows={c.rows} / phase2.rows_per_group={c.rows_per_group} makes {groups} groups, "
          f"which do not divide over the {shares} processes that share a batch: make "
          f"them a multiple, e.g. --config.phase2.rows={shares * c.rows_per_group}")

  @functools.cached_property
  def mesh(self):
    from ilm_jax.runtime import axes
    return axes.make_mesh(dict(self.config.mesh))

  @functools.cached_property
  def own_mesh(self):
    """A mesh over this process's own devices, for work that one process does while others wait."""
    if not self.mesh.is_multi_process:
      return self.mesh
    import jax

    from ilm_jax.runtime import axes
    mine = jax.local_devices()
    return axes.make_mesh({"data": len(mine), "fsdp": 1, "tensor": 1}, mine)

  # Data.

  @functools.cached_property
  def data(self):
    """The run's `interactions.Data`; UserError if the data were filtered or split differently."""
    data = interactions_lib.load(self.workdir / "data")
    now = {"split": str(self.rule), "dataset": self.config.data.name,
           "k_core": self.config.data.k_core, "dialog_items": self.config.data.dialog_items}
    was = store.read_manifest(self.workdir / "data")["made_from"]
    _same_settings(self.workdir / "data", was | {"dialog_items": "dialog_items" in was}, now,
                   "prepare")
    return data

  @property
  def rule(self) -> splits.Rule:
    """How the log is split, and how ties are ordered."""
    d = self.config.data
    return splits.Rule(d.split, tuple(d.time_fractions), d.cold_fraction)

  @functools.cached_property
  def heldout(self):
    """Boolean by entity row 0..I: items whose text is never trained on."""
    return interactions_lib.heldout_items(
        self.data.items, self.config.data.heldout_fraction, self.config.seed)

  @functools.cached_property
  def entities(self) -> entities_lib.EntityTable:
    """The entity table; UserError if it was not made from this data and these settings."""
    table = entities_lib.load(self.workdir / "entities")
    manifest = store.read_manifest(self.workdir / "entities")
    assert manifest is not None      # `load` has read it
    made_from = manifest["made_from"]
    if made_from["data"] != self.data.fingerprint:
      was, is_now = errors.short(made_from["data"], self.data.fingerprint)
      raise errors.UserError(f"{self.workdir}/entities was made from data {was}, data/ is "
                             f"{is_now}: delete entities/ and run --stage=cf")
    _same_settings(self.workdir / "entities", made_from.get("settings"),
                   settings.of_entities(self.config), "cf")
    absent = [f"vectors {name!r}" for name in self.config.vectors if name not in table.vectors]
    have = 0 if table.members is None else table.members.shape[1]
    if (want := self.config.qformer.members) > have:
      absent.append(f"{want} members of an entity (it has {have})")
    if absent:
      raise errors.UserError(f"{self.workdir}/entities holds no {', no '.join(absent)}, which the "
                             "config now needs: run --stage=cf again")
    return table

  def prepared(self, task: str, split: str) -> store.Prepared:
    """A prepared split of a task, by its short name; UserError if it has other data or settings."""
    folder = self.workdir / "prepared" / f"{self.dataset}_{task}" / split
    prepared = store.Prepared(folder)
    for name, mine in (("data", self.data.fingerprint),
                       ("lm_vocabulary", self.lm_tokenizer.fingerprint),
                       ("text_vocabulary", self.text_tokenizer.fingerprint)):
      if prepared.manifest["made_from"][name] != mine:
        was, is_now = errors.short(prepared.manifest["made_from"][name], mine)
        raise errors.UserError(f"{folder} was prepared from {name} {was}, this run has {is_now}: "
                               "run --stage=prepare again")
    _same_settings(folder, prepared.manifest["made_from"].get("settings"),
                   settings.of_prepared(self.config, task, split), "prepare")
    return prepared

  @property
  def dataset(self) -> str:
    """The first word of the tasks' names: "ml-100k" -> "ml100k"."""
    return self.config.data.name.replace("-", "").replace("_", "")

  # Pretrained files.

  @functools.cached_property
  def lm_path(self):
    """The file or folder of the language model."""
    return pretrained.asset_or_path(self.config.lm.asset)

  @functools.cached_property
  def lm_encodes(self) -> bool:
    """Whether the language model is an encoder-decoder; its weights are not read."""
    from ilm_jax.weights import load
    return load.encodes(self.lm_path, self.config.lm.gin_file)

  @functools.cached_property
  def lm_fingerprint(self) -> str:
    """sha256 of the language model and of the settings that change its numbers."""
    return pretrained.lm_fingerprint(self.config)

  @property
  def teacher_files(self) -> tuple:
    """(weights, tokenizer) of a teacher that runs in this library (targets.teacher="lm")."""
    return pretrained.teacher_files(self.config)

  @functools.cached_property
  def teacher_fingerprint(self) -> str:
    """sha256 of all that changes the teacher's text (not timeouts, retries, batch size)."""
    return pretrained.teacher_fingerprint(self.config)

  @functools.cached_property
  def text_encoder_folder(self) -> pathlib.Path:
    return pinned.fetch(self.config.text_encoder.asset)["config.json"].parent

  @functools.cached_property
  def lm_tokenizer(self) -> tokenizer.Tokenizer:
    c = self.config.lm
    loaded = tokenizer_files.load(self._tokenizer_path)
    if c.new_tokens:
      loaded = tokenizer.with_new_tokens(loaded, [f"<index_{n}>" for n in range(c.new_tokens)])
    return loaded

  @functools.cached_property
  def chat(self) -> chat_template.Chat:
    """The language model's chat template."""
    return chat_template.load(
        self.config.lm.chat_template, self._tokenizer_path, self.lm_tokenizer)

  @property
  def _tokenizer_path(self):
    name = self.config.lm.tokenizer
    return pretrained.asset_or_path(name) if name else self.lm_path

  @functools.cached_property
  def text_tokenizer(self) -> tokenizer.Tokenizer:
    return tokenizer_files.from_file(self.text_encoder_folder / "tokenizer.json")

  @functools.cached_property
  def text_encoder(self):
    """(BertConfig, parameters) of the sentence encoder."""
    from ilm_jax.weights import safetensors
    return safetensors.load_bert(self.text_encoder_folder)

  def sentence_vectors(self, texts: list[str], tokens: int = 0):
    """[len(texts), W] unit vectors by the sentence encoder.

    `tokens`: pads or cuts every text to this length, so that one shape compiles; 0: does not.
    """
    from ilm_jax.models import bert
    config, params = self.text_encoder
    length = {"max_length": tokens, "multiple": tokens} if tokens else {}
    return bert.sentence_vectors(config, params, self.text_tokenizer, texts, **length)

  @functools.cached_property
  def lm(self):
    """The language model (`load.LanguageModel`), its parameters on the mesh."""
    from ilm_jax.weights import load
    c = self.config.lm
    config, params = load.language_model(
        self.lm_path, dtype=c.dtype, mesh=self.mesh, gin_file=c.gin_file,
        vocabulary=self.lm_tokenizer.vocab_size - c.new_tokens, new_tokens=c.new_tokens)
    tokenizer.check_vocabulary(
        self.lm_tokenizer, config.vocab_size + config.new_tokens, self.lm_path)
    if c.random:
      config, params = load.redrawn(load.LanguageModel(config, params), self.config.seed)
    return load.adapt(config, params, self.mesh, remat=c.remat, attention=c.attention,
                      prefix_lm=c.prefix_lm, whole_words=c.whole_words, layers=c.layers,
                      index_only=c.index_only, lora_rank=c.lora_rank, seed=self.config.seed,
                      frozen=c.train != "all")

  def _settle_dtype(self) -> None:
    """Sets lm.dtype="auto" to the dtype on these devices, for records and fingerprints."""
    import jax

    from ilm_jax.runtime import chips, gpu
    lm = self.config.lm
    lm.dtype = chips.dtype(lm.dtype, lm.train, has_bfloat16=gpu.has_bfloat16(jax.devices()))

  def _device_count(self) -> int:
    if not self._devices:
      return math.prod(self.config.mesh.values())
    import jax
    return jax.device_count()


def _json_or_nothing(path) -> dict:
  """The object in a config record; {} if it is damaged: then it is written again."""
  try:
    return files.json_object(path)
  except errors.UserError:
    return {}


def _same_settings(folder, was: dict | None, now: dict, stage: str) -> None:
  """Refuses files that `stage` made with other settings.

  A field that it did not record has its value in `settings.OFF`; if it has none there, it is
  ignored. None: it recorded no settings.

  Raises:
    UserError: it names each field that differs, with the recorded value and the config's.
  """
  if was is None:
    return
  known = [name for name in {**was, **now}
           if (name in was or name in settings.OFF) and (name in now or name in settings.OFF)]
  differences = provenance.changed(*(
      {name: of.get(name, settings.OFF.get(name)) for name in known} for of in (was, now)))
  if differences:
    raise errors.UserError(f"{folder} was made with other settings than the config's "
                           f"({provenance.words(differences)}): run --stage={stage} again")
