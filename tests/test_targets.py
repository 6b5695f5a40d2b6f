"""Targets: the store and its kills, what is no target, teachers that fail, stall or lie."""
import http.server
import json
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from ilm_jax import elm, errors
from ilm_jax.config import reading as config_lib
from ilm_jax.data import interactions, targets, teachers
from ilm_jax.stages import context
from ilm_jax.stages import targets as stage

ROOT = pathlib.Path(__file__).parents[1]
TINY = ROOT / "configs" / "tiny.py"
ITEMS = interactions.Items(ids=["50", "7"], titles=["Heat", "Alien"], years=[1995, 1979],
                           genres=[["Action"], ["Horror"]])


def request(number=0, task="elm_pitch", instruction="Write a pitch for the film below."):
  return targets.Request(task, "train", (number + 1,), instruction, f"Film: number {number}")


def config(**changes):
  return config_lib.load(TINY, {"tasks.mixture.elm_pitch": 1.0, **changes})


# What is a target.


def test_half_a_letter_of_a_teacher_can_be_stored(tmp_path):
  answer = targets.judged(request(), "A heist goes wrong \ud83d in Los Angeles.")
  assert answer.text == "A heist goes wrong ? in Los Angeles." and not answer.rejected
  targets.Store(tmp_path, "teacher").add({"key": answer})


@pytest.mark.parametrize("text, why", [
    ("A thief meets a policeman over coffee.", ""),
    ("  \n ", "empty"), ("...", "empty"), ("Heat", "empty"),
    ("It is good. It is good. It is good.", "looping"),
    ("1. Its great plot\n2. Its great cast\n3. Its great music\n4. Its great end", ""),
    ("and so on and on " * 6, "looping"),
    ("Sure: write a pitch for the film below, of course. Here it is.", ""),
    ("You said: Write a short pitch for the film below today.", "echo"),
])
def test_what_is_no_target(text, why):
  instruction = "Write a short pitch for the film below today."
  assert targets.judged(request(instruction=instruction), text).rejected == why


@pytest.mark.parametrize("text, kept", [
    ("A thief. A policeman. They mee", "A thief. A policeman."),
    ("One sentence that never ends and", "One sentence that never ends and"),
    ("1. Plot\n2. Cast\n3. Mus", "1. Plot\n2. Cast"),
    ("First line.\n2.", "First line."),
])
def test_what_was_cut_off_ends_with_a_sentence(text, kept):
  assert targets.judged(request(), text, finished=False).text == kept


# The store.


def test_an_answer_is_known_by_teacher_instruction_and_text(tmp_path):
  one = request()
  keys = {one.key("a"), one.key("b"), one._replace(instruction="x").key("a"),
          one._replace(text="x").key("a")}
  assert len(keys) == 4
  assert one._replace(task="elm_x", rows=(9,), split="test").key("a") == one.key("a")
  mine, theirs = targets.Store(tmp_path, "a" * 64), targets.Store(tmp_path, "b" * 64)
  mine.add({one.key(mine.teacher): targets.Answer("Steal\u2028it.", "")})
  assert mine.lookup()(one) == ("Steal\u2028it.", "") and theirs.lookup()(one) is None


def test_requests_come_back_as_they_were(tmp_path):
  asked = [request(0), request(1)._replace(rows=(3, 4), text='"ä"\n\x85\u2028')]
  targets.write_requests(tmp_path, asked)
  assert targets.read_requests(tmp_path) == asked


@pytest.mark.parametrize("damage", [
    lambda text: text[:-4], lambda text: text.replace("Steal", "Steel")])
def test_a_damaged_file_is_named(tmp_path, damage):
  store = targets.Store(tmp_path, "a" * 64)
  store.add({"k": targets.Answer("Steal it.", "")})
  path, = store.folder.iterdir()
  path.write_text(damage(path.read_text()))
  with pytest.raises(errors.UserError, match=rf"{path.name} is damaged .* delete it"):
    store.read()


# The stage.


class Slow:
  """Says the number of a request, after a moment; notes what it was asked."""

  def __init__(self, log=None, seconds=0.0):
    self._log, self._seconds = log, seconds

  def write(self, requests):
    time.sleep(self._seconds)
    if self._log:
      with self._log.open("a") as f:
        f.writelines(f"{r.text}\n" for r in requests)
    return [(f"This is {r.text}.", True) for r in requests]


def run_stage(workdir, make_teacher, **changes):
  run = context.Run(config(**changes), workdir, devices=False)
  run.__dict__["teacher_fingerprint"] = "f" * 64
  stage.run(run, make_teacher)
  return targets.Store(workdir / "targets", "f" * 64)


def lines_of(store):
  return [json.loads(line)["key"] for path in store.folder.glob("*.jsonl")
          for line in path.read_text().splitlines()]


def test_the_same_words_are_written_once(tmp_path, capsys):
  asked = [request(n % 3)._replace(rows=(n,)) for n in range(7)]
  targets.write_requests(tmp_path / "targets", asked)
  log = tmp_path / "log"
  store = run_stage(tmp_path, lambda: Slow(log), **{"targets.batch_size": 2})
  assert sorted(log.read_text().splitlines()) == [f"Film: number {n}" for n in range(3)]
  assert all(store.lookup()(r).text == f"This is {r.text}." for r in asked)
  assert "elm_pitch: 7 asked, 7 written" in capsys.readouterr().out
  run_stage(tmp_path, lambda: pytest.fail("all is there: no teacher is needed"))
  report = json.loads((store.folder / "report.json").read_text())
  assert report["tasks"] == {"elm_pitch": {"asked": 7, "written": 7}} and report["answers"] == 3


def test_rejects_are_counted_and_not_asked_again(tmp_path, capsys):
  targets.write_requests(tmp_path / "targets", [request(n) for n in range(4)])

  class Poor:
    def write(self, requests):
      said = {"Film: number 0": ("", True), "Film: number 1": ("No. No. No, no no. " * 9, True),
              "Film: number 2": None, "Film: number 3": ("A fine film.", True)}
      return [said[r.text] for r in requests]

  run_stage(tmp_path, Poor)
  assert ("elm_pitch: 4 asked, 1 empty, 1 looping, 1 absent, 1 written"
          in capsys.readouterr().out)
  run_stage(tmp_path, lambda: pytest.fail("a reject is an answer"))


def test_processes_share_the_requests(tmp_path, monkeypatch):
  """Each writes its part; together they write each request once."""
  targets.write_requests(tmp_path / "targets", [request(n) for n in range(40)])
  monkeypatch.setattr(stage.distributed, "wait", lambda name: None)
  parts = []
  for process in (1, 2, 0):
    monkeypatch.setattr(stage.distributed, "_here", stage.distributed.Place(process, 3))
    log = tmp_path / f"log{process}"
    store = run_stage(tmp_path, lambda log=log: Slow(log))
    parts.append(log.read_text().splitlines())
  assert min(map(len, parts)) > 5 and len({x for part in parts for x in part}) == 40
  assert len(lines_of(store)) == 40


KILLED = """
import sys, pathlib
sys.path[:0] = [{root!r}, {tests!r}]
import test_targets
print("ready", flush=True)
folder = pathlib.Path({folder!r})
test_targets.run_stage(folder, lambda: test_targets.Slow(folder / "log", seconds=0.02),
                       **{{"targets.batch_size": 3}})
"""


def test_killed_three_times_nothing_is_lost_or_twice(tmp_path):
  """SIGKILL at random moments; what was kept is never asked again, and the end is whole."""
  asked = [request(n) for n in range(150)]
  targets.write_requests(tmp_path / "targets", asked)
  program = KILLED.format(root=str(ROOT), tests=str(ROOT / "tests"), folder=str(tmp_path))
  store, kept = targets.Store(tmp_path / "targets", "f" * 64), [0]
  for _ in range(3):
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as job:
      assert job.stdout.readline() == "ready\n"
      while len(store.read()) == kept[-1]:
        time.sleep(0.002)
      time.sleep(random.uniform(0, 0.12))
      job.send_signal(signal.SIGKILL)
    assert job.returncode == -signal.SIGKILL
    kept.append(len(store.read()))
  assert kept == sorted(set(kept)) and kept[-1] < 150
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  keys = lines_of(store)
  assert len(keys) == len(set(keys)) == 150
  assert set(keys) == {r.key(store.teacher) for r in asked}
  said = (tmp_path / "log").read_text().splitlines()
  assert len(said) - len(set(said)) <= 3 * 3         # of each kill, the batch that was under way


# Fingerprints.


def test_another_teacher_is_another_fingerprint(tmp_path):
  (tmp_path / "a.jsonl").write_text("1")
  (tmp_path / "b.jsonl").write_text("2")
  at = {"targets.teacher": "endpoint", "targets.endpoint": "http://a/v1", "targets.model": "m"}
  own = {"targets.teacher": "file", "targets.file": str(tmp_path / "a.jsonl")}
  different = [at, {**at, "targets.model": "n"}, {**at, "targets.endpoint": "http://b/v1"},
               {**at, "targets.temperature": 1.0}, {**at, "targets.max_tokens": 7}, own,
               {**own, "targets.file": str(tmp_path / "b.jsonl")}]
  prints = [context.Run(config(**c), tmp_path, devices=False).teacher_fingerprint
            for c in different]
  assert len(set(prints)) == len(different)
  patient = {**at, "targets.retries": 9, "targets.batch_size": 2, "targets.timeout": 1.0}
  assert context.Run(config(**patient), tmp_path, devices=False).teacher_fingerprint == prints[0]


# An endpoint.


class Server:
  """A local server that answers by a list of behaviours, the last one for ever."""

  def __init__(self, *behaviours):
    self.asked, self._behaviours = [], list(behaviours)
    outer = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        outer.asked.append((self.path, self.headers.get("Authorization"), body))
        todo = outer._behaviours
        behaviour = todo.pop(0) if len(todo) > 1 else todo[0]
        behaviour(self, body)

      def log_message(self, *_):
        pass

    self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    self._server.daemon_threads = True
    self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
    threading.Thread(target=self._server.serve_forever, daemon=True).start()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._server.shutdown()
    self._server.server_close()


def reply(handler, status, data: bytes, length=None):
  handler.send_response(status)
  handler.send_header("Content-Length", str(length or len(data)))
  handler.end_headers()
  handler.wfile.write(data)


def good(handler, body):
  text = f"A fine answer to {body['messages'][0]['content'][-8:]}."
  choice = {"message": {"content": text}, "finish_reason": "stop"}
  reply(handler, 200, json.dumps({"choices": [choice]}).encode())


def fails(handler, body):
  reply(handler, 503, b"come back later")


def stalls(handler, body):
  time.sleep(1.5)


def cut_short(handler, body):
  reply(handler, 200, b'{"choices": [{"mess', length=400)


def garbage(handler, body):
  reply(handler, 200, b"<html>proxy</html>")


def no_text(handler, body):
  reply(handler, 200, b'{"choices": [{"message": {"content": null}}]}')


def refuses(handler, body):
  reply(handler, 401, b"no such key")


def endpoint(server, waits=None, **changes):
  c = config(**{"targets.teacher": "endpoint", "targets.endpoint": server.url + "/",
                "targets.model": "big", "targets.timeout": 0.4, "targets.retries": 3,
                "targets.backoff": 0.5, **changes})
  return teachers.Endpoint(c.targets, lambda rows: f"item {rows[0]}",
                           sleep=(waits if waits is not None else []).append)


def test_endpoint_is_asked_as_openai_has_it(monkeypatch):
  monkeypatch.setenv("SOME_KEY", "s3cret")
  with Server(good) as server:
    said = endpoint(server, **{"targets.api_key_env": "SOME_KEY"}).write([request(4)])
  assert said == [("A fine answer to number 4.", True)]
  (path, authorization, body), = server.asked
  assert path == "/v1/chat/completions" and authorization == "Bearer s3cret"
  assert body == {"model": "big", "max_tokens": 96, "temperature": 0.0, "top_p": 1.0, "messages": [
      {"role": "user", "content": "Write a pitch for the film below.\n\nFilm: number 4"}]}


@pytest.mark.parametrize("bad", [fails, stalls, cut_short, garbage, no_text])
def test_endpoint_that_misbehaves_is_asked_again_later_and_later(bad):
  waits = []
  with Server(bad, bad, good) as server:
    said = endpoint(server, waits).write([request(4)])
  assert said == [("A fine answer to number 4.", True)]
  assert waits == [0.5, 1.0] and len(server.asked) == 3


@pytest.mark.parametrize("bad, words, attempts", [
    (fails, "HTTP 503 come back later", 4), (stalls, "timed out", 4),
    (garbage, "no chat completion came", 4), (refuses, "HTTP 401 no such key", 1)])
def test_endpoint_that_never_answers_is_one_line_that_names_the_item(bad, words, attempts):
  waits = []
  with Server(bad) as server, pytest.raises(errors.UserError) as e:
    endpoint(server, waits).write([request(4)])
  assert words in str(e.value) and "\n" not in str(e.value)
  assert f"gave no target of elm_pitch for item 5 in {attempts} attempt(s)" in str(e.value)
  assert waits == [0.5, 1.0, 2.0][:attempts - 1]


def test_endpoint_that_is_not_there():
  with Server(good) as server:
    pass
  with pytest.raises(errors.UserError, match=r"item 1 in 4 attempt\(s\), the last: URLError"):
    endpoint(server).write([request(0)])


def test_what_others_of_a_batch_were_given_is_kept(tmp_path):
  def fails_for_two(handler, body):
    (fails if "number 2" in body["messages"][0]["content"] else good)(handler, body)

  targets.write_requests(tmp_path / "targets", [request(n) for n in range(4)])
  with Server(fails_for_two) as server:
    with pytest.raises(errors.UserError, match="for item 3 in 4 attempt"):
      run_stage(tmp_path, lambda: endpoint(server))
  store = targets.Store(tmp_path / "targets", "f" * 64)
  assert sorted(a.text for a in store.read().values()) == [
      f"A fine answer to number {n}." for n in (0, 1, 3)]
  with Server(good) as server:
    run_stage(tmp_path, lambda: endpoint(server))
    assert len(server.asked) == 1
  assert len(lines_of(store)) == 4


def test_a_key_that_is_not_set():
  with Server(good) as server, pytest.raises(errors.UserError, match="NO_KEY.* is not set"):
    endpoint(server, **{"targets.api_key_env": "NO_KEY"})


# A file of the user's.


def test_targets_of_the_users(tmp_path):
  path = tmp_path / "mine.jsonl"
  path.write_text('\ufeff{"task": "elm_pitch", "ids": [50], "target": "Steal\u2028it."}\n\n'
                  '{"task": "elm_interpolation", "ids": ["50", "7"], "target": "Both."}\n')
  teacher = teachers.File(path, lambda row: ITEMS.ids[row - 1])
  asked = [request(0), request(1), request(0, "elm_interpolation")._replace(rows=(1, 2)),
           request(0, "elm_interpolation")._replace(rows=(2, 1))]
  assert teacher.write(asked) == [("Steal\u2028it.", True), None, ("Both.", True), None]


@pytest.mark.parametrize("line, words", [
    ("not json", "line 2: expected"), ('{"task": "elm_pitch", "ids": ["1"]}', "KeyError: 'target'"),
    ('{"task": "elm_pitch", "ids": ["50"], "target": "Two."}', "has two targets"),
    ('{"task": "elm_pitch", "ids": ["1"], "target": "half \\ud83d"}', "UnicodeEncodeError"),
    ('{"task": "elm_pitch", "ids": ["1"], "target": 3}', "has no text")])
def test_a_users_file_that_is_wrong_is_named_by_line(tmp_path, line, words):
  path = tmp_path / "mine.jsonl"
  path.write_text('{"task": "elm_pitch", "ids": ["50"], "target": "One."}\n' + line + "\n")
  with pytest.raises(errors.UserError, match="mine.jsonl, line 2") as e:
    teachers.File(path, str)
  assert words in str(e.value)


# Names and words.


def test_there_are_24_and_each_has_its_prompts():
  assert len(elm.ELM_24) == 24 == len(set(elm.ELM_24))
  prompts = {path.stem for path in (ROOT / "tasks" / "prompts").glob("elm_*.json")}
  assert prompts == {*elm.KNOWN, *elm.WRITTEN}


def test_words_of_a_data_set():
  def words(name, domain=""):
    return elm.words(config_lib.load(TINY, {"data.name": name, "data.domain": domain}).data)

  assert words("ml-25m").thing == "film" and words("amazon-2014-beauty").person == "customer"
  assert words("table").thing == "item" and words("table", "book").fill(
      "{Thing}{item}: {use} {things}") == "Book{item}: read books"
