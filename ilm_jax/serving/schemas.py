"""The forms of requests and answers, as /openapi.json shows them."""
from typing import Annotated, Any, Literal

import pydantic

from ilm_jax.serving import limits as limits_lib

_LIMITS = limits_lib.Limits()            # the forms say the usual ones
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
  """Of a request: a number is no text, and an unknown field is a mistake."""
  model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class OfSession(Strict):
  """Which session is meant: one that the server keeps, or one that comes along."""
  session_id: SessionId | None = None
  session: SessionJson | None = None


class Recommend(OfSession):
  """One of session_id, session and liked."""
  liked: Liked | None = None
  k: K | None = None
  model: Model | None = None


class Critique(OfSession):
  """So many steps along an attribute."""
  attribute: Name
  steps: Number
  k: K | None = None
  model: Model | None = None


class Explain(OfSession):
  """Why an item; with `about` also what the language model makes of its vector, which is slow."""
  item: Name
  about: bool = False
  model: Model | None = None


class Similar(Strict):
  """Items near another."""
  item: Name
  k: K | None = None


class Between(Strict):
  """A vector on the way from one item to another."""
  first: Name
  second: Name
  share: Annotated[float, pydantic.Field(ge=0, le=1, allow_inf_nan=False)]
  model: Model | None = None


class Users(Strict):
  """Somebody new."""
  liked: Liked


class NewSession(Strict):
  """Empty, of a user of the log, or one that was kept elsewhere."""
  user: Name | None = None
  session: SessionJson | None = None


class OfItem(Strict):
  """What the user thinks of an item; forget: nothing any more."""
  do: Literal["like", "dislike", "seen", "forget"]
  item: Name


class OfAttribute(Strict):
  """So many steps along an attribute, in addition to those before."""
  do: Literal["critique"]
  attribute: Name
  steps: Number


class Constrain(Strict):
  """What is given replaces that part of the constraint."""
  do: Literal["constrain"]
  genres: Annotated[list[Name], pydantic.Field(max_length=100)] | None = None
  without: Annotated[list[Name], pydantic.Field(max_length=100)] | None = None
  years: Annotated[list[Year | None], pydantic.Field(min_length=2, max_length=2)] | None = None


class Remove(Strict):
  """One statement of the session."""
  do: Literal["remove"]
  part: Literal["opinions", "constraints", "critiques"]
  number: Annotated[int, pydantic.Field(ge=0, le=10 ** 6)]


class Undo(Strict):
  """The last change is taken back."""
  do: Literal["undo"]


Edit = Annotated[OfItem | OfAttribute | Constrain | Remove | Undo,
                 pydantic.Field(discriminator="do")]


class Patch(Strict):
  """Another session instead, or edits in their order."""
  session: SessionJson | None = None
  edits: Annotated[list[Edit], pydantic.Field(min_length=1, max_length=100)] | None = None


class Part(pydantic.BaseModel):
  """Of a message: text alone is understood."""
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
  """As OpenAI's clients send it, with session_id or session and k; other fields have no effect."""
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
  """As the simulator sends it: what was said so far, by both in turn, and the user's words; they
  may end the context, too."""
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
  """With the session after the critique."""
  session: dict[str, Any]


class Items(pydantic.BaseModel):
  """What was found by title."""
  items: list[Card]


class Kept(pydantic.BaseModel):
  """A session that the server keeps."""
  id: str
  session: dict[str, Any]


class Why(pydantic.BaseModel):
  """What speaks for an item."""
  why: str
  about: str | None


class Text(pydantic.BaseModel):
  """What the language model says."""
  text: str


class Vector(pydantic.BaseModel):
  """Of a user, in the space of the factorisation."""
  vector: list[float]


class Mistake(pydantic.BaseModel):
  """One line that names the thing, and what to do."""
  message: str
  type: str
  code: str | None = None
  param: str | None = None


class Error(pydantic.BaseModel):
  """What every refusal is."""
  error: Mistake
