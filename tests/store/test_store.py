"""What is written is what is read, in a folder and on S3 alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from audits import assert_same, audit, canonical, key_of, raw
from deltalake import write_deltalake

from spectral_edge import delta
from spectral_edge.errors import UsageError
from spectral_edge.query import query
from spectral_edge.store import AuditState, Store
from spectral_edge.store_location import StoreLocation
from spectral_edge.tables import ADDED_COLUMNS, SCHEMAS, audit_id

DETAILS = ("inner_products", "gaps", "transitions", "scorecard", "metrics")


def test_a_written_run_is_read_back(root: str) -> None:
    store = Store.open(root)
    keys = [key_of("a"), key_of("b", project="other project"), key_of("a", tracker="dir")]
    written = [audit(key) for key in keys]
    for tables in written:
        store.write_run(tables)
    for tables in written:
        assert_same(store.read_run(tables.key), tables)
        assert_same(Store.open(root, create=False).read_run(tables.key), tables)
    assert store.read_run(key_of("c")) is None


def test_rows_are_sorted_by_group_and_step(root: str) -> None:
    store = Store.open(root)
    store.write_run(audit(key_of("a"), rows=30))
    found = store.read_run(key_of("a"))
    assert found is not None
    for name, columns in (("gaps", ["group", "step"]), ("inner_products", ["group", "step", "lag"])):
        order = [tuple(row.values()) for row in getattr(found, name).select(columns).to_pylist()]
        assert order == sorted(order)
        on_disk = delta.scan(delta.open_table(store.location, name), name, columns=columns)
        assert [tuple(row.values()) for row in on_disk.to_pylist()] == order


def test_a_renamed_run_is_the_same_run(root: str) -> None:
    store = Store.open(root)
    store.write_run(audit(key_of("a")))
    renamed = audit(replace(key_of("a"), run_name="new name"), settings_hash="s22")
    store.write_run(renamed)
    assert_same(store.read_run(key_of("a")), renamed)
    assert len(store.audits()) == 1


def test_writing_twice_changes_nothing(root: str) -> None:
    store = Store.open(root)
    store.write_run(audit(key_of("a")))
    store.write_run(audit(key_of("b")))
    before = raw(store)
    store.write_run(audit(key_of("a")))
    assert raw(store) == before


def test_a_new_audit_replaces_the_old_one_and_leaves_other_runs(root: str) -> None:
    store = Store.open(root)
    for run in ("a", "b"):
        store.write_run(audit(key_of(run), rows=30))
    store.write_run(audit(key_of("a"), settings_hash="s22", rows=9))
    assert_same(store.read_run(key_of("a")), audit(key_of("a"), settings_hash="s22", rows=9))
    assert_same(store.read_run(key_of("b")), audit(key_of("b"), rows=30))

    expected = Store.open(f"{root}-undisturbed")
    expected.write_run(audit(key_of("b"), rows=30))
    expected.write_run(audit(key_of("a"), settings_hash="s22", rows=9))
    assert raw(store) == raw(expected)


def test_a_failed_run_is_written_with_empty_tables(root: str) -> None:
    store = Store.open(root)
    store.write_run(audit(key_of("a")))
    failed = audit(key_of("a"), settings_hash="s22", rows=0, status="failed")
    store.write_run(failed)
    assert_same(store.read_run(key_of("a")), failed)
    assert all(raw(store)[name] == [] for name in DETAILS)


def test_audits_tell_the_state_of_every_run(root: str) -> None:
    store = Store.open(root)
    assert store.audits() == {}
    store.write_run(audit(key_of("a")))
    store.write_run(audit(key_of("b"), rows=0, status="failed"))
    assert store.audits() == {
        ("mlflow", "toy", "a"): AuditState(audit_id("fp-a", "s1"), "fp-a", "s1", "ok", None, "finished", None, None),
        ("mlflow", "toy", "b"): AuditState(
            audit_id("fp-b", "s1"), "fp-b", "s1", "failed", "file x.pt: truncated", "finished", None, None
        ),
    }
    assert store.runs_table()["run_id"].to_pylist() == ["a", "b"]
    assert store.runs_table().schema == SCHEMAS["runs"]


def test_rows_that_no_committed_audit_owns_are_invisible_until_swept(root: str) -> None:
    store = Store.open(root)
    store.write_run(audit(key_of("a")))
    undisturbed = raw(store)
    # What killed writers leave: a new audit of a known run, and the first of an unknown one.
    for orphan in (audit(key_of("a"), settings_hash="s22"), audit(key_of("b"))):
        for name in DETAILS:
            write_deltalake(delta.open_table(store.location, name), getattr(orphan, name), mode="append")
    assert len(raw(store)["gaps"]) == 36

    assert_same(store.read_run(key_of("a")), audit(key_of("a")))
    assert store.read_run(key_of("b")) is None
    for name, rows in store.datasets().items():
        assert canonical(rows.to_table()).equals(canonical(getattr(audit(key_of("a")), name))), name

    assert store.sweep() == 2
    assert raw(store) == undisturbed
    assert store.sweep() == 0


def test_datasets_show_all_committed_rows_lazily(root: str) -> None:
    store = Store.open(root)
    assert {name: rows.count_rows() for name, rows in store.datasets().items()} == dict.fromkeys(SCHEMAS, 0)
    for run in ("a", "b"):
        store.write_run(audit(key_of(run, project=f"project\n{run}")))
    found = store.datasets()
    assert {name: rows.count_rows() for name, rows in found.items()} == {
        "runs": 2,
        "inner_products": 48,
        "gaps": 24,
        "transitions": 4,
        "scorecard": 4,
        "metrics": 4,
    }
    assert found["gaps"].schema == SCHEMAS["gaps"]


def test_a_store_from_before_a_column_is_read_and_written(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        for table, names in ADDED_COLUMNS.items():
            fields = [field for field in SCHEMAS[table] if field.name not in names]
            earlier.setitem(SCHEMAS, table, pa.schema(fields))  # type: ignore[arg-type]
        old = audit(key_of("old"))
        Store.open(root).write_run(old)
    store = Store.open(root, create=False)
    assert_same(store.read_run(old.key), audit(key_of("old")))
    assert query(store, "select series, step_source from runs").to_pylist() == [{"series": None, "step_source": None}]
    new = audit(key_of("new"))
    new = replace(new, runs=with_column(new.runs, "series", "step_#.pt"))
    store.write_run(new)
    assert_same(store.read_run(new.key), new)
    assert_same(store.read_run(old.key), audit(key_of("old")))
    store.write_run(replace(old, runs=with_column(audit(key_of("old")).runs, "series", "model:#")))
    rows = query(store, "select run_id, series from runs order by run_id").to_pylist()
    assert rows == [{"run_id": "new", "series": "step_#.pt"}, {"run_id": "old", "series": "model:#"}]
    assert query(store, "select count(*) as n from gaps").to_pylist() == [{"n": old.gaps.num_rows + new.gaps.num_rows}]


def with_column(rows: pa.Table, name: str, value: str) -> pa.Table:
    """`rows` with one value in all of a column."""
    place = rows.schema.get_field_index(name)
    return rows.set_column(place, rows.schema.field(place), pa.array([value] * len(rows)))


def test_compacting_keeps_every_row(root: str) -> None:
    store = Store.open(root)
    for number in range(3):
        store.write_run(audit(key_of(f"r{number}")))
    before = raw(store)
    store.compact()
    assert raw(store) == before
    gaps = delta.open_table(store.location, "gaps")
    assert len(gaps.file_uris()) == 1
    store.write_run(audit(key_of("r1"), settings_hash="s22"))
    assert_same(store.read_run(key_of("r1")), audit(key_of("r1"), settings_hash="s22"))
    assert_same(store.read_run(key_of("r2")), audit(key_of("r2")))


def test_a_store_is_named_shortly(root: str) -> None:
    assert repr(Store.open(root)) == f"Store({root!r})"


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://", "", "postgresql://x/y", "/tmp/100%25", "/tmp/[x]"])
def test_other_places_are_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="store"):
        StoreLocation.of(uri)


@pytest.mark.parametrize("name", ["a b", "a#b?c", "é🙂", "q'q\"", "x:y", " a", "{a}", "~"])
def test_folders_with_odd_names_work(tmp_path: Path, name: str) -> None:
    store = Store.open(f"{tmp_path}/{name}")
    store.write_run(audit(key_of("a")))
    assert_same(store.read_run(key_of("a")), audit(key_of("a")))
    assert store.datasets()["gaps"].count_rows() == 12
