"""The first rows of an answer to SQL, as many as a page shows, and what is written in its cells."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from spectral_edge.json_rows import to_json_rows
from spectral_edge.query import Limits, batches_of
from spectral_edge.store import Store

ROWS_SHOWN: Final = 500
"""Rows of an answer on a page, unless told."""
ROWS_AT_MOST: Final = 10_000
"""Rows of an answer on a page or in JSON."""
_CELL: Final = 300
"""Characters of a cell on a page."""


@dataclass(frozen=True)
class FirstRows:
    """The first rows of an answer, and whether there are more."""

    table: pa.Table
    more: bool

    def as_json(self) -> str:
        """One object: `columns` with `name` and `type`, `rows` with an object for each, and `more`.

        Raises:
            UsageError: Two columns have the same name.
        """
        columns = [{"name": field.name, "type": str(field.type)} for field in self.table.schema]
        rows, more = to_json_rows(self.table), json.dumps(self.more)
        return f'{{"columns":{json.dumps(columns)},"rows":{rows},"more":{more}}}'

    def cells(self) -> list[list[str]]:
        """What a page shows, row by row; a long text is cut."""
        columns = [column.to_pylist() for column in self.table.columns]
        return [[_cell(value) for value in row] for row in zip(*columns, strict=True)]

    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        return [
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
            for kind in self.table.schema.types
        ]


def first_rows(store: Store, sql: str, rows: int, limits: Limits) -> FirstRows:
    """As many rows of the answer to `sql` as asked for; the rest is not read.

    Raises:
        UsageError: The SQL is wrong, is not one SELECT, wants a file, or takes more than `limits`.
        StoreError: A file of the store is damaged.
    """
    with batches_of(store, sql, limits) as answer:
        kept: list[pa.RecordBatch] = []
        count = size = 0
        for batch in answer.batches:
            kept.append(batch.slice(0, rows - count))
            count += batch.num_rows
            size += kept[-1].nbytes
            if count > rows or size > limits.answer_bytes:
                break
        return FirstRows(pa.Table.from_batches(kept, answer.schema), count > rows or size > limits.answer_bytes)


def _cell(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= _CELL else f"{text[:_CELL]} \N{HORIZONTAL ELLIPSIS}"


def _text(value: Any) -> str:
    match value:
        case None:
            return "\N{EN DASH}"
        case float():
            return f"{value:.6g}"
        case bytes():
            return value[:_CELL].hex()
        case list():
            return ", ".join(_text(entry) for entry in value[:_CELL])
        case _:
            return str(value)
