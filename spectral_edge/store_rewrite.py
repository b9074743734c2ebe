"""The rows of a project written anew, sorted by run, in files that the table's log then names instead of the old ones.

Not by deltalake's own writer: it shares batches out among workers, so that rows come out in another order than they
went in, and a file may hold any runs. The commit is deltalake's, and it is refused when another writer took away one of
the files that were read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction
from pyarrow import fs, parquet

from spectral_edge import delta
from spectral_edge.store_location import StoreLocation
from spectral_edge.tables import SCHEMAS

FILE_BYTES: Final = 32 * 2**20
"""Size of a compacted file: what a change to one run has to write again, at most."""
_ROWS_AT_ONCE: Final = 250_000

_ORDER: Final = ("run_id", "group", "role", "name", "step", "onset_step", "lag", "kind", "prediction")


def sort_rows(rows: pa.Table, name: str) -> pa.Table:
    """Rows in the order of the table, so that the statistics of a row group tell which runs it holds."""
    columns = ("tracker", "project", "run_id") if name == "runs" else _ORDER
    return rows.sort_by([(column, "ascending") for column in columns if column in rows.column_names])


def rewrite(location: StoreLocation, table: str, of: delta.DataFile, latest: DeltaTable) -> None:
    """Write all rows of the project that file `of` belongs to anew, sorted, in one Delta commit.

    Killed before the commit, it leaves files that no version names, which upkeep deletes when they are old enough.

    Raises:
        CommitFailedError: Another writer changed one of the files that were read.
    """
    place: dict[str, str | None] = {"tracker": of.tracker, "project_key": of.project_key}
    old = [file for file in delta.files(latest) if (file.tracker, file.project_key) == tuple(place.values())]
    known = frozenset(SCHEMAS[table].names) - delta.lacking(latest, table) - place.keys()
    schema = pa.schema([pa.field(it.name, it.type, it.nullable) for it in SCHEMAS[table] if it.name in known])
    rows = delta.dataset_of(location, old, table)
    folder = f"{table}/{PurePosixPath(of.path).parent}"
    made = _write(location.filesystem(), folder, schema, sorted_batches(rows, table))
    now = int(time.time() * 1000)
    added = [
        AddAction(
            # Beside the old files, so spelled as they are: the log escapes what must not stand in an address.
            str(PurePosixPath(of.logged).with_name(file.name)),
            file.size,
            place,
            now,
            # It is said to change data, though it does not: else deltalake 1.6 would let two compactions at once both
            # commit, and each row would be there twice.
            data_change=True,
            stats=file.statistics,
        )
        for file in made
    ]
    removed = [
        RemoveAction(file.logged, data_change=True, deletion_timestamp=now, size=file.size, partition_values=place)
        for file in old
    ]
    latest.create_write_transaction([*added, *removed], "append", latest.schema(), partition_by=list(delta.PARTITION))


@dataclass(frozen=True)
class _Made:
    """A file that was written, and what it holds."""

    name: str
    size: int
    rows: int
    first_run: str
    last_run: str

    @property
    def statistics(self) -> str:
        """In the form of Delta's log."""
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": {"run_id": self.first_run},
                "maxValues": {"run_id": self.last_run},
                "nullCount": {"run_id": 0},
            }
        )


def _write(filesystem: fs.FileSystem, folder: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> list[_Made]:
    """Write `batches`, which are sorted by run, to as many files as have about FILE_BYTES each."""
    made: list[_Made] = []
    waiting = (
        batch.slice(start, delta.ROW_GROUP) for batch in batches for start in range(0, len(batch), delta.ROW_GROUP)
    )
    batch = next(waiting, None)
    while batch is not None:
        name, rows, first, last = f"part-{len(made):05}-{uuid4()}-c000.zstd.parquet", 0, batch["run_id"][0].as_py(), ""
        with (
            filesystem.open_output_stream(f"{folder}/{name}") as sink,
            parquet.ParquetWriter(sink, schema, compression="zstd") as writer,
        ):
            while batch is not None and sink.tell() < FILE_BYTES:
                writer.write_batch(batch.select(schema.names).cast(schema))
                rows, last = rows + len(batch), batch["run_id"][-1].as_py()
                batch = next(waiting, None)
        (info,) = filesystem.get_file_info([f"{folder}/{name}"])
        made.append(_Made(name, info.size, rows, first, last))
    return made


def sorted_batches(rows: pds.Dataset, table: str) -> Iterator[pa.RecordBatch]:
    """All of `rows`, the rows of one project, in the order of `table`; only some runs' are in memory at a time."""
    for first, last in _stretches(rows.to_table(columns=["run_id"])["run_id"]):
        some = rows.to_table(filter=(pc.field("run_id") >= first) & (pc.field("run_id") <= last))
        yield from sort_rows(some, table).combine_chunks().to_batches()


def _stretches(run_ids: pa.ChunkedArray) -> Iterator[tuple[str, str]]:
    """First and last run of stretches of runs, in order, that have about `_ROWS_AT_ONCE` rows together."""
    counts = sorted((entry["values"], entry["counts"]) for entry in pc.value_counts(run_ids).to_pylist())
    first, rows = None, 0
    for run_id, count in counts:
        first, rows = run_id if first is None else first, rows + count
        if rows >= _ROWS_AT_ONCE:
            yield first, run_id
            first, rows = None, 0
    if rows:
        yield str(first), counts[-1][0]
