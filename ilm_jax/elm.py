"""Names of the ELM tasks ("Demystifying Embedding Spaces using LLMs", arXiv 2310.04475), and words.

The words name the items and users of a data set in prompts. All stages import this module, so it
needs no TensorFlow; the tasks themselves are prompt files in tasks/prompts and `tasks.elm`.
"""
from typing import NamedTuple

# The data set's own fields answer these.
GENRES = "elm_genres"
KNOWN = ("elm_title", GENRES, "elm_year")

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
WRITTEN = (*ELM_24, "elm_user_profile")        # a teacher answers these, in stage `targets`


class Words(NamedTuple):
  """What a data set's items and users are called in prompts: {thing}, {Thing}, {things}, ..

  {a_thing} is the thing with its article.
  """
  thing: str
  things: str
  person: str
  use: str                   # what a person does with a thing, present tense: "watch",
  used: str                  # past tense,
  done: str                  # and past participle
  meet: str                  # another verb for it, if there is one: "see"
  met: str
  have_met: str
  over: str                  # the state of things after use: "Once .. are over"
  now: str = "today"
  genres: str = "genres"
  released: str = "released"                      # "was .. in the year"
  come_out: str = "come out"                      # "When did it ..?"
  sellers: str = "shops first sell"               # "In which year did .. it?"
  a_sign: str = "a label"                         # an object that shows the title
  shelves: str = "shelves of a shop"              # where things stand by genre

  def fill(self, text: str) -> str:
    """`text` with the placeholders of these words filled; all other placeholders stay."""
    article = "an" if self.thing[0] in "aeiou" else "a"
    for name, word in {**self._asdict(), "a_thing": f"{article} {self.thing}"}.items():
      text = text.replace(f"{{{name}}}", word)
      text = text.replace(f"{{{name.capitalize()}}}", word[:1].upper() + word[1:])
    return text


def _words(thing: str, person: str, use: str, used: str, done: str = "", **others) -> Words:
  """Words of a thing with a plural in s and one verb for `use` and `meet`."""
  done = done or used
  return Words(thing, f"{thing}s", person, use, used, done, use, used, done, done)._replace(
      **others)


_RECORDS = {"shelves": "shelves of a record shop", "sellers": "radios first play"}
DOMAINS = {
    "movie": _words("film", "viewer", "watch", "watched", meet="see", met="saw",
                    have_met="seen", over="over", now="tonight", sellers="cinemas first show",
                    a_sign="a cinema poster", shelves="shelves of a video shop"),
    "product": _words("product", "customer", "buy", "bought", genres="categories",
                      a_sign="a price tag"),
    "book": _words("book", "reader", "read", "read", a_sign="a book cover",
                   shelves="shelves of a library"),
    "song": _words("song", "listener", "hear", "heard", a_sign="a playlist", **_RECORDS),
    "album": _words("album", "listener", "hear", "heard", a_sign="a record sleeve", **_RECORDS),
    "artist": _words("artist", "listener", "hear", "heard", a_sign="a concert poster",
                     come_out="first appear", released="first heard", **_RECORDS),
    "place": _words("place", "visitor", "visit", "visited", genres="categories",
                    released="opened", come_out="open", sellers="people first visit",
                    a_sign="a sign at the door", shelves="pages of a city guide"),
    "item": _words("item", "person", "choose", "chose", "chosen", genres="categories",
                   sellers="people first see"),
}
_OF_DATA = (("ml-", "movie"), ("amazon-2014-movies", "movie"), ("amazon-2014-cds", "album"),
            ("amazon-", "product"), ("taobao", "product"), ("lastfm", "artist"), ("yelp", "place"))


def words(data) -> Words:
  """The words of a config's `data`: by `data.domain`, else by `data.name`, else those of "item"."""
  domain = data.domain or next((d for start, d in _OF_DATA if data.name.startswith(start)), "item")
  return DOMAINS[domain]


def written(config) -> tuple[str, ...]:
  """The tasks whose answers a teacher writes: `targets.tasks`, or if empty, those with a rate."""
  return tuple(config.targets.tasks) or tuple(
      task for task in WRITTEN if config.tasks.mixture.get(task, 0))


def asks_teacher(config) -> bool:
  """Whether stage `targets` asks a teacher: to write answers, or to reword dialogs."""
  return bool(written(config) or config.dialogs.reword)
