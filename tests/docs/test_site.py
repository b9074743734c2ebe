"""The documentation as a site: built strictly, in the browser, without a request to another server."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from browser import Browser
from markdown_it import MarkdownIt
from mkdocs.commands.build import build
from mkdocs.config import load_config
from selenium import webdriver
from snippets import PAGES, ROOT

COUNTED = ("table", "tr", "li", "pre", "img", "h1", "h2", "h3", "blockquote")
"""What a page has as many of on the site as on GitHub."""
CONFIGURATION = re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The site, and the warnings of MkDocs, each of which `make docs` takes for an error."""
    folder = tmp_path_factory.mktemp("site")
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("mkdocs")
    log.addHandler(handler)
    try:
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=False)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    finally:
        log.removeHandler(handler)
    return folder, said


@pytest.fixture(scope="module")
def site(built: tuple[Path, list[str]]) -> Path:
    return built[0]


def test_links_and_navigation_are_whole(built: tuple[Path, list[str]]) -> None:
    assert not built[1], "\n".join(built[1])


def test_every_page_is_in_the_navigation() -> None:
    listed = set(_paths(yaml.safe_load(CONFIGURATION)["nav"]))
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES}
    missing = {page for page in pages - listed if not page.startswith("docs/decisions/")}
    assert not missing, f"put {sorted(missing)} into a list of mkdocs.yml, and into the table of docs/index.md"
    assert all((ROOT / page).exists() for page in listed)


def _paths(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _paths(entry)


class Tags(HTMLParser):
    """Counts elements of the page's own text, and keeps addresses that a browser asks for by itself."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.asked: list[str] = []
        self._inside = "<article" not in html
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = self._inside or tag == "article"
        if self._inside:
            self.counts[tag] += 1
        given = dict(attrs)
        if tag != "a" and not (tag == "link" and given.get("rel") in {"canonical", "next", "prev"}):
            self.asked += [str(given[name]) for name in ("src", "href", "srcset", "action") if given.get(name)]

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "article"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_read_alike_here_and_there(page: Path, site: Path) -> None:
    """GitHub's Markdown and MkDocs's differ in lists and tables: what one takes for a list, the other may not."""
    name = page.relative_to(ROOT).as_posix()
    html = (site / name.replace("README.md", "index.md")).with_suffix(".html").read_text()
    there = Tags(MarkdownIt("gfm-like", {"linkify": False}).render(page.read_text())).counts
    here = Tags(html).counts
    assert {tag: here[tag] for tag in COUNTED} == {tag: there[tag] for tag in COUNTED}


def test_nothing_comes_from_another_server(site: Path) -> None:
    for page in site.rglob("*.html"):
        outside = [address for address in Tags(page.read_text()).asked if re.match(r"(https?:)?//", address)]
        assert not outside, f"{page.relative_to(site)} asks for {outside}"
    styles = [sheet for sheet in site.rglob("*.css") if re.search(r"url\(\s*['\"]?(https?:)?//", sheet.read_text())]
    assert not styles


def test_it_works_in_a_browser_from_disk(site: Path, driver: webdriver.Chrome) -> None:
    browser = Browser(driver).reset()
    browser.visit((site / "index.html").as_uri())
    assert "spectral-edge" in browser.seen("h1")[0]
    assert browser.run("return [...document.images].every((one) => one.complete && one.naturalWidth)")
    browser.one("article a[href='docs/index.html']").click()
    browser.wait("article table")
    browser.run("document.querySelector('label[for=__search]').click()")
    browser.wait("input.md-search__input").send_keys("permutation null")
    found = browser.until("return [...document.querySelectorAll('.md-search-result__link')].map((one) => one.href)")
    assert any("/docs/" in address for address in found)
    assert browser.complaints() == []
    assert [address for address in browser.requests() if not address.startswith("data:")] == []
