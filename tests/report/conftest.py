"""Pages on disk, in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser import Browser
from selenium import webdriver


@pytest.fixture
def show(driver: webdriver.Chrome, tmp_path: Path) -> Callable[[str], Browser]:
    """Opens a page from file:// in a light, wide window with JavaScript, whatever the test before did."""

    def opened(page: str) -> Browser:
        path = tmp_path / "page.html"
        path.write_text(page, encoding="utf-8", newline="\n")
        return Browser(driver).reset().visit(path.as_uri())

    return opened
