"""One real Prefect server for the tests of what talks to one, and a database that others need not create anew."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from scheduled_machine import Machine, Server, environment, write_run
from servers import prefect_server


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A folder with runs to audit, and someone there whose Prefect server is `prefect server start`."""
    folder = tmp_path_factory.mktemp("machine")
    for number, name in enumerate(("one", "two")):
        write_run(folder / "runs" / name, seed=number)
    with prefect_server(folder, environment(folder / "unused")) as address:
        with closing(sqlite3.connect(folder / "prefect-server" / "prefect.db")) as database:
            database.execute("vacuum into ?", (str(folder / "new.db"),))
        yield Machine(folder, Server(address))


@pytest.fixture(scope="session")
def put_database(machine: Machine) -> Callable[[Path], None]:
    """Puts a database without flow runs into a PREFECT_HOME, which saves the ten seconds of creating one."""

    def put(home: Path) -> None:
        home.mkdir(mode=0o700)
        shutil.copy(machine.folder / "new.db", home / "prefect.db")

    return put
