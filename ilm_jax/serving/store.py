"""Sessions that the server keeps: in memory, for a while, so many at most."""
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
  """One session, as it is and as it was; to be changed inside `Store.opened`."""

  def __init__(self, session: session_lib.Session, limits: limits_lib.Limits):
    self.session, self._limits = session, limits
    self._earlier: collections.deque[session_lib.Session] = collections.deque(maxlen=limits.undo)
    self.lock, self.used = threading.Lock(), 0.0

  def replace(self, session: session_lib.Session) -> None:
    """Keeps another; what was known before can be taken back."""
    changed = talker.known(session) != talker.known(self.session)
    self.become(session, [*self._earlier, self.session] if changed else self._earlier)

  def earlier(self) -> list[session_lib.Session]:
    """As it was before each change of what is known, oldest first."""
    return list(self._earlier)

  def become(self, session: session_lib.Session, earlier) -> None:
    """Keeps another session, and what can be taken back."""
    self.session, self._earlier = session, collections.deque(earlier, self._limits.undo)
    size = sum(map(_size, self._earlier))
    while size > self._limits.undo_size:
      size -= _size(self._earlier.popleft())


def _size(session: session_lib.Session) -> int:
  """Characters of a session as plain data, about."""
  turns = sum(100 * (1 + len(turn.items)) + len(turn.text) for turn in session.turns)
  return 100 * session.statements + turns


class Store:
  """Sessions by ids that cannot be guessed: who has the id has the session.

  Args:
    limits: how many, and for how long.
    clock: seconds that only grow.
  """

  def __init__(self, limits: limits_lib.Limits, clock: Callable[[], float] = time.monotonic):
    self._limits, self._clock = limits, clock
    self._kept: collections.OrderedDict[str, Kept] = collections.OrderedDict()  # oldest use first
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return len(self._kept)

  def add(self, session: session_lib.Session) -> str:
    """Keeps a session; its id. The one used least recently makes room."""
    raw, kept = secrets.token_urlsafe(18), Kept(session, self._limits)
    with self._lock:
      self._drop_idle()
      while len(self._kept) >= self._limits.sessions:
        self._kept.popitem(last=False)
      self._kept[raw], kept.used = kept, self._clock()
    return raw

  @contextlib.contextmanager
  def opened(self, raw: str):
    """The `Kept` of an id, by one request at a time.

    Raises:
      Refused: there is none, or no longer (404).
    """
    with self._lock:
      self._drop_idle()
      kept = self._kept.get(raw)
      if kept is None:
        raise limits_lib.Refused(404, "no session has this id: it was never given, was deleted, or "
                                 f"was not used for {self._limits.idle / 60:g} minutes",
                                 "session_not_found")
      kept.used = self._clock()
      self._kept.move_to_end(raw)
    if not kept.lock.acquire(timeout=self._limits.seconds):
      raise limits_lib.Refused(429, "another request works on this session", "session_busy", wait=1)
    try:
      yield kept
    finally:
      kept.lock.release()

  def delete(self, raw: str) -> None:
    """Forgets a session. Raises: as `opened`."""
    with self.opened(raw), self._lock:
      self._kept.pop(raw, None)

  def _drop_idle(self) -> None:
    last = self._clock() - self._limits.idle
    while self._kept and next(iter(self._kept.values())).used < last:
      self._kept.popitem(last=False)
