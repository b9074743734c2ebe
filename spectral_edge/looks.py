"""What earlier audits saw of runs without looking into them: table `looks` beside the four tables of a store.

It spares questions to trackers and decides nothing else: rows that are lost, or written by another process in between,
cost these questions once more. So it is written after the audits it tells of, in one Delta commit for each project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import CommitFailedError

from spectral_edge import delta
from spectral_edge.store import Store
from spectral_edge.store_errors import store_errors
from spectral_edge.store_location import StoreLocation
from spectral_edge.store_lock import write_lock
from spectral_edge.tables import RunKey

TABLE: Final = "looks"
_TIME: Final = pa.timestamp("us", tz="UTC")
_SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("tracker", "project_key", "project", "run_id", "stamp", "audit_id")),
        ("checkpoints", pa.int64()),
        ("looked_at", _TIME),
        ("failed_at", _TIME),
    ]
)
_VERSION: Final = "table looks of spectral-edge, version 1"
_TRIES: Final = 5
_VACUUM_EVERY: Final = 32
"""Commits after which files that no version has needed for a week are deleted."""

Identity = tuple[str, str, str]
"""Tracker, project and run_id."""


@dataclass(frozen=True)
class Look:
    """What the last look at one run came to.

    Attributes:
        stamp: What the listing of runs told of it then, with all that the answer depended on; None where that says too
            little, because the run had not ended or something was left to do.
        audit_id: The audit in the store that all was as it says; None where the run had no checkpoints.
        checkpoints: How many the run had.
        looked_at: When that was.
        failed_at: When the audit of the run failed; None when it did not.
    """

    stamp: str | None
    audit_id: str | None
    checkpoints: int
    looked_at: datetime
    failed_at: datetime | None = None


def read_looks(store: Store) -> dict[Identity, Look]:
    """The last look at each run; nothing where the table is missing or was made by another version."""
    location = store.location
    with store_errors(location.table_uri(TABLE)):
        table = _open(location)
        if table is None:
            return {}
        rows = _rows(table, [name for name in _SCHEMA.names if name != "project_key"])
    return {(row.pop("tracker"), row.pop("project"), row.pop("run_id")): Look(**row) for row in rows}


def write_looks(store: Store, looks: Mapping[RunKey, Look]) -> None:
    """Keep `looks` in place of what is known of the same runs.

    Another process that writes at the same moment may undo some of it, on S3; that costs questions.

    Raises:
        StoreLockedError: Another process writes to a store in a folder all the time.
    """
    location = store.location
    keyed = sorted(looks.items(), key=lambda item: (item[0].tracker, item[0].project_key))
    lock = write_lock(Path(location.root), store.lock_timeout) if location.is_local else nullcontext()
    with lock, store_errors(location.table_uri(TABLE)):
        for _, group in groupby(keyed, key=lambda item: (item[0].tracker, item[0].project_key)):
            _write_project(location, dict(group))


def _write_project(location: StoreLocation, looks: Mapping[RunKey, Look]) -> None:
    key = next(iter(looks))
    only = delta.equals(tracker=key.tracker, project_key=key.project_key)
    new = [_row(run, look) for run, look in looks.items()]
    names = {row["run_id"] for row in new}
    for attempt in range(_TRIES):
        table = _open(location) or _created(location)
        kept = [row for row in _rows(table, _SCHEMA.names, only) if row["run_id"] not in names]
        rows = pa.Table.from_pylist([*kept, *new], schema=_SCHEMA).sort_by("run_id")
        try:
            write_deltalake(table, rows, mode="overwrite", predicate=only)
        except CommitFailedError:
            if attempt == _TRIES - 1:
                return  # what is lost is asked again
            continue
        if table.version() % _VACUUM_EVERY == _VACUUM_EVERY - 1:
            table.vacuum(dry_run=False)
        return


def _row(run: RunKey, look: Look) -> dict[str, Any]:
    keys = {"tracker": run.tracker, "project_key": run.project_key, "project": run.project, "run_id": run.run_id}
    return keys | asdict(look)


def _rows(table: DeltaTable, columns: Sequence[str], only: str = "true") -> list[dict[str, Any]]:
    named = ", ".join(f'"{name}"' for name in columns)
    sql = f"SELECT {named} FROM {TABLE} WHERE {only}"  # noqa: S608 - values are quoted
    return list(pa.table(QueryBuilder().register(TABLE, table).execute(sql)).to_pylist())


def _open(location: StoreLocation) -> DeltaTable | None:
    uri, options = location.table_uri(TABLE), location.storage_options()
    if not DeltaTable.is_deltatable(uri, options):
        return None
    table = DeltaTable(uri, storage_options=options)
    return table if table.metadata().description == _VERSION else None


def _created(location: StoreLocation) -> DeltaTable:
    """The table, empty, in place of one of another version."""
    return DeltaTable.create(
        location.table_uri(TABLE),
        schema=_SCHEMA,
        mode="overwrite",
        partition_by=["tracker", "project_key"],
        description=_VERSION,
        configuration={"delta.checkpointInterval": "10"},
        storage_options=location.storage_options(),
    )
