"""Any text and any number comes back as it went in."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pyarrow as pa
import pytest
from audits import assert_same, audit, raw
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_edge.store import Store
from spectral_edge.tables import SCHEMAS, RunKey, RunTables, build

NASTY = [
    "",
    " ",
    "o'clock",
    "''; DROP TABLE runs; --",
    'dou"ble',
    "back\\slash\\'",
    "new\nline\r\n",
    "nul\x00inside",
    "../../etc/passwd",
    "/absolute",
    "50%20off%",
    "_underscore_%",
    "äöü 日本語 🙂",
    "e\u0301 v \u00e9",
    "\u202eright to left",
    "null",
    "__HIVE_DEFAULT_PARTITION__",
    "tracker=x/project_key=y",
    "{a} $1 ? :b @c",
    "x" * 256,
    "🙂" * 250,
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("names") / "store")


def test_nasty_names_are_all_different_runs(store: Store) -> None:
    keys = [RunKey("mlflow", name, f"{name}{suffix}", name) for name in NASTY for suffix in ("", "'")]
    for key in keys:
        store.write_run(audit(key, rows=3))
    assert set(store.audits()) == {(key.tracker, key.project, key.run_id) for key in keys}
    assert store.datasets()["gaps"].count_rows() == 3 * len(keys)
    for key in keys:
        assert_same(store.read_run(key), audit(key, rows=3))
    # Replacing one of them, by a predicate with its name in it, leaves all others.
    for key in keys[::5]:
        store.write_run(audit(key, settings_hash="s22", rows=6))
        assert_same(store.read_run(key), audit(key, settings_hash="s22", rows=6))
    assert store.datasets()["gaps"].count_rows() == sum(6 if i % 5 == 0 else 3 for i in range(len(keys)))
    assert store.sweep() == 0


def test_names_that_differ_only_beyond_the_length_of_statistics(store: Store) -> None:
    long = [
        RunKey("dir", "long", "x" * length + tail, "n")
        for length in (31, 63, 64, 500)
        for tail in ("a", "b", "\U0010ffff")
    ]
    for key in long:
        store.write_run(audit(key, rows=3))
    for key in long:
        store.write_run(audit(key, settings_hash="s22", rows=6))
    for key in long:
        assert_same(store.read_run(key), audit(key, settings_hash="s22", rows=6))


def _values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_nested(kind):
        return st.none() | _parts(kind)
    if pa.types.is_integer(kind):
        bits = kind.bit_width - 1
        return st.none() | st.integers(-(2**bits), 2**bits - 1)
    if pa.types.is_floating(kind):
        return st.none() | st.floats()
    if pa.types.is_boolean(kind):
        return st.none() | st.booleans()
    if pa.types.is_timestamp(kind):
        moments = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001
        return st.none() | moments
    assert pa.types.is_string(kind)
    return st.none() | _TEXT


def _parts(kind: pa.DataType) -> st.SearchStrategy[list[Any]]:
    if pa.types.is_map(kind):
        return st.lists(st.tuples(_TEXT, _values(kind.item_type)), max_size=3, unique_by=lambda pair: pair[0])
    return st.lists(_values(kind.value_type), max_size=4)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(NASTY)


def _rows(table: str, common: dict[str, str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    others = {field.name: _values(field.type) for field in SCHEMAS[table] if field.name not in common}
    one = st.fixed_dictionaries(others).map(lambda row: row | common)
    return st.lists(one, min_size=1, max_size=1) if table == "runs" else st.lists(one, max_size=3)


@st.composite
def _run_tables(draw: st.DrawFn) -> RunTables:
    tracker = draw(st.sampled_from(["mlflow", "dir", "wandb-offline", "my own tracker/ü"]))
    key = RunKey(tracker, draw(_TEXT), draw(_TEXT), draw(_TEXT))
    common = key.columns() | {"audit_id": draw(st.text("0123456789abcdef", min_size=16, max_size=16))}
    return RunTables(key, **{table: build(table, draw(_rows(table, common))) for table in SCHEMAS})


def _same_numbers(value: Any) -> Any:
    """`value` in a form in which NaN equals NaN, and -0.0 does not equal 0.0."""
    match value:
        case float():
            return "nan" if math.isnan(value) else repr(value)
        case list() | tuple():
            return [_same_numbers(part) for part in value]
        case dict():
            return {name: _same_numbers(part) for name, part in value.items()}
        case _:
            return value


@settings(max_examples=30, deadline=None)
@given(_run_tables())
def test_random_rows_come_back(store: Store, tables: RunTables) -> None:
    store.write_run(tables)
    found = store.read_run(tables.key)
    assert found is not None
    assert found.key == tables.key
    for name in SCHEMAS:
        got, expected = (
            sorted(repr(_same_numbers(row)) for row in getattr(which, name).to_pylist()) for which in (found, tables)
        )
        assert got == expected, name


def test_the_same_tables_again_leave_the_same_rows(store: Store) -> None:
    key = RunKey("dir", NASTY[3], NASTY[5], NASTY[7])
    store.write_run(audit(key))
    before = raw(store)
    store.write_run(audit(key))
    assert raw(store) == before
