"""Taking runs into a store from another store, or from a folder that `export_runs` wrote.

What is read is untrusted: it counts only after it has been held against the schemas, and the names that become paths
have been made anew.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from pyarrow import csv, parquet

from spectral_edge.errors import NotFoundError, StoreError, StoreVersionError
from spectral_edge.store import Store
from spectral_edge.store_errors import store_errors
from spectral_edge.store_location import StoreLocation
from spectral_edge.store_place import DETAILS
from spectral_edge.tables import ADDED_COLUMNS, ADDED_TABLES, SCHEMA_VERSION, SCHEMAS, RunKey, RunTables

_TRACKER: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_NEEDED: Final = ("tracker", "project_key", "project", "run_id", "run_name", "audit_id")
_NEEDED_OF_RUNS: Final = ("status", "fingerprint", "settings_hash")
_MOST_ROWS: Final = 20_000_000
"""Rows of one run in one table that are taken. A run of 10,000 checkpoints, 60 lags and 30 groups has 18 million."""
_RUNS_AT_ONCE: Final = 50
_ROWS_AT_ONCE: Final = 1_000_000
_UNIQUE: Final[Mapping[str, tuple[str, ...]]] = {
    "inner_products": ("group", "step", "lag"),
    "gaps": ("group", "step"),
    "metrics": ("role", "name", "step"),
}
_BEGINNING: Final = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass
class Imported:
    """What became of each run of an import, as "project / run_name"."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    """The audit here was older."""
    present: list[str] = field(default_factory=list)
    """The same audit was here."""
    kept: list[str] = field(default_factory=list)
    """The audit here is another one, and no older."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why."""


def import_runs(store: Store, source: str | Path, *, dry_run: bool = False) -> Imported:
    """Take the runs of `source`, a store or a folder of `export_runs`, into `store`; each as a whole or not at all.

    A run that is not in `store` is added; one whose audit there is older is replaced; all others stay as they are. So
    the same import can be repeated, and cut off anywhere. A run whose rows are not what an audit writes is refused, and
    the others are taken.

    Args:
        store: Where the runs go.
        source: What they are read from; it is not changed.
        dry_run: Check and compare everything, and write nothing.

    Raises:
        NotFoundError: `source` is neither.
        StoreError: Its tables have other columns than ours, or are damaged.
        StoreVersionError: A newer spectral-edge wrote it.
    """
    here = {_identity(row): (row["audit_id"], row["audited_at"]) for row in _heads(store.datasets()["runs"])}
    told, writer = Imported(), _Writer(store)
    with _opened(source) as views, store_errors(str(source)):
        heads = _heads(views["runs"])
        twice = len(heads) != len({_identity(row) for row in heads})
        if twice:
            raise StoreError("table `runs` names a run twice.", file=str(source), next_step="ask where it comes from")
        for head in heads:
            name = f"{head['project']} / {head['run_name']}"
            audit_id, audited_at = here.get(_identity(head), (None, None))
            if audit_id == head["audit_id"]:
                told.present.append(name)
            elif audit_id is not None and not _is_newer(head, audit_id, audited_at):
                told.kept.append(name)
            else:
                try:
                    tables = _checked(head, views)
                except _RefusedError as error:
                    told.refused[name] = str(error)
                    continue
                if not dry_run:
                    writer.take(tables)
                (told.added if audit_id is None else told.replaced).append(name)
        writer.finish()
    return told


def runs_to_replace(store: Store, source: str | Path) -> list[str]:
    """The runs of which :func:`import_runs` would take the audits of `source` for older ones, as "project / run_name".

    Only the heads are read: some may be refused then.
    """
    here = {_identity(row): (row["audit_id"], row["audited_at"]) for row in _heads(store.datasets()["runs"])}
    with _opened(source) as views, store_errors(str(source)):
        return [
            f"{head['project']} / {head['run_name']}"
            for head in _heads(views["runs"])
            if _identity(head) in here and _is_newer(head, *here[_identity(head)])
        ]


def _is_newer(head: Mapping[str, Any], audit_id: str | None, audited_at: dt.datetime | None) -> bool:
    """Whether an audit is another one than that of `audit_id`, and later."""
    return audit_id != head["audit_id"] and (audited_at or _BEGINNING) < (head["audited_at"] or _BEGINNING)


class _Writer:
    """Writes runs by the project, as many at a time as have about `_ROWS_AT_ONCE` rows."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.waiting: list[RunTables] = []

    def take(self, tables: RunTables) -> None:
        if self.waiting and _place(self.waiting[0]) != _place(tables):
            self.finish()
        self.waiting.append(tables)
        rows = sum(getattr(it, name).num_rows for it in self.waiting for name in DETAILS)
        if rows > _ROWS_AT_ONCE or len(self.waiting) == _RUNS_AT_ONCE:
            self.finish()

    def finish(self) -> None:
        if self.waiting:
            self.store.write_runs(self.waiting)
            self.waiting = []


def _place(tables: RunTables) -> tuple[str, str]:
    return tables.key.tracker, tables.key.project


class _RefusedError(Exception):
    """What is wrong with one run; never leaves this module."""


def _identity(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["tracker"], row["project"], row["run_id"]


def _heads(runs: pds.Dataset) -> list[dict[str, Any]]:
    columns = [*_NEEDED, "audited_at"]
    order = [(column, "ascending") for column in ("tracker", "project_key", "run_id")]
    return list(runs.to_table(columns=columns).sort_by(order).to_pylist())


def _checked(head: Mapping[str, Any], views: Mapping[str, pds.Dataset]) -> RunTables:
    """The rows of one run, when they are what an audit writes."""
    if empty := [name for name in _NEEDED if head[name] is None]:
        raise _RefusedError(f"column {empty[0]} is empty")
    key = RunKey(head["tracker"], head["project"], head["run_id"], head["run_name"])
    if not _TRACKER.fullmatch(key.tracker):
        raise _RefusedError(f"no tracker is called {key.tracker[:40]!r}")
    if head["project_key"] != key.project_key:
        raise _RefusedError(f"project_key must be {key.project_key!r}, got {head['project_key'][:80]!r}")
    return RunTables(key, **{name: _rows(views[name], name, head) for name in SCHEMAS})


def _rows(view: pds.Dataset, name: str, head: Mapping[str, Any]) -> pa.Table:
    ours = pc.scalar(True)
    for column in ("tracker", "project_key", "run_id", "audit_id"):
        ours &= pc.field(column) == pa.scalar(head[column])
    if (count := view.count_rows(filter=ours)) > _MOST_ROWS:
        raise _RefusedError(f"{count:,} rows in table {name}, more than the {_MOST_ROWS:,} that a run may have")
    rows = view.to_table(filter=ours)
    for column in ("project", "run_name"):
        if rows.num_rows and pc.unique(rows[column]).to_pylist() != [head[column]]:
            raise _RefusedError(f"rows of table {name} have another {column} than table runs")
    if "schema_version" in rows.column_names:
        versions = set(pc.unique(rows["schema_version"]).to_pylist()) - {None}
        if versions - set(range(1, SCHEMA_VERSION + 1)):
            raise _RefusedError(f"rows of schema version {max(versions)}; this spectral-edge knows {SCHEMA_VERSION}")
    if name == "runs":
        _check_run(rows)
    elif len(rows.group_by(list(_UNIQUE.get(name, ()))).aggregate([])) != rows.num_rows and name in _UNIQUE:
        raise _RefusedError(f"two rows of table {name} have the same {', '.join(_UNIQUE[name])}")
    return rows


def _check_run(rows: pa.Table) -> None:
    (row,) = rows.to_pylist()
    if empty := [name for name in _NEEDED_OF_RUNS if row[name] is None]:
        raise _RefusedError(f"column {empty[0]} is empty")
    for name in ("settings", "versions"):
        try:
            read = json.loads(row[name] or "{}")
        except ValueError:
            read = None
        if not isinstance(read, dict):
            raise _RefusedError(f"column {name} is not a JSON object")


@contextmanager
def _opened(source: str | Path) -> Iterator[Mapping[str, pds.Dataset]]:
    """The tables of `source`, a store or an exported folder, with our columns."""
    folder = Path(source)
    if not str(source).startswith("s3://"):
        for form in ("parquet", "csv"):
            if (folder / f"runs.{form}").is_file():
                with tempfile.TemporaryDirectory(prefix="spectral-edge-import-") as scratch, store_errors(str(folder)):
                    later = _came_later(folder / f"runs.{form}")
                    files = {name: folder / f"{name}.{form}" for name in SCHEMAS}
                    yield {
                        name: pds.dataset(SCHEMAS[name].empty_table())
                        if name in later and not file.is_file()
                        else _exported(file, name, Path(scratch))
                        for name, file in files.items()
                    }
                return
        if not StoreLocation.of(source).entries("runs"):
            raise NotFoundError(
                "this is neither a store nor a folder that `spectral-edge export` wrote.",
                file=str(source),
                next_step="name the folder that holds runs.parquet, or a store",
            )
    yield Store.open(source, create=False).datasets()


def _came_later(runs: Path) -> frozenset[str]:
    """Those of ADDED_TABLES that the version which exported `runs` did not know."""
    if runs.suffix == ".csv":
        with csv.open_csv(runs, parse_options=csv.ParseOptions(newlines_in_values=True)) as reader:
            columns = reader.schema.names
    else:
        columns = parquet.read_schema(runs).names
    return frozenset(name for name, column in ADDED_TABLES.items() if column not in columns)


def _exported(file: Path, name: str, scratch: Path) -> pds.Dataset:
    if not file.is_file():
        raise StoreError(f"{file.name} is missing.", file=str(file.parent), next_step="export the runs once more")
    if file.suffix == ".csv":
        file = _as_parquet(file, name, scratch)
    found = parquet.read_schema(file)
    _check_schema(found, name, file)
    # Read in the file's own types, then cast row by row: a cast that would change a value is an error.
    return pds.dataset(file, schema=SCHEMAS[name], format="parquet")


def _check_schema(found: pa.Schema, name: str, file: Path) -> None:
    ours = SCHEMAS[name]
    lost = set(ours.names) - set(found.names) - ADDED_COLUMNS.get(name, frozenset())
    wrong = [
        f"{column.name} is {column.type}, not {ours.field(column.name).type}"
        for column in found
        if column.name in ours.names and column.type != ours.field(column.name).type
    ]
    foreign = sorted(set(found.names) - set(ours.names))
    said = [*(f"{column} is missing" for column in sorted(lost)), *wrong, *(f"{it} is unknown" for it in foreign)]
    if len(found.names) != len(set(found.names)):
        said.append("a column is there twice")
    if said:
        kind = StoreVersionError if foreign and not lost and not wrong else StoreError
        raise kind(
            f"the columns are not those of table {name}: {'; '.join(said[:5])}.",
            file=str(file),
            left_behind="nothing was imported",
            next_step="import what `spectral-edge export` of this version or an earlier one wrote",
        )


def _as_parquet(file: Path, name: str, scratch: Path) -> Path:
    """A CSV file of ours as Parquet, batch by batch: so one run's rows are found without reading all of it again."""
    lists = {column.name: column.type for column in SCHEMAS[name] if pa.types.is_nested(column.type)}
    types = {column.name: pa.string() if column.name in lists else column.type for column in SCHEMAS[name]}
    convert = csv.ConvertOptions(
        column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    made = scratch / f"{name}.parquet"
    with csv.open_csv(file, convert_options=convert, parse_options=csv.ParseOptions(newlines_in_values=True)) as reader:
        fields = [pa.field(it.name, lists.get(it.name, it.type)) for it in reader.schema]
        with parquet.ParquetWriter(made, pa.schema(fields)) as writer:
            for batch in reader:
                columns = [
                    pa.array(_values(column, field.type), field.type) if field.name in lists else column
                    for column, field in zip(batch.columns, fields, strict=True)
                ]
                writer.write_batch(pa.record_batch(columns, schema=pa.schema(fields)))
    return made


def _values(texts: pa.Array, kind: pa.DataType) -> list[Any]:
    """The lists that JSON texts tell; of pairs, where `kind` is that of a map."""
    lists = map(_list, texts.to_pylist())
    try:
        return [
            it if it is None or not pa.types.is_map(kind) else [(name, value) for name, value in it] for it in lists
        ]
    except (ValueError, TypeError) as error:
        raise pa.ArrowInvalid("not a list of pairs") from error


def _list(text: str | None) -> list[Any] | None:
    try:
        return None if text is None else list(json.loads(text))
    except (ValueError, TypeError) as error:
        raise pa.ArrowInvalid(f"not a list: {text[:60]!r}" if text else "not a list") from error
