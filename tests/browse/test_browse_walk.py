"""The store in a real browser, from the server that the command starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Thread

import pytest
from browser import Browser
from selenium.webdriver.support.ui import Select

from tests.browse.conftest import FEW, HOSTILE
from tests.browse.serving import Served

Visit = Callable[..., Browser]


def assert_quiet(browser: Browser, served: Served) -> None:
    """Nothing to complain about, and no request to anybody else."""
    assert browser.complaints() == []
    assert {url for url in browser.requests() if not url.startswith(served.address)} == set()


def follow(browser: Browser, selector: str) -> None:
    """Click on the first of these, and wait for the page that it leads to."""
    browser.run("document.documentElement.dataset.before = ''")
    browser.one(selector).click()
    browser.until("return document.documentElement.dataset.before === undefined && document.readyState === 'complete'")


def test_from_all_runs_to_a_chart_and_back(visit: Visit, served: Served) -> None:
    browser = visit()
    assert browser.one("#found").text == f"{8 + FEW + len(HOSTILE)} runs, page 1 of 2"
    assert [int(one.split("\n")[0]) for one in browser.seen(".counts li")] == [2 + len(HOSTILE), 3, 1 + FEW, 2]
    browser.one("#search").send_keys("MODULAR wd1-s0")
    follow(browser, "form button")
    row = browser.seen(".row")[0]
    for word in (
        "grok-wd1-s0",
        "finished",
        "100",
        "gap opening at 1,840",
        "1,780\N{EN DASH}1,960",
        "0.01",
        "340 steps later",
    ):
        assert word in row
    assert browser.seen(".row a") == ["grok-wd1-s0"]
    follow(browser, ".row a")
    browser.wait("section.run svg.marks")
    assert "changed at step 1,840" in browser.one(".verdict").text
    follow(browser, ".back a")
    assert browser.driver.current_url == served.address
    assert_quiet(browser, served)


def test_runs_are_narrowed_sorted_and_turned_over(visit: Visit, served: Served) -> None:
    browser = visit()
    Select(browser.one("#project")).select_by_visible_text("digits")
    Select(browser.one("#result")).select_by_visible_text("failed")
    follow(browser, "form button")
    assert browser.seen(".row a") == ["digits-truncated"]
    assert "The header promises 159,164 bytes" in browser.one(".why").text
    assert Select(browser.one("#project")).first_selected_option.text == "digits"
    browser = visit(order="q", search="modular")
    assert browser.seen(".row a")[:2] == ["grok-wd1-s0", "grok-wd1-s1"]
    browser = visit(project="many")
    assert browser.seen(".row a")[0] == "few-00"
    follow(browser, "nav.pages a")
    assert browser.seen(".row a")[-1] == f"few-{FEW - 1}"
    assert browser.seen("nav.pages a") == ["\N{LEFTWARDS ARROW} Before"]
    assert visit(search="no such run").seen(".empty") == ["No run matches. All runs"]
    assert_quiet(browser, served)


def test_a_question_is_answered_and_a_wrong_one_explained(visit: Visit, served: Served) -> None:
    browser = visit()
    follow(browser, "nav a[href='/query']")
    follow(browser, ".notes a[href*='regime']")
    assert browser.seen(".answer thead th")[:3] == ["tracker", "project", "run_name"]
    field = browser.one("#sql")
    assert "QUALIFY row_number()" in field.get_attribute("value")
    field.clear()
    field.send_keys("select run_name, \"group\", 1 < 2 as so from gaps where run_name < 'grok-wd1' limit 3")
    follow(browser, ".ask button")
    assert browser.seen(".answer tbody tr:first-child td")[2] == "True"
    assert browser.one("#answer + .note").text.startswith("3 rows, in ")
    assert_quiet(browser, served)
    browser.one("#sql").clear()
    browser.one("#sql").send_keys("select <b>nonsense</b> from gapz")
    follow(browser, ".ask button")
    assert "Parser Error" in browser.one(".error").text
    assert "<b>nonsense</b>" in browser.one("#sql").get_attribute("value")
    assert browser.all(".error b") == []


def test_hostile_names_are_shown_as_they_are(visit: Visit, served: Served) -> None:
    for name in HOSTILE:
        browser = visit(project=name)
        assert browser.seen(".row a") == [name]
        assert browser.seen(".projects a").count(name) == 1
        follow(browser, ".row a")
        browser.wait("section.run svg.marks")
        assert browser.one("h1").text == name
        assert all(one.get_attribute("href").startswith(served.address) for one in browser.all("a"))
        browser = visit("/query", sql=f"select '{name.replace(chr(39), 2 * chr(39))}' as name, run_name from runs")
        assert browser.seen(".answer tbody td")[0] == name
        assert browser.run("return window.canary === undefined")
    assert_quiet(browser, served)


AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
"""axe-core, of which the package brings a copy; its own code, which drives another browser, is not used."""
VIOLATIONS = "axe.run(document).then(({ violations }) => arguments[0](violations.map((one) => one.id)))"


def test_it_can_be_read_in_the_dark_on_a_phone_and_aloud(visit: Visit) -> None:
    for path, told in (("/", {}), ("/query", {"sql": "failures"}), ("/query", {"sql": "wrong"}), ("/run/none", {})):
        browser = visit(path, **told)
        browser.run(AXE)
        assert browser.driver.execute_async_script(VIOLATIONS) == []
        for scheme in ("light", "dark"):
            browser.media(scheme)
            assert browser.contrasts()[0][0] >= 4.5
        browser.resize(380)
        assert browser.run("return document.documentElement.scrollWidth") == 380


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """The address of an empty page of somebody else."""
    (tmp_path / "index.html").write_text("<!doctype html><title>Elsewhere</title><body>")
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield f"http://localhost:{server.server_port}/index.html"
        finally:
            server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


FETCH = """
const done = arguments[1];
fetch(arguments[0], { mode: "no-cors" }).then(() => done("answered"), () => done("refused"));
"""
LINK = "document.body.append(Object.assign(document.createElement('a'), { href: arguments[0], text: 'x' }))"
FRAME = """
const done = arguments[1];
document.body.append(Object.assign(document.createElement("iframe"), { src: arguments[0], onload: () => done() }));
"""


def test_a_page_elsewhere_can_link_and_nothing_else(visit: Visit, served: Served, elsewhere: str) -> None:
    target = served.to("/api/runs")
    browser = visit().visit(elsewhere)
    assert browser.driver.execute_async_script(FETCH, target) == "refused"
    browser.driver.execute_async_script(FRAME, target)
    browser.driver.switch_to.frame(0)
    assert "run_name" not in browser.run("return document.documentElement.textContent")
    browser.driver.switch_to.default_content()
    browser.run(
        "document.body.append(Object.assign(document.createElement('a'), { href: arguments[0], text: 'x' }))", target
    )
    follow(browser, "a")
    assert "run_name" in browser.run("return document.documentElement.textContent")
