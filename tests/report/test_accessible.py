"""The report for those who cannot see it, point at it, tell its colours apart, or bear motion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from browser import Browser
from selenium.webdriver.common.keys import Keys
from synthetic_runs import small_store, stacked

from spectral_edge.report import render_page, run_chart_html

Show = Callable[[str], Browser]


@pytest.fixture(scope="module")
def report() -> str:
    return render_page(*stacked(*small_store()))


@pytest.fixture(scope="module")
def single() -> str:
    return run_chart_html(small_store()[0])


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing_on_the_overview_and_on_runs(show: Show, report: str, scheme: str, width: int) -> None:
    browser = show(report)
    browser.resize(width)
    browser.media(scheme)
    browser.wait("#over-time svg.marks")
    assert browser.violations() == []
    browser.open_run("grok-wd1-s0")
    browser.wait(".reading")
    assert browser.violations() == []
    browser.one("section.run .back a").click()
    next(link for link in browser.all(".row a") if link.text == "grok-nan").click()
    browser.wait("section.run .failures")
    assert browser.violations() == []


def test_axe_finds_nothing_on_a_runs_own_page(show: Show, single: str) -> None:
    browser = show(single)
    browser.wait(".reading")
    assert browser.violations() == []


def test_axe_would_speak(show: Show, single: str) -> None:
    browser = show(single)
    browser.wait(".reading")
    browser.run("document.querySelector('label[for$=-group]').remove()")
    browser.run("document.querySelector('.verdict').style.color = '#bbb'")
    assert {rule for rule, _, _ in browser.violations()} == {"select-name", "color-contrast"}


FOCUSED = """
const it = document.activeElement, style = getComputedStyle(it), box = it.getBoundingClientRect();
return [it.dataset.stop, style.outlineStyle, parseFloat(style.outlineWidth), box.bottom > 0 && box.top < innerHeight];
"""
STOPS = """
const stops = [...document.querySelectorAll('a[href], input, select, button, summary, [tabindex="0"]')]
  .filter((one) => one.checkVisibility() && !one.disabled);
stops.forEach((one, number) => { one.dataset.stop = number; });
return stops.map((one) => one.id || one.className || one.textContent || one.tagName);
"""


def tabbed(browser: Browser, times: int) -> list[Any]:
    """What the page says of each element that Tab leads to."""
    found = []
    for _ in range(times):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        found.append(browser.run(FOCUSED))
    return found


def test_tab_leads_to_everything_in_the_pages_order_and_shows_where_it_is(show: Show, report: str) -> None:
    browser = show(report)
    browser.wait("#over-time svg.marks")
    names = browser.run(STOPS)
    assert names[1:4] == ["search", "project", "outcome"], "behind the table of projects, before the runs"
    visited = tabbed(browser, len(names))
    assert [int(number) for number, *_ in visited] == list(range(len(names)))
    assert all(style == "solid" and width >= 2 and inside for _, style, width, inside in visited), visited

    browser.open_run("grok-wd1-s0")
    browser.wait(".reading")
    names = browser.run(STOPS)
    controls = ["group", "from", "to", "csv", "svg", "window", "wide", "wide"]
    assert [name.split("-")[-1] for name in names] == [
        "← All runs",
        "open in mlflow",
        *controls,
    ]
    visited = tabbed(browser, len(names))
    assert [int(number) for number, *_ in visited] == list(range(len(names)))
    assert all(style == "solid" and width >= 2 and inside for _, style, width, inside in visited), visited
    assert browser.complaints() == []


def test_the_numbers_of_a_window_can_be_read_by_keyboard(show: Show, single: str) -> None:
    browser = show(single)
    slider = browser.wait(".window")
    last = browser.one(".reading output").text
    assert last.startswith("step 3,960; singular values ")
    assert browser.all(".cursor") == [], "no line where nobody asked for one"
    slider.send_keys(*[Keys.ARROW_LEFT] * 10)
    told = browser.one(".reading output").text
    rows = {row["step"]: row for row in small_store()[0].gaps.to_pylist() if row["group"] == "total"}
    row = rows[3560]
    assert told.startswith("step 3,560; singular values ")
    for words in (f"k* {row['k_star']};", f"gap ratio {row['gap_ratio']:.3g};", "learning rate 0.001;", row["regime"]):
        assert words in told
    assert slider.get_attribute("aria-valuetext") == "step 3,560"
    panel = browser.run("return document.querySelector('.singular_values_group .background').getBoundingClientRect()")
    line = browser.run("return document.querySelector('.cursor').getBoundingClientRect()")
    assert line["left"] == pytest.approx(panel["left"] + panel["width"] * 3560 / 3960, abs=1.5)
    slider.send_keys(Keys.HOME)
    assert browser.one(".reading output").text.startswith("step 80 (short window); ")
    slider.send_keys(Keys.TAB)
    assert browser.all(".cursor") == []
    assert browser.complaints() == []


MOVING = """
const slow = (text) => text.split(',').some((one) => parseFloat(one) > 0);
return [...document.querySelectorAll('*')].filter((one) => {
  const style = getComputedStyle(one);
  return slow(style.transitionDuration) || slow(style.animationDuration) || style.scrollBehavior === 'smooth';
}).map((one) => one.outerHTML.slice(0, 100));
"""


def test_nothing_moves(show: Show, report: str) -> None:
    """For all, and so for those whose system asks for less motion."""
    browser = show(report)
    browser.open_run("grok-wd1-s0")
    assert browser.run(MOVING) == []
    assert browser.run("return document.getAnimations().length") == 0
    browser.run("document.querySelector('.verdict').style.transition = 'color 1s'")
    assert len(browser.run(MOVING)) == 1, "it would be noticed"
