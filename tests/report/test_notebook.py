"""What a notebook shows of a run, in a real browser; charts with the scripts of Vega-Lite 5, as Jupyter has them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import altair as alt
import numpy as np
import pytest
import vl_convert
from browser import Browser
from PIL import Image
from synthetic_runs import make_failed, make_run, small_store
from test_untrusted import CORPUS

from spectral_edge.audited_run import AuditedRun
from spectral_edge.errors import UsageError
from spectral_edge.report import run_chart_png
from spectral_edge.report.run_chart import MIME, small

Show = Callable[[str], Browser]
PAGE = "<!doctype html><meta charset=utf-8><title>notebook</title><body style='{style}'><main>{output}</main></body>"
DARK = "background: #111; color: #ddd"


def output(run: AuditedRun, style: str = "") -> str:
    return PAGE.format(style=style, output=run._repr_html_())


def audited(*args: object, **kwargs: object) -> AuditedRun:
    return AuditedRun.of(make_run(*args, **kwargs))


def outside(browser: Browser) -> list[str]:
    return [url for url in browser.requests() if not url.startswith("data:")]


@pytest.fixture(scope="module")
def run() -> AuditedRun:
    return AuditedRun.of(small_store()[0])


def test_a_run_shows_verdict_picture_changes_and_regimes(show: Show, run: AuditedRun) -> None:
    browser = show(output(run, DARK))
    text = browser.one("main").text
    assert run.verdict in text
    assert "100 checkpoints, steps 0 to 3,960" in text
    assert browser.run("return document.images[0].naturalWidth") > 900
    assert browser.run("return document.images[0].width") < 900
    assert browser.seen("td")[:4] == ["gap opening", "attention", "1,840", "1,780\N{EN DASH}1,960"]
    browser.one("summary").click()
    assert browser.seen("details[open] td")[:3] == ["undetermined", "0", "360"]
    assert browser.contrasts()[0][0] >= 4.5, "text takes the colours of a dark notebook"
    assert (browser.complaints(), outside(browser)) == ([], [])


def test_text_from_trackers_is_text(show: Show) -> None:
    outputs, names = [], CORPUS[::3]
    for number, text in enumerate(names):
        one, other = CORPUS[3 * number + 1], CORPUS[3 * number + 2]
        change = {"checkpoints": 16, "change_at": 8, "groups": ("total", other), "metric_name": one}
        about = {"warnings": list(CORPUS), "optimizer": one, "state": one, "settings": other, "run_id": other}
        outputs.append(audited(text, project=one, **change, **about)._repr_html_())
        outputs.append(AuditedRun.of(make_failed(text, f"{one} Next: {other}"))._repr_html_())
    browser = show(PAGE.format(style="", output="".join(outputs)))
    assert browser.run("return window.canary === undefined")
    shown = browser.run("return [...document.querySelectorAll('strong > bdi')].map((e) => e.textContent)")
    assert shown[::2] == shown[1::2] == list(names)
    noted = browser.run("return [...document.querySelectorAll('ul')[0].children].map((e) => e.textContent)")
    assert noted[: len(CORPUS)] == list(CORPUS)
    strange = "main script, main iframe, main svg, main [onerror], main [onload], main [onfocus], main [onmouseover], a"
    assert browser.all(strange) == []
    assert (browser.complaints(), outside(browser)) == ([], [])


def test_every_kind_of_run_can_be_shown() -> None:
    for tables in small_store()[4:7]:  # without a regime and a metric, too short, failed
        shown = AuditedRun.of(tables)
        assert (
            shown.verdict in repr(shown).replace("\n ", "").replace("  ", " ") or tables.summary["status"] == "failed"
        )
        assert shown._repr_html_().count("<img") == (tables.summary["status"] != "failed")


def test_plain_text_gives_names_no_say_over_the_terminal() -> None:
    text = repr(audited("a\x1b[2Jb\nc", project="\x07p", metric_name="\x1b]0;t\x07"))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.splitlines()[0] == "a\ufffd[2Jb c of \ufffdp: 100 checkpoints, steps 0 to 3,960"


def test_the_chart_brings_a_specification_and_an_image_and_no_address(run: AuditedRun) -> None:
    data, metadata = run.plot("mlp")._repr_mimebundle_()
    assert set(data) == {MIME, "image/png", "text/plain"}
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["width"] < 900
    assert "cdn" not in json.dumps(data[MIME])
    assert "parameter group mlp" in json.dumps(data[MIME])


def test_the_chart_answers_the_pointer_where_vega_lite_is_of_version_5(show: Show, run: AuditedRun) -> None:
    data, _ = run.plot()._repr_mimebundle_()
    version = max((one for one in vl_convert.get_vegalite_versions() if one.startswith("5.")), key=_parts)
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)
    draw = "vegaEmbed('main', spec, {renderer: 'svg', actions: false}).then((drawn) => { window.view = drawn.view; })"
    spec = json.dumps(data[MIME]).replace("<", "\\u003c")
    script = script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    page = PAGE.format(style="", output="")
    browser = show(f"{page}<script>{script}</script><script>const spec = {spec}; {draw};</script>")
    browser.until("return window.view !== undefined")
    assert _steps(browser) == [0, 3960]
    strip = browser.run("return document.querySelector('path[aria-label^=\"from:\"]').getBoundingClientRect()")
    x, y = int(strip["left"]), int(strip["top"] + strip["height"] / 2)
    for kind, at in (("mousePressed", 200), ("mouseMoved", 300), ("mouseMoved", 400), ("mouseReleased", 400)):
        browser.command("Input.dispatchMouseEvent", type=kind, x=x + at, y=y, button="left", buttons=1, clickCount=1)
    browser.until("return window.view.signal('first') > 0")
    first, last = _steps(browser)
    assert 500 < first < last < 3200
    # vl-convert brings Vega 6 along with Vega-Lite 5; the front-ends have Vega 5 with it.
    assert [one for one in browser.complaints() if "The compiled spec uses Vega v5" not in one] == []
    assert outside(browser) == []


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _steps(browser: Browser) -> list[int]:
    return browser.run("return [window.view.signal('first'), window.view.signal('last')]")


def test_the_small_image_keeps_every_colour(run: AuditedRun) -> None:
    png = run_chart_png(run)
    one, other = (np.asarray(Image.open(io.BytesIO(some)).convert("RGB"), dtype=int) for some in (png, small(png)))
    assert len(small(png)) < len(png) / 5
    assert abs(one - other).max() < 20


def test_a_renderer_that_was_chosen_is_used(run: AuditedRun) -> None:
    with alt.renderers.enable("json"):
        assert "application/json" in run.plot()._repr_mimebundle_()[0]


def test_the_chart_is_one_of_altair(run: AuditedRun) -> None:
    chart = run.plot().properties(background="#eee")
    assert isinstance(chart, alt.VConcatChart)
    assert chart.to_dict()["background"] == "#eee"


def test_a_run_without_windows_has_a_chart_that_says_so() -> None:
    data, _ = AuditedRun.of(make_failed("a", "Bad.")).plot()._repr_mimebundle_()
    assert "nothing to draw" in json.dumps(data[MIME])


def test_a_group_that_is_not_there_is_told(run: AuditedRun) -> None:
    with pytest.raises(UsageError, match="there is no parameter group 'atention'; there are: total, attention, mlp"):
        run.plot("atention")


def test_saving(run: AuditedRun, tmp_path: Path) -> None:
    assert run.save(tmp_path / "a.html").read_text().startswith("<!doctype html>")
    assert run.save(tmp_path / "a.svg", "mlp").read_text().startswith("<svg")
    total, mlp = run.save(tmp_path / "a.PNG"), run.save(tmp_path / "b.png", "mlp")
    assert total.read_bytes() != mlp.read_bytes()
    with pytest.raises(UsageError, match=r"must end in \.html, \.png or \.svg"):
        run.save(tmp_path / "a.pdf")
