"""kill -9 at random instants, then the same command again: the same tables and annotations, nothing left behind."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import CommandLine, random_walk, write_recorded, write_safetensors

from spectral_edge.store import Store

RUNS, CHECKPOINTS, KILLS = 3, 14, 3
MAY_DIFFER = ("audited_at", "seconds_fetch", "seconds_gram", "seconds_analyse")
SERVER_ENDS_SECONDS = 60


def rows(store: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of the four tables, in an order of their own."""
    tables = {
        name: dataset.to_table().to_pylist() for name, dataset in Store.open(store, create=False).datasets().items()
    }
    for row in tables["runs"]:
        for name in MAY_DIFFER:
            del row[name]
    return {name: sorted(table, key=repr) for name, table in tables.items()}


def written(runs: Path) -> Mapping[str, bytes]:
    """What the audit wrote beside the runs, file by file; of pages only that they are there: they tell the time."""
    return {
        str(path.relative_to(runs)): b"" if path.suffix == ".html" else path.read_bytes()
        for path in runs.rglob("*")
        if path.is_file() and path.parent.name.endswith("spectral_edge")
    }


def servers_of(prefect_home: Path) -> list[psutil.Process]:
    """Temporary servers that a command has started on this database."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            ours = "pipelines.prefect_server" in (process.info["cmdline"] or [])
            if ours and process.environ().get("PREFECT_HOME") == str(prefect_home):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def recorded(prefect_home: Path) -> dict[str, list[str]]:
    """States of the flow runs and task runs, and the kinds of artifacts, that Prefect has on record."""
    with closing(sqlite3.connect(prefect_home / "prefect.db")) as database:

        def column(sql: str) -> list[str]:
            return sorted(value for (value,) in database.execute(sql))

        return {
            "flow_runs": column("select state_name from flow_run where name = 'audit dir:runs'"),
            "task_runs": column("select state_name from task_run where name like 'audit run_%'"),
            "artifacts": column("select type from artifact where key = 'spectral-edge-audit'"),
        }


@pytest.fixture
def own_home(prefect_home: Path, prefect_api: str, tmp_path: Path) -> Path:
    """A Prefect database of its own, so that its servers can be told from those of other tests."""
    home = tmp_path / "prefect"
    home.mkdir()
    with closing(sqlite3.connect(prefect_home / "prefect.db")) as source:
        source.execute("vacuum into ?", (str(home / "prefect.db"),))  # saves the ten seconds of creating one
    with closing(sqlite3.connect(home / "prefect.db")) as copy, copy:
        for table in ("artifact", "task_run", "flow_run"):
            copy.execute(f"delete from {table}")
    return home


def test_killed_audits_leave_what_one_undisturbed_audit_leaves(tmp_path: Path, own_home: Path) -> None:
    runs = tmp_path / "runs"
    for number in range(RUNS - 1):
        write_safetensors(runs / f"run_{number}", random_walk(CHECKPOINTS, seed=number))
    write_recorded(runs / f"run_{RUNS - 1}.sketch", CHECKPOINTS)
    command = CommandLine(tmp_path, {"PREFECT_HOME": str(own_home)})

    def arguments(store: str) -> tuple[str, ...]:
        return ("audit", "dir:runs", "--window", "4", "--store", store)

    started = time.monotonic()
    undisturbed = command.run(*arguments("undisturbed"))
    duration = time.monotonic() - started
    assert undisturbed.code == 0, undisturbed.err
    assert undisturbed.err.splitlines()[0].startswith("waiting for Prefect's server")
    assert servers_of(own_home) == []
    assert recorded(own_home) == {
        "flow_runs": ["Completed"],
        "task_runs": ["Completed"] * RUNS,
        "artifacts": ["table"],
    }
    expected = written(runs)
    assert len(expected) >= 3 * RUNS
    for folder in [*runs.glob("*/spectral_edge"), *runs.glob("*.spectral_edge")]:
        shutil.rmtree(folder)

    for _ in range(KILLS):
        instant = random.uniform(0.4, 1.0) * duration
        print(f"killed after {instant:.2f} of {duration:.2f} s")
        process = command.start(*arguments("killed"))
        time.sleep(instant)
        process.kill()
        process.communicate()
    last = command.run(*arguments("killed"))
    assert last.code == 0, last.err

    assert rows(tmp_path / "killed") == rows(tmp_path / "undisturbed")
    found = written(runs)
    assert [name for name in {**expected, **found} if found.get(name) != expected.get(name)] == []
    assert not (tmp_path / "spectral-edge-spool").exists()
    deadline = time.monotonic() + SERVER_ENDS_SECONDS
    while servers_of(own_home) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert servers_of(own_home) == []
