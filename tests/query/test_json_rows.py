"""One JSON array of objects, exact where JSON can be."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_edge.errors import UsageError
from spectral_edge.json_rows import to_json_rows


def one(value: Any, kind: pa.DataType | None = None) -> Any:
    """What `value` is after a trip through JSON."""
    return json.loads(to_json_rows(pa.table({"x": pa.array([value], kind)})))[0]["x"]


def test_no_rows() -> None:
    assert to_json_rows(pa.table({"x": pa.array([], pa.int64())})) == "[]"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None])
def test_what_json_cannot_say_is_null(value: float | None) -> None:
    assert one(value, pa.float64()) is None
    assert one([1.0, value], pa.list_(pa.float64())) == [1.0, None]
    assert one({"a": {"b": value}}, pa.struct([("a", pa.struct([("b", pa.float64())]))])) == {"a": {"b": None}}


def test_times_are_iso_8601() -> None:
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC)
    assert one(moment, pa.timestamp("us", tz="UTC")) == "2026-01-02T03:04:05.000678+00:00"
    assert one(dt.date(2026, 1, 2)) == "2026-01-02"
    assert one(dt.time(3, 4, 5)) == "03:04:05"


def test_decimals_are_numbers() -> None:
    assert one(Decimal("1.25")) == 1.25
    assert one(Decimal(3), pa.decimal128(38, 0)) == 3


def test_sums_of_duckdb_are_integers() -> None:
    largest = 2**63 - 1
    table = duckdb.sql(f"SELECT sum(x) AS x FROM (VALUES ({largest}::BIGINT), ({largest}::BIGINT)) AS t(x)")
    assert to_json_rows(table.to_arrow_table()) == '[{"x": 18446744073709551614}]'


def test_other_kinds_of_duckdb() -> None:
    table = duckdb.sql(
        "SELECT 'ab'::BLOB AS blob, MAP {'k': 1} AS map, uuid '550e8400-e29b-41d4-a716-446655440000' AS uuid, "
        "INTERVAL 2 MONTH AS span, {'a': [1, NULL]} AS struct, 'x'::ENUM('x') AS enum, true AS yes, "
        "170141183460469231731687303715884105727 AS huge"
    )
    assert json.loads(to_json_rows(table.to_arrow_table())) == [
        {
            "blob": "6162",
            "map": [["k", 1]],
            "uuid": "550e8400-e29b-41d4-a716-446655440000",
            "span": [2, 0, 0],
            "struct": {"a": [1, None]},
            "enum": "x",
            "yes": True,
            "huge": 170141183460469231731687303715884105727,
        }
    ]


def test_two_columns_of_one_name_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
    with pytest.raises(UsageError, match='AS "n_2"'):
        to_json_rows(table)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "i": st.none() | st.integers(-(2**63), 2**63 - 1),
                "f": st.none() | st.floats(allow_nan=False, allow_infinity=False),
                "s": st.none() | st.text(st.characters(exclude_categories=["Cs"])),
                "l": st.none() | st.lists(st.integers(-5, 5)),
                "b": st.none() | st.booleans(),
            }
        ),
        max_size=5,
    )
)
def test_round_trip(rows: list[dict[str, Any]]) -> None:
    schema = pa.schema(
        [("i", pa.int64()), ("f", pa.float64()), ("s", pa.string()), ("l", pa.list_(pa.int64())), ("b", pa.bool_())]
    )
    assert json.loads(to_json_rows(pa.Table.from_pylist(rows, schema=schema))) == rows
