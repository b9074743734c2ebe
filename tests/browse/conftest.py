"""One store with runs of all kinds, some of which have hostile names, and its server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser
from selenium import webdriver

from spectral_edge.store import Store
from tests.browse.serving import Served, serving
from tests.report.synthetic_runs import make_run, small_store

HOSTILE = (
    "</script></textarea><script>window.canary=1</script>",
    "\"><svg/onload=window.canary=1>'; DROP TABLE runs; --",
    "{{ 7*7 }}{% raw %}../../etc/passwd?x=1&y=2#z",
)
FEW = 55
"""Small runs of one project, more than a page holds."""


def fill(folder: Path) -> Store:
    store = Store.open(folder)
    for project in ("modular addition", "digits"):
        store.write_runs([run for run in small_store() if run.key.project == project])
    few = [
        make_run(f"few-{n:02}", project="many", seed=n, checkpoints=3, groups=(), change_at=None) for n in range(FEW)
    ]
    store.write_runs(few)
    for number, name in enumerate(HOSTILE):
        url, group = f"javascript:window.canary=1//{name}", ("total", name)
        run = make_run(name, project=name, run_id=name, seed=number, checkpoints=16, change_at=8, groups=group, url=url)
        store.write_run(run)
    return store


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("browse") / "store"
    fill(folder)
    with serving(folder) as server:
        yield server
        assert server.end() == (0, "")


@pytest.fixture
def visit(driver: webdriver.Chrome, served: Served) -> Callable[..., Browser]:
    """Opens a page of the server in a wide, light window, whatever the test before did."""

    def visited(path: str = "/", **told: object) -> Browser:
        return Browser(driver).reset().visit(served.to(path, **told))

    return visited
