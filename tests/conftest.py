"""A real headless Chromium, without network, and the tables of what the tests cover."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import matrix
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--window-size=1280,900",
)


def _binary(*names: str) -> str:
    return next(found for name in names if (found := shutil.which(name)))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = _binary("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_binary("chromedriver")))
    driver.set_script_timeout(30)
    yield driver
    driver.quit()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--new-pictures", action="store_true", help="store the report's pictures anew (tests/golden/pages)"
    )
    parser.addoption(matrix.OPTION, action="store_true", help="with --collect-only: print what the tests cover")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.collectonly and not config.getoption(matrix.OPTION):
        return
    config.pluginmanager.register(matrix.Recorder(only_collects=config.option.collectonly), "matrix")
