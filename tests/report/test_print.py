"""The report on paper: light, without controls, nothing cut."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import pytest
from browser import Browser
from selenium.webdriver.support.ui import Select
from synthetic_runs import small_store, stacked

from spectral_edge.report import render_page, run_chart_html

Show = Callable[[str], Browser]

WIDTH, HEIGHT = 688, 1017
"""A4 without margins of 14 mm, in CSS pixels."""

CUT = f"""
const page = {WIDTH} + 1;
return [...document.querySelectorAll('main *')].filter((one) => {{
  const box = one.getBoundingClientRect();
  return one.checkVisibility() && one.namespaceURI.endsWith('xhtml') && box.width > 0
    && (box.right > page || box.left < -1 || one.clientWidth + 1 < one.scrollWidth);
}}).map((one) => one.outerHTML.slice(0, 120));
"""
CONTROLS = """
return [...document.querySelectorAll('input, select, button, .back, .reading, .cursor')]
  .filter((one) => one.checkVisibility()).length;
"""


@pytest.fixture(scope="module")
def report() -> str:
    return render_page(*stacked(*small_store()))


@pytest.fixture(scope="module")
def single() -> str:
    return run_chart_html(small_store()[0])


def on_paper(browser: Browser) -> None:
    """Lay the page out as for paper of A4; its charts stay as the screen drew them, as they do when one prints."""
    browser.media("dark", media="print")
    browser.run(f"document.body.style.width = '{WIDTH}px'")


def colours(pdf: bytes) -> set[str]:
    """All colours that the PDF fills with."""
    found: set[str] = set()
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, flags=re.DOTALL):
        try:
            text = zlib.decompress(stream)
        except zlib.error:
            continue  # not a deflated one
        fills = (map(float, fill.split()) for fill in re.findall(rb"([\d.]+ [\d.]+ [\d.]+) rg", text))
        found |= {"#" + "".join(f"{round(255 * part):02x}" for part in fill) for fill in fills}
    return found


def sheets(pdf: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b", pdf))


def test_a_run_is_printed_whole_without_controls(show: Show, report: str) -> None:
    browser = show(report)
    browser.open_run("grok-wd1-s0")
    browser.wait(".reading")
    Select(browser.one("section.run select")).select_by_visible_text("mlp")
    browser.until("return document.querySelector('.chart').dataset.group === 'mlp'")
    on_paper(browser)
    assert browser.run(CUT) == []
    assert browser.run(CONTROLS) == 0
    assert browser.seen(".on-paper") == ["Parameter group mlp"], "the list of groups is not printed"
    chart = browser.run("return document.querySelector('.chart svg').getBoundingClientRect()")
    style = browser.run("return getComputedStyle(document.querySelector('.chart')).breakInside")
    assert (chart["right"] <= WIDTH, chart["bottom"] < HEIGHT, style) == (True, True, "avoid")
    browser.run("document.querySelector('.verdict').style.width = '900px'")
    assert browser.run(CUT) != [], "it would be noticed"


def test_the_overview_is_printed_whole_with_what_is_folded(show: Show, report: str) -> None:
    browser = show(report)
    browser.wait("#over-time svg.marks")
    on_paper(browser)
    assert browser.run(CUT) == []
    assert browser.run(CONTROLS) == 0
    folded = "const it = document.querySelector('#advice ~ details ul'); return it.checkVisibility() && it.clientHeight"
    assert browser.run(folded) > 15
    browser.media("dark", media="screen")
    assert not browser.run(folded)
    browser.media("dark", media="print")
    assert browser.run("return getComputedStyle(document.querySelector('.runs thead')).display") == "table-header-group"


def test_the_print_of_a_dark_page_is_light(show: Show, single: str) -> None:
    browser = show(single)
    browser.wait(".reading")
    browser.media("dark", media="")
    pdf = browser.printed()
    assert sheets(pdf) in {3, 4}
    dark_paper, dark_ink, light_ink = "#14171a", "#e6e9ec", "#1c2024"
    assert light_ink in colours(pdf)
    assert not {dark_paper, dark_ink} & colours(pdf)
    browser.media("dark", media="screen")
    assert {dark_paper, dark_ink} <= colours(browser.printed()), "shown as a screen it is dark"
