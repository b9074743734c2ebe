"""The page looks as it did. After a change that is meant: `pytest tests/report/test_pictures.py --new-pictures`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from browser import Browser
from likeness import WITH_LETTERS, letters, share_unlike, stored
from PIL import Image
from synthetic_runs import small_store, stacked

from spectral_edge.report import render_page, run_chart_html

Show = Callable[[str], Browser]

GOLDEN = Path(__file__).parents[1] / "golden" / "pages"
UNLIKE = 0.008
"""Share of tiles that may be unlike. Letters set wider or fatter make up to 0.3 %, a missing panel 2 % and more."""
HEIGHT = 1900
"""What of a page is looked at, from its top: all charts."""


@pytest.fixture(scope="module")
def report() -> str:
    return render_page(*stacked(*small_store()))


@pytest.fixture(scope="module")
def single() -> str:
    return run_chart_html(small_store()[0])


def picture(browser: Browser, width: int, *, letters_style: str = "", scheme: str = "light") -> Image.Image:
    """The page at another width than it was opened at, which draws its charts anew, in letters that are the same."""
    before = browser.wait("svg.marks").rect["width"]
    browser.until("return [...document.querySelectorAll('.tools')].every((one) => !one.hidden)")
    browser.run(WITH_LETTERS, letters(), letters_style)
    browser.media(scheme)
    browser.resize(width)
    browser.until(f"return document.querySelector('svg.marks').getBoundingClientRect().width !== {before}")
    return stored(_still(browser).crop((0, 0, width, HEIGHT)))


def _still(browser: Browser) -> Image.Image:
    """The page, once it looks twice the same."""
    before, now = None, browser.picture()
    while before != now:
        before, now = now, browser.picture()
    return now


def looks_as_before(name: str, now: Image.Image, config: pytest.Config, folder: Path) -> None:
    path = GOLDEN / f"{name}.png"
    if config.getoption("--new-pictures"):
        path.parent.mkdir(exist_ok=True)
        now.save(path, optimize=True)
    seen = folder / f"{name}.png"
    now.save(seen)
    unlike = share_unlike(now, Image.open(path))
    print(f"{name}: {100 * unlike:.2f} % of the tiles are unlike")
    assert unlike <= UNLIKE, f"compare {seen} with {path}; when it is meant to be so, write it with --new-pictures"


def test_the_overview(show: Show, report: str, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    looks_as_before("overview", picture(show(report), 1000), pytestconfig, tmp_path)


def test_a_run(show: Show, single: str, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    looks_as_before("run", picture(show(single), 1000), pytestconfig, tmp_path)


def test_a_run_on_a_phone_in_the_dark(show: Show, single: str, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    looks_as_before("phone", picture(show(single), 360, scheme="dark"), pytestconfig, tmp_path)


@pytest.mark.parametrize("style", ["letter-spacing: 0.2px;", "-webkit-text-stroke: 0.3px;"])
def test_letters_may_look_otherwise(show: Show, single: str, style: str) -> None:
    found = share_unlike(picture(show(single), 1000, letters_style=style), Image.open(GOLDEN / "run.png"))
    print(f"{style} {100 * found:.2f} %")
    assert 0 < found <= UNLIKE


SPEC = '<script type="application/json" id="spec">'


@pytest.mark.parametrize("panel", ["learning_rate", "overlap"])
def test_a_missing_panel_is_noticed(show: Show, single: str, panel: str) -> None:
    before, spec, after = re.split(f"(?<={SPEC})(.*?)(?=</script>)", single, maxsplit=1)
    chart = json.loads(spec)
    chart["vconcat"] = [one for one in chart["vconcat"] if one["name"] != panel]
    found = share_unlike(picture(show(before + json.dumps(chart) + after), 1000), Image.open(GOLDEN / "run.png"))
    print(f"without {panel}: {100 * found:.2f} %")
    assert found > 1.5 * UNLIKE


def test_a_missing_area_is_noticed(show: Show, single: str) -> None:
    seen = picture(show(single), 1000, letters_style="} .mark-area { display: none;")
    found = share_unlike(seen, Image.open(GOLDEN / "run.png"))
    print(f"without the gap: {100 * found:.2f} %")
    assert found > 1.5 * UNLIKE
