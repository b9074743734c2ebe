"""The report in a real browser, from file://."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from browser import Browser
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from synthetic_runs import make_failed, make_run, small_store, stacked

from spectral_edge.report import render_page, run_chart_html
from spectral_edge.scorecard import PREDICTIONS
from spectral_edge.tables import SCHEMAS

Show = Callable[[str], Browser]


@pytest.fixture(scope="module")
def report() -> str:
    return render_page(*stacked(*small_store()))


@pytest.fixture(scope="module")
def single() -> str:
    return run_chart_html(small_store()[0])


def test_it_opens_quietly_and_asks_for_nothing(show: Show, report: str) -> None:
    browser = show(report)
    browser.open_run("grok-wd1-s0")
    assert browser.complaints() == []
    assert browser.requests() == []


def test_a_request_from_the_page_would_be_refused_and_noticed(show: Show, report: str) -> None:
    # Shows that the test above could fail: policy and console do speak.
    browser = show(report)
    browser.run("document.body.append(Object.assign(new Image(), {src: 'https://example.invalid/x.png'}))")
    browser.until("return document.images.length === 1")
    assert any("Content Security Policy" in message for message in browser.complaints())


EVALUATE = """
const done = arguments[0];
setTimeout(() => {  // not within the driver's own evaluation, which the policy spares
  try { new Function('return 1')(); done('evaluated'); } catch (error) { done(error.name); }
});
"""


def test_evaluation_and_foreign_inline_scripts_are_refused(show: Show, report: str) -> None:
    browser = show(report)
    assert browser.driver.execute_async_script(EVALUATE) == "EvalError"
    browser.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'canary = 1'}))")
    assert browser.run("return typeof canary") == "undefined"


def test_the_overview_says_what_matters_at_a_glance(show: Show, report: str) -> None:
    browser = show(report)
    assert browser.seen(".counts li") == [
        "2\nwith a reported change",
        "3\nwithout an established change",
        "1\ntoo short to test",
        "2\nfailed",
    ]
    assert browser.seen(".project bdi") == ["digits", "modular addition"]
    row = next(text for text in browser.seen(".row") if text.startswith("grok-wd1-s0"))
    for word in ("finished", "100", "gap opening at 1,840", "1,780\N{EN DASH}1,960", "0.01", "340 steps later"):
        assert word in row
    assert "audited 2025-11-24 09:31 UTC to 2025-11-24 09:38 UTC" in browser.one("header .lede").text


def test_failures_show_the_whole_error_and_the_next_step(show: Show, report: str) -> None:
    browser = show(report)
    text = browser.one("#overview .failures").text
    assert "The header promises 159,164 bytes of data, the file holds 81,920." in text
    assert "fetch or save this checkpoint again" in browser.seen(".next")[0]


def test_the_overview_is_there_without_javascript(show: Show, report: str) -> None:
    browser = show(report)
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    browser.driver.refresh()
    assert len(browser.seen(".row")) == 8
    assert browser.seen(".tools") == []
    assert browser.seen("noscript .note") == ["The pages of single runs need JavaScript."]


def test_a_single_run_is_there_without_javascript(show: Show, single: str) -> None:
    browser = show(single)
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    browser.driver.refresh()
    assert browser.seen("section.run .verdict")
    assert browser.seen("section.run .chart .note") == ["The charts need JavaScript."]


def test_search_filters_runs_and_counts_them(show: Show, report: str) -> None:
    browser = show(report)
    field = browser.one("#search")
    field.send_keys("modular WD1")
    assert browser.seen(".row a") == ["grok-wd1-s0", "grok-wd1-s1"]
    assert browser.seen(".project bdi") == ["modular addition"]
    assert browser.one("#found").text == "2 of 8"
    field.send_keys(" no such run")
    assert browser.seen(".row") == []
    assert browser.seen("#nothing") == ["No run matches."]
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(Keys.DELETE)
    assert len(browser.seen(".row")) == 8


def test_project_and_result_narrow_the_runs(show: Show, report: str) -> None:
    browser = show(report)
    Select(browser.one("#project")).select_by_visible_text("digits")
    assert browser.seen(".row a") == ["digits-control", "digits-truncated", "just started"]
    Select(browser.one("#outcome")).select_by_visible_text("failed")
    assert browser.seen(".row a") == ["digits-truncated"]
    assert browser.one("#found").text == "1 of 8"
    Select(browser.one("#project")).select_by_visible_text("all")
    assert browser.seen(".row a") == ["digits-truncated", "grok-nan"]


def test_the_overview_tells_projects_changes_and_advice(show: Show, report: str) -> None:
    browser = show(report)
    cells = browser.seen(".projects tbody tr:last-child > *")
    assert cells[:6] == ["modular addition", "5", "2", "2", "0", "1"]
    assert cells[6].startswith("plateau ")
    assert cells[7] == "2025-11-24 09:38 UTC"
    assert [row.split()[0] for row in browser.seen("#overview .changes tbody tr")] == ["grok-wd1-s0", "grok-wd1-s1"]
    browser.one("#advice ~ details summary").click()
    assert "needs at least 41" in browser.one("#advice ~ details").text


def test_regimes_and_changes_of_all_runs_are_drawn_over_training(show: Show, report: str) -> None:
    browser = show(report)
    browser.wait("#over-time svg.marks")
    areas = browser.run("return document.querySelectorAll('#over-time .mark-area path').length")
    ticks = browser.run("return document.querySelectorAll('#over-time .mark-rect path').length")
    assert (areas, ticks) == (5, 4)
    assert browser.complaints() == []


SHOWN = "return [...document.querySelectorAll('.from, .to')].map((field) => field.value)"
STRIP = """return document.querySelector('svg.marks path[aria-label^="from:"]').getBoundingClientRect()"""
LABELS = "return [...document.querySelectorAll('svg.marks .role-axis-label text')].map((one) => one.textContent)"


def test_a_part_of_the_steps_can_be_looked_at_by_pointer_and_by_keyboard(show: Show, single: str) -> None:
    browser = show(single)
    browser.wait("svg.marks")
    browser.until("return !document.querySelector('.tools').hidden")
    strip = browser.run(STRIP)
    assert browser.run(SHOWN) == ["0", "3960"]
    x, y = int(strip["left"]), int(strip["top"] + strip["height"] / 2)
    for kind, at in (("mousePressed", 200), ("mouseMoved", 300), ("mouseMoved", 400), ("mouseReleased", 400)):
        browser.command("Input.dispatchMouseEvent", type=kind, x=x + at, y=y, button="left", buttons=1, clickCount=1)
    browser.until("return document.querySelector('.from').value !== '0'")
    first, last = map(int, browser.run(SHOWN))
    assert 500 < first < last < 2500
    assert "0" not in browser.run(LABELS)[-4:]
    Select(browser.one("select")).select_by_visible_text("mlp")
    browser.until("return document.querySelector('.chart').dataset.group === 'mlp'")
    assert list(map(int, browser.run(SHOWN))) == [first, last], "another group shows the same steps"
    browser.one(".to").send_keys(Keys.CONTROL, "a")
    browser.one(".to").send_keys("3000", Keys.TAB)
    browser.until("return document.querySelector('.to').value === '3000'")
    browser.one("button.whole").click()
    browser.until("return document.querySelector('.from').value === '0'")
    assert browser.run(SHOWN) == ["0", "3960"]
    assert not browser.one("button.whole").is_enabled()
    assert browser.complaints() == []


def test_the_picture_stands_alone(show: Show, single: str) -> None:
    browser = show(single)
    browser.wait("svg.marks")
    browser.run(
        "window.said = []; URL.createObjectURL = (blob) => { blob.text().then((t) => said.push(t)); return '#'; }"
    )
    browser.until("return !document.querySelector('.tools').hidden")
    browser.one("button.svg").click()
    browser.until("return said.length === 1")
    picture = browser.run("return said[0]")
    assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in picture
    assert "#0072b2" in picture


def test_the_keyboard_is_enough(show: Show, report: str) -> None:
    browser = show(report)
    browser.one("body").send_keys("/")
    browser.driver.switch_to.active_element.send_keys("wd1-s1", *[Keys.TAB] * 3)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait("section.run svg.marks")
    assert browser.seen("section.run h1") == ["grok-wd1-s1"]
    assert browser.run("return document.activeElement.matches('section.run')")
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert browser.wait("#overview")
    assert browser.one("#search").get_attribute("value") == "wd1-s1"


def test_a_chart_is_drawn_only_when_its_run_is_opened(show: Show, report: str) -> None:
    browser = show(report)
    assert browser.all("section.run") == []
    browser.open_run("grok-wd0-s0")
    browser.one("section.run .back a").click()
    assert browser.wait("#overview")
    assert browser.all("section.run") == [], "a run that was left takes no memory"
    browser.open_run("grok-wd1-s0")
    assert len(browser.all("section.run svg.marks")) == 1


def test_a_link_to_a_run_opens_it_with_its_chart(show: Show, report: str) -> None:
    """As someone opens it who was sent the address: nothing was clicked, the page is loaded at the run."""
    browser = show(report)
    address = browser.one(".row a").get_attribute("href")
    browser.visit("about:blank").visit(str(address))
    browser.wait("section.run svg.marks")
    assert browser.complaints() == []


def test_another_group_draws_another_chart(show: Show, single: str) -> None:
    browser = show(single)
    before = browser.wait("svg.marks").get_attribute("outerHTML")
    Select(browser.one("select")).select_by_visible_text("mlp")
    browser.until("return document.querySelector('.chart').dataset.group === 'mlp'")
    assert browser.one("svg.marks").get_attribute("outerHTML") != before
    assert "Reported changes" not in browser.one("svg.marks").text, "the group has no change: no empty panel"


def test_numbers_appear_under_the_pointer(show: Show, single: str) -> None:
    browser = show(single)
    box = browser.wait("svg.marks").rect
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=int(box["x"] + 600), y=int(box["y"] + 240))
    tip = browser.wait("#vg-tooltip-element.visible").text
    for word in ("step", "singular values", "k*", "gap ratio", "window"):
        assert word in tip
    assert browser.complaints() == []


NAMES = "return [...document.querySelectorAll('svg.marks .role-legend-label text')].map((one) => one.textContent)"
TITLES = "return [...document.querySelectorAll('svg.marks .role-title-text text')].map((one) => one.textContent)"


def test_the_metrics_of_the_run_are_drawn_by_direction(show: Show, single: str) -> None:
    browser = show(single)
    browser.wait("svg.marks")
    titles = browser.run(TITLES)
    assert titles.index("Further metrics") == titles.index("Metric") + 1
    names = browser.run(NAMES)
    assert names[names.index("test_accuracy") :] == ["test_accuracy", "train_accuracy", "train_loss"]
    Select(browser.one("select")).select_by_visible_text("mlp")
    browser.until("return document.querySelector('.chart').dataset.group === 'mlp'")
    assert browser.run(NAMES) == names
    assert browser.complaints() == []


def test_a_run_whose_values_were_not_kept_shows_the_means_and_says_so(show: Show) -> None:
    run = make_run(checkpoints=70)
    browser = show(run_chart_html(replace(run, metrics=run.metrics.slice(0, 0))))
    browser.wait("svg.marks")
    assert "test_accuracy" in browser.run(NAMES)
    assert "Further metrics" not in browser.run(TITLES)
    assert any("earlier version" in note for note in browser.seen(".notes li"))


DASHES = """
return [...document.querySelectorAll('svg.marks .mark-line path')].map((p) => getComputedStyle(p).strokeDasharray)
"""
GROUNDS = """
return [...document.querySelectorAll('svg.marks .mark-rect path')]
  .filter((p) => p.getAttribute('fill') === 'var(--grid)').length
"""


def test_short_windows_and_stretches_without_a_regime_look_different(show: Show) -> None:
    browser = show(run_chart_html(make_run(blurred=range(50, 75), change_at=None)))
    browser.wait("svg.marks")
    assert {"2px, 3px", "1px, 0px"} <= set(browser.run(DASHES))
    blurred = browser.run(GROUNDS)
    browser = show(run_chart_html(make_run(change_at=None)))
    browser.wait("svg.marks")
    assert 0 < browser.run(GROUNDS) < blurred


def test_the_overview_strip_is_thin_where_no_regime_is_given(show: Show, report: str) -> None:
    browser = show(report)
    heights = browser.run(
        "return [...document.querySelectorAll('table.runs svg.strip rect')]"
        ".map((r) => [r.className.baseVal, r.height.baseVal.value])"
    )
    assert {tuple(one) for one in heights} == {("r-undetermined", 3), ("r-plateau", 12), ("r-transition", 12)}


def test_the_download_is_the_table_to_three_digits(show: Show) -> None:
    run = make_run(checkpoints=40, change_at=15)
    browser = show(run_chart_html(run))
    browser.wait("svg.marks")
    browser.run(
        "window.said = []; URL.createObjectURL = (blob) => { blob.text().then((t) => said.push(t)); return '#'; }"
    )
    browser.until("return !document.querySelector('.tools').hidden")
    browser.one("button.csv").click()
    browser.until("return said.length === 1")
    told = {(row["group"], int(row["step"])): row for row in csv.DictReader(browser.run("return said[0]").splitlines())}
    rows = run.gaps.to_pylist()
    assert len(told) == len(rows)
    for row in rows:
        line = told[row["group"], row["step"]]
        assert int(line["k_star"]) == row["k_star"]
        for column in ("gap_ratio", "rotation_degrees", "gram_change_relative", "learning_rate"):
            expected = "" if row[column] is None else pytest.approx(row[column], rel=3e-4)
            assert (line[column] and float(line[column])) == expected
        for j, sigma in enumerate(row["singular_values"], start=1):
            assert float(line[f"singular_values_{j}"]) == pytest.approx(sigma, rel=3e-4)
        for j, overlap in enumerate(row["overlap"][:3], start=1):
            assert float(line[f"overlap_{j}"]) == pytest.approx(overlap, rel=3e-4)


def test_the_download_holds_every_group_and_no_formula(show: Show) -> None:
    browser = show(run_chart_html(make_run(groups=("total", "=HYPERLINK(1)"), checkpoints=14, change_at=None)))
    browser.wait("svg.marks")
    browser.run(
        "window.said = []; URL.createObjectURL = (blob) => { blob.text().then((t) => said.push(t)); return '#'; }"
    )
    browser.one("button.csv").click()
    browser.until("return said.length === 1")
    rows = list(csv.DictReader(browser.run("return said[0]").splitlines()))
    assert [row["group"] for row in rows] == ["total"] * 12 + ["'=HYPERLINK(1)"] * 12
    assert list(rows[0])[:5] == ["group", "step", "short", "k_star", "regime"]
    assert float(rows[-1]["singular_values_10"]) > 0
    assert rows[0]["singular_values_3"] == "", "a window of two updates has two singular values"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(show: Show, report: str, scheme: str) -> None:
    browser = show(report)
    browser.media(scheme)
    assert browser.contrasts()[0][0] >= 4.5, browser.contrasts()[0]
    browser.open_run("grok-wd1-s0")
    assert browser.contrasts()[0][0] >= 4.5, browser.contrasts()[0]
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_scorecard_counts_runs_and_says_what_lacks(show: Show, report: str) -> None:
    browser = show(report)
    lines = {line.split("\n")[0]: line for line in browser.seen("#overview .scores tbody tr")}
    assert len(lines) == len(PREDICTIONS)
    decay = next(line for claim, line in lines.items() if claim.startswith("Gap dynamics come with weight decay"))
    assert "3 2 3 3 of 5 (15 to 95 %) an audit that succeeded (2 runs)" in " ".join(decay.split())
    assert "held against 8 of 8 runs" in browser.one("#scorecard + .note").text
    contrasts = " ".join(browser.seen("#scorecard ~ .notes li"))
    assert "weight decay: 2 of 4 (7 to 93 %), no weight decay: 0 of 1 (0 to 98 %)" in contrasts


def test_each_run_shows_what_decided(show: Show, report: str) -> None:
    browser = show(report)
    browser.open_run("grok-wd1-s0")
    cells = browser.seen("section.run .scores tbody tr:first-child > *")
    assert cells[:2] == ["Gap dynamics precede generalisation.", "holds"]
    assert "test_accuracy changes at step 2180" in cells[2]
    assert len(browser.seen("section.run .scores tbody tr")) == len(PREDICTIONS)


def test_without_a_scorecard_the_page_says_nothing_of_it(show: Show) -> None:
    runs = (
        make_run("with", checkpoints=14, change_at=None),
        make_run("earlier", checkpoints=14, change_at=None, seed=2),
    )
    only_first = stacked(*runs)[3][: len(PREDICTIONS)]
    browser = show(render_page(*stacked(*runs)[:3], only_first))
    assert "1 of 2 runs" in browser.one("#scorecard + .note").text
    assert "audit them again" in browser.one("#scorecard + .note").text
    for name, tables in (("with", 1), ("earlier", 0)):
        browser.open_run(name)
        assert len(browser.all("section.run .scores")) == tables
        browser.one("section.run .back a").click()
    browser = show(render_page(*stacked(*runs)[:3]))
    assert browser.all(".scores") == []


NAMELESS = """
return [...document.querySelectorAll('.wide[tabindex]')].filter((box) =>
  !box.checkVisibility() ? false : !document.getElementById(box.getAttribute('aria-labelledby')))
  .map((box) => box.outerHTML)
"""


def test_the_scorecard_can_be_scrolled_by_keyboard_and_has_a_name(show: Show, report: str) -> None:
    browser = show(report)
    box = browser.one("#scorecard ~ .wide")
    browser.run("arguments[0].style.width = '500px'", box)
    assert browser.run("return arguments[0].scrollWidth > arguments[0].clientWidth", box)
    browser.run("arguments[0].focus()", box)
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    browser.until("return document.querySelector('#scorecard ~ .wide').scrollLeft > 0")
    assert browser.run(NAMELESS) == []


def test_rows_are_cards_on_a_phone(show: Show, report: str) -> None:
    browser = show(report)
    browser.resize(360)
    wide = "return [...document.querySelectorAll('.wide')].filter((box) => box.scrollWidth > box.clientWidth).length"
    assert browser.run(wide) == 0, "nothing is to be scrolled sideways"
    label = "return getComputedStyle(document.querySelector('#scorecard ~ .wide td'), '::before').content"
    assert browser.run(label) == '"Holds"'
    browser.open_run("grok-wd1-s0")
    assert browser.run(wide) == 0
    browser.resize(800)
    assert browser.run(label.replace("#scorecard ~ .wide", ".changes")) == "none"


def test_print_shows_the_scorecard_whole(show: Show, report: str) -> None:
    browser = show(report)
    browser.media("dark", media="print")
    assert len(browser.seen("#overview .scores tbody tr")) == len(PREDICTIONS)


def test_print_is_light_even_where_the_screen_is_dark(show: Show, report: str) -> None:
    browser = show(report)
    browser.media("dark", media="print")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.seen(".tools") == []


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_overflows_a_small_screen(show: Show, report: str, width: int) -> None:
    browser = show(report)
    browser.resize(width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.open_run("grok-wd1-s0")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    svg = browser.run("return document.querySelector('section.run svg.marks').getBoundingClientRect().right")
    assert svg <= width


def test_the_chart_follows_the_width_of_the_window(show: Show, single: str) -> None:
    browser = show(single)
    wide = browser.wait("svg.marks").rect["width"]
    browser.resize(700)
    browser.until(f"return document.querySelector('svg.marks').getBoundingClientRect().width < {wide - 200}")
    assert browser.complaints() == []


def test_an_empty_store_says_what_to_do(show: Show) -> None:
    browser = show(render_page(*(SCHEMAS[name].empty_table() for name in ("runs", "gaps", "transitions"))))
    assert "spectral-edge audit" in browser.one(".empty").text
    assert browser.complaints() == []


def test_a_run_without_windows_and_a_failed_one_have_pages(show: Show) -> None:
    runs = (
        make_run("two checkpoints", groups=(), checkpoints=2, windows=0, change_at=None),
        make_failed("broken", "Bad."),
    )
    browser = show(render_page(*stacked(*runs)))
    for name, words in (("two checkpoints", "nothing to draw"), ("broken", "could not be audited")):
        next(link for link in browser.all(".row a") if link.text == name).click()
        assert words in browser.wait("section.run").text
        browser.one("section.run .back a").click()
    assert browser.complaints() == []


def test_a_single_run_shows_itself_at_once(show: Show, single: str) -> None:
    browser = show(single)
    browser.wait("svg.marks")
    assert browser.seen("h1") == ["grok-wd1-s0"]
    assert browser.seen(".back, #overview") == []
    assert browser.complaints() == []
    assert browser.requests() == []
