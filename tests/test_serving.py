"""The server's routes over a run of twelve films, without a network."""
import asyncio
import dataclasses
import json
import threading
import time
import types

import numpy as np
import pytest
from starlette import testclient

from configs import tiny
from ilm_jax import errors
from ilm_jax.config import variants
from ilm_jax.conversation import session as session_lib
from ilm_jax.serving import app, engine, gate, limits, model_thread, server, store
from ilm_jax.stages import describe, ranker
from tests import talks

LIMITS = limits.Limits(body=20_000, turns=8, statements=40, reply=5000, seconds=5, patience=0.5,
                       requests=8)
MODELS = (variants.ILM, variants.COMPARED["mlp"])


@pytest.fixture(scope="module")
def served():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(describe.Describer, "vectors", lambda self, row: {"behavioral": np.full(2, row)})
    patch.setattr(describe.Describer, "say", lambda self, vectors: [
        f"a film\nat {x['behavioral'][0]:.2f}" for x in vectors])
    made = engine.Engine(talks.run(patch), MODELS, 2, LIMITS)
    made.warm()
    yield made
    made.thread.stop()


@pytest.fixture(scope="module")
def client(served):
  with testclient.TestClient(app.create(served, LIMITS), raise_server_exceptions=False) as client:
    yield client


def post(client, path, **body):
  done = client.post(f"/v1/{path}", json=body)
  assert done.status_code == 200, done.text
  return done.json()


def ids(answer):
  return [card["id"] for card in answer["recommendations"]]


def refused(done, status, *words):
  """The one line of a refusal."""
  error = done.json()["error"]
  assert done.status_code == status and "\n" not in error["message"]
  assert all(word in error["message"] for word in words), error
  return error


def says(text, **more):
  return {"messages": [{"role": "user", "content": text}], **more}


# What is recommended.

def test_what_is_served(client):
  about = client.get("/v1/models").json()
  assert [(model["id"], model["label"]) for model in about["data"]] == [
      ("ilm", "ILM"), ("mlp", "MLP projector")]
  assert (about["k"], about["items"], about["things"], about["users"]) == (2, 12, "films", True)
  assert about["thing"] == "film"
  assert about["genres"] == ["Comedy", "Crime", "Horror"] and about["attributes"] == ["new"]


def test_recommendations_by_ids_titles_and_sessions(client):
  assert ids(post(client, "recommend", liked=["i1", "Fargo (1996)"])) == ["i12", "i11"]
  assert ids(post(client, "recommend", liked=["Psycho"], k=1, model="mlp")) == ["i11"]
  session = {"opinions": [{"item": "i12", "kind": "liked"}]}
  first = post(client, "recommend", session=session)["recommendations"][0]
  assert first == {"id": "i11", "title": "Gandhi", "year": 1982, "genres": ["Comedy"],
                   "score": 11.0, "why": None}
  assert ids(post(client, "recommend", session={})) == []


@pytest.mark.parametrize("path", ["/", "/v1/items", "/v1/sessions/"])
def test_a_query_of_other_bytes_than_ascii_is_refused(client, path):
  """The framework would decode it as UTF-8 where it redirects, and fail."""
  scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
           "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "http",
           "query_string": b"q=\xff\xff", "headers": [(b"host", b"testserver")], "server": None}
  sent = []

  async def send(message):
    sent.append(message)

  async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}

  asyncio.run(client.app(scope, receive, send))
  assert sent[0]["status"] == 400 and b"expected %XX" in sent[1]["body"]


def test_a_critique_moves_and_is_kept(client):
  raw = post(client, "sessions", session={"opinions": [{"item": "i1", "kind": "liked"}]})["id"]
  moved = post(client, "critique", session_id=raw, attribute="new", steps=6)
  assert ids(moved)[0] == "i5"
  assert client.get(f"/v1/sessions/{raw}").json()["session"] == moved["session"]
  assert post(client, "explain", session_id=raw, item="Up")["why"].splitlines()[1] == (
      "You asked for newer; its labels fit.")


def test_similar_items_found_items_and_users(client):
  assert ids(post(client, "similar", item="i1", k=3))[0] in ("i2", "i7")
  found = client.get("/v1/items", params={"q": "ALIEN", "k": 5}).json()["items"]
  assert [card["id"] for card in found] == ["i3", "i4"]
  assert len(client.get("/v1/items").json()["items"]) == 10
  named = client.get("/v1/items", params={"ids": "i4,nothing,i1"}).json()["items"]
  assert [(card["id"], card["title"]) for card in named] == [("i4", "Aliens"), ("i1", "Heat")]
  vector = post(client, "users", liked=["i1"])["vector"]
  assert len(vector) == 2 and vector != [0, 0]


def test_texts_by_the_language_model(client):
  session = {"opinions": [{"item": "i1", "kind": "liked"}]}
  assert post(client, "explain", session=session, item="i2")["about"] is None
  said = post(client, "explain", session=session, item="i2", about=True)
  assert said["about"] == "From the vector of Fargo (1996) alone: a film at 2.00"
  assert post(client, "between", first="i1", second="i3", share=0.25) == {"text": "a film at 1.50"}


# Sessions.

def edits(client, raw, *edits):
  done = client.patch(f"/v1/sessions/{raw}", json={"edits": edits})
  assert done.status_code == 200, done.text
  return done.json()["session"]


def test_a_session_is_edited_and_taken_back(client):
  raw = post(client, "sessions")["id"]
  now = edits(client, raw, {"do": "like", "item": "Heat"}, {"do": "seen", "item": "i2"})
  assert [(each["item"], each["kind"]) for each in now["opinions"]] == [
      ("i1", "liked"), ("i2", "seen")]
  assert [turn["text"] for turn in now["turns"]] == [
      "I like Heat (1995).", "I have seen Fargo (1996)."]
  now = edits(client, raw, {"do": "constrain", "genres": ["crime"], "years": [1990, None]},
              {"do": "critique", "attribute": "new", "steps": -1}, {"do": "forget", "item": "i2"})
  assert now["constraints"][0]["years"] == [1990, None] and len(now["opinions"]) == 1
  assert ids(post(client, "recommend", session_id=raw)) == ["i10", "i7"]
  assert len(edits(client, raw, {"do": "undo"})["opinions"]) == 2          # forgetting is undone
  assert edits(client, raw, {"do": "undo"})["critiques"] == []
  assert edits(client, raw, {"do": "remove", "part": "opinions", "number": 0})["opinions"] == [
      now["opinions"][0] | {"item": "i2", "kind": "seen", "turn": 2}]
  assert edits(client, raw, *[{"do": "undo"}] * 9) == post(client, "sessions")["session"]


def test_edits_are_made_all_or_not_at_all(client):
  raw = post(client, "sessions")["id"]
  done = client.patch(f"/v1/sessions/{raw}", json={"edits": [
      {"do": "like", "item": "i1"}, {"do": "critique", "attribute": "dark", "steps": 1}]})
  refused(done, 400, "critique 'dark' has no direction")
  assert client.get(f"/v1/sessions/{raw}").json()["session"]["opinions"] == []
  done = client.patch(f"/v1/sessions/{raw}", json={"edits": [
      {"do": "constrain", "genres": ["Wstern"]}]})
  refused(done, 400, "genre 'Wstern' is not in the catalogue, expected some of Comedy, Crime")


def test_a_known_user_and_a_session_kept_elsewhere(client):
  known = post(client, "sessions", user="u")["session"]
  assert [each["item"] for each in known["opinions"]] == ["i1"]
  refused(client.post("/v1/sessions", json={"user": "x"}), 400, "none of the 1 users")
  again = post(client, "sessions", session=known)
  assert again["session"] == known
  assert client.delete(f"/v1/sessions/{again['id']}").status_code == 204
  refused(client.get(f"/v1/sessions/{again['id']}"), 404, "no session has this id")


def test_a_session_that_is_too_long_is_not_begun(client, served, monkeypatch):
  """Later requests could not use it."""
  many = session_lib.Session(tuple(session_lib.Opinion("i1", "liked") for _ in range(41)))
  monkeypatch.setattr(served.talker(), "user", lambda raw: many)
  refused(client.post("/v1/sessions", json={"user": "u"}), 400, "41 statements, expected 40")


def test_sessions_go_after_a_while_and_when_there_are_too_many():
  now = [0.0]
  kept = store.Store(limits.Limits(sessions=2, idle=10), lambda: now[0])
  first, second = (kept.add(session_lib.Session()) for _ in range(2))
  now[0] = 6.0
  with kept.opened(first):
    pass
  now[0] = 9.0
  third = kept.add(session_lib.Session())          # the second was used least recently
  assert len(kept) == 2 and len({first, second, third}) == 3 and len(first) >= 20
  with pytest.raises(limits.Refused, match="no session has this id"), kept.opened(second):
    pass
  now[0] = 16.5
  with pytest.raises(limits.Refused), kept.opened(first):
    pass
  with kept.opened(third):
    assert len(kept) == 1


def test_what_is_kept_to_be_taken_back_is_no_larger_than_so_much():
  kept = store.Kept(session_lib.Session(), limits.Limits(undo=9, undo_size=25_000))
  for n in range(6):
    turn = session_lib.Turn(session_lib.USER, "x" * 9_900)
    kept.replace(session_lib.like(session_lib.add_turn(session_lib.Session(), turn), f"i{n}"))
  assert [each.opinions[0].item for each in kept.earlier()] == ["i3", "i4"]
  kept.replace(session_lib.Session())
  assert kept.session.opinions == () and len(kept.earlier()) == 2


# Conversations.

def test_a_chat_with_a_session_that_is_kept(client):
  raw = post(client, "sessions")["id"]
  said = post(client, "chat/completions", **says("I loved Psycho", session_id=raw))
  choice = said["choices"][0]
  assert choice["message"]["content"] == (
      "Try these:\n1. Gandhi (1982)  Comedy\n2. Speed (1994)  Crime")
  assert choice["finish_reason"] == "stop" and said["object"] == "chat.completion"
  assert [card["id"] for card in said["recommendations"]] == ["i11", "i10"]
  assert all("Psycho (1960) is nearest" in card["why"] for card in said["recommendations"])
  said = post(client, "chat/completions", **says("why 2?", session_id=raw))
  assert "Psycho (1960) is nearest" in said["choices"][0]["message"]["content"]
  assert said["act"] == "explain" and said["recommendations"] == []
  kept = client.get(f"/v1/sessions/{raw}").json()["session"]
  assert kept == said["session"] and len(kept["turns"]) == 4
  # Undone is what changed: the likes, not the question.
  assert edits(client, raw, {"do": "undo"})["opinions"] == []


def test_a_chat_lists_as_many_as_it_is_asked_for(client):
  raw = post(client, "sessions")["id"]
  for asked in ({}, {"session_id": raw}):
    said = post(client, "chat/completions", **says("I loved Psycho", k=3, **asked))
    assert [card["id"] for card in said["recommendations"]][:2] == ["i11", "i10"]
    assert len(said["recommendations"]) == 3


def test_a_chat_is_replayed_from_its_messages(client):
  first = post(client, "chat/completions", **says("I like Psycho. more like Xanadu"))
  assert first["choices"][0]["message"]["content"].startswith("'Xanadu' is the title of no item")
  first = post(client, "chat/completions", **says("I like Psycho"))["choices"][0]["message"]
  messages = [{"role": "system", "content": "Be kind."},
              {"role": "user", "content": "I like Psycho"}, first,
              {"role": "user", "content": [{"type": "text", "text": "no comedy"}]}]
  said = post(client, "chat/completions", messages=messages)
  assert [card["id"] for card in said["recommendations"]] == ["i10", "i8"]
  assert said["session"]["turns"][1]["items"] == ["i11", "i10"]
  messages[-1] = {"role": "user", "content": "why 2"}
  said = post(client, "chat/completions", messages=messages, temperature=0.3)
  assert said["act"] == "explain"
  assert said["session"]["turns"][-1]["items"] == ["i10"]


def test_a_question_of_any_words_is_answered_in_little_time(client):
  """In a session that the client sends."""
  for words in ("More of " * 600, f"Newer than {'9' * 4500}, or older?"):
    session = {"turns": [{"role": "recommender", "act": "ask", "text": words}]}
    began = time.process_time()
    post(client, "chat/completions", **says("I loved Psycho", session=session))
    assert time.process_time() - began < 2


def test_earlier_messages_are_read_for_a_limited_time(client, served, monkeypatch):
  messages = [{"role": "user", "content": "I like Psycho"}, {"role": "user", "content": "hello"}]
  monkeypatch.setattr(served, "limits", dataclasses.replace(LIMITS, replay=-1.0))
  for path, body in (("chat/completions", {"messages": messages}),
                     ("usersimcrs", {"context": ["I like Psycho", "Well"], "message": "hello"})):
    error = refused(client.post(f"/v1/{path}", json=body), 504, "send fewer, or use a session_id")
    assert error["code"] == "timeout"
  post(client, "chat/completions", messages=messages[1:])


def test_words_that_no_label_knows_are_guessed(monkeypatch):
  monkeypatch.setattr(ranker, "_LEAST", 4)             # genres have a direction
  made = engine.Engine(talks.run(monkeypatch), MODELS[:1], 2, LIMITS)
  made.warm()
  with testclient.TestClient(app.create(made, LIMITS), raise_server_exceptions=False) as client:
    said = post(client, "chat/completions", **says("I like Clerks, but something grimmer"))
    assert said["choices"][0]["message"]["content"].startswith(
        "'grim': guessed from the films' texts; no label says it.")
    assert said["guessed"] == ["grim"] and said["unread"] == []
    moved = post(client, "critique", session=said["session"], attribute="Grim", steps=9)
    assert moved["recommendations"][0]["genres"] == ["Crime"]
    done = client.post("/v1/critique", json={"session": {}, "attribute": "zing", "steps": 1})
    refused(done, 400, "critique 'zing' has no direction")
  made.thread.stop()


def test_texts_and_guesses_are_made_before_anybody_asks(monkeypatch):
  said, encoded = [], []
  monkeypatch.setattr(describe.Describer, "vectors", lambda self, row: row)
  monkeypatch.setattr(describe.Describer, "say", lambda self, x: said.append(x) or ["x"])
  run, bound = talks.run(monkeypatch), limits.Limits(seconds=0.2)
  of_run = run.sentence_vectors

  def encode(texts, tokens=0):
    time.sleep(0 if encoded else 0.5)                  # the first one compiles
    encoded.append((len(texts), tokens))
    return of_run(texts)

  monkeypatch.setattr(ranker, "_LEAST", 4)             # genres have a direction
  run.sentence_vectors = encode
  made = engine.Engine(run, MODELS, 2, bound)
  made.warm()
  assert said == [[1], [1]]                            # of each model: what most users have
  assert encoded == [(2, 32), (3, 32)] * 2             # a word in two forms; the attributes
  made.thread.stop()

  def refuse(self, vectors):
    raise errors.UserError("tasks.mixture has no task about one item")
  monkeypatch.setattr(describe.Describer, "say", refuse)
  made = engine.Engine(run, MODELS, 2, LIMITS)
  made.warm()
  assert made.ready
  made.thread.stop()


def test_a_streamed_chat_is_the_plain_one_in_pieces(client):
  plain = post(client, "chat/completions", **says("I loved Psycho"))
  done = client.post("/v1/chat/completions", json=says(
      "I loved Psycho", stream=True, stream_options={"include_usage": True}))
  assert done.headers["content-type"].startswith("text/event-stream")
  events = [line.removeprefix("data: ") for line in done.text.split("\n\n")[:-1]]
  assert events.pop() == "[DONE]"
  *chunks, usage = map(json.loads, events)
  assert usage["choices"] == [] and usage["usage"] == plain["usage"]
  deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
  assert "".join(d.get("content", "") for d in deltas) == plain["choices"][0]["message"]["content"]
  assert deltas[0]["role"] == "assistant" and len(deltas) > 5
  assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == [None, "stop"]
  for name in ("recommendations", "session", "act"):
    assert chunks[-1][name] == plain[name] and name not in chunks[0]


def test_a_reply_of_so_many_words_at_most(client):
  said = post(client, "chat/completions", **says("I loved Psycho", max_tokens=3))
  assert said["choices"][0]["message"]["content"] == "Try these:\n1."
  assert said["choices"][0]["finish_reason"] == "length" and said["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("repeated", [False, True], ids=["before", "with the message"])
def test_what_usersimcrs_sends(client, repeated):
  """It looks whether somebody is there, then sends what was said by both in turn: at its commit
  1e7d339 with DialogueKit 0.1.1 the context ends with the message itself."""
  assert client.get("/v1/usersimcrs").status_code == 200
  context, said = [], []
  for message in ("hello", "I like Psycho", "no comedy"):
    done = client.post("/v1/usersimcrs", json={
        "context": [*context, message] if repeated else context, "message": message})
    assert done.headers["content-type"].startswith("text/plain")
    context += [message, done.text]
    said.append(done.text)
  assert said[0].endswith("Which do you like? Name a few by title.")
  assert said[1] == "Try these:\n1. Gandhi (1982)  Comedy\n2. Speed (1994)  Crime"
  assert said[2].splitlines()[1:] == ["1. Speed (1994)  Crime", "2. Seven (1995)  Horror"]


# The model thread.

def test_what_waits_is_scored_together():
  go, sizes, asked = threading.Event(), [], []
  thread = model_thread.ModelThread(limits.Limits(together=4), lambda n, _: sizes.append(n))

  def scores(histories):
    asked.append([int(h[0]) for h in histories])
    return np.stack([h * 2 for h in histories])

  made = {}
  first = threading.Thread(target=lambda: thread.call(lambda: [go.wait(5)]))
  first.start()
  others = []
  for n in range(6):
    others.append(threading.Thread(target=lambda n=n: made.update(
        {n: int(thread.scores(scores, np.array([n]))[0])})))
    others[-1].start()
    while thread.waiting < n + 1:
      time.sleep(0.001)
  go.set()
  for each in (first, *others):
    each.join(5)
  assert made == {n: 2 * n for n in range(6)} and asked == [[0, 1, 2, 3], [4, 5]]
  assert sizes == [1, 4, 2]
  thread.stop()
  with pytest.raises(limits.Refused, match="stopping"):
    thread.call(list)


def test_more_than_may_wait_is_refused_and_a_fault_harms_nobody_else():
  go, thread = threading.Event(), model_thread.ModelThread(limits.Limits(waiting=1, seconds=0.2))
  codes = []

  def refused_later(function):
    try:
      thread.call(function)
    except limits.Refused as e:
      codes.append(e.status)

  others = [threading.Thread(target=refused_later, args=(f,)) for f in (lambda: go.wait(5), list)]
  others[0].start()
  time.sleep(0.05)
  others[1].start()
  while not thread.waiting:
    time.sleep(0.001)
  with pytest.raises(limits.Refused) as e:
    thread.call(list)
  assert e.value.status == 429 and e.value.headers()["Retry-After"] == "1"
  for each in others:
    each.join(5)
  assert codes == [504, 504]
  go.set()
  with pytest.raises(ZeroDivisionError):
    thread.call(lambda: 1 / 0)
  assert thread.call(lambda: 3) == 3
  thread.stop()


# What is refused.

@pytest.mark.parametrize(("path", "body", "status", "words"), [
    ("recommend", {"liked": ["Xanadu"]}, 400, ("no item is called 'Xanadu'",)),
    ("recommend", {"liked": ["user:u"]}, 400, ("user:u is a user",)),
    ("recommend", {}, 400, ("expected one of session_id and session",)),
    ("recommend", {"liked": ["i1"], "session": {}}, 400, ("expected one of",)),
    ("recommend", {"liked": []}, 422, ("liked: ",)),
    ("users", {"liked": ["i1"] * 41}, 400, ("41 items are liked, expected 40",)),
    ("recommend", {"liked": ["i1"], "k": 101}, 422, ("k: ",)),
    ("recommend", {"liked": ["i1"], "k": "5"}, 422, ("k: ",)),
    ("recommend", {"liked": ["i1"], "kk": 5}, 422, ("kk: ",)),
    ("recommend", {"liked": ["i1"], "model": "gpt"}, 404, ("model 'gpt' is not served",)),
    ("recommend", {"session_id": "../../etc/passwd"}, 404, ("no session has this id",)),
    ("recommend", {"session": {"opinion": []}}, 400, ("did you mean 'opinions'",)),
    ("recommend", {"session": {"opinions": [{"item": "x", "kind": "liked"}]}}, 400,
     ("item 'x' is not in this catalogue",)),
    ("recommend", {"session": {"critiques": [{"attribute": "new", "steps": 1, "turn": 7}]}}, 400,
     ("at most 0, the number of turns",)),
    ("recommend", {"session": {"turns": [{"role": "user", "text": "x"}] * 9}}, 400,
     ("9 turns, expected 8",)),
    ("recommend", {"session": {"turns": [{"role": "user", "text": "x" * 2001}]}}, 400,
     ("turns[0].text has 2,001 characters, expected 2,000 at most",)),
    ("recommend", {"session": {"turns": [{"role": "recommender", "text": "x" * 5001}]}}, 400,
     ("turns[0].text has 5,001 characters, expected 5,000 at most",)),
    ("explain", {"session": {}, "item": "i1"}, 400, ("nothing is liked yet",)),
    ("between", {"first": "i1", "second": "i2", "share": 1.5}, 422, ("share: ",)),
    ("similar", {"item": "x" * 301}, 422, ("item: ",)),
    ("sessions", {"user": "u", "session": {}}, 400, ("at most one",)),
    ("chat/completions", says("what of <slot>?"), 400, ("'<slot>', which marks",)),
    ("chat/completions", says("x" * 2001), 400, ("2,001 characters",)),
    ("chat/completions", says(" "), 400, ("the text is empty",)),
    ("chat/completions", {"messages": [{"role": "assistant", "content": "x"}]}, 400,
     ("role 'assistant', expected 'user'",)),
    ("chat/completions", {"messages": []}, 422, ("messages: ",)),
    ("chat/completions", says("hi", model="gpt"), 404, ("expected one of ilm, mlp",)),
    ("chat/completions", says("hi", n=2), 422, ("n: ",)),
    ("usersimcrs", {"message": "<slot>"}, 400, ("'<slot>'",)),
    ("usersimcrs", {"context": "x", "message": "y"}, 422, ("context: ",))])
def test_a_wrong_request_is_one_line(client, path, body, status, words):
  refused(client.post(f"/v1/{path}", json=body), status, *words)


@pytest.mark.parametrize("body", [
    b"", b"{", b"\xff\xfe", b"[" * 10_000, b'{"liked": ' + b"[" * 9_000 + b"]" * 9_000 + b"}",
    b'{"session": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}", b'{"k": ' + b"9" * 6000 + b"}",
    b'{"liked": ["\\ud800"]}', b'{"liked": ["a\\u0000b"]}', b'{"k": NaN}', b"null", b"3"])
def test_a_malformed_body_is_a_clean_refusal(client, body):
  for path in ("recommend", "critique", "chat/completions", "sessions"):
    done = client.post(f"/v1/{path}", content=body, headers={"content-type": "application/json"})
    assert 400 <= done.status_code < 500 and done.json()["error"]["message"]


@pytest.mark.parametrize("path", [
    "/page/../app.py", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/../../etc/passwd",
    "/page//etc/passwd", "/static/x", "/v1/none", "/docs", "/page/index.html%00"])
def test_no_path_leads_to_the_file_system(client, path):
  assert refused(client.get(path), 404)["type"] == "not_found_error"


def test_methods_and_forms_that_are_not_there(client):
  refused(client.delete("/v1/recommend"), 405)
  done = client.post("/v1/recommend", content=b'{"liked": ["i1"]}',
                     headers={"content-type": "text/plain"})
  refused(done, 422)            # what a page of another host may send without asking first


def test_too_large_a_body_is_refused(client):
  refused(client.post("/v1/recommend", content=b" " * 20_001), 413, "20,000 bytes")
  refused(client.post("/v1/recommend", content=iter([b" " * 9000] * 3)), 413)
  refused(client.post("/v1/recommend", content=b" " * 400_000), 413)


def test_a_token_guards_the_api_and_its_numbers(served):
  guarded = testclient.TestClient(app.create(served, LIMITS, token="s3crét"))
  for path in ("/v1/models", "/metrics"):
    done = guarded.get(path)
    assert refused(done, 401)["type"] == "authentication_error"
    assert done.headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer x", "Basic s3crét", "s3crét", "Bearer "):
      assert guarded.get(path, headers={"authorization": wrong.encode()}).status_code == 401
    right = {"authorization": "Bearer s3crét".encode()}
    assert guarded.get(path, headers=right).status_code == 200
  assert guarded.get("/healthz").status_code == guarded.get("/readyz").status_code == 200


def test_another_name_of_this_machine_is_refused(served):
  """A page whose name was made to mean this machine gets nothing."""
  local = testclient.TestClient(app.create(served, LIMITS, hosts=("127.0.0.1", "[::1]")),
                                base_url="http://127.0.0.1:8000")
  assert local.get("/healthz").status_code == 200
  assert local.get("/healthz", headers={"host": "[::1]:80"}).status_code == 200
  refused(local.get("/v1/models", headers={"host": "evil.example"}), 400, "evil.example")


def test_nothing_is_answered_before_the_models_are_ready(served, monkeypatch):
  monkeypatch.setattr(served, "ready", False)
  client = testclient.TestClient(app.create(served, LIMITS))
  assert client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200
  done = client.post("/v1/recommend", json={"liked": ["i1"]})
  assert refused(done, 503)["code"] == "not_ready" and done.headers["retry-after"] == "5"


def test_a_fault_is_no_leak(client, served, monkeypatch):
  monkeypatch.setattr(served, "about", lambda: 1 / 0)
  error = refused(client.get("/v1/models"), 500)
  assert error["message"] == "the server failed: see its log"


def test_headers_and_numbers(client):
  done = client.get("/v1/models", headers={"origin": "http://evil.example"})
  assert done.headers["content-security-policy"] == gate.CSP
  assert "access-control-allow-origin" not in done.headers
  assert done.headers["x-content-type-options"] == "nosniff"
  client.get("/v1/sessions/" + "x" * 20)
  text = client.get("/metrics").text
  assert 'ilm_requests_total{route="/v1/models",status="200"}' in text
  assert 'ilm_requests_total{route="/v1/sessions/{raw}",status="404"}' in text
  assert "ilm_sessions " in text and "ilm_waiting 0.0" in text and "xxxx" not in text


# What is served.

def test_the_models_that_are_trained_are_served(tmp_path, monkeypatch):
  config = tiny.get_config()
  config.phase2.compare = ("mlp", "rand")
  run = types.SimpleNamespace(config=config, workdir=tmp_path)
  with pytest.raises(errors.UserError, match="phase2 has no checkpoint: run --stage=phase2"):
    engine.served(run, "ilm")
  monkeypatch.setattr(engine.checkpoint, "newest", lambda folder: (
      3 if folder.parent.name in ("phase2", "phase2_mlp") else None))
  assert [variant.key for variant in engine.served(run, "mlp")] == ["mlp", "ilm"]
  with pytest.raises(errors.UserError, match="phase2_rand has no checkpoint"):
    engine.served(run, "rand")


def test_where_the_dot_product_ranks_only_its_model_is_served(tmp_path, monkeypatch):
  config = tiny.get_config()
  config.phase2.compare, config.phase2.head.weight, config.phase1.losses.ui = ("rand",), 0.0, 1.0
  run = types.SimpleNamespace(config=config, workdir=tmp_path)
  monkeypatch.setattr(engine.checkpoint, "newest", lambda folder: 3)
  assert [variant.key for variant in engine.served(run, "ilm")] == ["ilm"]
  config.phase2.head.weight = 1.0
  assert [variant.key for variant in engine.served(run, "ilm")] == ["ilm", "rand"]


def test_lists_that_are_too_long_are_not_served():
  with pytest.raises(errors.UserError, match="--k=101: expected 1 to 100"):
    server.run(None, server.Wish(k=101))
