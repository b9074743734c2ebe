"""One Delta table of a store: create it, open it, read it, change it."""

from __future__ import annotations

import datetime as dt
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
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
ROW_GROUP: Final = 8_192  # small, so that its statistics find a run
WRITER: Final = WriterProperties(max_row_group_size=ROW_GROUP, compression="ZSTD")
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


def open_table(location: StoreLocation, table: str, moment: dt.datetime | None = None) -> DeltaTable:
    """The latest state of `table`, or that of an earlier `moment`, by the times of the files in its log.

    Raises:
        StoreVersionError: A newer spectral-edge wrote it.
        StoreError: It is missing, damaged, or not one of ours.
    """
    uri = location.table_uri(table)
    with store_errors(uri):
        delta = DeltaTable(uri, storage_options=location.storage_options())
        if moment is not None:
            delta.load_as_version(moment)
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


def versions_since(location: StoreLocation, earlier: DeltaTable, table: str) -> Iterator[DeltaTable]:
    """Every state of `table` that was committed after `earlier`, oldest first."""
    latest = open_table(location, table)
    with store_errors(latest.table_uri):
        for version in range(earlier.version() + 1, latest.version() + 1):
            latest.load_as_version(version)
            yield latest


def older_than(location: StoreLocation, moment: dt.datetime | None = None) -> frozenset[str]:
    """Those of ADDED_TABLES that came in a later version than the last that wrote into this store (until `moment`)."""
    without = lacking(open_table(location, "runs", moment), "runs")
    return frozenset(name for name, column in ADDED_TABLES.items() if column in without)


def began(location: StoreLocation, table: str) -> dt.datetime:
    """When the oldest commit was made that the log of `table` still has."""
    with store_errors(location.table_uri(table)):
        history = open_table(location, table).history()
    return dt.datetime.fromtimestamp(min(commit["timestamp"] for commit in history) / 1000, dt.UTC)


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
                undescribed(rows),
                mode="overwrite",
                schema_mode="merge" if lacking(latest, table) else None,
                predicate=predicate,
                writer_properties=WRITER,
            )
        else:
            latest.delete(predicate, writer_properties=WRITER)

    commit(location, table, change)


def undescribed(rows: pa.Table) -> pa.Table:
    """`rows` without the descriptions of their columns.

    deltalake refuses rows whose descriptions are not those in the table's log, word for word; so a store would be lost
    to the first version that words one better.
    """
    fields = [pa.field(field.name, field.type, field.nullable) for field in rows.schema]
    return rows.cast(pa.schema(fields)).combine_chunks()  # several batches may be written in any order


def delete(location: StoreLocation, table: str, predicate: str, told: str) -> set[str]:
    """Delete what satisfies `predicate`, in one Delta commit or none; returns the values column `told` had there."""

    def change(latest: DeltaTable) -> set[str]:
        values = {value for (value,) in distinct(latest, table, (told,), predicate)}
        if values:
            latest.delete(predicate, writer_properties=WRITER)
        return values

    return commit(location, table, change)


def scan(delta: DeltaTable, table: str, predicate: str | None = None, columns: Sequence[str] = ()) -> pa.Table:
    """Rows of `table` that satisfy `predicate`, exactly, in no particular order; all columns unless told.

    One of ADDED_COLUMNS that the table does not have yet is null.
    """
    names = list(columns) or SCHEMAS[table].names
    schema = pa.schema([SCHEMAS[table].field(name) for name in names])
    missing = lacking(delta, table)
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


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a table, as the table's log describes it; `path` is relative to the table's folder."""

    path: str
    logged: str
    """`path` as the log spells it, with what is escaped there."""
    tracker: str
    project_key: str
    size: int
    first_run: str | None
    last_run: str | None

    def may_hold(self, run_id: str) -> bool:
        """Whether there may be a row of that run in it."""
        return self.first_run is None or self.last_run is None or self.first_run <= run_id <= self.last_run

    @property
    def holds(self) -> pc.Expression:
        """What is true of each of its rows: Arrow does not open a file in which a filter can find nothing."""
        known = (pc.field("tracker") == pa.scalar(self.tracker)) & (
            pc.field("project_key") == pa.scalar(self.project_key)
        )
        if self.first_run is None or self.last_run is None:
            return known
        return known & (pc.field("run_id") >= self.first_run) & (pc.field("run_id") <= self.last_run)


def files(delta: DeltaTable) -> list[DataFile]:
    """The files that `delta`, a table of ours, consists of.

    Raises:
        StoreError: The log names a file outside of the table.
    """
    with store_errors(delta.table_uri):
        rows = pa.table(delta.get_add_actions())
    found = [
        DataFile(
            unquote(row["path"]),
            row["path"],
            **row["partition"],
            size=row["size_bytes"],
            first_run=(row.get("min") or {}).get("run_id"),
            last_run=(row.get("max") or {}).get("run_id"),
        )
        for row in rows.select([name for name in rows.column_names if name != "null_count"]).to_pylist()
    ]
    for file in found:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or "://" in file.path:
            raise StoreError(
                f"the table's log names a file that is not in its folder: {file.path!r}.",
                file=delta.table_uri,
                next_step="do not use this store; ask where it comes from",
            )
    return found


def dataset(location: StoreLocation, delta: DeltaTable, table: str, schema: pa.Schema | None = None) -> pds.Dataset:
    """`table` as a lazy Arrow dataset over a native file system (see StoreLocation.filesystem).

    `schema` is that of a table which is not one of SCHEMAS.
    """
    return dataset_of(location, files(delta), table, schema)


def dataset_of(
    location: StoreLocation, found: Sequence[DataFile], table: str, schema: pa.Schema | None = None
) -> pds.Dataset:
    """Some files of `table` as a lazy Arrow dataset."""
    with store_errors(location.table_uri(table)):
        filesystem = location.filesystem()
    parquet = pds.ParquetFileFormat()
    fragments = [parquet.make_fragment(f"{table}/{file.path}", filesystem, file.holds) for file in found]
    return pds.FileSystemDataset(fragments, schema or SCHEMAS[table], parquet, filesystem)


def lacking(delta: DeltaTable, table: str) -> frozenset[str]:
    """Those of ADDED_COLUMNS that the table does not have yet."""
    return ADDED_COLUMNS.get(table, frozenset()) - {field.name for field in delta.schema().fields}


def equals(**values: str) -> str:
    """A SQL predicate: each column has the value given, which is untrusted text."""
    return " AND ".join(f"{column} = {quoted(value)}" for column, value in values.items())


def quoted(text: str) -> str:
    """`text` as a SQL literal. DataFusion knows no escape inside one but the doubled quote."""
    return "'" + text.replace("'", "''") + "'"
