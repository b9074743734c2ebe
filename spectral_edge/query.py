"""SQL over the store, read-only: DuckDB sees five views of committed rows and nothing else of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.dataset as pds

from spectral_edge.errors import SpectralEdgeError, UsageError
from spectral_edge.questions import QUESTIONS
from spectral_edge.store import Store
from spectral_edge.store_errors import translated
from spectral_edge.tables import SCHEMAS

_SEALED: Final[dict[str, str | bool | int | float | list[str]]] = {
    "enable_external_access": False,  # no COPY, ATTACH, INSTALL, LOAD, read_csv, glob, ...
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,  # `FROM name` never means a Python variable
    "temp_directory": "",  # a query too large for memory fails; it leaves no files in the working directory
}
_HELP: Final = f"spectral-edge query {next(iter(QUESTIONS))}, or another named question: {', '.join(QUESTIONS)}"


def query(store: Store, sql: str) -> pa.Table:
    """Answer `sql`: one SELECT over the views `runs`, `gaps`, `transitions`, `scorecard` and `inner_products`.

    Args:
        store: Whose committed rows the views show, all of one moment.
        sql: DuckDB SQL, or the name of one of `QUESTIONS`.

    Returns:
        The rows, in the order that the SQL gives. Sums of integers come as decimal128(38, 0), DuckDB's HUGEINT.

    Raises:
        UsageError: The SQL is wrong, is not one SELECT, or wants a file.
        StoreError: A file of the store is damaged.
    """
    text = QUESTIONS[sql.strip()].sql if sql.strip() in QUESTIONS else sql
    views = store.datasets()
    with duckdb.connect(":memory:", config=_SEALED) as connection:
        for name, rows in views.items():
            connection.register(name, rows)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET lock_configuration = true")
        try:
            return connection.sql(_one_select(connection, text)).to_arrow_table()
        except duckdb.Error as error:
            raise _explained(error, text, views) from error


def _one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise UsageError(f"expected one SQL statement, got {len(statements)}.", next_step=_HELP)
    try:
        kind = statements[0].type
    except ValueError:  # a statement so rare that DuckDB's Python package has no name for it
        kind = None
    if kind != duckdb.StatementType.SELECT:
        raise UsageError(
            "the store is read-only: expected a statement that starts with SELECT, WITH, FROM, VALUES, DESCRIBE, "
            "SUMMARIZE or SHOW.",
            next_step=_HELP,
        )
    return statements[0]


def _explained(error: duckdb.Error, sql: str, views: Mapping[str, pds.Dataset]) -> SpectralEdgeError:
    """What went wrong in the words of DuckDB, unless it was a file of the store."""
    said = str(error).strip()
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException):
        return UsageError(f"{said}\n{_what_exists(sql)}", next_step=_HELP)
    if isinstance(error, duckdb.ParserException | duckdb.PermissionException):
        return UsageError(said, next_step=_HELP)
    return _damage(sql, views) or UsageError(said, next_step=_HELP)


def _damage(sql: str, views: Mapping[str, pds.Dataset]) -> SpectralEdgeError | None:
    """Reads the tables that `sql` mentions once more, as DuckDB tells of a broken file only in free text."""
    for name in _mentioned(sql):
        try:
            for _ in views[name].to_batches():
                pass
        except (OSError, pa.ArrowException) as error:
            return translated(error, name)
    return None


def _mentioned(sql: str) -> list[str]:
    return [name for name in SCHEMAS if re.search(rf"\b{name}\b", sql, re.IGNORECASE)]


def _what_exists(sql: str) -> str:
    """The tables, and the columns of those that `sql` mentions."""
    lines = [f"Columns of {name}: {', '.join(SCHEMAS[name].names)}." for name in _mentioned(sql)]
    return "\n".join([f"Tables: {', '.join(SCHEMAS)}.", *lines])
