"""How long the pages of `spectral-edge report --serve` take, over the store of benchmarks/lake.py.

    python -m benchmarks.browse [--runs 5000] [--keep FOLDER]

Makes that store (4 GB for 5,000 runs), starts the server on it, and asks for each page some times: the median by the
clock, and the processor time of the server. Then Chromium opens the page of a run, until its chart is drawn.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import psutil
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from benchmarks.lake import asked_of, fill, keys_of
from spectral_edge.questions import QUESTIONS
from spectral_edge.report.view import anchor
from spectral_edge.store import Store

TIMES = 7


def pages(run: str) -> dict[str, str]:
    """Addresses by what they show."""

    def query(sql: str) -> str:
        return "query?" + urllib.parse.urlencode({"sql": sql})

    return {
        "all runs, first page": "",
        "all runs, smallest q first": "?order=q",
        "runs that a search finds": "?search=run-25",
        "one run": f"run/{run}",
        "question `failures`": query(QUESTIONS["failures"].sql),
        "question `transitions`, 500 of its rows": query(QUESTIONS["transitions"].sql),
    }


def measure(address: str, server: psutil.Process) -> str:
    """The first time, the median of some more, the processor time of these, and the size, as cells of a table."""
    took, busy, size = [], [], 0
    for _ in range(1 + TIMES):
        before, started = sum(server.cpu_times()[:2]), time.perf_counter()
        with urllib.request.urlopen(address) as answer:
            size = len(answer.read())
        took.append(time.perf_counter() - started)
        busy.append(sum(server.cpu_times()[:2]) - before)
    return f"{took[0]:.2f} | {statistics.median(took[1:]):.2f} | {statistics.median(busy[1:]):.2f} | {size / 1000:,.0f}"


def drawn(address: str) -> float:
    """Seconds until Chromium has drawn the chart of a run's page."""
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))))
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        took = []
        for _ in range(3):
            driver.get("about:blank")
            started = time.perf_counter()
            driver.get(address)
            WebDriverWait(driver, 60).until(lambda it: it.find_elements(By.CSS_SELECTOR, "section.run svg.marks"))
            took.append(time.perf_counter() - started)
        return statistics.median(took)
    finally:
        driver.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--projects", type=int, default=50)
    parser.add_argument("--windows", type=int, default=250)
    parser.add_argument("--keep", type=Path, help="make the store in this folder, or take it from there")
    given = parser.parse_args()
    projects = keys_of(given.projects, given.runs)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (given.keep or Path(scratch)) / "store"
        store = Store.open(folder)
        if not store.audits():
            fill(store, projects, given.windows, dt.datetime.now(dt.UTC).replace(microsecond=0))
            store.compact()
        program = "from pipelines.cli import main; main()"
        command = [sys.executable, "-c", program, "report", "--serve", "--port", "0", "--store", str(folder)]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                address = process.stdout.readline().split(": ", 1)[1].split()[0]
                print(f"listens after {time.perf_counter() - started:.1f} s\n")
                time.sleep(5)  # until what is made ahead is made
                server, run = psutil.Process(process.pid), anchor(asked_of(projects)[7].columns())
                print("| page | first, s | median, s | processor, s | kB |\n|---|---|---|---|---|")
                for name, path in pages(run).items():
                    print(f"| {name} | {measure(address + path, server)} |", flush=True)
                print(f"\nchart of a run of {given.windows} windows and 8 groups drawn after", end=" ")
                print(f"{drawn(f'{address}run/{run}'):.1f} s; memory {server.memory_info().rss / 1e6:,.0f} MB")
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
