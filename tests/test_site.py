"""README and docs/: links, the site's navigation, page lengths; and the site where mkdocs is."""
import html.parser
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
HOW_TO_LINES = 60
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^()\s]+)\)")


def prose(path) -> str:
  return _FENCE.sub("", path.read_text())


def anchors(path) -> set[str]:
  """The ids that MkDocs and GitHub make of a page's headings."""
  titles = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
  return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.strip().lower())) for title in titles}


def broken(path) -> list[str]:
  """The relative links of a page that lead nowhere."""
  wrong = []
  for link in _LINK.findall(prose(path)):
    url = urllib.parse.urlsplit(link)
    if url.scheme:
      continue
    target = (path.parent / url.path).resolve() if url.path else path
    if not target.exists() or (url.fragment and url.fragment not in anchors(target)):
      wrong.append(link)
  return wrong


def test_a_broken_link_is_noticed(tmp_path):
  page = tmp_path / "page.md"
  page.write_text("# One thing\n[a](#one-thing) [b](page.md) [c](#another) [d](gone.md)\n"
                  "```\n[e](no_link.md)\n```\n")
  assert broken(page) == ["#another", "gone.md"]


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "DESIGN.md", *PAGES],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path):
  assert broken(path) == []


def navigation(entries) -> list[str]:
  """The pages of a nav, in order."""
  pages = []
  for entry in entries:
    value = next(iter(entry.values())) if isinstance(entry, dict) else entry
    pages += navigation(value) if isinstance(value, list) else [value]
  return pages


def test_every_page_stands_in_the_navigation_once():
  named = navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
  assert sorted(named) == sorted(str(path.relative_to(DOCS)) for path in PAGES)


def test_how_to_pages_are_short_and_readme_too():
  nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
  how_to = next(entry["How-to"] for entry in nav if "How-to" in entry)
  long = {page: lines for page in navigation(how_to)
          if (lines := len((DOCS / page).read_text().splitlines())) >= HOW_TO_LINES}
  assert long == {}
  assert len((ROOT / "README.md").read_text().splitlines()) <= 110


def test_pages_that_the_code_names_are_there():
  """Configs, messages and docstrings send readers to pages of docs/."""
  gone = set()
  for path in ROOT.rglob("*.py"):
    if any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts):
      continue
    for page in re.findall(r"\bdocs/[\w/]+\.md\b", path.read_text()):
      if not (ROOT / page).is_file():
        gone.add((str(path.relative_to(ROOT)), page))
  assert gone == set()


def test_a_table_has_as_many_cells_in_every_row():
  """A pipe in a cell shifts the rest of its row."""
  wrong = []
  for path in PAGES:
    width = 0
    for line in prose(path).splitlines():
      cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
      if cells and width and cells != width:
        wrong.append((path.name, line[:60]))
      width = cells
  assert wrong == []


def pins(name: str) -> dict[str, str]:
  """{package: version} of a lock."""
  return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / name).read_text(), re.MULTILINE))


def test_the_site_is_built_by_versions_that_the_other_lock_has():
  site, main = pins("requirements-docs.lock"), pins("requirements.lock")
  assert "mkdocs-material" in site and site.keys() & main.keys()
  assert {name: site[name] for name in site.keys() & main.keys() if site[name] != main[name]} == {}


class _Sources(html.parser.HTMLParser):
  """What a page loads and links to."""

  def __init__(self):
    super().__init__()
    self.loads, self.links = [], []

  def handle_starttag(self, tag, attributes):
    given = dict(attributes)
    if tag in ("script", "img", "iframe") and given.get("src"):
      self.loads.append(given["src"])
    if tag == "link" and given.get("rel") != "canonical":
      self.loads.append(given["href"])
    if tag == "a" and given.get("href"):
      self.links.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  pytest.importorskip("mkdocs", reason="pip install -r requirements-docs.lock")
  folder = tmp_path_factory.mktemp("site")
  done = subprocess.run(
      [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
      cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  return folder


def test_the_site_loads_nothing_from_elsewhere_and_its_links_lead_somewhere(site):
  built = sorted(site.rglob("*.html"))
  assert len(built) >= len(PAGES)
  for path in built:
    page = _Sources()
    page.feed(path.read_text())
    for url in map(urllib.parse.urlsplit, page.loads):
      assert not url.netloc, (path.name, url.geturl())
    for url in map(urllib.parse.urlsplit, page.links):
      if path.name == "404.html" or url.scheme or not url.path:
        continue
      assert (path.parent / urllib.parse.unquote(url.path)).exists(), (path.name, url.geturl())
