"""Killed anywhere, an export has left the old file or the new one, and an import whole runs; repeated, each is done."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from audits import assert_same, audit, key_of, raw
from children import export_killed_at, finish, import_killed_at, start
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


def test_a_killed_export_leaves_the_old_file_or_the_new_one(source: Store, tmp_path: Path) -> None:
    output = tmp_path / "answer.parquet"
    old, seen = pa.table({"old": [1]}), set()
    export_query(source, SQL, tmp_path / "undisturbed.parquet")
    new = parquet.read_table(tmp_path / "undisturbed.parquet")
    # A prime stride, growing: most lines are run while the tables are opened, the last few write.
    line, code = 400, KILLED
    while code == KILLED:
        parquet.write_table(old, output)
        code = finish(start(export_killed_at, source.location.root, str(output), SQL, line))
        found = parquet.read_table(output)
        assert found.equals(old) or found.equals(new)
        seen.add((code, found.equals(new)))
        line += 13
    assert seen == {(KILLED, False), (KILLED, True), (0, True)}
    assert export_query(source, SQL, output) == 36


def test_a_killed_export_of_all_tables_leaves_no_folder_or_a_whole_one(source: Store, tmp_path: Path) -> None:
    seen, line, code = set(), 400, KILLED
    while code == KILLED:
        output = tmp_path / f"out-{line}"
        code = finish(start(export_killed_at, source.location.root, str(output), None, line))
        seen.add((code, output.exists()))
        if output.exists():
            assert {name: parquet.read_metadata(output / f"{name}.parquet").num_rows for name in SCHEMAS} == {
                "runs": 3,
                "inner_products": 72,
                "gaps": 36,
                "transitions": 6,
                "scorecard": 6,
            }
        line += 23
    assert seen == {(KILLED, False), (KILLED, True), (0, True)}


def test_a_killed_import_has_taken_whole_runs_and_is_finished_by_the_next(source: Store, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export_runs(source, folder)
    nothing, seen, code, line = tmp_path / "nothing", set(), KILLED, 150
    Store.open(nothing)
    while code == KILLED:
        here = tmp_path / f"here-{line}"
        shutil.copytree(nothing, here)
        code = finish(start(import_killed_at, str(here), str(folder), line))
        store = Store.open(here)
        taken = store.audits()
        seen.add((code, len(taken)))
        for key in KEYS:
            if (key.tracker, key.project, key.run_id) in taken:
                assert_same(store.read_run(key), audit(key))
        told = import_runs(store, folder)
        assert len(told.present) == len(taken)
        assert len(told.added) == len(KEYS) - len(taken)
        assert raw(store) == raw(source)
        line += 61
    # `other` before `toy`: one run is there between their commits, which write a project at a time.
    assert seen == {(KILLED, 0), (KILLED, 1), (KILLED, 3), (0, 3)}
