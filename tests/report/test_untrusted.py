"""Text from trackers and checkpoints, written to be executed. It is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from browser import Browser
from synthetic_runs import make_failed, make_run, stacked

from spectral_edge.report import render_page, run_chart_html
from spectral_edge.tables import RunTables

CORPUS = (
    "<script>window.canary=1</script>",
    "</script><script>window.canary=1</script>",
    "<!--<script>window.canary=1",
    "--></script><img src=x onerror=window.canary=1>",
    '"><svg/onload=window.canary=1>',
    "'-(window.canary=1)-'",
    "' onmouseover='window.canary=1' autofocus onfocus='window.canary=1",
    "</title></style><script>window.canary=1</script>",
    "</textarea><iframe srcdoc='<script>parent.canary=1</script>'>",
    "{{ 7*7 }}{% for x in ().__class__.__base__.__subclasses__() %}",
    "${window.canary=1}`;window.canary=1;//",
    "javascript:window.canary=1",
    "\u2028window.canary=1//\u2029",
    "__proto__",
    "constructor",
    "\N{RIGHT-TO-LEFT OVERRIDE}drowssap\N{NO-BREAK SPACE}\N{PILE OF POO}",
    "&lt;script&gt;window.canary=1&lt;/script&gt;",
    "]]>*/</style><script>window.canary=1</script>",
)


def _hostile(number: int, text: str) -> RunTables:
    return make_run(
        text,
        project=f"{text} {number}",
        run_id=f"{text}{number}",
        seed=number,
        checkpoints=16,
        change_at=8,
        groups=("total", text),
        url=f"javascript:window.canary=1//{text}",
        warnings=[text],
        optimizer=text,
        metric_name=text,
        state=text,
        error=f"{text} Next: {text}",
        versions='{"' + "spectral-edge" + '": "<script>window.canary=1</script>"}',
        settings=text,
    )


@pytest.fixture(scope="module")
def hostile() -> str:
    runs = [_hostile(number, text) for number, text in enumerate(CORPUS)]
    return render_page(*stacked(*runs, *(make_failed(text, text, seed=90) for text in CORPUS)))


def _canary(browser: Browser) -> object:
    return browser.run("return window.canary === undefined ? null : window.canary")


def test_nothing_is_executed_in_any_run(show: Callable[[str], Browser], hostile: str) -> None:
    browser = show(hostile)
    assert len(browser.all(".row")) == 2 * len(CORPUS)
    for link in [one.get_attribute("href") for one in browser.all(".row a")][::2]:
        browser.run("location.href = arguments[0]", link)
        browser.until(
            "const run = document.querySelector(`section.run[id='${location.hash.slice(1)}']`);"
            "return run && (!run.querySelector('.chart') || run.querySelector('svg.marks'))"
        )
        browser.run(
            "const field = document.querySelector('section.run select');"
            "if (field) { field.value = '1'; field.dispatchEvent(new Event('change')); }"
        )
    assert _canary(browser) is None
    assert browser.complaints() == []
    assert browser.requests() == []


def test_names_are_shown_as_they_are(show: Callable[[str], Browser], hostile: str) -> None:
    browser = show(hostile)
    names = browser.run("return [...document.querySelectorAll('.row a')].map((a) => a.textContent)")
    assert sorted(set(names)) == sorted(CORPUS)
    added = browser.run(
        "return [...document.querySelectorAll('img, iframe, textarea, object, embed, base,"
        " form:not(.vega-bindings), [onerror], [onload],"
        " [onfocus], [onmouseover], [srcdoc]')].map((e) => e.outerHTML)"
    )
    assert added == []
    assert browser.run("return [...document.head.children].map((e) => e.tagName)") == ["META"] * 5 + ["TITLE", "STYLE"]


def test_a_tracker_address_is_a_link_only_over_http(show: Callable[[str], Browser], hostile: str) -> None:
    browser = show(hostile)
    schemes: dict[bool, set[str]] = {False: set(), True: set()}
    for failed, rows in ((False, ".row:not([data-outcome='failed'])"), (True, ".row[data-outcome='failed']")):
        link = browser.all(f"{rows} a")[0]
        browser.run("location.href = arguments[0]", link.get_attribute("href"))
        browser.wait("section.run")
        found = browser.run("return [...document.querySelectorAll('a')].map((a) => a.protocol)")
        schemes[failed] = set(found)
        browser.run("location.hash = ''")
        browser.wait("#overview")
    assert schemes == {False: {"file:"}, True: {"file:", "https:"}}


@pytest.mark.parametrize("group", ["__proto__", "</script><script>window.canary=1</script>"])
def test_a_group_may_have_any_name(show: Callable[[str], Browser], group: str) -> None:
    browser = show(run_chart_html(make_run(groups=(group,), checkpoints=16, change_at=None)))
    browser.wait("svg.marks")
    assert browser.run("return document.querySelector('.chart').dataset.group") == group
    assert _canary(browser) is None


def test_the_file_holds_no_markup_of_the_corpus(hostile: str) -> None:
    for text in CORPUS:
        if "<" in text:
            assert text not in hostile
    assert "\u2028" not in hostile.split('<script type="application/json" id="spec">')[1]
