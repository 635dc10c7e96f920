"""`make site`, in its own environment: no warning, no broken link, nothing fetched, every figure there, readable on a phone and in the dark."""

import hashlib
import json
import re
import subprocess
import venv
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from utils.course.chapters import read_chapter, stems
from utils.paths import ROOT, cache_dir

LOCK = ROOT / "requirements-site.lock"


class Page(HTMLParser):
    """The links, the resources, the anchors and the pictures of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.resources, self.anchors, self.pictures = [], [], set(), 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        self.pictures += tag == "img"
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("link", "script", "img") and (place := given.get("src") or given.get("href")):
            self.resources.append(place)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built site."""
    home = cache_dir() / "test-tools" / f"site-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    if not (home / "done").exists():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", LOCK], check=True, capture_output=True)
        (home / "done").touch()
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run([home / "bin" / "python", ROOT / "docs" / "site" / "build.py", out], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr[-3000:]
    return out / "html"


@pytest.fixture(scope="session")
def pages(site):
    return {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}


def test_no_link_is_broken(site, pages):
    broken = []
    for path, page in pages.items():
        for link in (*page.links, *page.resources):
            parts = urlsplit(link)
            if parts.scheme or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.exists() or anchor and target in pages and anchor not in pages[target].anchors:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken, "\n".join(broken[:20])


def test_links_to_the_repository_name_files_that_are_there(pages):
    named = {found[1] for page in pages.values() for link in page.links if (found := re.search(r"/blob/main/([\w/.-]+)$", link))}
    assert named and not [name for name in named if not (ROOT / name).exists()]


def test_nothing_is_fetched(pages):
    assert not [place for page in pages.values() for place in page.resources if urlsplit(place).scheme in ("http", "https")]


@pytest.mark.parametrize("stem", stems())
def test_a_chapter_is_all_there(site, pages, stem):
    """Every figure as a picture, links to Colab and to the exercise notebook, errata at every exercise, no formula left as LaTeX."""
    page, text = pages[site / f"{stem}.html"], (site / f"{stem}.html").read_text("utf-8")
    cells = json.loads((ROOT / "solutions" / f"{stem}.ipynb").read_text("utf-8"))["cells"]
    figures = sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    assert page.pictures >= figures > 3
    assert f"notebooks/{stem}.ipynb" in page.links and any("colab.research.google.com" in link for link in page.links)
    assert sum("/issues/new?title=" in link for link in page.links) == len(read_chapter(stem).exercises)
    assert "\\frac" not in text and "\\mathrm" not in text


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reads_on_a_phone_and_in_the_dark(site, chromium, shoot, width, scheme):
    """From the file system: the gallery's pictures load, no page is wider than the screen, and the search finds a word."""
    page = chromium.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
    for name in ("index", "11_linear_probes", "where_this_goes"):
        page.goto(f"file://{site}/{name}.html")
        page.wait_for_load_state("load")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        shoot(page, f"site_{name}_{width}_{scheme}")
    page.goto(f"file://{site}/index.html")
    page.evaluate("for (const picture of document.images) picture.loading = 'eager'")
    page.wait_for_function("[...document.images].every(picture => picture.complete && picture.naturalWidth > 0)")
    shade = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0)")
    assert shade < 200 if scheme == "dark" else shade > 600
    page.goto(f"file://{site}/search.html?q=residual")
    page.locator("#search-results li").first.wait_for()
    page.close()
