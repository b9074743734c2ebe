"""Taking rows out of a store: an answer as one Parquet or CSV file, or all tables of some runs as a folder of them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from pyarrow import csv, parquet

from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.query import batches_of
from spectral_edge.store import Store
from spectral_edge.store_errors import store_errors
from spectral_edge.store_rewrite import sorted_batches
from spectral_edge.suggestions import meant
from spectral_edge.tables import SCHEMAS

Format = Literal["parquet", "csv"]
_ROW_GROUP: Final = 8_192  # small, so that its statistics find a run
_FORMATS: Final[dict[str, Format]] = {".parquet": "parquet", ".csv": "csv"}


def export_query(store: Store, sql: str, output: Path) -> int:
    """Write the answer to `sql` to `output`, a .parquet or .csv file; returns its number of rows.

    The file is there as a whole or not at all, and replaces one that was there. The answer may be larger than memory
    where the SQL itself sorts and groups little.

    Raises:
        UsageError: The SQL is wrong, or `output` has another suffix.
        DiskFullError, AccessDeniedError: `output` cannot be written.
    """
    form = _FORMATS.get(output.suffix.lower())
    if form is None:
        raise UsageError(
            f"an answer is written to a .parquet or .csv file, got {output.name!r}.",
            next_step="end the name in .parquet or .csv, or leave out the SQL to write all tables to a folder",
        )
    with batches_of(store, sql) as answer, _whole(output) as file:
        return _write(answer.schema, answer.batches, file, form)


def as_file(answer: pa.Table, form: Format) -> bytes:
    """What `export_query` writes of an answer, in memory."""
    sink = pa.BufferOutputStream()
    _write(answer.schema, answer.to_batches(), sink, form)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def export_runs(
    store: Store, output: Path, form: Format = "parquet", projects: Sequence[str] = (), runs: Sequence[str] = ()
) -> dict[str, int]:
    """Write all tables of some runs to a new folder `output`, one file each; returns the rows by table.

    `import_runs` reads such a folder. It is there as a whole or not at all.

    Args:
        store: Whose rows.
        output: A folder that does not exist yet.
        form: What the files are.
        projects: Only runs of these projects; all when empty.
        runs: Only runs with these ids; all when empty.

    Raises:
        UsageError: Something is at `output` already.
        NotFoundError: One of `projects` or `runs` is not in the store.
        DiskFullError, AccessDeniedError: `output` cannot be written.
    """
    if output.exists():
        raise UsageError("there is something here already.", file=str(output), next_step="name a new folder")
    views = store.datasets()
    wanted = _wanted(store, views["runs"], projects, runs)
    with _whole(output) as folder:
        folder.mkdir()
        return {
            name: _write(schema, _by_project(views, name, wanted), folder / f"{name}.{form}", form)
            for name, schema in SCHEMAS.items()
        }


def _wanted(store: Store, rows: pds.Dataset, projects: Sequence[str], runs: Sequence[str]) -> pc.Expression:
    wanted = pc.scalar(True)
    for column, values in (("project", projects), ("run_id", runs)):
        if not values:
            continue
        known = set(rows.to_table(columns=[column])[column].to_pylist())
        for lost in sorted(set(values) - known):
            raise NotFoundError(
                f"no run has {column} {lost!r}.",
                file=store.location.root,
                next_step=f"{meant(lost, known)} `spectral-edge runs` lists them.".strip(),
            )
        wanted &= pc.field(column).isin(pa.array(values, pa.string()))
    return wanted


def _by_project(views: dict[str, pds.Dataset], name: str, wanted: pc.Expression) -> Iterator[pa.RecordBatch]:
    """Rows of table `name`, project after project and sorted in each, so that an import finds a run without a scan."""
    place = ["tracker", "project_key"]
    found = views["runs"].to_table(columns=place, filter=wanted).group_by(place).aggregate([])
    for tracker, project_key in sorted((row["tracker"], row["project_key"]) for row in found.to_pylist()):
        here = (pc.field("tracker") == pa.scalar(tracker)) & (pc.field("project_key") == pa.scalar(project_key))
        yield from sorted_batches(views[name].filter(here & wanted), name)


def _write(schema: pa.Schema, batches: Iterable[pa.RecordBatch], file: Path | pa.NativeFile, form: Format) -> int:
    return (_write_csv if form == "csv" else _write_parquet)(schema, batches, file)


def _write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], file: Path | pa.NativeFile) -> int:
    rows = 0
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=_ROW_GROUP)
            rows += batch.num_rows
    return rows


def _write_csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch], file: Path | pa.NativeFile) -> int:
    rows, flat = 0, pa.schema([pa.field(field.name, _flat_type(field.type)) for field in schema])
    with csv.CSVWriter(file, flat) as writer:
        for batch in batches:
            writer.write_batch(_flat(batch, flat))
            rows += batch.num_rows
    return rows


def _flat_type(kind: pa.DataType) -> pa.DataType:
    """What a column becomes in CSV: lists and structs are JSON text there."""
    return pa.string() if pa.types.is_nested(kind) or pa.types.is_interval(kind) else kind


def _flat(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        column if column.type == field.type else pa.array(map(_text, column.to_pylist()), pa.string())
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.record_batch(columns, schema=schema)


def _text(value: object) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """A path to write a file or folder at, which becomes `output` when all went well and vanishes otherwise.

    A killed process leaves a hidden folder beside `output`, and nothing at `output`.
    """
    with store_errors(str(output)):
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name[:40]}-", dir=output.absolute().parent))
        try:
            made = scratch / "made"
            yield made
            _to_disk(made)
            made.replace(output)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _to_disk(made: Path) -> None:
    for path in [*(made.iterdir() if made.is_dir() else ()), made]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
