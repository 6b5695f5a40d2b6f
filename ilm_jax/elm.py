"""What every stage knows of ELM's tasks ("Demystifying Embedding Spaces using LLMs", 2310.04475).

Their names, and the words for what a data set is about. No TensorFlow: the tasks themselves are
prompt files in tasks/prompts and `tasks.elm`.
"""
from typing import NamedTuple

# Answered from what the data set itself knows of an item.
KNOWN = ("elm_title", "elm_genres", "elm_year")

# The paper's 24, about one vector ...
OF_ONE = ("elm_summary", "elm_positive_review", "elm_negative_review", "elm_neutral_review",
          "elm_five_positive", "elm_five_negative", "elm_long_description", "elm_funnier",
          "elm_sadder", "elm_scarier", "elm_improve", "elm_to_viewer", "elm_pitch",
          "elm_criticize", "elm_convince1", "elm_convince2", "elm_convince3", "elm_dissuade1",
          "elm_dissuade2")
# ... and about two: any two items, or an item and its nearest neighbour.
OF_TWO = ("elm_similarities", "elm_interpolation", "elm_why_neighbour", "elm_difference_neighbour",
          "elm_common_neighbour")
ELM_24 = OF_ONE + OF_TWO
WRITTEN = (*ELM_24, "elm_user_profile")        # answered by a teacher, in stage `targets`


class Words(NamedTuple):
  """What a data set's items and users are called in prompts: {thing}, {Thing}, {things}, .."""
  thing: str
  things: str
  person: str
  use: str

  def fill(self, text: str) -> str:
    """`text` with the places of these words filled, and all others as they are."""
    for name, word in self._asdict().items():
      text = text.replace(f"{{{name}}}", word)
      text = text.replace(f"{{{name.capitalize()}}}", word[:1].upper() + word[1:])
    return text


DOMAINS = {
    "movie": Words("film", "films", "viewer", "watch"),
    "product": Words("product", "products", "customer", "buy"),
    "book": Words("book", "books", "reader", "read"),
    "song": Words("song", "songs", "listener", "hear"),
    "album": Words("album", "albums", "listener", "hear"),
    "artist": Words("artist", "artists", "listener", "hear"),
    "place": Words("place", "places", "visitor", "visit"),
    "item": Words("item", "items", "person", "choose"),
}
_OF_DATA = (("ml-", "movie"), ("amazon-2014-movies", "movie"), ("amazon-2014-cds", "album"),
            ("amazon-", "product"), ("taobao", "product"), ("lastfm", "artist"), ("yelp", "place"))


def words(data) -> Words:
  """The words of a config's `data`: of `data.domain`, else what its name says, else "item"."""
  domain = data.domain or next((d for start, d in _OF_DATA if data.name.startswith(start)), "item")
  return DOMAINS[domain]


def written(config) -> tuple[str, ...]:
  """The tasks of a config whose answers a teacher writes: `targets.tasks`, else those trained."""
  return tuple(config.targets.tasks) or tuple(
      task for task in WRITTEN if config.tasks.mixture.get(task, 0))
