"""A real Prefect server for the tests of what talks to one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scheduled_machine import Machine, Server, environment, write_run
from servers import prefect_server


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A folder with a run to audit, and someone there whose Prefect server is `prefect server start`."""
    folder = tmp_path_factory.mktemp("machine")
    write_run(folder / "runs" / "one")
    with prefect_server(folder, environment(folder / "unused")) as address:
        yield Machine(folder, Server(address))
