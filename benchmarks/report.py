"""How long the report over many runs takes to write, how large it is, and how fast it opens.

    python -m benchmarks.report [--runs 500] [--checkpoints 100] [--keep FOLDER]

Analyses six simulated runs of four parameter groups and four logged metrics, puts copies of them into a store under the
names of RUNS runs in ten projects, writes the report, and opens it in headless Chromium (with chromedriver) thrice.
No number is shared between runs in the page, so copies are as large as runs of their own. Processor time is that of all
threads, without imports.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from benchmarks.synthetic_updates import autoregressive, band_of_gram, gram_of
from spectral_edge.analysis import Provenance, analyse_run
from spectral_edge.report import write_report
from spectral_edge.series import FurtherMetric, MetricSeries, TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables
from spectral_edge.trajectory import Trajectory

GROUPS = ("total", "attention", "mlp", "embedding")
METRICS = ("val_acc", "train_acc", "train_loss", "val_loss")
KINDS = 6
PROJECTS = 10
PAINTED = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN"
READY = "return performance.getEntriesByType('navigation')[0].loadEventEnd"


def analysed(seed: int, checkpoints: int) -> RunTables:
    """One run of independent, anisotropic updates."""
    settings, rng = Settings(), np.random.default_rng(seed)
    bands = {}
    for name in GROUPS:
        bands[name] = band_of_gram(gram_of(autoregressive(checkpoints - 1, 0.5, rng, power=1.0)), settings.lags)
    trajectory = Trajectory(np.arange(checkpoints) * 100, bands)
    provenance = Provenance("f" * 16, "finished", "https://tracker.example/run")
    record = logged(np.arange(0, 100 * checkpoints, 10), rng)
    return analyse_run(RunKey("mlflow", "p", "r", "r"), trajectory, record, settings, provenance)


def logged(steps: np.ndarray, rng: np.random.Generator) -> TrainingRecord:
    """What a run logged every ten steps: four metrics, with noise that leaves no number alike, and a learning rate."""
    curves = {name: np.exp(-steps / steps[-1]) + 0.05 * rng.standard_normal(len(steps)) for name in METRICS}
    metric, *further = (MetricSeries(name, steps, values) for name, values in curves.items())
    rate = MetricSeries("lr", steps, 1e-3 * np.exp(-steps / steps[-1]))
    others = tuple(FurtherMetric(series, higher_is_better="acc" in series.name) for series in further)
    return TrainingRecord(metric=metric, learning_rate=rate, further=others)


def named(run: RunTables, key: RunKey) -> RunTables:
    """`run` under another name."""

    def under(table: pa.Table) -> pa.Table:
        for name, value in key.columns().items():
            column = pa.array([value] * table.num_rows, pa.string())
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
        return table

    names = ("runs", "inner_products", "gaps", "transitions", "scorecard", "metrics")
    return replace(run, key=key, **{name: under(getattr(run, name)) for name in names})


def opened(page: Path) -> list[tuple[float, float, float, float]]:
    """Milliseconds to the first content and until all is loaded, MB of JavaScript heap, and DOM nodes; three times."""
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Performance.enable", {})
    found = []
    try:
        for _ in range(3):
            driver.get("about:blank")
            driver.get(page.as_uri())
            time.sleep(2)
            driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
            told = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
            metrics = {one["name"]: one["value"] for one in told}
            painted, ready = driver.execute_script(PAINTED), driver.execute_script(READY)
            found.append((painted, ready, metrics["JSHeapUsedSize"] / 1e6, metrics["Nodes"]))
    finally:
        driver.quit()
    return found


def main() -> None:
    """Print one line for the file, and one each time it is opened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--checkpoints", type=int, default=100)
    parser.add_argument("--keep", type=Path)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = told.keep or Path(folder)
        store = Store.open(place / "store")
        kinds = [analysed(seed, told.checkpoints) for seed in range(KINDS)]
        for project in range(PROJECTS):
            numbers = range(project, told.runs, PROJECTS)
            keys = [RunKey("mlflow", f"team {project}", f"{number:032x}", f"sweep-{number}") for number in numbers]
            store.write_runs([named(kinds[at % KINDS], key) for at, key in enumerate(keys)])
        page = place / "report.html"
        wall, processor = time.perf_counter(), time.process_time()
        write_report(store, page)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        megabytes = page.stat().st_size / 1e6
        print(f"{told.runs} runs: {wall:.1f} s, {processor:.1f} s of processor time, {megabytes:.1f} MB")
        for painted, ready, heap, nodes in opened(page):
            print(f"first content {painted:.0f} ms, loaded {ready:.0f} ms, heap {heap:.1f} MB, {nodes:.0f} nodes")


if __name__ == "__main__":
    main()
