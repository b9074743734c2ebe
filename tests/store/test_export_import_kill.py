"""Killed anywhere, an export has left the old file or the new one, and an import whole runs; repeated, each is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from audits import assert_same, audit, key_of, raw
from children import PROCESSES, finish, killed_at, lines_of, start
from pyarrow import parquet

from spectral_edge.export import export_query, export_runs
from spectral_edge.importing import import_runs
from spectral_edge.store import Store
from spectral_edge.tables import SCHEMAS

KILLED = -9
SQL = "SELECT run_id, step, gap FROM gaps ORDER BY ALL"
KEYS = (key_of("a"), key_of("b"), key_of("a", project="other"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(tmp_path_factory.mktemp("source") / "store")
    for key in KEYS:
        store.write_run(audit(key))
    return store


def lines(work: Callable[..., object], *args: Any) -> int:
    answer = PROCESSES.Queue()
    child = start(lines_of, answer, work, *args)
    count = int(answer.get(timeout=120))
    assert finish(child) == 0
    return count


def test_a_killed_export_leaves_the_old_file_or_the_new_one(source: Store, tmp_path: Path) -> None:
    output, old, seen = tmp_path / "answer.parquet", pa.table({"old": [1]}), set()
    count = lines(export_query, source, SQL, output)
    new = parquet.read_table(output)
    # The file is put in its place by one of the last lines.
    for line in (count // 2, *range(count - 14, count)):
        parquet.write_table(old, output)
        code = finish(start(killed_at, line, export_query, source, SQL, output))
        found = parquet.read_table(output)
        assert found.equals(new) or (code == KILLED and found.equals(old))
        seen.add(found.equals(new))
    assert seen == {False, True}
    assert export_query(source, SQL, output) == 36
    assert parquet.read_table(output).equals(new)


def test_a_killed_export_of_all_tables_leaves_no_folder_or_a_whole_one(source: Store, tmp_path: Path) -> None:
    count, seen = lines(export_runs, source, tmp_path / "counted"), set()
    for line in (count // 2, count - 60, count - 20, *range(count - 4, count + 1)):
        output = tmp_path / f"out-{line}"
        assert finish(start(killed_at, line, export_runs, source, output)) == KILLED
        seen.add(output.exists())
        if output.exists():
            assert {name: parquet.read_metadata(output / f"{name}.parquet").num_rows for name in SCHEMAS} == {
                "runs": 3,
                "inner_products": 72,
                "gaps": 36,
                "transitions": 6,
                "scorecard": 6,
                "metrics": 6,
            }
    assert seen == {False, True}


def test_a_killed_import_has_taken_whole_runs_and_is_finished_by_the_next(source: Store, tmp_path: Path) -> None:
    export_runs(source, tmp_path / "out")
    count, seen = lines(import_runs, Store.open(tmp_path / "counted"), tmp_path / "out"), set()
    for line in range(count // 3, count + 1, count // 12):
        store = Store.open(tmp_path / f"here-{line}")
        assert finish(start(killed_at, line, import_runs, store, tmp_path / "out")) == KILLED
        taken = store.audits()
        seen.add(len(taken))
        for key in KEYS:
            if (key.tracker, key.project, key.run_id) in taken:
                assert_same(store.read_run(key), audit(key))
        told = import_runs(store, tmp_path / "out")
        assert (len(told.present), len(told.added)) == (len(taken), len(KEYS) - len(taken))
        assert raw(store) == raw(source)
        shutil.rmtree(store.location.root)
    # A project is written at a time: `other` has one run, `toy` two.
    assert seen == {0, 1, 3}
