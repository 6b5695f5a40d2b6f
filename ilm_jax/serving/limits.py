"""The limits of a server, and the errors that it answers with."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
  """The limits of one server; it refuses requests beyond them."""
  body: int = 1 << 18        # bytes of a request
  head: int = 1 << 14        # bytes of its path and headers
  turns: int = 200           # of a session, or messages of a request
  statements: int = 2000     # opinions, constraints and critiques of a session
  text: int = 2000           # characters of a user's turn,
  reply: int = 1 << 16       # and of the recommender's, which may list items
  tokens: int = 2048         # words of a reply
  k: int = 100               # items of a list
  requests: int = 64         # requests answered at a time; more get 429
  waiting: int = 48          # requests that wait for the model; more get 429
  together: int = 16         # histories that the model scores in one batch
  seconds: float = 60.0      # time that an answer may take,
  replay: float = 10.0       # and in it the earlier messages of a request
  patience: float = 10.0     # seconds for a request to arrive, or for a client to take its answer
  sessions: int = 1000       # sessions kept; the one used least recently is dropped first
  idle: float = 3600.0       # seconds after which an unused session is dropped
  undo: int = 50             # earlier states of a session that undo can return to,
  undo_size: int = 1 << 19   # and the characters that all of them may have together


class Refused(Exception):
  """The answer to a request that is refused: one line, an HTTP status and a code."""
  TYPES = {401: "authentication_error", 404: "not_found_error", 429: "overloaded",
           500: "server_error", 503: "overloaded", 504: "timeout"}

  def __init__(self, status: int, message: str, code: str | None = None, wait: int = 0):
    super().__init__(message)
    self.status, self.message, self.code, self.wait = status, message, code, wait

  def body(self) -> dict:
    """The JSON body in the form that OpenAI's clients read."""
    return {"error": {"message": self.message, "code": self.code, "param": None,
                      "type": self.TYPES.get(self.status, "invalid_request_error")}}

  def headers(self) -> dict[str, str]:
    """Retry-After if the client should try again; WWW-Authenticate if the token is missing."""
    return ({"Retry-After": str(self.wait)} if self.wait else {}) | (
        {"WWW-Authenticate": "Bearer"} if self.status == 401 else {})
