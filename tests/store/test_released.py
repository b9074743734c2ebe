"""Stores as each released version wrote them are read, written, compacted and exported. See released/make.py."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from audits import as_older, assert_same, audit, key_of, raw

from spectral_edge.importing import import_runs
from spectral_edge.query import query
from spectral_edge.store import Store
from spectral_edge.tables import SCHEMAS, RunTables

RELEASED = sorted(path for path in (Path(__file__).parent / "released").iterdir() if path.is_dir())
WRITTEN = (
    as_older(audit(key_of("a"), rows=6)),
    as_older(audit(key_of("b", project="other project", tracker="dir"), rows=6)),
    audit(key_of("c"), rows=0, status="failed"),
)


@pytest.fixture(params=RELEASED, ids=lambda path: path.name)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    shutil.copytree(request.param, tmp_path / "store")
    return Store.open(tmp_path / "store", create=False)


def assert_holds(store: Store, *written: RunTables) -> None:
    for tables in written:
        assert_same(store.read_run(tables.key), tables)
    counts = {name: sum(getattr(it, name).num_rows for it in written) for name in SCHEMAS}
    for name, count in counts.items():
        assert query(store, f"SELECT count(*) AS n FROM {name}").to_pylist() == [{"n": count}]


def test_an_old_store_is_read(store: Store) -> None:
    assert {"before-series", "0.1.0"} <= {path.name for path in RELEASED}
    before = raw(store)
    assert_holds(store, *WRITTEN)
    assert {row["schema_version"] for row in store.runs_table().to_pylist()} == {1}
    assert raw(store) == before


def test_an_old_store_is_written(store: Store) -> None:
    new = audit(key_of("new"), rows=9), audit(key_of("a"), settings_hash="s333", rows=9)
    store.write_runs(new)
    assert_holds(store, *new, *WRITTEN[1:])
    assert store.sweep() == 0


def test_an_old_store_is_compacted(store: Store) -> None:
    for number in range(3):
        store.write_run(audit(key_of(f"r{number}")))
    assert sum(table.projects for table in store.compact()) > 0
    assert_holds(store, *WRITTEN, *(audit(key_of(f"r{number}")) for number in range(3)))


def test_an_old_store_is_imported(store: Store, tmp_path: Path) -> None:
    new = Store.open(tmp_path / "new")
    told = import_runs(new, store.location.root)
    assert len(told.added) == 3
    assert not told.refused
    assert_holds(new, *WRITTEN)
