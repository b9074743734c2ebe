"""The pictures in the README are what the demo shows.

The demo takes minutes, so that its tables are kept in demo_tables/, without inner products. `make pictures` runs the
demo, keeps its tables and writes the pictures; the tests draw the kept tables and compare.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pictures
import pyarrow.parquet as pq
import pytest
from browser import Browser
from PIL import Image
from selenium import webdriver

from spectral_edge.query import query
from spectral_edge.report import run_chart_png, write_report
from spectral_edge.store import Store
from spectral_edge.tables import SCHEMAS, RunKey, RunTables, build

ROOT = Path(__file__).resolve().parents[2]
KEPT = Path(__file__).with_name("demo_tables")
STORE = "spectral-edge-demo/store"
GROKS = "addition-wd1-seed2"


def keep(store: Store) -> None:
    """Write the demo's tables to KEPT."""
    KEPT.mkdir(exist_ok=True)
    for name in SCHEMAS:
        if name != "inner_products":
            # Where the demo ran is nobody's business.
            columns = "* replace (null::varchar as url)" if name == "runs" else "*"
            pq.write_table(
                query(store, f"select {columns} from {name}"),
                KEPT / f"{name}.parquet",
                compression="zstd",
                compression_level=19,
            )


@pytest.fixture(scope="module")
def runs() -> list[RunTables]:
    """The demo's runs, as they are kept."""
    if os.environ.get(pictures.WRITE):
        keep(Store.open(str(ROOT / STORE), create=False))
    rows = {path.stem: pq.read_table(path).to_pylist() for path in KEPT.glob("*.parquet")}
    found = []
    for run in rows["runs"]:
        key = RunKey(run["tracker"], run["project"], run["run_id"], run["run_name"])
        own = {name: [row for row in rows.get(name, []) if row["run_id"] == key.run_id] for name in SCHEMAS}
        found.append(RunTables(key, **{name: build(name, lines) for name, lines in own.items()}))
    return sorted(found, key=lambda run: run.key.run_name)


def test_the_chart_of_a_run_that_groks(runs: list[RunTables]) -> None:
    [run] = [run for run in runs if run.key.run_name == GROKS]
    pictures.check("run.png", run_chart_png(run))


def test_the_overview_of_the_report(runs: list[RunTables], tmp_path: Path, driver: webdriver.Chrome) -> None:
    store = Store.open(str(tmp_path / "store"))
    store.write_runs(runs)
    write_report(store, tmp_path / "report.html")
    browser = Browser(driver).reset().visit((tmp_path / "report.html").as_uri())
    assert browser.driver.title
    assert GROKS in browser.seen(".row a")
    browser.command("Emulation.setScrollbarsHidden", hidden=True)
    shot = browser.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    browser.command("Emulation.setScrollbarsHidden", hidden=False)
    pictures.check("report.png", base64.b64decode(shot["data"]))


def test_another_picture_is_noticed() -> None:
    committed, other = (Image.open(pictures.IMAGES / name) for name in ("run.png", "report.png"))
    assert pictures.difference(committed, committed) == 0
    assert pictures.difference(committed, other) > 1.5 * pictures._MOST
