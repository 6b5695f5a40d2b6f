"""The data sets by name: their readers, their files, their published counts.

`find` turns `config.data` into a `Found`: existing files and a reader. Imports no TensorFlow.
"""
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from etils import epath

from ilm_jax import errors, files
from ilm_jax.assets import pinned
from ilm_jax.tasks.datasets import (
  amazon_files,
  lastfm_files,
  lines,
  movielens_files,
  openp5_files,
  table_files,
  taobao_files,
  yelp_files,
)

# Increase it when a reader's output for the same files changes: data sets are then read again.
_READERS = 2


class Counts(NamedTuple):
  users: int
  items: int
  interactions: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
  """Facts about a data set that need no files."""
  read_log: Callable            # (paths) -> lines.Events
  read_items: Callable          # (paths) -> interactions.Items
  layouts: tuple[tuple[str, ...], ...]   # file names or patterns; the log's first, the items' last
  homepage: str = ""
  citation: str = ""
  asset: str = ""               # the asset with these files, if they can be fetched
  timed: bool = True
  partial: bool = False         # some items of the log lack a description: their id stands in
  takes_columns: bool = False   # the readers need config.data.columns
  # Log files whose parts can be read separately: name -> whether the first line names the columns.
  in_parts: Mapping[str, bool] = dataclasses.field(default_factory=dict)
  events: int = 0               # published length of the log; 0: differs between releases
  cores: Mapping[int, Counts] = dataclasses.field(default_factory=dict)   # published k-cores


@dataclasses.dataclass(frozen=True)
class Found:
  """A data set and its files."""
  name: str
  about: DataSet
  paths: dict
  fingerprint: str              # of the files, and of what decides how they are read
  read_log: Callable            # () -> lines.Events
  read_items: Callable          # () -> interactions.Items

  def log_readers(self, size: int) -> list[Callable]:
    """Functions like `read_log`, which together give the log, in order.

    One for each `size` bytes if parts can be read separately, else only `read_log`.
    """
    name = next(iter(self.paths), "")
    if name not in self.about.in_parts:
      return [self.read_log]
    parts = lines.parts(epath.Path(self.paths[name]), self.about.in_parts[name], size)
    return [functools.partial(self.about.read_log, {**self.paths, name: part}) for part in parts]

  @property
  def timed(self) -> bool:
    return self.about.timed


def find(data) -> Found:
  """The data set of a config's `data`.

  Args:
    data: name, path and columns; see configs/base.py.

  Raises:
    UserError: files are absent, or several match the same pattern.
  """
  about = DATASETS[data.name]
  if data.name == "table":
    about = dataclasses.replace(about, timed=bool(data.columns.time))
  if data.path:
    paths = _in_folder(data, about)
    fingerprint = _fingerprint(paths, _said(data.columns) if about.takes_columns else {})
  elif about.asset:
    paths, fingerprint = pinned.fetch(about.asset), pinned.fingerprint(about.asset)
  else:
    raise errors.UserError(f"data.path is empty: fetch {data.name} from {about.homepage} and give "
                           f"the folder with {pinned.either(about.layouts)}")
  options = {"columns": data.columns} if about.takes_columns else {}
  log_options = options if data.name == "table" else {}
  return Found(data.name, about, paths, fingerprint,
               functools.partial(about.read_log, paths, **log_options),
               functools.partial(about.read_items, paths, **options))


def _in_folder(data, about: DataSet) -> dict:
  """{file name or pattern: path} of the first layout that the folder holds."""
  folder = epath.Path(data.path).expanduser()
  if about.takes_columns:
    names = (data.columns.interactions_file if data.name == "table" else openp5_files.SEQUENCES,
             data.columns.items_file)
    about = dataclasses.replace(about, layouts=(tuple(filter(None, names)),))
  for layout in about.layouts:
    matches = {pattern: sorted(folder.glob(pattern)) if "*" in pattern else
               [path for path in (folder / pattern,) if path.exists()] for pattern in layout}
    if several := next((paths for paths in matches.values() if len(paths) > 1), None):
      raise errors.UserError(f"{folder} holds {several[0].name} and {several[1].name}: give a "
                             "folder with the files of one category")
    if all(matches.values()):
      return {pattern: paths[0] for pattern, paths in matches.items()}
  raise errors.UserError(f"{folder} does not hold the files of {data.name}: expected "
                         f"{pinned.either(about.layouts)}"
                         f"{f', from {about.homepage}' * bool(about.homepage)}")


def _said(columns) -> dict:
  """The mapping of the columns, without newer fields that have their old behaviour."""
  later = {"delimiter": "", "items_delimiter": "", "encoding": "utf-8"}
  return {name: value for name, value in columns.items() if later.get(name) != value}


def _fingerprint(paths: dict, columns: dict) -> str:
  """sha256 over the bytes of the files, the mapping of the columns and how files are read."""
  digest = hashlib.sha256(repr((_READERS, sorted(columns.items()))).encode())
  for path in paths.values():
    with files.reading(path) as file:
      digest.update(hashlib.file_digest(file, "sha256").digest())
  return digest.hexdigest()


_GROUPLENS = "https://grouplens.org/datasets/movielens/"
_MCAULEY = "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon"
_100K = (("u.data", "u.item"), ("ml-100k.inter", "ml-100k.item"))
_DAT, _CSV = (("ratings.dat", "movies.dat"),), (("ratings.csv", "movies.csv"),)


def _movielens(layouts, encoding: str = "utf-8", **known) -> DataSet:
  return DataSet(
      read_log=movielens_files.read_log, layouts=layouts, homepage=_GROUPLENS,
      read_items=functools.partial(movielens_files.read_items, encoding=encoding),
      in_parts={"u.data": False, "ml-100k.inter": True, "ratings.dat": False, "ratings.csv": True},
      citation="Harper and Konstan: The MovieLens Datasets: History and Context. ACM TiiS 5(4), "
               "2015.", **known)


def _amazon_2014(category: str = "*", *core: int) -> DataSet:
  """A category's 5-core with published counts, or any category."""
  return DataSet(
      read_log=amazon_files.read_log, partial=True, homepage=f"{_MCAULEY}/links.html",
      read_items=functools.partial(amazon_files.read_items, year=2014),
      layouts=((f"reviews_{category}_5.json.gz", f"meta_{category}.json.gz"),),
      citation="McAuley, Targett, Shi and van den Hengel: Image-based Recommendations on Styles "
               "and Substitutes. SIGIR 2015.",
      cores={5: Counts(*core)} if core else {}, events=core[2] if core else 0)


DATASETS = {
    "ml-100k": _movielens(_100K, asset="ml-100k", events=100_000,
                          cores={5: Counts(943, 1349, 99_287)}),
    "ml-1m": _movielens(_DAT, "iso-8859-1", events=1_000_209,
                        cores={5: Counts(6040, 3416, 999_611)}),
    "ml-10m": _movielens(_DAT, events=10_000_054),
    "ml-20m": _movielens(_CSV, events=20_000_263, cores={5: Counts(138_493, 18_345, 19_984_024)}),
    "ml-25m": _movielens(_CSV, events=25_000_095),
    "ml-32m": _movielens(_CSV, events=32_000_204),
    "ml-latest-small": _movielens(_CSV),
    "amazon-2014": _amazon_2014(),
    "amazon-2014-beauty": _amazon_2014("Beauty", 22_363, 12_101, 198_502),
    "amazon-2014-cds": _amazon_2014("CDs_and_Vinyl", 75_258, 64_443, 1_097_592),
    "amazon-2014-clothing": _amazon_2014("Clothing_Shoes_and_Jewelry", 39_387, 23_033, 278_677),
    "amazon-2014-electronics": _amazon_2014("Electronics", 192_403, 63_001, 1_689_188),
    "amazon-2014-movies": _amazon_2014("Movies_and_TV", 123_960, 50_052, 1_697_533),
    "amazon-2014-toys": _amazon_2014("Toys_and_Games", 19_412, 11_924, 167_597),
    "amazon-2018": DataSet(
        read_log=amazon_files.read_log, partial=True, homepage=f"{_MCAULEY}_v2/",
        read_items=functools.partial(amazon_files.read_items, year=2018),
        layouts=(("*_5.json.gz", "meta_*.json.gz"),),
        citation="Ni, Li and McAuley: Justifying Recommendations using Distantly-Labeled Reviews "
                 "and Fine-Grained Aspects. EMNLP 2019."),
    "amazon-2023": DataSet(
        read_log=amazon_files.read_log_2023, partial=True,
        read_items=functools.partial(amazon_files.read_items, year=2023),
        layouts=(("*.csv.gz", "meta_*.jsonl.gz"), ("*.csv", "meta_*.jsonl.gz"),
                 ("[!m]*.jsonl.gz", "meta_*.jsonl.gz")),
        homepage="https://amazon-reviews-2023.github.io/",
        citation="Hou et al.: Bridging Language and Items for Retrieval and Recommendation. 2024."),
    "lastfm": DataSet(
        read_log=lastfm_files.read_log, read_items=lastfm_files.read_items, timed=False,
        layouts=(("user_artists.dat", "artists.dat"),), events=92_834,
        homepage="https://grouplens.org/datasets/hetrec-2011/",
        citation="Cantador, Brusilovsky and Kuflik: HetRec 2011. RecSys 2011."),
    "yelp": DataSet(
        read_log=yelp_files.read_log, read_items=yelp_files.read_items, partial=True,
        layouts=((yelp_files.REVIEWS, yelp_files.BUSINESSES),),
        in_parts={yelp_files.REVIEWS: False},
        homepage="https://business.yelp.com/data/resources/open-dataset/",
        citation="Yelp Open Dataset."),
    "taobao": DataSet(
        read_log=taobao_files.read_log, read_items=taobao_files.read_items,
        layouts=(("UserBehavior.csv",),), in_parts={"UserBehavior.csv": False},
        homepage="https://tianchi.aliyun.com/dataset/649",
        citation="Zhu et al.: Learning Tree-based Deep Model for Recommender Systems. KDD 2018."),
    "openp5": DataSet(
        read_log=openp5_files.read_log, read_items=openp5_files.read_items, timed=False,
        takes_columns=True, layouts=((openp5_files.SEQUENCES,),),
        homepage="https://github.com/agiresearch/OpenP5",
        citation="Xu, Hua and Zhang: OpenP5: An Open-Source Platform for Developing, Training, and "
                 "Evaluating LLM-based Recommender Systems. SIGIR 2024."),
    "table": DataSet(read_log=table_files.read_log, read_items=table_files.read_items,
                     takes_columns=True, partial=True, layouts=((),)),
}
