"""The forms of requests and answers, as /openapi.json shows them."""
from typing import Annotated, Any, Literal

import pydantic

from ilm_jax.serving import limits as limits_lib

_LIMITS = limits_lib.Limits()            # the schemas state the default limits
Name = Annotated[str, pydantic.Field(min_length=1, max_length=300,
                                     description="a raw id of the data, or a title")]
SessionJson = Annotated[dict[str, Any], pydantic.Field(
    description="opinions, constraints, critiques and turns, see docs/reference/sessions.md")]
Number = Annotated[float, pydantic.Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
K = Annotated[int, pydantic.Field(ge=1, le=_LIMITS.k)]
Model = Annotated[str, pydantic.Field(max_length=100, description="one of GET /v1/models")]
SessionId = Annotated[str, pydantic.Field(max_length=100)]
Words = Annotated[str, pydantic.Field(max_length=_LIMITS.text)]
Liked = Annotated[list[Name], pydantic.Field(min_length=1)]
Year = Annotated[int, pydantic.Field(ge=0, le=9999)]


class Strict(pydantic.BaseModel):
  """A request: strict types, and unknown fields are errors."""
  model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class OfSession(Strict):
  """A session: the id of one that the server keeps, or the session itself."""
  session_id: SessionId | None = None
  session: SessionJson | None = None


class Recommend(OfSession):
  """One of session_id, session and liked."""
  liked: Liked | None = None
  k: K | None = None
  model: Model | None = None


class Critique(OfSession):
  """Moves the recommendations along an attribute, by a number of steps."""
  attribute: Name
  steps: Number
  k: K | None = None
  model: Model | None = None


class Explain(OfSession):
  """Asks why an item; with `about` also what the language model says of its vector (slow)."""
  item: Name
  about: bool = False
  model: Model | None = None


class Similar(Strict):
  """Items near another."""
  item: Name
  k: K | None = None


class Between(Strict):
  """A vector between two items: at `share` (0..1) of the way from the first to the second."""
  first: Name
  second: Name
  share: Annotated[float, pydantic.Field(ge=0, le=1, allow_inf_nan=False)]
  model: Model | None = None


class Users(Strict):
  """A new user, by the items that the user likes."""
  liked: Liked


class NewSession(Strict):
  """An empty session, that of a user of the log, or a saved one."""
  user: Name | None = None
  session: SessionJson | None = None


class OfItem(Strict):
  """The user's opinion of an item; forget removes it."""
  do: Literal["like", "dislike", "seen", "forget"]
  item: Name


class OfAttribute(Strict):
  """A number of steps along an attribute, added to earlier ones."""
  do: Literal["critique"]
  attribute: Name
  steps: Number


class Constrain(Strict):
  """Replaces the given parts of the constraint."""
  do: Literal["constrain"]
  genres: Annotated[list[Name], pydantic.Field(max_length=100)] | None = None
  without: Annotated[list[Name], pydantic.Field(max_length=100)] | None = None
  years: Annotated[list[Year | None], pydantic.Field(min_length=2, max_length=2)] | None = None


class Remove(Strict):
  """Removes one statement of the session."""
  do: Literal["remove"]
  part: Literal["opinions", "constraints", "critiques"]
  number: Annotated[int, pydantic.Field(ge=0, le=10 ** 6)]


class Undo(Strict):
  """Undoes the last change."""
  do: Literal["undo"]


Edit = Annotated[OfItem | OfAttribute | Constrain | Remove | Undo,
                 pydantic.Field(discriminator="do")]


class Patch(Strict):
  """A session that replaces the old one, or edits, which are applied in order."""
  session: SessionJson | None = None
  edits: Annotated[list[Edit], pydantic.Field(min_length=1, max_length=100)] | None = None


class Part(pydantic.BaseModel):
  """A part of a message; only text is supported."""
  type: Literal["text"]
  text: Words


class Message(pydantic.BaseModel):
  """As OpenAI's clients send it."""
  role: Literal["system", "developer", "user", "assistant"]
  content: Annotated[str, pydantic.Field(max_length=20_000)] | list[Part] = ""

  @property
  def text(self) -> str:
    """The words alone."""
    return (self.content if isinstance(self.content, str)
            else " ".join(part.text for part in self.content))


class StreamOptions(pydantic.BaseModel):
  """As OpenAI's clients send it."""
  include_usage: bool = False


class Chat(pydantic.BaseModel):
  """OpenAI's request, plus session_id or session, and k, the items of a list; other fields have no
  effect."""
  messages: Annotated[list[Message], pydantic.Field(min_length=1, max_length=_LIMITS.turns)]
  model: Model | None = None
  stream: bool | None = False
  stream_options: StreamOptions | None = None
  max_tokens: Annotated[int, pydantic.Field(ge=1)] | None = None
  max_completion_tokens: Annotated[int, pydantic.Field(ge=1)] | None = None
  n: Literal[1] | None = 1
  session_id: SessionId | None = None
  session: SessionJson | None = None
  k: K | None = None


class UserSimCrs(pydantic.BaseModel):
  """As the simulator sends it: the turns so far, by both in turn, and the user's message, which the
  context may already end with."""
  context: Annotated[list[Annotated[str, pydantic.Field(max_length=20_000)]],
                     pydantic.Field(max_length=_LIMITS.turns)] = []
  message: Words


class Card(pydantic.BaseModel):
  """An item."""
  id: str
  title: str
  year: int | None
  genres: list[str]
  score: float | None = None
  why: str | None = None


class Recommendations(pydantic.BaseModel):
  """Best first."""
  recommendations: list[Card]
  model: str | None = None


class Critiqued(Recommendations):
  """The list and the session after the critique."""
  session: dict[str, Any]


class Items(pydantic.BaseModel):
  """Items found by title or id."""
  items: list[Card]


class Kept(pydantic.BaseModel):
  """A session that the server keeps."""
  id: str
  session: dict[str, Any]


class Why(pydantic.BaseModel):
  """Reasons for an item, and what the language model says of its vector."""
  why: str
  about: str | None


class Text(pydantic.BaseModel):
  """A text of the language model."""
  text: str


class Vector(pydantic.BaseModel):
  """A user's vector in the space of the factorisation."""
  vector: list[float]


class Mistake(pydantic.BaseModel):
  """One line that says what is wrong and what to do."""
  message: str
  type: str
  code: str | None = None
  param: str | None = None


class Error(pydantic.BaseModel):
  """The answer to every request that is refused."""
  error: Mistake
