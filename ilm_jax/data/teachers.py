"""Teachers other than a local language model: an HTTP endpoint, or a file of the user's.

A teacher has `write(requests)`, which returns (text, finished) for each request, or None for a
request without a text. `TeacherFailed` carries the texts written before a failure.
"""
import concurrent.futures
import http.client
import json
import os
import time
import urllib.error
import urllib.request

from etils import epath

from ilm_jax import errors, files
from ilm_jax.data import targets

Said = tuple[str, bool]
_FINAL = (400, 401, 403, 404, 405, 413, 422)      # HTTP statuses for which a retry is useless
_LONGEST_WAIT = 60.0                              # seconds


class TeacherFailed(errors.UserError):
  """A request got no answer. `done` has the answers of its batch, None where there is none."""

  def __init__(self, message: str, done: list[Said | None]):
    super().__init__(message)
    self.done = done


class Endpoint:
  """An OpenAI-compatible server: POST <endpoint>/chat/completions.

  Args:
    config: section targets of a config: endpoint, model, api_key_env, max_tokens, temperature,
      top_p, timeout (seconds without a byte), retries, backoff (seconds before the first retry;
      each further one waits twice as long).
    name: entity rows -> their names in messages.
    sleep: function that waits the given number of seconds.

  Raises:
    UserError: the variable targets.api_key_env is not set.
  """

  def __init__(self, config, name, sleep=time.sleep):
    self._config, self._name, self._sleep = config, name, sleep
    self._url = config.endpoint.rstrip("/") + "/chat/completions"
    self._headers = {"Content-Type": "application/json"}
    if config.api_key_env:
      if not (secret := os.environ.get(config.api_key_env)):
        raise errors.UserError(f"targets.api_key_env={config.api_key_env!r}: this variable of the "
                               "environment is not set: set it to the key, or the field to ''")
      self._headers["Authorization"] = f"Bearer {secret}"

  def write(self, requests: list[targets.Request]) -> list[Said | None]:
    """Sends all requests at once.

    Raises:
      TeacherFailed: a request failed after all retries; the message names the first one.
    """
    with concurrent.futures.ThreadPoolExecutor(max(len(requests), 1)) as pool:
      futures = [pool.submit(self._ask, request) for request in requests]
    failed = [f.exception() for f in futures]
    if unforeseen := [e for e in failed if e and not isinstance(e, errors.UserError)]:
      raise unforeseen[0]
    done = [None if e else f.result() for e, f in zip(failed, futures)]
    if first := next((e for e in failed if e), None):
      raise TeacherFailed(str(first), done)
    return done

  def _ask(self, request: targets.Request) -> Said:
    c = self._config
    for attempt in range(c.retries + 1):
      if attempt:
        self._sleep(min(c.backoff * 2 ** (attempt - 1), _LONGEST_WAIT))
      try:
        return self._post(request.prompt)
      except urllib.error.HTTPError as e:
        why = f"HTTP {e.code} {_start(_said(e).decode(errors='replace'))}"
        if e.code in _FINAL:
          break
      except (OSError, http.client.HTTPException) as e:      # refused, reset, stalled, cut short
        why = f"{type(e).__name__}: {e}"
      except (ValueError, KeyError, IndexError, TypeError) as e:
        why = f"no chat completion came ({type(e).__name__}: {_start(str(e))})"
    raise errors.UserError(
        f"{self._url} gave no target of {request.task} for {self._name(request.rows)} in "
        f"{attempt + 1} attempt(s), the last: {why}. Earlier answers are kept: repair the "
        "endpoint and run --stage=targets again")

  def _post(self, prompt: str) -> Said:
    c = self._config
    body = {"model": c.model, "messages": [{"role": "user", "content": prompt}],
            "max_tokens": c.max_tokens, "temperature": c.temperature, "top_p": c.top_p}
    request = urllib.request.Request(self._url, json.dumps(body).encode(), self._headers)
    with urllib.request.urlopen(request, timeout=c.timeout) as reply:
      choice = files.parse_json(reply.read().decode())["choices"][0]
    text = choice["message"]["content"]
    if not isinstance(text, str):
      raise TypeError(f"the content is {text!r}, not a text")
    text.encode()                    # raises for a lone surrogate, which JSON can hold
    return text, choice.get("finish_reason") != "length"


def _said(e: urllib.error.HTTPError) -> bytes:
  try:
    return e.read()
  except (OSError, http.client.HTTPException):       # cut short
    return b""


class File:
  """A file of the user's targets: lines {"task": "elm_pitch", "ids": ["50"], "target": "..."}.

  `ids` are the raw ids of the items (for elm_user_profile, of the user), in the order of the task's
  places.

  Args:
    path: the file.
    ids: entity row -> raw id.

  Raises:
    UserError: there is no such file, a line is not of this form, or there are two targets for one
      task and ids.
  """

  def __init__(self, path, ids):
    self._ids, self._texts = ids, {}
    lines = files.text(epath.Path(path)).split("\n")
    for number, line in enumerate(lines, 1):
      if not line.strip():
        continue
      try:
        fields = files.parse_json(line)
        key = fields["task"], tuple(map(str, fields["ids"]))
        hash(key)
        text = fields["target"]
        str(text).encode()           # raises for a lone surrogate, which JSON can hold
      except (ValueError, KeyError, TypeError) as e:
        raise errors.UserError(
            f"{path}, line {number}: expected {{\"task\": \"elm_pitch\", \"ids\": [\"50\"], "
            f"\"target\": \"...\"}}, found {_start(line)} ({type(e).__name__}: {e})") from e
      if not isinstance(text, str) or self._texts.get(key, text) != text:
        raise errors.UserError(f"{path}, line {number}: task {key[0]} of ids {list(key[1])} has "
                               f"{'two targets' if isinstance(text, str) else 'no text'}: give "
                               "one text for each")
      self._texts[key] = text

  def write(self, requests: list[targets.Request]) -> list[Said | None]:
    texts = [self._texts.get((r.task, tuple(self._ids(row) for row in r.rows))) for r in requests]
    return [None if text is None else (text, True) for text in texts]


def _start(text: str) -> str:
  text = " ".join(text.split())
  return text if len(text) <= 80 else f"{text[:80]}..."
