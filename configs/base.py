"""Every field of a config, with the values that MovieLens-100K and SmolLM2-135M share.

The other files of this folder are leaves: they change a few of these and say what that gives. Any
field can be overridden on the command line, e.g. --config.phase2.steps=10.
"""
import ml_collections

from ilm_jax import elm


def get_config() -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.prng = "threefry2x32"          # what draws dropout and noise in training; "unsafe_rbg": the
                                   # chip's own generator, which TPUs compile and run faster, but
                                   # another mesh then draws other numbers
  c.tracker = "tensorboard"        # who shows the scalars of training, with commas between them:
                                   # also "wandb", "mlflow", "trackio"; "": none (metrics.jsonl
                                   # always has them)
  c.data = {
      "name": "ml-100k",           # docs/data_sets.md lists them; "table": files of your own
      "path": "",                  # folder with its files; "": fetched, where that is possible
      "columns": columns(),
      "domain": "",                # what prompts call items, and what is done with them: "movie",
                                   # "product", "book", "song", .. (ilm_jax/elm.py); "": what the
                                   # name says, "item" for a table
      "split": "loo_stable",       # also "loo_openp5", "global_time", "cold_items",
                                   # "cold_drawn": ilm_jax/data/splits.py
      "time_fractions": (0.8, 0.9),   # global_time: where validation and test begin in the log
      "cold_fraction": 0.1,        # cold_items: of the items, those that appear last in the log;
                                   # cold_drawn: drawn at random
      "k_core": 5,                 # users and items with fewer interactions are left out; 0: all
                                   # stay, items of the items file that nobody met, too
      "heldout_fraction": 0.2,     # items whose text is never trained on, for retrieval
  }
  c.cf = {
      "width": 64, "reg": 20.0, "alpha": 2.0, "iterations": 15,
      "solver": "cholesky",        # exact; "cg": cg_steps of conjugate gradients, for large widths
      "cg_steps": 3,
      "dtype": "float32",          # of the tables and what is gathered; also "bfloat16"
      "stream": False,             # histories from files, piece by piece: logs larger than memory
      "sequential": "transitions",  # where the vectors `sequential` come from: a factorisation of
                                   # what follows what (cf/transitions.py); "sasrec": its item
                                   # table, and its state at the end of a user's history
      "transition_width": 128,     # of those of transitions, even
      "transition_window": 3,      # how far behind an item others count as following it
      "sasrec": sasrec(),          # for sequential="sasrec" and phase2.head.distil
      "members": 0,                # entities kept beside each: an item's nearest by co-occurrence,
                                   # a user's last items; the Q-Former reads qformer.members of them
      "dialogs": 0,                # users that each training dialog of tasks.dialogs counts for:
                                   # they like what is named in it, but for what the user turns
                                   # down. Synthetic dialogs are not counted; 0: none is
  }
  c.vectors = ("behavioral",)      # what the Q-Former is given of an entity: of collaborative
                                   # filtering; also "semantic", of its text; "sequential", of
                                   # what follows what
  c.lm = {
      "asset": "smollm2-135m-instruct",  # or a path: a GGUF file, a Hugging Face or T5X folder
      "shape": "",                 # for stage plan alone, an architecture without weights:
                                   # "llama-2-7b", "palm-62b", "gemma-3-4b"
      "gin_file": "",              # of a T5X checkpoint: the architecture
      "tokenizer": "",             # likewise, where the model does not bring its own (T5X)
      "dtype": "auto",             # of the weights: "bfloat16" where the devices multiply in it
                                   # (and lm.train is not "all"), else "float32"; or "int8"
      "train": "none",             # "index_tokens": the added words alone; "lora": low-rank
                                   # updates of its kernels; "all": everything
      "lora_rank": 0,              # of these, 8 or so; 0: none
      "new_tokens": 0,             # words <index_0>, <index_1>, .. added to the vocabulary
      "index_only": False,         # nothing but these can be said: for next_item alone, in whose
                                   # rows every item of a history then is
                                   # (docs/reference/indices.md)
      "layers": 0,                 # of a decoder, so many are kept, from the first on; 0: all
      "remat": "dots",             # what a layer keeps for its backward pass; also "none", "full",
                                   # "weights" (models/remat.py)
      "attention": "auto",         # of a decoder: cuDNN's where device, dtype and shapes allow,
                                   # else "plain"; "xla": jax.nn's. The same up to rounding
      "random": False,             # a control: weights drawn anew, each of the size that it had
      "prefix_lm": False,          # a decoder whose prompt sees all of itself
      "whole_words": 0,            # P5's whole-word embeddings of a T5's prompt, so many; 0: none
      "chat_template": "auto",     # of conversations: that of the tokenizer's files, or plain text
                                   # where they have none; also "chatml", "llama3", "gemma",
                                   # "mistral", "none" (plain), or a file with a Jinja template
  }
  c.text_encoder = {"asset": "minilm-l6"}
  c.qformer = qformer()
  c.tasks = {
      "index": "title",            # how items are named: also "random", "sequential",
                                   # "collaborative", "semantic" (tasks/indexing.py)
      "index_words": False,        # codes in words of their own, <index_0>, .. (lm.new_tokens)
      "index_apart": False,        # a word is of one code's beginning alone, never shared
      "index_clusters": 20,        # collaborative: clusters of a group,
      "index_size": 500,           # and the largest group that is not clustered
      "index_levels": 3,           # semantic: numbers of a code,
      "index_codes": 256,          # and centres of a level
      "entities": "slots",         # "names": prompts name entities by their indices, as OpenP5
      "module": "",                # of tasks of your own; --tasks_module sets it
      "prompts": "",               # a prompt.txt of OpenP5's kind in place of our templates
      "history": 20,               # items of a user's history that a prompt shows at most
      "draws": 1,                  # templates drawn for each example
      "max_train_examples": 0,     # of each task; 0: all
      "prompt_targets": 1000,      # test targets also asked with every template; 0: all
      "mixture": {"sequential": 4.0, "straightforward": 1.0, "next_item": 0.0, "elm_title": 1.0,
                  "elm_genres": 1.0, "elm_year": 1.0,
                  **dict.fromkeys(elm.WRITTEN, 0.0),    # 0: left out
                  "conv_next": 0.0, "conv_critique": 0.0, "conv_explain": 0.0, "conv_elicit": 0.0,
                  "conv_profile": 0.0, "redial_recommend": 0.0, "redial_respond": 0.0},
      "dialogs": "",               # what these learn from, separated by commas: a file of JSON
                                   # lines, "synthetic" (stage targets), or "redial:PATH" for the
                                   # last two (docs/reference/dialogs.md)
      "dialog_tokens": 0,          # of an example at most, a slot counting one: a longer dialog is
                                   # cut between turns into several; 0: none is cut
  }
  c.targets = targets()
  c.dialogs = {                    # of the training part (stage targets): docs/reference/dialogs.md
      "count": 0,                  # to train, and a tenth more to validate; 0: none
      "turns": 5,                  # questions and items of a dialog at most; the last: its target
      "reword": False,             # the teacher of `targets` says each turn in other words
  }
  c.mesh = {"data": 1, "fsdp": 1, "tensor": 1}
  c.profile = {"start": 10, "steps": 0}  # of each phase, under jax's profiler: first step, how many
  c.phase1 = phase1()
  c.phase2 = phase2()
  c.plan = {                       # stage plan: what no data is there to say
      "phase": 2,                  # whose step; also 1
      "entities": 100_000,         # rows of the entity table,
      "catalogue": 0,              # of which so many are items; 0: all but the padding
      "text_vocabulary": 30522,    # words of the text encoder; MiniLM's
  }
  c.eval = {
      "users": 0,                  # test users whose next item is ranked; 0: all
      "beam_users": 943,           # of these, the first so many by constrained beam search; 0: none
      "exact_users": 20,           # of these, the first so many also by scoring every title
      "prompt_users": 0,           # users also ranked with every template, seen and unseen
      "rank_compared": False,      # beams of what phase2.compare names, not only of ILM
      "beam_width": 20,
      "baselines": ("popularity", "ials", "item_knn", "transition"),  # ranked beside; also "bpr",
                                   # "ease", "sasrec_full", "sasrec_sampled", "sasrec_bce",
                                   # "sasrec_gbce" (gSASRec), "esasrec"
      "bootstrap": 1000,           # resamples of the 95 % intervals
      "loss_examples": 500,        # test examples of each task for log perplexity; 0: all
      "consistency_examples": 100,  # generations of each ELM task compared by meaning; 0: all
      "compared_examples": 0,      # of these, the first so many also by what ILM is compared with
      "interpolations": 0,         # pairs of held-out items whose vectors' mean is described
      "references": (),            # in the tables of ELM's tasks: "title", the language model given
                                   # titles as text; "shuffled", ILM given another item's vector;
                                   # "shuffled_mlp", so with the MLP projector
      "generations": 10,           # examples shown in the report
      "batch_size": 16,            # rows of an evaluation batch
  }
  return c.lock()                  # a leaf's typo is an error


def sasrec() -> dict:
  """SASRec trained on the training interactions, by full softmax, in stage cf.

  Of what `benchmarks/baselines.py` has tried on MovieLens-100K, the best on validation.
  """
  return {
      "width": 64, "num_layers": 1, "num_heads": 1,
      "length": 50,                # items of a history that it reads, the last ones
      "dropout": 0.5,
      "batch_size": 64,            # users
      "learning_rate": 4e-3,
      "epochs": 40,                # at most
      "evaluate_every": 2,         # epochs from one NDCG@10 of the validation items to the next
      "patience": 3,               # so many without a better one end it, and the best is kept; 0:
                                   # all epochs, and the validation items are not looked at
  }


def columns() -> dict:
  """Where things stand in the files of data.name="table": docs/reference/data_fields.md.

  A file is .csv, .tsv, .dat, .txt, .jsonl (each also .gz) or .parquet in data.path. An empty name:
  not there. A text file without a header has numbers for names: "1" is its first column.
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
                                   # is heeded
  }


def qformer() -> dict:
  """MiniLM-L6's shape, so that the text tower starts as that sentence encoder."""
  return {
      "init": "minilm-l6",         # whose weights it starts from; a path: BLIP-2's; "": random
      "num_layers": 6,
      "width": 384,
      "num_heads": 12,
      "mlp_width": 1536,
      "num_queries": 4,            # Q: soft tokens an entity
      "cross_every": 2,            # layers from one cross-attention to the next
      "cross_init": "bert",        # start of its value and output kernels: "width", the vector at
                                   # full size; "bert": std 0.02, as in BLIP-2
      "remat": False,              # compute each group of layers again in the backward pass
      "kv_tokens": 1,              # key/value tokens made from each named vector
      "kv_width": 0,               # of these tokens; 0: width
      "reader_hidden": 0,          # hidden layer before them, times the vector's width; 0: none
      "members": 0,                # a set beside the vector: an item's neighbours, a user's last
                                   # items, so many of the table's (cf.members)
      "proj_width": 384,           # of the contrastive space
      "user_projection": False,    # users enter it by a layer of their own when they look for items
      "proj_init": "identity",     # of the text projection; "normal": random, any proj_width
      "text_pool": "mean",         # or "cls"
      "max_text": 24,              # longer texts are cut, [SEP] kept
      "dropout": 0.2,              # in phase 1
      "text_dropout": 0.7,         # phase 1: of the pooled text; a thousand texts are few
      "temperature": 0.15,         # of the contrastive losses: learned from here up;
      "min_temperature": 0.15,     # a start at its floor stayed there when measured
      "vector_noise": 0.5,         # phase 1: std of the noise on the normed vector, whose own is 1
      "vector_dropout": 0.0,       # phase 1: probability that an item is read by its text alone
                                   # (needs vectors "semantic"); > 0 to rank items nobody has met
  }


def phase1() -> dict:
  return {
      "steps": 800,
      "batch_size": 64,            # items with their texts
      "pair_batch_size": 64,       # item-item pairs, and as many user-item pairs
      "losses": {"itc": 1.0, "itm": 0.5, "itg": 0.5, "ii": 0.5, "ui": 0.5,
                 "cf": 0.0,        # the scores of collaborative filtering, handed on
                 "rec": 0.0, "uni": 0.0},     # what is kept of the vectors, and how evenly it lies
      "contrastive": "infonce",    # of ii and ui; or "margin"
      "candidates": "batch",       # of ii and ui: whom a pair is told from; or "catalogue": all
                                   # items, by softmax, which then needs no correction
      "negatives": 0,              # of the catalogue, items drawn for a step, the same for the
                                   # whole batch; 0: all of it
      "draw": "uniform",           # how; "popularity": by how often they are met in training
      "cf_temperature": 0.1,       # cf: of those scores, before a softmax over the catalogue
      "logq": False,               # ui: correct for how often its in-batch negatives are drawn
      "label_smoothing": 0.1,
      "text_scale": 0.1,           # learning rate of the pretrained text tower, as a fraction
      **optimizer(learning_rate=5e-4, warmup=50),
  }


def phase2() -> dict:
  return {
      "init_from": "",             # workdir of a phase 1; "": this run's own
      "compare": ("rand",),        # also train, with the same steps: ILM-rand (an untrained
                                   # Q-Former); "mlp": a multilayer perceptron in its place;
                                   # "blind": every vector taken away
      "steps": 2000,
      "rows": 8,
      "microbatches": 1,           # parts of the rows whose gradients are added up in turn: less
                                   # memory, the same step
      "length": 256,               # tokens in a row, soft tokens included
      "slots": 48,                 # entities in a row
      "targets": 64,               # loss positions in a row
      "examples_per_group": 8,     # packed together into
      "rows_per_group": 2,         # so many rows
      "dropout": 0.1,              # of the Q-Former in this phase
      "vector_noise": 0.3,         # likewise
      "vector_dropout": 0.0,       # likewise; of the MLP projector too
      "soft_token_rms": 0.0,       # size of soft tokens at the start; 0: of the model's embeddings
      "qformer_scale": 1.0,        # learning rate of the Q-Former, as a fraction; 0: none
      "mlp_scale": 1.0,            # of all of the MLP projector: it has many more inputs
      "spread": False,             # start behind a whitening of the Q-Former's outputs
      "skip": False,               # a gated Q-Former beside an MLP (models/ilm.py), no whitening
      "per_query": False,          # a projection of its own for every query
      "soft_norm": False,          # soft tokens are normed, their size learned
      "equal_head": False,         # the head reads as many features of ILM as of the MLP projector
      "head": {                    # scores items by a dot product with what the model would say,
          "weight": 0.0,           # of its loss beside the words'; 0: there is none
          "width": 128,
          "negatives": 0,          # items drawn for a step's softmax; 0: the whole catalogue
          "rows": 0,               # of a batch, for ranking tasks alone: they say nothing and are
                                   # packed by the following; 0: they stand among the other rows
          "layer": -1,             # these rows run so many layers; -1: all; 0: none
          "queries": 0,            # soft tokens that an entity has in them; 0: as elsewhere
          "distil": 0.0,           # weight, beside the head's own loss, of its divergence from a
                                   # SASRec that reads the same history (cf.sasrec); 0: off
          "distil_temperature": 1.0,   # of both softmaxes in it
          "distil_transitions": 0.0,   # weight of a transition graph's log probabilities,
          "distil_ease": 0.0,      # and of EASE^R's scores, in the SASRec's logits
          "length": 64, "slots": 52, "examples_per_group": 8, "rows_per_group": 8,
      },
      **optimizer(learning_rate=1e-3, warmup=50),
  }


def targets() -> dict:
  """Who writes the answers of ELM's 24 tasks and of the user profiles, and words dialogs."""
  return {
      "tasks": (),                 # (): those with a rate in tasks.mixture
      "max_items": 0,              # training items asked about in each task; 0: all
      "max_heldout": 0,            # held-out items, the test split; 0: all
      "teacher": "lm",             # "endpoint": an OpenAI-compatible server; "file": yours
      "model": "",                 # lm: a name or path, "": lm.asset; endpoint: the model's name
      "chat": "auto",              # lm: around a request; also "chatml", "gemma", "none"
      "endpoint": "",              # e.g. "http://localhost:8000/v1"
      "api_key_env": "",           # variable of the environment with the key; "": none is sent
      "timeout": 60.0,             # seconds without an answer,
      "retries": 5,                # after which, and after failures, it is asked again,
      "backoff": 1.0,              # after so many seconds, each time twice as many
      "file": "",                  # JSON lines: docs/text_from_vectors.md
      "max_tokens": 96,            # of an answer
      "temperature": 0.0,          # 0: the likeliest token each time
      "top_p": 1.0,
      "batch_size": 16,            # requests written, and kept, together
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
