"""Every field of a config, with the values that MovieLens-100K and SmolLM2-135M share.

The other files of this folder change a few of these values and say what to expect. Any field can be
overridden on the command line, e.g. --config.phase2.steps=10.
"""
import ml_collections

from ilm_jax import elm


def get_config() -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.prng = "threefry2x32"          # generator of dropout and noise in training; "unsafe_rbg": the
                                   # chip's own, which TPUs compile and run faster, but another mesh
                                   # then draws other numbers
  c.tracker = "tensorboard"        # trackers of the scalars of training, separated by commas: also
                                   # "wandb", "mlflow", "trackio"; "": none (metrics.jsonl always
                                   # has them)
  c.data = {
      "name": "ml-100k",           # docs/data_sets.md lists them; "table": files of your own
      "path": "",                  # folder with its files; "": fetched, if that is possible
      "columns": columns(),
      "domain": "",                # nouns and verbs of prompts: "movie", "product", "book", "song",
                                   # .. (ilm_jax/elm.py); "": by `name`; "item" for a table
      "split": "loo_stable",       # also "loo_last", "loo_openp5", "global_time", "cold_items",
                                   # "cold_drawn": ilm_jax/data/splits.py
      "time_fractions": (0.8, 0.9),   # global_time: where validation and test begin in the log
      "cold_fraction": 0.1,        # share of items that are cold; cold_items: the last to appear in
                                   # the log; cold_drawn: drawn at random
      "k_core": 5,                 # users and items with fewer interactions are left out; 0: keeps
                                   # all, also items of the items file without interactions
      "dialog_items": False,       # films of ReDial's training dialogs (tasks.dialogs) are items,
                                   # too, where the log has them too rarely or not at all
      "heldout_fraction": 0.2,     # items whose text is never trained on, for retrieval
  }
  c.cf = {
      "width": 64, "reg": 20.0, "alpha": 2.0, "iterations": 15,
      "solver": "cholesky",        # exact; "cg": cg_steps of conjugate gradients, for large widths
      "cg_steps": 3,
      "dtype": "float32",          # of the tables and of gathered rows; also "bfloat16"
      "stream": False,             # histories from files, piece by piece: logs larger than memory
      "sequential": "transitions",  # source of the vectors `sequential`: a factorisation of what
                                   # follows what (cf/transitions.py); "sasrec": SASRec's item
                                   # table, and its state at the end of a user's history
      "transition_width": 128,     # of the vectors from transitions; an even number
      "transition_window": 3,      # so many items after an item count as following it
      "sasrec": sasrec(),          # for sequential="sasrec" and phase2.head.distil
      "members": 0,                # related entities stored for each: an item's nearest by
                                   # co-occurrence, a user's last items; the Q-Former reads
                                   # qformer.members of them
      "dialogs": 0,                # each training dialog of tasks.dialogs counts as so many users,
                                   # who like what is named in it, except items that the user turns
                                   # down. Synthetic dialogs never count; 0: none counts
  }
  c.vectors = ("behavioral",)      # an entity's vectors that the Q-Former reads: from collaborative
                                   # filtering; also "semantic", from its text; "sequential", from
                                   # what follows what
  c.lm = {
      "asset": "smollm2-135m-instruct",  # or a path: a GGUF file, a Hugging Face or T5X folder
      "shape": "",                 # for stage plan only, an architecture without weights:
                                   # "llama-2-7b", "palm-62b", "gemma-3-4b"
      "gin_file": "",              # of a T5X checkpoint: the architecture
      "tokenizer": "",             # a file, if the model has none of its own (T5X)
      "dtype": "auto",             # of the weights: "bfloat16" if the devices multiply in it (and
                                   # lm.train is not "all"), else "float32"; or "int8"
      "train": "none",             # "index_tokens": the added words only; "lora": low-rank updates
                                   # of its kernels; "all": everything
      "lora_rank": 0,              # of these updates, 8 or so; 0: none
      "new_tokens": 0,             # words <index_0>, <index_1>, .. added to the vocabulary
      "index_only": False,         # the model can predict only these words: for next_item alone,
                                   # which then learns every item of a history
                                   # (docs/reference/indices.md)
      "layers": 0,                 # a decoder keeps only its first so many layers; 0: all
      "remat": "dots",             # what a layer keeps for its backward pass; also "none", "full",
                                   # "weights" (models/remat.py)
      "attention": "auto",         # of a decoder: cuDNN's on a GPU and, in training, Pallas' on a
                                   # TPU, where shapes and masks allow it, else "plain"; "xla":
                                   # jax.nn's. Results equal up to rounding
      "random": False,             # a control: weights drawn anew, each at its original scale
      "prefix_lm": False,          # a decoder that attends within the prompt in both directions
      "whole_words": 0,            # size of P5's whole-word embeddings of a T5's prompt; 0: none
      "chat_template": "auto",     # of conversations: that of the tokenizer's files, or plain text
                                   # if they have none; also "chatml", "llama3", "gemma",
                                   # "mistral", "none" (plain), or a file with a Jinja template
  }
  c.text_encoder = {"asset": "minilm-l6"}
  c.qformer = qformer()
  c.tasks = {
      "index": "title",            # how items are named: also "random", "sequential",
                                   # "collaborative", "semantic" (tasks/indexing.py)
      "index_words": False,        # codes in added words, <index_0>, .. (lm.new_tokens)
      "index_apart": False,        # each word belongs to one prefix of codes only
      "index_clusters": 20,        # collaborative: clusters of a group,
      "index_size": 500,           # and the largest group that is not clustered
      "index_levels": 3,           # semantic: numbers of a code,
      "index_codes": 256,          # and centres of a level
      "entities": "slots",         # "names": prompts name entities by their indices, as in OpenP5
      "module": "",                # of tasks of your own; --tasks_module sets it
      "prompts": "",               # a prompt.txt in OpenP5's format instead of our templates
      "history": 20,               # items of a user's history that a prompt shows at most
      "draws": 1,                  # templates drawn for each example
      "max_train_examples": 0,     # of each task; 0: all
      "eval_targets": 0,           # validation and test targets of a ranking task that are
                                   # prepared, the same for all three tasks; 0: all
      "prompt_targets": 1000,      # test targets also prepared with every template; 0: all
      "mixture": {"sequential": 4.0, "straightforward": 1.0, "next_item": 0.0, "elm_title": 1.0,
                  "elm_genres": 1.0, "elm_year": 1.0,
                  **dict.fromkeys(elm.WRITTEN, 0.0),    # 0: left out
                  "conv_next": 0.0, "conv_critique": 0.0, "conv_explain": 0.0, "conv_elicit": 0.0,
                  "conv_profile": 0.0, "redial_recommend": 0.0, "redial_respond": 0.0},
      "dialogs": "",               # sources of the conv_ and redial_ tasks, separated by commas: a
                                   # file of JSON lines, "synthetic" (stage targets), "redial:PATH"
                                   # (for redial_; docs/reference/dialogs.md)
      "dialog_tokens": 0,          # longest example; a slot counts as one token. A longer dialog is
                                   # cut between turns into several; 0: none is cut
  }
  c.targets = targets()
  c.dialogs = {                    # of the training part (stage targets): docs/reference/dialogs.md
      "count": 0,                  # dialogs to train on, and a tenth more to validate; 0: none
      "turns": 5,                  # questions and items of a dialog at most; the last is its target
      "reword": False,             # the teacher of `targets` rewords each turn
  }
  c.mesh = {"data": 1, "fsdp": 1, "tensor": 1}
  c.profile = {"start": 10, "steps": 0}  # steps of each phase under jax's profiler: first, how many
  c.phase1 = phase1()
  c.phase2 = phase2()
  c.plan = {                       # stage plan: sizes that otherwise come from data
      "phase": 2,                  # the phase to plan; also 1
      "entities": 100_000,         # rows of the entity table,
      "catalogue": 0,              # of which so many are items; 0: all but the padding
      "text_vocabulary": 30522,    # words of the text encoder; MiniLM's
  }
  c.eval = {
      "users": 0,                  # test users whose next item is ranked; 0: all
      "beam_users": 943,           # of these, the first so many by constrained beam search; 0: none
      "exact_users": 20,           # of these, the first so many also by scoring every title
      "prompt_users": 0,           # users also ranked with every template, seen and unseen
      "rank_compared": False,      # beam search also for the models of phase2.compare
      "beam_width": 20,
      "baselines": ("popularity", "ials", "item_knn", "transition"),  # also ranked; more: "bpr",
                                   # "ease", "sasrec_full", "sasrec_sampled", "sasrec_bce",
                                   # "sasrec_gbce" (gSASRec), "esasrec"
      "bootstrap": 1000,           # resamples of the 95 % intervals
      "loss_examples": 500,        # test examples of each task for log perplexity; 0: all
      "consistency_examples": 100,  # generations of each ELM task compared by meaning; 0: all
      "compared_examples": 0,      # of these, so many also by the models of phase2.compare
      "interpolations": 0,         # pairs of held-out items; the mean of two vectors is described
      "references": (),            # in the tables of ELM's tasks: "title", the language model reads
                                   # titles as text; "shuffled", ILM reads another item's vector;
                                   # "shuffled_mlp", the MLP projector does
      "generations": 10,           # examples shown in the report
      "batch_size": 16,            # rows of an evaluation batch
  }
  return c.lock()                  # a leaf's typo is an error


def sasrec() -> dict:
  """SASRec trained on the training interactions, by full softmax, in stage cf.

  The best setting on validation of those that `benchmarks/baselines.py` tried on MovieLens-100K.
  """
  return {
      "width": 64, "num_layers": 1, "num_heads": 1,
      "length": 50,                # it reads the last so many items of a history
      "dropout": 0.5,
      "batch_size": 64,            # users
      "learning_rate": 4e-3,
      "epochs": 40,                # at most
      "evaluate_every": 2,         # epochs between two measurements of NDCG@10 on validation items
      "patience": 3,               # so many measurements without a better one end it, and the best
                                   # epoch is kept; 0: all epochs, validation items are not used
  }


def columns() -> dict:
  """The columns of the files of data.name="table": docs/reference/data_fields.md.

  A file is .csv, .tsv, .dat, .txt, .jsonl (each also .gz) or .parquet in data.path. An empty name:
  there is no such column. Without a header, columns have numbers as names: "1" is the first.
  """
  return {
      "interactions_file": "interactions.csv",
      "user": "user_id",
      "item": "item_id",
      "time": "",                  # numbers, or ISO 8601; "": the order of the file
      "time_unit": "s",            # of numbers; also "ms", "us", "ns"
      "value": "",                 # a rating or a count; "": 1
      "items_file": "",            # "": items are called by their id
      "id": "item_id",             # of the items file, as are the following
      "title": "title",
      "year": "",
      "genres": "",
      "separator": "|",            # between genres
      "delimiter": "",             # between the cells of a text file, e.g. ";" or "::"; "": a comma
                                   # in .csv, a tab in .tsv
      "items_delimiter": "",       # of the items file; "": as of the other
      "encoding": "utf-8",         # of the text files, e.g. "latin-1"; a byte order mark of UTF-16
                                   # is obeyed
  }


def qformer() -> dict:
  """MiniLM-L6's shape, so that the text tower starts as that sentence encoder."""
  return {
      "init": "minilm-l6",         # weights to start from; a path: BLIP-2's; "": random
      "num_layers": 6,
      "width": 384,
      "num_heads": 12,
      "mlp_width": 1536,
      "num_queries": 4,            # Q: soft tokens an entity
      "cross_every": 1,            # layers from one cross-attention to the next; 2 in BLIP-2
      "cross_init": "width",       # start of its value and output kernels: "width", std width^-.5,
                                   # which keeps the vector's size; "bert": std 0.02, as in BLIP-2
      "remat": False,              # compute each group of layers again in the backward pass
      "matmul_precision": "default",  # trained layers; "bfloat16": rounded factors, float32 sums,
                                   # as on TPUs by default; faster on CPUs with AVX512-BF16
      "cross_reads": "own",        # every query reads its own tokens of a vector; "all": one set
                                   # for all queries, as in BLIP-2
      "kv_tokens": 1,              # key/value tokens made from each named vector, of a set
      "kv_width": 0,               # of these tokens; 0: width
      "reader_hidden": 0,          # width of a hidden layer before them, in vector widths; 0: none
      "members": 0,                # related entities read with the vector: an item's neighbours, a
                                   # user's last items; so many of those stored (cf.members)
      "proj_width": 384,           # of the contrastive space
      "user_projection": False,    # users enter it through a separate layer when items are ranked
      "proj_init": "identity",     # of the text projection; "normal": random, any proj_width
      "query_pool": "nearest",     # an entity in the contrastive space: all its queries, of which
                                   # the nearest counts; "mean": their mean
      "text_pool": "mean",         # or "cls"
      "max_text": 24,              # longer texts are cut, [SEP] kept
      "dropout": 0.2,              # in phase 1
      "text_dropout": 0.7,         # phase 1: of the pooled text, because a thousand texts are few
      "temperature": 0.15,         # of the contrastive losses: learned from here up;
      "min_temperature": 0.15,     # a start at its floor stayed there when measured
      "vector_noise": 0.5,         # phase 1: std of the noise on vectors, whose own std is 1
      "vector_dropout": 0.0,       # phase 1: probability that an item is read by its text alone
                                   # (needs vectors "semantic"); > 0 to rank items without history
  }


def phase1() -> dict:
  return {
      "steps": 800,
      "batch_size": 64,            # items with their texts
      "pair_batch_size": 64,       # item-item pairs, and as many user-item pairs
      "losses": {"itc": 1.0, "itm": 0.5, "itg": 0.5, "ii": 0.5, "ui": 0.5,
                 "cf": 0.0,        # distils the scores of collaborative filtering
                 "rec": 0.0, "uni": 0.0},     # reconstruction of the vectors, uniformity of outputs
      "contrastive": "infonce",    # of ii and ui; or "margin"
      "candidates": "batch",       # of ii and ui: negatives from the batch; or "catalogue": a
                                   # softmax over all items, which needs no correction (logq)
      "negatives": 0,              # items of the catalogue drawn per step, the same for the whole
                                   # batch; 0: all of it
      "draw": "uniform",           # how; "popularity": by their number of training interactions
      "cf_temperature": 0.1,       # cf: of those scores, before a softmax over the catalogue
      "logq": False,               # ui: correct for how often its in-batch negatives are drawn
      "label_smoothing": 0.1,
      "text_scale": 0.1,           # learning rate of text tower and all attention, as a fraction
      **optimizer(learning_rate=5e-4, warmup=50),
  }


def phase2() -> dict:
  return {
      "init_from": "",             # workdir of a phase 1; "": this run's own
      "compare": ("rand",),        # other models to train, with the same steps: ILM-rand (without
                                   # phase 1); "mlp": a multilayer perceptron, no Q-Former;
                                   # "blind": every vector taken away
      "steps": 2000,
      "rows": 8,
      "microbatches": 1,           # parts of the rows, computed in turn, whose gradients are added:
                                   # less memory, the same step
      "length": 256,               # tokens in a row, soft tokens included
      "slots": 48,                 # entities in a row
      "targets": 64,               # loss positions in a row
      "examples_per_group": 8,     # packed together into rows_per_group rows
      "rows_per_group": 2,
      "dropout": 0.1,              # of the Q-Former in this phase
      "vector_noise": 0.3,         # in this phase
      "vector_dropout": 0.0,       # in this phase; for the MLP projector, too
      "soft_token_rms": 0.0,       # size of soft tokens at the start; 0: of the model's embeddings
      "qformer_scale": 1.0,        # learning rate of the Q-Former, as a fraction; 0: none
      "mlp_scale": 1.0,            # likewise of an MLP, whose layers have more inputs: the whole
                                   # MLP projector, and the one in ILM (skip)
      "spread": False,             # start behind a whitening of the Q-Former's outputs
      "skip": True,                # an MLP plus a Q-Former (models/ilm.py); False: no MLP
      "per_query": False,          # a separate projection for every query
      "soft_norm": False,          # soft tokens are normed, and their size is learned
      "equal_head": False,         # the head reads as many features of ILM as of the MLP projector
      "head": {                    # scores items by a dot product with the model's hidden state
          "weight": 0.0,           # of its loss, relative to that of words; 0: there is no head
          "width": 128,
          "negatives": 0,          # items drawn for a step's softmax; 0: the whole catalogue
          "rows": 0,               # rows of a batch for ranking tasks only: they predict no words
                                   # and are packed by the fields below; 0: no separate rows
          "layer": -1,             # these rows run so many layers; -1: all; 0: none
          "queries": 0,            # soft tokens of an entity in these rows; 0: as elsewhere
          "factors": 0.0,          # ranking: weight of the factorisation's scores, which are added
                                   # to the head's and trained by nothing; 1: as much as these
          "distil": 0.0,           # weight, relative to the head's own loss, of its divergence from
                                   # a SASRec that reads the same history (cf.sasrec); 0: off
          "distil_temperature": 1.0,   # of both softmaxes in it
          "distil_transitions": 0.0,   # weight of a transition graph's log probabilities,
          "distil_ease": 0.0,      # and of EASE^R's scores, in the SASRec's logits
          "length": 64, "slots": 52, "examples_per_group": 8, "rows_per_group": 8,
      },
      **optimizer(learning_rate=1e-3, warmup=50),
  }


def targets() -> dict:
  """The teacher, which writes the answers of ELM's 24 tasks and user profiles, and rewords dialogs.
  """
  return {
      "tasks": (),                 # (): those with a rate in tasks.mixture
      "max_items": 0,              # training items of each task; 0: all
      "max_heldout": 0,            # held-out items of each task, the test split; 0: all
      "teacher": "lm",             # "endpoint": an OpenAI-compatible server; "file": yours
      "model": "",                 # lm: a name or path, "": lm.asset; endpoint: the model's name
      "chat": "auto",              # lm: format of a request; also "chatml", "gemma", "none"
      "endpoint": "",              # e.g. "http://localhost:8000/v1"
      "api_key_env": "",           # environment variable with the key; "": none is sent
      "timeout": 60.0,             # seconds without data from the server
      "retries": 5,                # after a timeout or a failure
      "backoff": 1.0,              # seconds before the first retry, doubled for each further one
      "file": "",                  # JSON lines: docs/text_from_vectors.md
      "max_tokens": 96,            # of an answer
      "temperature": 0.0,          # 0: always the most probable token
      "top_p": 1.0,
      "batch_size": 16,            # requests that are answered and saved together
  }


def optimizer(*, learning_rate: float, warmup: int) -> dict:
  """AdamW with warm-up and a cosine down to `final_fraction` of the peak."""
  return {
      "learning_rate": learning_rate,
      "warmup": warmup,
      "final_fraction": 0.05,
      "weight_decay": 0.01,
      "b2": 0.98,
      "clip": 1.0,                 # global norm of the gradient
      "log_every": 20,
      "checkpoint_every": 200,
      "keep_checkpoints": 2,
  }
