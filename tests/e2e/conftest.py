"""One Prefect server for the session: a database takes ten seconds to create, a server five to start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import CommandLine


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Prefect keeps its database, for all tests."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def prefect_api(prefect_home: Path) -> Iterator[str]:
    """The address of a Prefect server, as a user might have one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(prefect_home), "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "0"}
    command = [sys.executable, "-m", "pipelines.prefect_server"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        log = server.stdout.readline().strip()
        address = server.stdout.readline().strip()
        assert address, Path(log).read_text()
        yield address
        server.stdin.close()
        assert server.wait(30) == 0


@pytest.fixture(scope="session")
def with_server(prefect_home: Path, prefect_api: str) -> Callable[[Path], CommandLine]:
    """The command line of a user whose environment names a Prefect server."""
    return lambda folder: CommandLine(folder, {"PREFECT_HOME": str(prefect_home), "PREFECT_API_URL": prefect_api})
