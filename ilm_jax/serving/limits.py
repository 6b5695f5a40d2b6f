"""How much a server takes on, and the errors that it answers with."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
  """What is refused beyond; a server has one of these."""
  body: int = 1 << 18        # bytes of a request
  head: int = 1 << 14        # bytes of its path and headers
  turns: int = 200           # of a session, or messages of a request
  statements: int = 2000     # opinions, constraints and critiques of a session
  text: int = 2000           # characters of a turn
  tokens: int = 2048         # words of a reply
  k: int = 100               # items of a list
  requests: int = 64         # answered at a time; more get 429
  waiting: int = 48          # for the model; more get 429
  together: int = 16         # that the model scores at a time
  seconds: float = 60.0      # that an answer may take
  patience: float = 10.0     # seconds for a request to arrive, or for an answer to be taken
  sessions: int = 1000       # kept; the one used least recently goes first
  idle: float = 3600.0       # seconds after which an unused session goes
  undo: int = 50             # steps that a session can be taken back,
  undo_size: int = 1 << 19   # while all of these are no larger together, in characters


class Refused(Exception):
  """What a request is answered with instead of a result: one line, an HTTP status and a code."""
  TYPES = {401: "authentication_error", 404: "not_found_error", 429: "overloaded",
           500: "server_error", 503: "overloaded", 504: "timeout"}

  def __init__(self, status: int, message: str, code: str | None = None, wait: int = 0):
    super().__init__(message)
    self.status, self.message, self.code, self.wait = status, message, code, wait

  def body(self) -> dict:
    """As OpenAI's clients read it."""
    return {"error": {"message": self.message, "code": self.code, "param": None,
                      "type": self.TYPES.get(self.status, "invalid_request_error")}}

  def headers(self) -> dict[str, str]:
    """Retry-After where it helps to come again; how to log in where that lacks."""
    return ({"Retry-After": str(self.wait)} if self.wait else {}) | (
        {"WWW-Authenticate": "Bearer"} if self.status == 401 else {})
