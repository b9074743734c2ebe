"""What people see of an audit on a run's page in MLflow's own interface, in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pictures
import pytest
import torch
from browser import Browser
from labs import NOTE_TAG, Logged, MlflowLab
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from integrations.tracker import Selection
from pipelines.decisions import Scope
from pipelines.one_run import Job, audit_one
from pipelines.settings import AuditSettings
from spectral_edge.store import Store

CHECKPOINTS, WINDOW, EVERY = 30, 5, 100
NAME = "grok-wd1-s0"
WORDS = "Second try, with *more* decay."
ITS_OWN = ("/static-files/", "/users/current", "/ajax-api/")
"""What is in complaints about MLflow's own scripts and requests."""


def checkpoints() -> dict[int, dict[str, torch.Tensor]]:
    """A walk along one direction, and halfway through along a second one as well."""
    rng = np.random.default_rng(0)
    directions, weights = rng.normal(size=(2, 400)), rng.normal(size=400)
    found = {}
    for index in range(CHECKPOINTS):
        second = 0.02 if index < CHECKPOINTS // 2 else 0.9
        weights = weights + np.array([1, second]) * rng.normal(size=2) @ directions + 0.01 * rng.normal(size=400)
        halves = [torch.tensor(half.reshape(10, 20), dtype=torch.float32) for half in np.split(weights, 2)]
        found[EVERY * index] = dict(
            zip(("layers.0.attention.q_proj.weight", "layers.0.mlp.weight"), halves, strict=True)
        )
    return found


@dataclass(frozen=True)
class Page:
    """The page of an audited run."""

    browser: Browser
    address: str
    lab: MlflowLab
    handle: str

    def visit(self, tab: str = "") -> None:
        self.browser.visit("about:blank").visit(f"{self.address}{tab}")

    def text(self, xpath: str) -> WebElement:
        """The visible element of this kind, once it is there."""
        wait = WebDriverWait(self.browser.driver, 60)
        find = self.browser.driver.find_elements
        return wait.until(lambda _: next((one for one in find(By.XPATH, xpath) if one.is_displayed()), False))

    def click(self, xpath: str) -> None:
        self.browser.run("arguments[0].click()", self.text(xpath))

    def complaints(self) -> list[str]:
        """What the console said that is not about MLflow itself."""
        return [said for said in self.browser.complaints() if not any(its in said for its in ITS_OWN)]


@pytest.fixture(scope="module")
def audited(server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[MlflowLab, str, str]:
    """A lab, the handle of an audited run in it, and the address of its page."""
    folder = tmp_path_factory.mktemp("page")
    lab = MlflowLab(folder, server)
    lab.client.create_experiment("modular addition")
    project = Selection("modular addition")
    saved = checkpoints()
    metrics = {
        "lr": [(step, 1e-3) for step in saved],
        "val_acc": [(step, step / max(saved)) for step in saved],
    }
    params = {"optimizer": "AdamW", "weight_decay": "1.0"}
    handle = lab.log(project, Logged(NAME, saved, metrics, params, tags={NOTE_TAG: WORDS}))
    run = lab.run(project, NAME)
    settings = AuditSettings(window=WINDOW, spool=folder / "spool")
    store = Store.open(str(folder / "store"))
    assert audit_one(Job(Scope.of(lab.tracker, settings, store), store, "cpu"), run).outcome == "audited"
    return lab, handle, run.url


@pytest.fixture
def page(audited: tuple[MlflowLab, str, str], driver: webdriver.Chrome) -> Iterator[Page]:
    lab, handle, address = audited
    browser = Browser(driver).reset()
    yield Page(browser, address, lab, handle)
    browser.visit("about:blank")


def test_the_overview_shows_note_and_tags(page: Page) -> None:
    page.visit()
    page.click("//*[text()='Show more']")
    page.text("//*[text()='Show less']")
    shown = page.text("//main").text if page.browser.all("main") else page.text("//body").text
    assert "Second try, with more decay.\nSpectral edge audit\n" in shown, (
        "our section follows theirs, both as Markdown"
    )
    assert f"{CHECKPOINTS} checkpoints from step 0 to step 2900 were analysed" in shown
    assert "group total: the number of leading directions changed from 1 to 2 at step" in shown
    assert not [mark for mark in ("###", "<!--", "&#", "**") if mark in shown]
    for name, value in page.lab.tags(page.handle).items():
        assert f"{name}\n: {value}" in shown
    assert not page.complaints()


PLOTTED = """
const drawn = [...document.querySelectorAll('.js-plotly-plot')].filter((plot) => plot.data && plot.data.length);
return drawn.map((plot) => [plot.data[0].metricKey, [...plot.data[0].x], [...plot.data[0].y]]);
"""


def test_the_metrics_are_charts_with_all_their_points(page: Page) -> None:
    page.visit("/model-metrics")
    page.text("//*[text()='spectral_edge/total']")
    sections = page.browser.driver.find_elements(By.XPATH, "//*[starts-with(text(),'spectral_edge/')]")
    assert {one.text for one in sections if "(" not in one.text} == {
        f"spectral_edge/{group}" for group in ("attention", "layer.0", "mlp", "total")
    }, "one section of charts for each group"
    page.text("//input[contains(@placeholder, 'Search metric')]").send_keys("spectral_edge/total/")
    wait = WebDriverWait(page.browser.driver, 60)
    plotted = wait.until(lambda _: _drawn(page.browser.run(PLOTTED)))
    points = page.lab.points(page.handle)
    for key, steps, values in plotted:
        assert list(zip(steps, values, strict=True)) == points[key]
    assert not page.complaints()


def _drawn(charts: list[tuple[str, list[int], list[float]]]) -> Any:
    """The charts, once those that the search leaves out are gone and as many as fit have their points."""
    wanted = len(charts) >= 6 and all(key.startswith("spectral_edge/total/") and steps for key, steps, _ in charts)
    return charts if wanted else None


def test_the_viewer_shows_report_and_picture(page: Page) -> None:
    page.visit("/artifacts")
    page.click("//*[text()='spectral_edge']")
    page.click("//*[text()='spectrum.html']")
    frame = page.browser.wait("iframe")
    page.browser.driver.switch_to.frame(frame)
    page.browser.wait("svg.marks")
    assert page.browser.seen("h1") == [NAME]
    assert "The spectrum of group" in page.browser.seen(".verdict")[0]
    assert page.browser.seen(".elsewhere") == [], "no button or link that the viewer's sandbox forbids"
    assert page.browser.run("return document.documentElement.scrollWidth <= innerWidth")
    page.browser.driver.switch_to.default_content()
    page.click("//button[@aria-label='Close']")
    time.sleep(2)  # the charts take the room
    pictures.check("mlflow-run.png", page.browser.driver.get_screenshot_as_png(), gradients=True)

    page.click("//*[text()='spectrum.png']")
    picture = "[...document.images].find((one) => one.src.startsWith('blob:') && one.naturalWidth)"
    page.browser.until(f"return {picture}")
    width, height = page.browser.run(f"const it = {picture}; return [it.naturalWidth, it.naturalHeight]")
    header = page.lab.files(page.handle)["spectrum.png"][16:24]
    assert (width, height) == (int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big"))

    page.click("//*[text()='spectrum.svg']")
    other = f"const it = {picture}; return it && it.naturalWidth !== {width} && [it.naturalWidth, it.naturalHeight]"
    drawn = page.browser.until(other)
    assert [round(1.5 * side) for side in drawn] == pytest.approx([width, height], abs=2)
    assert not page.complaints()
