"""Sessions that the server keeps in memory, up to a number and for a limited time."""
import collections
import contextlib
import secrets
import threading
import time
from collections.abc import Callable

from ilm_jax.conversation import session as session_lib
from ilm_jax.serving import limits as limits_lib
from ilm_jax.stages import talker


class Kept:
  """One session and its earlier states; change it only inside `Store.opened`."""

  def __init__(self, session: session_lib.Session, limits: limits_lib.Limits):
    self.session, self._limits = session, limits
    self._earlier: collections.deque[session_lib.Session] = collections.deque(maxlen=limits.undo)
    self.lock, self.used = threading.Lock(), 0.0

  def replace(self, session: session_lib.Session) -> None:
    """Replaces the session; if it now knows something else, undo can return to the old one."""
    changed = talker.known(session) != talker.known(self.session)
    self.become(session, [*self._earlier, self.session] if changed else self._earlier)

  def earlier(self) -> list[session_lib.Session]:
    """The states that undo can return to, oldest first."""
    return list(self._earlier)

  def become(self, session: session_lib.Session, earlier) -> None:
    """Replaces the session and the states that undo can return to."""
    self.session, self._earlier = session, collections.deque(earlier, self._limits.undo)
    size = sum(map(_size, self._earlier))
    while size > self._limits.undo_size:
      size -= _size(self._earlier.popleft())


def _size(session: session_lib.Session) -> int:
  """Approximate number of characters of a session as plain data."""
  turns = sum(100 * (1 + len(turn.items)) + len(turn.text) for turn in session.turns)
  return 100 * session.statements + turns


class Store:
  """Sessions by ids that cannot be guessed: a client needs only the id to use the session.

  Args:
    limits: how many sessions, and for how long.
    clock: -> seconds, monotonic.
  """

  def __init__(self, limits: limits_lib.Limits, clock: Callable[[], float] = time.monotonic):
    self._limits, self._clock = limits, clock
    self._kept: collections.OrderedDict[str, Kept] = collections.OrderedDict()  # oldest use first
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return len(self._kept)

  def add(self, session: session_lib.Session) -> str:
    """Stores a session and returns its id; a full store drops the least recently used one."""
    raw, kept = secrets.token_urlsafe(18), Kept(session, self._limits)
    with self._lock:
      self._drop_idle()
      while len(self._kept) >= self._limits.sessions:
        self._kept.popitem(last=False)
      self._kept[raw], kept.used = kept, self._clock()
    return raw

  @contextlib.contextmanager
  def opened(self, raw: str):
    """The `Kept` of an id; only one request at a time has it.

    Raises:
      Refused: there is none, or no longer (404); another request holds it for too long (429).
    """
    with self._lock:
      self._drop_idle()
      kept = self._kept.get(raw)
      if kept is None:
        raise limits_lib.Refused(404, "no session has this id: it never existed, was deleted, or "
                                 f"was not used for {self._limits.idle / 60:g} minutes: begin a "
                                 "new session", "session_not_found")
      kept.used = self._clock()
      self._kept.move_to_end(raw)
    if not kept.lock.acquire(timeout=self._limits.seconds):
      raise limits_lib.Refused(429, "another request uses this session: try again later",
                               "session_busy", wait=1)
    try:
      yield kept
    finally:
      kept.lock.release()

  def delete(self, raw: str) -> None:
    """Deletes a session. Raises: as `opened`."""
    with self.opened(raw), self._lock:
      self._kept.pop(raw, None)

  def _drop_idle(self) -> None:
    last = self._clock() - self._limits.idle
    while self._kept and next(iter(self._kept.values())).used < last:
      self._kept.popitem(last=False)
