"""What is exported is what is imported; an import adds, replaces what is older, keeps the rest, and trusts nothing."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from audits import assert_same, audit, key_of
from pyarrow import csv, parquet

from spectral_edge.errors import NotFoundError, StoreError, StoreVersionError, UsageError
from spectral_edge.export import export_query, export_runs
from spectral_edge.importing import import_runs
from spectral_edge.store import Store
from spectral_edge.tables import SCHEMAS, RunTables

KEYS = (key_of("a"), key_of("b"), key_of("a", project='an "odd", name\n'), key_of("", tracker="dir"))


def column(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))


def aged(tables: RunTables, days: int) -> RunTables:
    at = tables.summary["audited_at"] + dt.timedelta(days=days)
    return replace(tables, runs=column(tables.runs, "audited_at", [at]))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled") / "store"
    for key in KEYS:
        Store.open(folder).write_run(audit(key))
    return folder


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Store:
    shutil.copytree(filled, tmp_path / "store")
    return Store.open(tmp_path / "store")


@pytest.mark.parametrize("form", ["parquet", "csv", "store"])
def test_a_round_trip(store: Store, tmp_path: Path, form: str) -> None:
    source = store.location.root
    if form != "store":
        source = str(tmp_path / "out")
        rows = export_runs(store, Path(source), form)  # type: ignore[arg-type]
        assert rows == {"runs": 4, "inner_products": 96, "gaps": 48, "transitions": 8, "scorecard": 8, "metrics": 8}
    other = Store.open(tmp_path / "other")
    assert len(import_runs(other, source, dry_run=True).added) == 4
    assert other.audits() == {}
    told = import_runs(other, source)
    assert (len(told.added), told.replaced, told.refused) == (4, [], {})
    for key in KEYS:
        assert_same(other.read_run(key), audit(key))
    again = import_runs(other, source)
    assert (again.added, len(again.present)) == ([], 4)


def test_only_chosen_runs_are_exported(store: Store, tmp_path: Path) -> None:
    assert export_runs(store, tmp_path / "toy", projects=["toy"], runs=["a", "b"])["runs"] == 2
    assert export_runs(store, tmp_path / "a", runs=["a"])["gaps"] == 24
    with pytest.raises(NotFoundError, match="nope"):
        export_runs(store, tmp_path / "none", projects=["nope"])
    with pytest.raises(UsageError, match="already"):
        export_runs(store, tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "store", "toy"]


def test_an_answer_is_exported_whole_or_not_at_all(store: Store, tmp_path: Path) -> None:
    sql = "SELECT run_id, singular_values, gap FROM gaps ORDER BY ALL"
    assert export_query(store, sql, tmp_path / "x.parquet") == 48
    assert export_query(store, sql, tmp_path / "x.csv") == 48
    assert csv.read_csv(tmp_path / "x.csv")["gap"].equals(parquet.read_table(tmp_path / "x.parquet")["gap"])
    before = (tmp_path / "x.csv").read_bytes()
    with pytest.raises(UsageError, match="boom"):
        export_query(
            store, "SELECT CASE WHEN range = 90000 THEN error('boom') END FROM range(100000)", tmp_path / "x.csv"
        )
    assert (tmp_path / "x.csv").read_bytes() == before
    with pytest.raises(UsageError, match=r"parquet or \.csv"):
        export_query(store, sql, tmp_path / "x.xlsx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "x.csv", "x.parquet"]


def test_an_older_audit_is_replaced_and_a_newer_one_stays(tmp_path: Path) -> None:
    ours, theirs = Store.open(tmp_path / "ours"), Store.open(tmp_path / "theirs")
    newer = aged(audit(key_of("newer here"), settings_hash="s22"), 1)
    ours.write_run(newer)
    ours.write_run(audit(key_of("older here")))
    theirs.write_run(audit(key_of("newer here")))
    theirs.write_run(aged(audit(key_of("older here"), settings_hash="s22"), 1))
    told = import_runs(ours, theirs.location.root)
    assert told.kept == ["toy / name of newer here"]
    assert told.replaced == ["toy / name of older here"]
    assert_same(ours.read_run(key_of("newer here")), newer)
    assert_same(ours.read_run(key_of("older here")), aged(audit(key_of("older here"), settings_hash="s22"), 1))
    assert ours.sweep() == 0


REFUSED: dict[str, tuple[str, Callable[[pa.Table], pa.Table], str]] = {
    "path": (
        "runs",
        lambda t: column(t, "project_key", ["../../up", *t["project_key"].to_pylist()[1:]]),
        "project_key",
    ),
    "tracker": ("runs", lambda t: column(t, "tracker", ["a/b", *t["tracker"].to_pylist()[1:]]), "no tracker"),
    "json": ("runs", lambda t: column(t, "settings", ["[1]", *[None] * (len(t) - 1)]), "JSON object"),
    "null": ("runs", lambda t: column(t, "status", [None, *["ok"] * (len(t) - 1)]), "status is empty"),
    "version": ("gaps", lambda t: column(t, "schema_version", [2] * 12 + [1] * (len(t) - 12)), "schema version 2"),
    "name": ("gaps", lambda t: column(t, "run_name", ["x", *t["run_name"].to_pylist()[1:]]), "another run_name"),
    "twice": ("gaps", lambda t: pa.concat_tables([t.slice(0, 1), t]), "two rows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_run_that_no_audit_writes_is_refused_alone(store: Store, tmp_path: Path, case: str) -> None:
    export_runs(store, tmp_path / "out")
    name, change, why = REFUSED[case]
    file = tmp_path / "out" / f"{name}.parquet"
    parquet.write_table(change(parquet.read_table(file)), file)
    other = Store.open(tmp_path / "other")
    told = import_runs(other, tmp_path / "out")
    (said,) = told.refused.values()
    assert why in said
    assert (len(told.added), len(other.audits())) == (3, 3)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: t.drop_columns(["gap"]), StoreError),
        (lambda t: t.append_column("future", pa.nulls(len(t))), StoreVersionError),
        (lambda t: t.set_column(t.schema.get_field_index("gap"), "gap", t["gap"].cast(pa.string())), StoreError),
    ],
)
def test_tables_of_other_columns_are_refused_as_a_whole(
    store: Store, tmp_path: Path, change: Callable[[pa.Table], pa.Table], error: type[Exception]
) -> None:
    export_runs(store, tmp_path / "out")
    file = tmp_path / "out" / "gaps.parquet"
    parquet.write_table(change(parquet.read_table(file)), file)
    other = Store.open(tmp_path / "other")
    with pytest.raises(error, match="table gaps"):
        import_runs(other, tmp_path / "out")
    assert other.audits() == {}


@pytest.mark.parametrize("damage", ["cut", "gone", "text"])
def test_a_damaged_export_is_named(store: Store, tmp_path: Path, damage: str) -> None:
    export_runs(store, tmp_path / "out", "csv" if damage == "text" else "parquet")
    (file,) = (tmp_path / "out").glob("gaps.*")
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100] if damage == "cut" else file.read_bytes().replace(b"[", b"{"))
    with pytest.raises(StoreError):
        import_runs(Store.open(tmp_path / "other"), tmp_path / "out")


def test_what_is_no_source_is_told(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="neither a store"):
        import_runs(store, tmp_path)


def test_exported_columns_are_those_of_the_tables(store: Store, tmp_path: Path) -> None:
    export_runs(store, tmp_path / "out")
    for name, schema in SCHEMAS.items():
        assert parquet.read_schema(tmp_path / "out" / f"{name}.parquet").equals(schema)
