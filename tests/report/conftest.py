"""A real headless Chromium, without network, and pages on disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser
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
def _driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = _binary("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_binary("chromedriver")))
    driver.set_script_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture
def show(_driver: webdriver.Chrome, tmp_path: Path) -> Callable[[str], Browser]:
    """Opens a page from file:// in a light, wide window with JavaScript, whatever the test before did."""

    def opened(page: str) -> Browser:
        path = tmp_path / "page.html"
        path.write_text(page, encoding="utf-8", newline="\n")
        return Browser(_driver).reset().visit(path.as_uri())

    return opened
