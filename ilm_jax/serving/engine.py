"""The models of a run behind one thread: all that the routes call, without HTTP."""
import collections
import contextlib
import functools
import threading
from collections.abc import Callable, Sequence

import numpy as np

from ilm_jax import elm, errors
from ilm_jax.config import variants
from ilm_jax.conversation import open_words
from ilm_jax.conversation import session as session_lib
from ilm_jax.serving import limits as limits_lib
from ilm_jax.serving import model_thread
from ilm_jax.stages import context, recommender, talker
from ilm_jax.training import checkpoint

_TO_COMPILE = 3600.0     # seconds to wait for a program that compiles
_REMEMBERED = 1 << 25    # bytes of scores that are cached for requests with the same likes


class Engine:
  """Answers with the models of one run; every method may be called from any thread.

  Args:
    run: a trained run.
    models: which of its models to serve; the first answers requests that name none.
    k: items of a list, unless a request says how many.
    limits: of the server.
    on_batch: as in `model_thread.ModelThread`.

  Attributes:
    ready: whether `warm` is done.

  Raises:
    UserError: a model cannot hold a conversation, see `talker.Talker`.
  """

  def __init__(self, run: context.Run, models: Sequence[variants.Variant], k: int,
               limits: limits_lib.Limits, on_batch: Callable[[int, float], None] | None = None):
    self.run, self.k, self.limits, self.ready = run, k, limits, False
    self.thread = model_thread.ModelThread(limits, *([on_batch] if on_batch else []))
    self._scored, self._lock = collections.OrderedDict(), threading.Lock()
    self.talkers = {variant.key: talker.Talker(
        run, variant, k, functools.partial(self._scores, variant.key), encode=self._encode)
        for variant in models}
    self.default = next(iter(self.talkers))

  def talker(self, key: str | None = None) -> talker.Talker:
    """The talker of a model by its key; None: of the first model.

    Raises:
      Refused: there is no such model (404).
    """
    key = key or self.default
    if key not in self.talkers:
      raise limits_lib.Refused(404, f"model {key!r} is not served, expected one of "
                               f"{', '.join(self.talkers)}", "model_not_found")
    return self.talkers[key]

  def about(self) -> dict:
    """The answer of /v1/models: the models, and what the page needs to know of the catalogue."""
    first, words = self.talkers[self.default], elm.words(self.run.config.data)
    return {
        "object": "list",
        "data": [{"id": key, "label": each.variant.label, "object": "model", "created": 0,
                  "owned_by": "ilm-jax"} for key, each in self.talkers.items()],
        "k": self.k, "items": len(first.items), "thing": words.thing, "things": words.things,
        "genres": list(first.genres), "attributes": list(first.attributes),
        "users": self.run.data.log.num_users > 0}

  def checked(self, session: session_lib.Session) -> session_lib.Session:
    """Returns the session if it is valid and within the limits.

    Raises:
      UserError: it names an unknown item or attribute.
      Refused: it is too long (400).
    """
    for name, count, most in (("turns", len(session.turns), self.limits.turns),
                              ("statements", session.statements, self.limits.statements)):
      if count > most:
        raise limits_lib.Refused(400, f"the session has {count} {name}, expected {most} at most: "
                                 "begin a new session", "session_full")
    for n, turn in enumerate(session.turns):
      most = self.limits.text if turn.role == session_lib.USER else self.limits.reply
      if len(turn.text) > most:
        raise limits_lib.Refused(400, f"turns[{n}].text has {len(turn.text):,} characters, "
                                 f"expected {most:,} at most", "too_long")
    self.talkers[self.default].check(session)
    return session

  def say(self, ask: Callable[[], str]) -> str:
    """A text of the language model; `ask` calls a talker's `about` or `between`."""
    return self.thread.call(ask)

  def warm(self) -> None:
    """Compiles and loads all that requests need, then sets `ready`; this takes a while.

    A run that learned no text about an item has no program for `about` and `between`.
    """
    one = np.ones(1, np.int32)
    for each in self.talkers.values():
      size = 1
      while size <= self.limits.together:
        self._warm(functools.partial(each.recommender.scores, [one] * size))
        size *= 2
      self._warm(each.prepare)
      # An error of the encoder or of texts is raised again by the next request for them.
      with contextlib.suppress(errors.UserError):
        each.guessed("a")                      # calls the model thread itself, to encode
      with contextlib.suppress(Exception):
        self._warm(functools.partial(each.about, each.search("", 1)[0].id))
    self.ready = True

  def _warm(self, function: Callable) -> None:
    self.thread.call(function, _TO_COMPILE)

  def _encode(self, texts: list[str]) -> np.ndarray:
    return self.thread.call(
        functools.partial(self.run.sentence_vectors, texts, open_words.TOKENS),
        None if self.ready else _TO_COMPILE)

  def _scores(self, key: str, histories) -> np.ndarray:
    """[1, I + 1]: as `Recommender.scores`, of one history; recent results are cached."""
    history, = histories
    name = key, history.tobytes()
    with self._lock:
      if (kept := self._scored.get(name)) is not None:
        self._scored.move_to_end(name)
        return kept[None]
    score_I1 = self.thread.scores(self.talkers[key].recommender.scores, history)
    with self._lock:
      self._scored[name] = score_I1
      while len(self._scored) * score_I1.nbytes > _REMEMBERED:
        self._scored.popitem(last=False)
    return score_I1[None]


def served(run: context.Run, first: str) -> list[variants.Variant]:
  """The trained models of a run, `first` (a key, see `variants.named`) before the others. Where
  phase 1's dot product ranks, which is ILM's, there are no others.

  Raises:
    UserError: the config trains no such model, or it is not trained yet.
  """
  wanted = variants.named(run.config, first)
  trained = [variant for variant in variants.trained(run.config)
             if checkpoint.newest(run.workdir / variant.folder / "checkpoints") is not None]
  if wanted not in trained:
    raise errors.UserError(f"{run.workdir / wanted.folder} has no checkpoint: run --stage=phase2 "
                           "first")
  if recommender.way(run.config) == recommender.DOT:
    return [wanted]
  return [wanted, *(variant for variant in trained if variant != wanted)]
