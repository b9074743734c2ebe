"""SQL over the store, read-only: DuckDB sees seven views of committed rows and nothing else of this machine."""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.dataset as pds

from spectral_edge import audit_log
from spectral_edge.errors import SpectralEdgeError, UsageError
from spectral_edge.questions import QUESTIONS
from spectral_edge.store import Store
from spectral_edge.store_errors import translated
from spectral_edge.suggestions import meant
from spectral_edge.tables import SCHEMAS

_SETTINGS: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,  # `FROM name` never means a Python variable
    "temp_directory": "",  # a query too large for memory fails; it leaves no files in the working directory
}
# In this order, on the open database: DuckDB 2.0, opened without external access, allows files that are named like the
# database, so a query could read `:memory:` and `:memory:.wal` in the working directory.
_SEAL: Final = (
    "SET TimeZone = 'UTC'",
    "SET allow_persistent_secrets = false",
    "SET secret_directory = ''",  # it would tell the name of the home directory
    "SET enable_external_access = false",  # no COPY, ATTACH, INSTALL, LOAD, read_csv, glob, ...
    "SET lock_configuration = true",
)
_SCHEMAS: Final = {**SCHEMAS, audit_log.TABLE: audit_log.SCHEMA}
_ROWS_AT_ONCE: Final = 16_384
Parameters = Mapping[str, str | int | float]
HELP: Final = f"spectral-edge query {next(iter(QUESTIONS))}, or another named question: {', '.join(QUESTIONS)}"
"""The next step of who wrote SQL that cannot be answered."""


@dataclass(frozen=True)
class Limits:
    """What one query may take before it ends with an error.

    DuckDB counts what it sorts, groups and joins; one text that a function makes, as repeat('x', 1000000000) does, is
    not counted, nor interrupted.
    """

    seconds: float = 600.0
    memory: str = "50%"
    """DuckDB's memory, as its `memory_limit` takes it: a share of the machine's, or such as 4GB."""
    answer_bytes: int = 2**30
    """Size of an answer that is held in memory, as Arrow."""


def query(store: Store, sql: str, limits: Limits = Limits(), parameters: Parameters | None = None) -> pa.Table:
    """Answer `sql`, one SELECT over the tables of `SCHEMAS` and `audit_log`.

    Args:
        store: Whose committed rows the views show, all of one moment.
        sql: DuckDB SQL, or the name of one of `QUESTIONS`.
        limits: When it is given up.
        parameters: What `$name` in `sql` stands for, by name.

    Returns:
        The rows, in the order that the SQL gives. Sums of integers come as decimal128(38, 0), DuckDB's HUGEINT.

    Raises:
        UsageError: The SQL is wrong, is not one SELECT, wants a file, or takes more than `limits`.
        StoreError: A file of the store is damaged.
    """
    with batches_of(store, sql, limits, parameters) as answer:
        batches, size = [], 0
        for batch in answer.batches:
            batches.append(batch)
            size += batch.nbytes
            if size > limits.answer_bytes:
                raise UsageError(
                    f"the answer is larger than {limits.answer_bytes:,} bytes.",
                    next_step="add a LIMIT, or write it to a file: spectral-edge export OUTPUT --sql SQL",
                )
        return pa.Table.from_batches(batches, answer.schema)


class Answer(NamedTuple):
    """An answer that is read once, batch by batch."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


@contextmanager
def batches_of(
    store: Store, sql: str, limits: Limits = Limits(), parameters: Parameters | None = None
) -> Iterator[Answer]:
    """The answer to `sql` batch by batch, for who does not want all of it in memory; see :func:`query`."""
    text = _meant(sql)
    views = store.datasets() | {audit_log.TABLE: audit_log.AuditLog(store.location).dataset(store.moment)}
    with duckdb.connect(":memory:", config=_SETTINGS | {"memory_limit": limits.memory}) as connection:
        for name, rows in views.items():
            connection.register(name, rows)
        for setting in _SEAL:
            connection.execute(setting)
        alarm = threading.Timer(limits.seconds, connection.interrupt)
        alarm.daemon = True
        alarm.start()
        try:
            with _heeding_ctrl_c(connection):
                with _said_plainly(text, views, limits):
                    relation = connection.sql(_one_select(connection, text), params=parameters)
                    reader = relation.to_arrow_reader(_ROWS_AT_ONCE)
                yield Answer(reader.schema, _read(reader, text, views, limits))
        finally:
            alarm.cancel()


@contextmanager
def _heeding_ctrl_c(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Interrupt the query on Ctrl-C.

    DuckDB looks for signals only where the main thread itself works; while that waits for others, Python runs no
    handler. It runs, and raises KeyboardInterrupt, as soon as the interrupted query returns.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, told = socket.socketpair()
    with ours, told:
        told.setblocking(False)

        def watch() -> None:
            while number := ours.recv(1):
                if number[0] == signal.SIGINT:
                    connection.interrupt()

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            told.shutdown(socket.SHUT_WR)
            watching.join()


def _meant(sql: str) -> str:
    """The SQL of a question that is asked by name; a single word that is none is a slip, and no SQL."""
    word = sql.strip()
    if word in QUESTIONS:
        return QUESTIONS[word].sql
    if not re.fullmatch(r"[\w-]+", word):
        return sql
    if word in _SCHEMAS:
        sql = f"select * from {word} limit 10"  # noqa: S608 - shown, not run; the word is a name of ours
        raise UsageError(f"{word} is a table, and no question.", next_step=f'spectral-edge query "{sql}"')
    raise UsageError(f"no question is called {word!r}, and it is no SQL.", next_step=meant(word, QUESTIONS))


def _read(
    reader: pa.RecordBatchReader, sql: str, views: Mapping[str, pds.Dataset], limits: Limits
) -> Iterator[pa.RecordBatch]:
    with _said_plainly(sql, views, limits):
        yield from reader


@contextmanager
def _said_plainly(sql: str, views: Mapping[str, pds.Dataset], limits: Limits) -> Iterator[None]:
    try:
        yield
    except duckdb.InterruptException as error:
        raise _too_long(limits) from error
    except duckdb.Error as error:
        raise _explained(error, sql, views) from error
    except RuntimeError as error:  # what DuckDB makes of Ctrl-C
        if "interrupted" in str(error):
            raise KeyboardInterrupt from error
        raise
    except (OSError, pa.ArrowException) as error:  # what Arrow makes of DuckDB's errors while it reads
        if "INTERRUPT" in str(error):
            raise _too_long(limits) from error
        raise _damage(sql, views) or UsageError(str(error).strip(), next_step=HELP) from error


def _too_long(limits: Limits) -> UsageError:
    return UsageError(
        f"the query took longer than {limits.seconds:g} s.",
        next_step="name a tracker, project_key or run_id in its WHERE, or give it more time with --timeout",
    )


def _one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise UsageError(f"expected one SQL statement, got {len(statements)}.", next_step=HELP)
    try:
        kind = statements[0].type
    except ValueError:  # a statement so rare that DuckDB's Python package has no name for it
        kind = None
    if kind != duckdb.StatementType.SELECT:
        raise UsageError(
            "the store is read-only: expected a statement that starts with SELECT, WITH, FROM, VALUES, DESCRIBE, "
            "SUMMARIZE or SHOW.",
            next_step=HELP,
        )
    return statements[0]


def _explained(error: duckdb.Error, sql: str, views: Mapping[str, pds.Dataset]) -> SpectralEdgeError:
    """What went wrong in the words of DuckDB, unless it was a file of the store."""
    said = str(error).strip()
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException):
        return UsageError(f"{said}\n{_what_exists(sql)}", next_step=HELP)
    if isinstance(error, duckdb.ParserException | duckdb.PermissionException):
        return UsageError(said, next_step=HELP)
    return _damage(sql, views) or UsageError(said, next_step=HELP)


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
    return [name for name in _SCHEMAS if re.search(rf"\b{name}\b", sql, re.IGNORECASE)]


def _what_exists(sql: str) -> str:
    """The tables, and the columns of those that `sql` mentions."""
    lines = [f"Columns of {name}: {', '.join(_SCHEMAS[name].names)}." for name in _mentioned(sql)]
    return "\n".join([f"Tables: {', '.join(_SCHEMAS)}.", *lines])
