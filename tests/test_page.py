"""The page in a real browser, against the server with made-up items."""
import json
import pathlib
import re
import shutil
import socket
import threading

import numpy as np
import pytest
import uvicorn

from ilm_jax.config import variants
from ilm_jax.serving import app, limits, store
from ilm_jax.serving import engine as engine_lib
from ilm_jax.stages import describe
from tests import talks

PAGE = pathlib.Path(__file__).parents[1] / "ilm_jax/serving/page"
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-background-networking "
         "--disable-component-update --disable-sync").split()
WAIT_MS = 30_000
LIMITS = limits.Limits()


@pytest.mark.parametrize("path", sorted(PAGE.iterdir()), ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere_and_nothing_is_inline(path):
  text = path.read_text().replace("http://www.w3.org/2000/svg", "")
  assert "//" not in re.sub(r"(^|\s)//.*|\$\{\w+\}//", "", text), "an address of another host"
  for markup in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
    assert markup not in text
  if path.suffix == ".html":
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert re.findall(r"<script[^>]*>", text) == ['<script type="module" src="/page/page.js">']


class Server:
  """The application on a port of its own, over twelve made-up films."""
  titles = ("Heat", "Fargo", "Aliens", "Up", "Brazil")
  user, genre, attribute, critique = "u", "Horror", "newer", "newer, 3 steps"
  why, about, between = "nearest to it in the space", "a film at 1", "a film at"
  markup = "<script>alert(1)</script>"

  def __init__(self, engine, token=""):
    self.token, self.kept = token, store.Store(LIMITS)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(store, "Store", lambda limits: self.kept)
      made = app.create(engine, LIMITS, token=token)
    self._socket = socket.create_server(("127.0.0.1", 0))
    self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
    self._server = uvicorn.Server(uvicorn.Config(made, log_level="warning"))
    self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
    self._thread.start()

  def forget(self):
    """Drops all sessions, as a restart does."""
    self.kept._kept.clear()

  def stop(self):
    self._server.should_exit = True
    self._thread.join()
    self._socket.close()


@pytest.fixture(scope="module")
def engine(browser):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(talks, "TITLES", [*talks.TITLES[:11], Server.markup])
    patch.setattr(describe.Describer, "vectors", lambda self, row: {"behavioral": np.full(2, row)})
    patch.setattr(describe.Describer, "say", lambda self, vectors: [
        f"a film at {x['behavioral'][0]:.2f}" for x in vectors])
    made = engine_lib.Engine(talks.run(patch), (variants.ILM, variants.COMPARED["mlp"]), 5, LIMITS)
    made.warm()
    yield made
    made.thread.stop()


@pytest.fixture(scope="module")
def server(engine):
  one = Server(engine)
  yield one
  one.stop()


@pytest.fixture(scope="module")
def guarded(engine):
  one = Server(engine, "secret")
  yield one
  one.stop()


@pytest.fixture(scope="module")
def browser():
  sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is in the parity lock")
  command = shutil.which("chromium")
  if command is None:
    pytest.skip("no command chromium: apt-get install chromium")
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=command, args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def open_page(browser, server):
  """open_page(**context's settings) -> the page on its first screen; its console must stay silent
  but for the statuses in `page.expected`."""
  contexts, complaints = [], []

  def open_one(address=server.url, **settings):
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800},
                                     "reduced_motion": "reduce", **settings})
    contexts.append(context)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith((address, "blob:", "data:")) or
            complaints.append(f"asks for {request.url}"))
    page.goto(address)
    return page

  open_one.complaints = complaints
  yield open_one
  for context in contexts:
    context.close()
  assert not complaints


def talk(page, server):
  """The page in a conversation with a user of the data."""
  page.get_by_label("User id").fill(server.user)
  page.keyboard.press("Enter")
  page.locator("#lists .card").first.wait_for()
  return page


def titles(page, where="#lists"):
  return page.locator(f"{where} .card h3").all_inner_texts()


def settled(page):
  page.locator("#lists:not([aria-busy])").wait_for()


def test_new_user_likes_and_takes_back(open_page, server):
  page = open_page()
  box = page.get_by_role("combobox", name="Find a")
  for title in server.titles[:5]:
    box.fill(title)
    page.locator("#start-search [role=option]", has_text=title).first.wait_for()
    box.press("Enter")
  page.get_by_text("5 chosen").wait_for()
  page.get_by_role("button", name="Show recommendations").press("Enter")
  page.locator("#lists .card").first.wait_for()
  first = titles(page)
  assert len(first) == 5 and not set(first) & set(server.titles[:5])

  page.locator("#lists .card").first.get_by_role("button", name="Like", exact=True).press("Enter")
  page.locator("#known [data-part=liked] li", has_text=first[0]).wait_for()
  page.locator("#lists .card h3", has_text=first[0]).wait_for(state="detached")
  focused = page.evaluate(
      "document.activeElement.closest('.card')?.querySelector('h3').textContent")
  assert focused == titles(page)[0]          # the focus went to what took its place

  page.get_by_role("button", name=f"Remove {first[0]}").press("Enter")
  page.locator("#lists .card h3", has_text=first[0]).wait_for()
  page.locator("#undo").press("Enter")
  page.locator("#known [data-part=liked] li", has_text=first[0]).wait_for()


def test_critique_moves_the_list_and_its_line_moves_it_back(open_page, server):
  page = talk(open_page(), server)
  before = titles(page)
  slider = page.get_by_role("slider", name=server.attribute)
  slider.focus()
  for _ in range(3):
    slider.press("ArrowRight")
  line = page.locator("#known [data-part=asked] li", has_text=server.critique)
  line.wait_for()
  settled(page)
  after = titles(page)
  assert after != before
  assert slider.get_attribute("aria-valuetext") == "3 steps more"

  line.get_by_role("button").click()
  line.wait_for(state="detached")
  settled(page)
  assert titles(page) == before
  assert slider.input_value() == "0"


def test_why_says_why_and_the_language_model_speaks_when_asked(open_page, server):
  page = talk(open_page(), server)
  card = page.locator("#lists .card").first
  card.get_by_role("button", name="Why?").click()
  card.get_by_text(server.why).wait_for()
  assert not card.get_by_text(server.about).count()
  card.get_by_role("button", name="Ask the language model").click()
  card.get_by_text(server.about).wait_for()


def test_conversation_hears_a_limit_and_is_still_there_after_a_reload(open_page, server):
  page = talk(open_page(), server)
  page.get_by_role("textbox", name="Your message").fill(f"no {server.genre}")
  page.keyboard.press("Enter")
  page.locator("#known li", has_text=f"no {server.genre}").wait_for()
  assert page.locator(".turn.user").inner_text().endswith(f"no {server.genre}")
  assert page.locator(".turn.recommender .titles li").count() == 5
  settled(page)
  listed = titles(page)
  assert not any(server.genre in text for text in page.locator("#lists .meta").all_inner_texts())

  page.set_viewport_size({"width": 1280, "height": 500})
  page.reload()
  page.locator("#lists .card").first.wait_for()
  assert titles(page) == listed and page.locator(".turn").count() == 2
  page.wait_for_function("""() => {          // the newest words are in sight
    const log = document.getElementById("log");
    return log.scrollTop > 0 && log.scrollTop + log.clientHeight > log.scrollHeight - 2;
  }""")

  server.forget()                            # as a restarted server does
  page.reload()
  page.locator("#lists .card").first.wait_for()
  assert titles(page) == listed and page.locator(".turn").count() == 2
  open_page.complaints[:] = [text for text in open_page.complaints if "404" not in text]


def test_markup_in_a_title_or_a_message_is_text(open_page, server):
  page = open_page()
  page.get_by_role("combobox", name="Find a").fill(server.markup)
  page.locator("#start-search [role=option]", has_text=server.markup).click()
  page.get_by_role("button", name="Show recommendations").click()
  page.locator("#known li", has_text=server.markup).wait_for()
  page.get_by_role("textbox", name="Your message").fill("<img src=x onerror=alert(1)>")
  page.keyboard.press("Enter")
  page.locator(".turn.user", has_text="<img src=x").wait_for()
  assert page.locator("main script, main img").count() == 0


def test_other_parts_on_a_phone(open_page, server, tmp_path):
  page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
  page.get_by_label("User id").fill("nobody")
  page.get_by_role("button", name="Continue", exact=True).click()
  page.locator("#notice", has_text="nobody").wait_for()
  open_page.complaints.clear()               # chromium reports each 404
  talk(page, server)
  page.get_by_label("Compare with").select_option(index=1)
  page.locator("#lists section:nth-of-type(2) .card").first.wait_for()
  page.locator("#lists .card").first.get_by_role("button", name="More like this").click()
  page.locator("#sheet .card").first.wait_for()
  page.keyboard.press("Escape")
  page.locator("#sheet").wait_for(state="hidden")

  page.get_by_role("button", name="Between two").click()
  page.locator("#between-text", has_text=server.between).wait_for()
  page.get_by_role("slider", name="Place between").press("End")
  page.locator("#share-text", has_text="0 : 100").wait_for()
  page.keyboard.press("Escape")

  page.get_by_role("button", name="JSON").click()
  with page.expect_download() as download:
    page.get_by_role("button", name="Download").click()
  saved = tmp_path / "talk.json"
  download.value.save_as(saved)
  assert json.loads(saved.read_text())["opinions"][0]["kind"] == "liked"
  page.keyboard.press("Escape")

  for name in ("Conversation", "Your taste", "For you"):
    page.get_by_role("navigation", name="Parts").get_by_role("button", name=name).click()
    assert page.evaluate("document.documentElement.scrollWidth") == 390, name

  page.get_by_role("button", name="Start over").click()
  page.locator("#start").wait_for()
  with page.expect_file_chooser() as chooser:
    page.get_by_role("button", name="Open a saved").click()
  chooser.value.set_files(saved)
  page.locator("#lists .card").first.wait_for()
  page.get_by_role("button", name="Your taste").click()
  page.locator("#known [data-part=liked] li", has_text="Heat (1995)").wait_for()
  for last in ("1979", "1999"):              # a wrong span can be put right
    page.get_by_role("spinbutton", name="First year").fill("1990")
    page.get_by_role("spinbutton", name="Last year").fill(last)
    page.keyboard.press("Enter")
  page.locator("#known li", has_text="from 1990 to 1999").wait_for()


def test_token_is_asked_for(open_page, guarded):
  page = open_page(guarded.url)
  for token in ("wrong", guarded.token):
    page.get_by_label("Token", exact=True).fill(token)
    page.keyboard.press("Enter")
    if token == "wrong":
      page.get_by_text("did not accept").wait_for()
  page.locator("#start").wait_for()
  page.reload()
  page.locator("#start").wait_for()          # kept in this tab
  assert not page.locator("#token").is_visible()
  open_page.complaints[:] = [text for text in open_page.complaints if "401" not in text]


def test_page_waits_for_a_busy_server(open_page, server):
  page = open_page()
  statuses = [429, 503]

  def refuse(route):
    if statuses:
      route.fulfill(status=statuses.pop(0), headers={"Retry-After": "7"}, body="{}")
    else:
      route.continue_()

  page.route("**/v1/recommend", refuse)
  page.clock.install()
  page.get_by_label("User id").fill(server.user)
  page.keyboard.press("Enter")
  page.locator("#notice", has_text="is busy. Trying again in 7 s").wait_for()
  page.clock.run_for(7000)
  page.locator("#notice", has_text="is not ready. Trying again in 7 s").wait_for()
  page.clock.run_for(7000)
  page.locator("#lists .card").first.wait_for()
  assert page.locator("#notice").is_hidden()
  open_page.complaints[:] = [text for text in open_page.complaints
                             if "429" not in text and "503" not in text]


def test_page_says_that_the_server_is_gone_and_goes_on_when_it_is_back(open_page, server):
  page = talk(open_page(), server)
  page.route("**/v1/**", lambda route: route.abort())
  say = page.get_by_role("textbox", name="Your message")
  say.fill("something newer")
  say.press("Enter")
  page.locator("#notice", has_text="does not answer").wait_for()
  assert say.input_value() == "something newer"
  page.unroute("**/v1/**")
  say.press("Enter")
  page.locator(".turn.recommender .titles").wait_for()
  assert page.locator("#notice").is_hidden() and page.locator(".turn").count() == 2
  open_page.complaints[:] = [text for text in open_page.complaints if "ERR_FAILED" not in text]
