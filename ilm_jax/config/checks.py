"""All mistakes in a config that show before a device is used."""
import math

from ilm_jax.config import bounds, data_checks, mixture, names, path_checks, rules


def mistakes(c, device_count: int, paths: bool = True) -> list[str]:
  """The mistakes in config `c` for that many devices: one line each, with its cure.

  Args:
    c: the config.
    device_count: devices of the job.
    paths: whether the files and folders that the config names must exist.
  """
  checks = (bounds.check_numbers, data_checks.check_data, _check_inputs,
            _check_qformer, data_checks.check_tasks, data_checks.check_targets,
            _check_phase1, _check_phase2, _check_eval, _check_profile, _check_plan,
            lambda c: _check_mesh(c, device_count),
            *([path_checks.check_paths] if paths else []))
  if wrong := bounds.too_long(c):
    return wrong
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
      *rules.known("prng", c.prng, ("threefry2x32", "rbg", "unsafe_rbg")),
      *rules.known("text_encoder.asset", c.text_encoder.asset, names.TEXT_ENCODERS),
      *rules.known("cf.solver", c.cf.solver, ("cholesky", "cg")),
      *rules.known("cf.dtype", c.cf.dtype, ("float32", "bfloat16")),
      *rules.known("cf.sequential", c.cf.sequential, names.SEQUENTIAL),
      *_check_sasrec(c.cf.sasrec),
      *(line for name in rules.listed(c.tracker)
        for line in rules.known("tracker", name, tuple(names.TRACKERS))),
  ]
  if not c.vectors:
    wrong.append("vectors is empty: name at least one, e.g. --config.vectors=\"('behavioral',)\"")
  for name in c.vectors:
    wrong += rules.known("vectors", name, names.VECTORS)
  for name in ("qformer.vector_dropout", "phase2.vector_dropout"):
    if (rate := rules.get(c, name)) and "semantic" not in c.vectors:
      wrong.append(f"{name}={rate} with vectors={tuple(c.vectors)}: it leaves items their text "
                   "vector alone, and there is none: name 'semantic' in vectors, or set it to 0")
  return wrong


def _check_sasrec(s) -> list[str]:
  wrong = []
  if s.num_heads > 0 and s.width % s.num_heads:
    wrong.append(f"cf.sasrec.width={s.width} does not divide over cf.sasrec.num_heads="
                 f"{s.num_heads}: make it a multiple")
  if s.patience > 0 and s.evaluate_every > s.epochs:
    wrong.append(f"cf.sasrec.evaluate_every={s.evaluate_every} is more than cf.sasrec.epochs="
                 f"{s.epochs}: no epoch would be evaluated and kept; make it {s.epochs} or less")
  return wrong


def _check_lm(lm) -> list[str]:
  wrong = [*rules.known("lm.dtype", lm.dtype, ("auto", "float32", "bfloat16", "int8")),
           *rules.known("lm.train", lm.train, ("none", "index_tokens", "lora", "all")),
           *rules.known("lm.attention", lm.attention, ("auto", "plain", "xla")),
           *rules.known("lm.remat", lm.remat, ("none", "dots", "weights", "full"))]
  wrong += rules.known("lm.shape", lm.shape, ("", *names.SHAPES))
  if lm.train == "index_tokens" and not lm.new_tokens:
    wrong.append("lm.train='index_tokens' has nothing to train: set lm.new_tokens above 0")
  if (lm.train == "lora") != bool(lm.lora_rank):
    wrong.append(f"lm.train={lm.train!r} with lm.lora_rank={lm.lora_rank}: training low-rank "
                 "updates needs both; set lm.train='lora' and a rank above 0, or neither")
  if lm.random and lm.dtype == "int8":
    wrong.append("lm.random=True with lm.dtype='int8': only weights of floating point are drawn; "
                 "use bfloat16 or float32")
  if lm.whole_words and lm.train != "all":
    wrong.append(f"lm.whole_words={lm.whole_words} with lm.train={lm.train!r}: their embeddings "
                 "start at zero and would stay zero; set lm.train='all'")
  if lm.train == "all" and lm.dtype not in ("auto", "float32"):
    wrong.append(f"lm.train='all' with lm.dtype={lm.dtype!r}: this dtype rounds small updates "
                 "away; use float32")
  return wrong


def _check_mesh(c, device_count: int) -> list[str]:
  wrong = []
  need = math.prod(c.mesh.values())
  if need != device_count:
    wrong.append(f"mesh={c.mesh.to_dict()} needs {need} devices, this job has {device_count}: make "
                 f"the product of its sizes {device_count}, e.g. --config.mesh.data={device_count}")
  ways = max(c.mesh.data * c.mesh.fsdp, 1)
  of_phase2 = ["phase2.rows"] * bool(mixture.said_tasks(c)) + ["phase2.head.rows"]
  for name in ("phase1.batch_size", "phase1.pair_batch_size", *of_phase2):
    if (rows := rules.get(c, name)) % ways:
      wrong.append(f"{name}={rows} does not divide over mesh.data * mesh.fsdp = {ways}: make it a "
                   f"multiple, e.g. --config.{name}={max(math.ceil(rows / ways), 1) * ways}")
  parts = max(c.phase2.microbatches, 1) * ways
  for name in of_phase2:
    rows = rules.get(c, name)
    if not rows % ways and rows % parts:
      wrong.append(f"{name}={rows} does not divide over phase2.microbatches="
                   f"{c.phase2.microbatches} on mesh.data * mesh.fsdp = {ways}: make it a multiple "
                   f"of {parts}, e.g. --config.{name}={math.ceil(rows / parts) * parts}")
  return wrong


def _check_qformer(c) -> list[str]:
  q = c.qformer
  wrong = [*rules.known("qformer.text_pool", q.text_pool, ("cls", "mean")),
           *rules.known("qformer.cross_init", q.cross_init, ("width", "bert")),
           *rules.known("qformer.cross_reads", q.cross_reads, ("own", "all")),
           *rules.known("qformer.query_pool", q.query_pool, ("mean", "nearest")),
           *rules.known("qformer.matmul_precision", q.matmul_precision, ("default", "bfloat16"))]
  if q.members > c.cf.members:
    wrong.append(f"qformer.members={q.members} is more than the cf.members={c.cf.members} that "
                 "stage cf keeps for each entity: raise cf.members")
  if q.num_heads > 0 and q.width % q.num_heads:
    wrong.append(f"qformer.width={q.width} does not divide over qformer.num_heads={q.num_heads}: "
                 "make it a multiple")
  return wrong


def _check_phase1(c) -> list[str]:
  p = c.phase1
  wrong = rules.known("phase1.contrastive", p.contrastive, ("infonce", "margin"))
  wrong += rules.known("phase1.candidates", p.candidates, ("batch", "catalogue"))
  if p.losses.get("cf", 0) > 0 and p.candidates != "catalogue":
    wrong.append(f"phase1.losses.cf={p.losses.cf} is a softmax over the catalogue: set "
                 "phase1.candidates to 'catalogue', or the loss to 0")
  wrong += rules.known("phase1.draw", p.draw, ("uniform", "popularity"))
  if p.negatives and p.candidates != "catalogue":
    wrong.append(f"phase1.negatives={p.negatives} with phase1.candidates={p.candidates!r}: they "
                 "are drawn from the catalogue; set phase1.candidates to 'catalogue', or the "
                 "negatives to 0")
  if p.candidates == "catalogue" and p.contrastive == "margin":
    wrong.append("phase1.candidates='catalogue' is a softmax, and phase1.contrastive='margin' has "
                 "none: set it to 'infonce'")
  if p.logq and p.contrastive == "margin":
    wrong.append("phase1.logq=True corrects a softmax, and phase1.contrastive='margin' has none: "
                 "set it to 'infonce', or phase1.logq to False")
  for name in p.losses:
    wrong += rules.known("phase1.losses", name, names.LOSSES)
  if not any(weight > 0 for weight in p.losses.values()):
    wrong.append(f"phase1.losses are all 0: give a weight to some of {names.LOSSES}")
  elif not any(weight > 0 for name, weight in p.losses.items() if name not in ("rec", "uni")):
    wrong.append("phase1.losses has only rec and uni above 0, which use the outputs that the other "
                 "losses make: give a weight to one of those, e.g. phase1.losses.itc")
  if p.batch_size == 1 and (p.losses.itc > 0 or p.losses.itm > 0):
    wrong.append("phase1.batch_size=1 leaves itc and itm without negatives: make it 2 or more")
  return wrong


def _check_phase2(c) -> list[str]:
  p = c.phase2
  wrong = []
  for name in p.compare:
    wrong += rules.known("phase2.compare", name, names.COMPARED)
  if p.head.weight > 0 and c.tasks.entities == "names":
    wrong.append("phase2.head.weight is above 0 with tasks.entities='names': the item head reads "
                 "soft tokens; set the weight to 0, or tasks.entities='slots'")
  if p.per_query and c.qformer.matmul_precision != "default":
    wrong.append(f"phase2.per_query=True with qformer.matmul_precision="
                 f"{c.qformer.matmul_precision!r}: the projections of single queries have no such "
                 "products; set one of them to its default")
  wrong += _check_head(p.head, c.qformer.num_queries)
  wrong += _check_distil(c)
  if p.rows_per_group > 0 and p.rows % p.rows_per_group:
    wrong.append(f"phase2.rows={p.rows} is no multiple of phase2.rows_per_group="
                 f"{p.rows_per_group}: examples are packed into groups of that many rows; change "
                 "one of them")
  if p.targets > p.length:
    wrong.append(f"phase2.targets={p.targets} is more than phase2.length={p.length}: a row cannot "
                 f"have more loss positions than tokens; make it {p.length} or less")
  if c.qformer.num_queries >= p.length:
    wrong.append(f"phase2.length={p.length} has no room for an entity of qformer.num_queries="
                 f"{c.qformer.num_queries} soft tokens and its prompt: make it longer, e.g. 256")
  return wrong


def _check_head(head, queries: int) -> list[str]:
  wrong = []
  if head.queries > queries:
    wrong.append(f"phase2.head.queries={head.queries} is more than qformer.num_queries={queries}, "
                 "the soft tokens of an entity: make it smaller; 0 takes all")
  if head.queries and not head.rows:
    wrong.append(f"phase2.head.queries={head.queries} with phase2.head.rows=0: rows with text "
                 "targets hold all soft tokens; set the rows above 0 or the queries to 0")
  if head.rows > 0 and not head.weight:
    wrong.append(f"phase2.head.rows={head.rows} with phase2.head.weight=0: there is no head to read"
                 " them; set the weight above 0 or the rows to 0")
  if head.layer >= 0 and not head.rows:
    wrong.append(f"phase2.head.layer={head.layer} with phase2.head.rows=0: the head then reads the "
                 "rows with text targets, after all layers; set the rows above 0 or the layer to "
                 "-1")
  if head.rows_per_group > 0 and head.rows % head.rows_per_group:
    wrong.append(f"phase2.head.rows={head.rows} is no multiple of phase2.head.rows_per_group="
                 f"{head.rows_per_group}: examples are packed into groups of that many rows; "
                 "change one of them")
  return wrong


def _check_distil(c) -> list[str]:
  head, wrong = c.phase2.head, []
  if not head.distil:
    return [f"phase2.head.{name}={head[name]} with phase2.head.distil=0: the scores from counts "
            "add to a teacher's, and there is none; set distil above 0 or this to 0"
            for name in ("distil_transitions", "distil_ease") if head[name]]
  if not head.weight:
    wrong.append(f"phase2.head.distil={head.distil} with phase2.head.weight=0: there is no head to "
                 "learn from a SASRec; set the weight above 0 or distil to 0")
  if head.negatives:
    wrong.append(f"phase2.head.distil={head.distil} compares softmaxes over the catalogue, and "
                 f"phase2.head.negatives={head.negatives} draws from it: set one of them to 0")
  if c.tasks.history > c.cf.sasrec.length:
    wrong.append(f"phase2.head.distil={head.distil}: a prompt shows tasks.history="
                 f"{c.tasks.history} items, more than the cf.sasrec.length={c.cf.sasrec.length} "
                 "that its teacher reads: raise cf.sasrec.length")
  return wrong


def _check_profile(c) -> list[str]:
  start, steps = c.profile.start, c.profile.steps
  wrong = []
  last = max(c.phase1.steps, c.phase2.steps)
  if steps > 0 and start > last:
    wrong.append(f"profile.start={start} is after the last step, {last}: nothing would be traced; "
                 "begin earlier, e.g. --config.profile.start=10")
  return wrong


def _check_plan(c) -> list[str]:
  p = c.plan
  if p.catalogue < p.entities:
    return []
  return [f"plan.catalogue={p.catalogue} is not less than plan.entities={p.entities}, which "
          f"includes the padding row: make it {p.entities - 1} or less, or raise plan.entities"]


def _check_eval(c) -> list[str]:
  e = c.eval
  wrong = []
  for name in e.baselines:
    wrong += rules.known("eval.baselines", name, names.BASELINES)
  for name in e.references:
    wrong += rules.known("eval.references", name, names.REFERENCES)
  if "shuffled_mlp" in e.references and "mlp" not in c.phase2.compare:
    wrong.append("eval.references has 'shuffled_mlp' and phase2.compare no 'mlp': the MLP is not "
                 "trained; add 'mlp' to phase2.compare")
  if c.phase2.head.rows > 0 and e.beam_users > 0:
    wrong.append(f"eval.beam_users={e.beam_users} with phase2.head.rows={c.phase2.head.rows}: "
                 "beams generate titles, and with these rows ranking tasks train no words; set one "
                 "of them to 0")
  if e.exact_users > e.beam_users:
    wrong.append(f"eval.exact_users={e.exact_users} is more than eval.beam_users={e.beam_users}: "
                 "the users ranked exactly are the first of those ranked by beam; set it to "
                 f"{e.beam_users} or less")
  if e.rank_compared and not e.beam_users:
    wrong.append("eval.rank_compared=True with eval.beam_users=0: it ranks the models of "
                 "phase2.compare by beam, for no users; set it to False, or eval.beam_users above "
                 "0")
  if 0 < e.users < e.beam_users:
    wrong.append(f"eval.beam_users={e.beam_users} is more than eval.users={e.users}: the users "
                 "ranked by beam are the first of all ranked users; set it to "
                 f"{e.users} or less")
  if (e.beam_users or e.prompt_users) and e.beam_width < (most := names.LARGEST_CUTOFF):
    wrong.append(f"eval.beam_width={e.beam_width} is less than {most}, so HR@{most} cannot be "
                 f"measured: make it {most} or more")
  return wrong
