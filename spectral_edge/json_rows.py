"""A table as JSON text."""

from __future__ import annotations

import json
import math
from datetime import date, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from spectral_edge.errors import UsageError


def to_json_rows(table: pa.Table) -> str:
    """`table` as one JSON array, one object a row.

    NaN and infinity become null, as JSON has neither. Integers of any size are exact; so are decimals without
    decimals, which is what DuckDB makes of integer sums, and others become the nearest double. Dates and times are
    ISO 8601, binary values hexadecimal, lists and structs stay what they are; a map is a list of pairs, an interval a
    list of months, days and nanoseconds.

    Raises:
        UsageError: Two columns have the same name.
    """
    names = table.column_names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"JSON objects need distinct names, got more than one column {twice[0]!r}.",
            next_step=f'give one of them another name: SELECT ... AS "{twice[0]}_2"',
        )
    rows = ",\n".join(
        json.dumps(_plain(row), ensure_ascii=False, allow_nan=False)
        for batch in table.to_batches(max_chunksize=10_000)
        for row in batch.to_pylist()
    )
    return f"[{rows}]"


def _plain(value: Any) -> Any:
    """`value` in the types that JSON knows."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | str() | float():
            return value
        case Decimal():
            return int(value) if value.as_tuple().exponent == 0 else float(value)
        case dict():
            return {str(name): _plain(part) for name, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case _:
            return _as_text(value)


def _as_text(value: Any) -> str:
    match value:
        case date() | time():  # a datetime is a date too
            return value.isoformat()
        case bytes():
            return value.hex()
        case _:
            return str(value)
