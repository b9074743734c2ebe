"""One Delta table of a store: create it, open it, read it, change it."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from deltalake import DeltaTable, QueryBuilder, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError

from spectral_edge.errors import StoreError, StoreVersionError
from spectral_edge.store_errors import store_errors
from spectral_edge.store_location import StoreLocation
from spectral_edge.tables import ADDED_COLUMNS, ADDED_TABLES, SCHEMA_VERSION, SCHEMAS

PARTITION: Final = ("tracker", "project_key")

# Without it, opening a table replays up to 100 commits, one small file each.
_CONFIGURATION: Final[Mapping[str, str | None]] = {"delta.checkpointInterval": "10"}

_VERSION: Final = re.compile(r"schema version (\d+)")
_COMMIT_TRIES: Final = 10
_FILE_BYTES: Final = 32 * 2**20  # what one change to a compacted file has to write again, at most
_WRITER: Final = WriterProperties(max_row_group_size=16_384, compression="ZSTD")  # small groups: statistics find a run
_Result = TypeVar("_Result")


def create_table(location: StoreLocation, table: str) -> None:
    """Create `table`, empty; does nothing when it exists. Its description tells the schema version."""
    with store_errors(location.table_uri(table)):
        try:
            DeltaTable.create(
                location.table_uri(table),
                schema=SCHEMAS[table],
                mode="ignore",
                partition_by=list(PARTITION),
                description=f"table {table} of spectral-edge, schema version {SCHEMA_VERSION}",
                configuration=_CONFIGURATION,
                storage_options=location.storage_options(),
            )
        except CommitFailedError:
            # On S3 `mode="ignore"` looks first and commits later; when another process was quicker, its table is it.
            if not DeltaTable.is_deltatable(location.table_uri(table), location.storage_options()):
                raise


def table_exists(location: StoreLocation, table: str) -> bool:
    """Whether `table` is there as a Delta table."""
    with store_errors(location.table_uri(table)):
        return DeltaTable.is_deltatable(location.table_uri(table), location.storage_options())


def open_table(location: StoreLocation, table: str) -> DeltaTable:
    """The latest state of `table`.

    Raises:
        StoreVersionError: A newer spectral-edge wrote it.
        StoreError: It is missing, damaged, or not one of ours.
    """
    uri = location.table_uri(table)
    with store_errors(uri):
        delta = DeltaTable(uri, storage_options=location.storage_options())
        description = delta.metadata().description or ""
    told = _VERSION.search(description)
    if told is None:
        raise StoreError(
            f"this Delta table is not one of spectral-edge's: its description is {description!r}.",
            file=uri,
            next_step="name another folder with --store",
        )
    if int(told.group(1)) > SCHEMA_VERSION:
        raise StoreVersionError(
            f"the store has schema version {told.group(1)}, this spectral-edge knows versions up to {SCHEMA_VERSION}.",
            file=uri,
            left_behind="the store, untouched",
            next_step="pip install --upgrade spectral-edge, or audit into a new store with --store",
        )
    return delta


def older_than(location: StoreLocation) -> frozenset[str]:
    """Those of ADDED_TABLES that came in a later version than the last that wrote into this store."""
    lacking = _lacking(open_table(location, "runs"), "runs")
    return frozenset(name for name, column in ADDED_TABLES.items() if column in lacking)


def commit(location: StoreLocation, table: str, change: Callable[[DeltaTable], _Result]) -> _Result:
    """Apply `change` to the latest state of `table`, again whenever another writer committed what it depends on.

    Raises:
        StoreLockedError: Others were faster every time.
    """
    uri = location.table_uri(table)
    with store_errors(uri):
        for attempt in range(_COMMIT_TRIES - 1):
            try:
                return change(open_table(location, table))
            except CommitFailedError:
                time.sleep(random.uniform(0.05, 0.1) * 2 ** min(attempt, 5))  # noqa: S311 - spreads writers in time
        return change(open_table(location, table))


def replace(location: StoreLocation, table: str, predicate: str, rows: pa.Table) -> None:
    """Make `rows` all that satisfies `predicate` in `table`, in one Delta commit.

    A table that lacks some of ADDED_COLUMNS gets them; they are null in the rows it has.
    """

    def change(latest: DeltaTable) -> None:
        if rows.num_rows:
            write_deltalake(
                latest,
                rows,
                mode="overwrite",
                schema_mode="merge" if _lacking(latest, table) else None,
                predicate=predicate,
                writer_properties=_WRITER,
            )
        else:
            latest.delete(predicate, writer_properties=_WRITER)

    commit(location, table, change)


def delete(location: StoreLocation, table: str, predicate: str, told: str) -> set[str]:
    """Delete what satisfies `predicate`, in one Delta commit or none; returns the values column `told` had there."""

    def change(latest: DeltaTable) -> set[str]:
        values = {value for (value,) in distinct(latest, table, (told,), predicate)}
        if values:
            latest.delete(predicate, writer_properties=_WRITER)
        return values

    return commit(location, table, change)


def compact(location: StoreLocation, table: str) -> None:
    """Merge small files, and delete files that have belonged to no version for a week, deltalake's safe limit."""

    def merge(latest: DeltaTable) -> None:
        latest.optimize.compact(target_size=_FILE_BYTES, writer_properties=_WRITER)
        latest.vacuum(dry_run=False, full=True)

    commit(location, table, merge)


def scan(delta: DeltaTable, table: str, predicate: str | None = None, columns: Sequence[str] = ()) -> pa.Table:
    """Rows of `table` that satisfy `predicate`, exactly, in no particular order; all columns unless told.

    One of ADDED_COLUMNS that the table does not have yet is null.
    """
    names = list(columns) or SCHEMAS[table].names
    schema = pa.schema([SCHEMAS[table].field(name) for name in names])
    missing = _lacking(delta, table)
    wanted = ", ".join(f'NULL AS "{name}"' if name in missing else f'"{name}"' for name in names)
    sql = f"SELECT {wanted} FROM {table}" + (f" WHERE {predicate}" if predicate else "")  # noqa: S608 - values are quoted
    with store_errors(delta.table_uri):
        return pa.table(QueryBuilder().register(table, delta).execute(sql)).cast(schema)


def distinct(
    delta: DeltaTable, table: str, columns: Sequence[str], predicate: str | None = None
) -> set[tuple[Any, ...]]:
    """The distinct values of `columns` among the rows that satisfy `predicate`."""
    rows = scan(delta, table, predicate, columns).group_by(list(columns)).aggregate([])
    return {tuple(row.values()) for row in rows.select(list(columns)).to_pylist()}


def empty_dataset(table: str) -> pds.Dataset:
    """`table` without a row, for a store that is older than it."""
    return pds.dataset(SCHEMAS[table].empty_table())


def dataset(location: StoreLocation, delta: DeltaTable, table: str) -> pds.Dataset:
    """`table` as a lazy Arrow dataset over a native file system (see StoreLocation.filesystem)."""
    with store_errors(delta.table_uri):
        files = pa.table(delta.get_add_actions()).select(["path", "partition"]).to_pylist()
        filesystem = location.filesystem()
    parquet = pds.ParquetFileFormat()
    fragments = [
        parquet.make_fragment(f"{table}/{unquote(file['path'])}", filesystem, _partition_is(file["partition"]))
        for file in files
    ]
    return pds.FileSystemDataset(fragments, SCHEMAS[table], parquet, filesystem)


def _lacking(delta: DeltaTable, table: str) -> frozenset[str]:
    """Those of ADDED_COLUMNS that the table does not have yet."""
    return ADDED_COLUMNS.get(table, frozenset()) - {field.name for field in delta.schema().fields}


def _partition_is(values: Mapping[str, str]) -> pc.Expression:
    tracker, project_key = (pc.field(name) == pa.scalar(values[name]) for name in PARTITION)
    return tracker & project_key


def equals(**values: str) -> str:
    """A SQL predicate: each column has the value given, which is untrusted text."""
    return " AND ".join(f"{column} = {quoted(value)}" for column, value in values.items())


def quoted(text: str) -> str:
    """`text` as a SQL literal. DataFusion knows no escape inside one but the doubled quote."""
    return "'" + text.replace("'", "''") + "'"
