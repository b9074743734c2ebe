"""Table `audit_log`: what was written to which run, when, by which version, and which findings people were told of.

It lies beside the other tables of a store and is only ever added to: Delta itself refuses a change to its rows. A line
is written ahead of what it announces (`will_write`) and another after it (`written`), so that a kill in between leaves
the truth. An older store gets the table with the first line.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final, Literal
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from spectral_edge import delta
from spectral_edge.store_errors import store_errors
from spectral_edge.store_location import StoreLocation
from spectral_edge.tables import SCHEMA_VERSION, RunKey

TABLE: Final = "audit_log"

Event = Literal["will_write", "written", "retracted", "failed", "alert_opened", "alert_closed"]


def _column(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, metadata={"meaning": meaning} | ({"unit": unit} if unit else {}))


_TEXT, _INT, _TIME = pa.string(), pa.int64(), pa.timestamp("us", tz="UTC")

SCHEMA: Final = pa.schema(
    [
        _column("written_at", _TIME, "when the line was written, by the clock of the machine that wrote it"),
        _column("tracker", _TEXT, "kind of tracker the run lives in"),
        _column("project_key", _TEXT, "partition: a file-system-safe name made from project"),
        _column("project", _TEXT, "experiment (MLflow), project (W&B) or parent folder (dir) of the run"),
        _column("run_id", _TEXT, "the tracker's own id of the run"),
        _column("run_name", _TEXT, "its name then"),
        _column("audit_id", _TEXT, "which audit was written; null where a run was retracted"),
        _column("event", _TEXT, "will_write, written, retracted, failed, alert_opened or alert_closed"),
        _column("level", _TEXT, "what was to be written to the run: summary or full"),
        _column("into", _TEXT, "where to: run or child; null: the tracker's own way"),
        _column("tags", _INT, "tags to be written, or taken back"),
        _column("metric_points", _INT, "metric points to be written, or written; those that stay, where retracted"),
        _column("files", _INT, "files to be written, written, or taken back"),
        _column("bytes_written", _INT, "bytes written to the tracker", "B"),
        _column("error", _TEXT, "class of the error that ended the writing"),
        _column("finding_id", _TEXT, "which finding an alert is of; docs/observability.md tells when it is the same"),
        _column("opening", _INT, "how often this finding has been opened, this time included"),
        _column("group", _TEXT, "parameter group of the finding"),
        _column("kind", _TEXT, "kind of change, as in table transitions"),
        _column("onset_step", _INT, "training step at which the change begins", "optimizer steps"),
        _column("onset_low", _INT, "lower end of the onset's interval", "optimizer steps"),
        _column("onset_high", _INT, "upper end of the onset's interval", "optimizer steps"),
        _column("q_value", pa.float64(), "as in table transitions"),
        _column("told", pa.bool_(), "whether a Prefect event was sent; false for findings older than the alerts"),
        _column("reason", _TEXT, "why an alert was closed: superseded, retracted or deleted"),
        _column("version", _TEXT, "version of spectral-edge that wrote the line"),
    ]
)
"""Columns of `audit_log`. They hold no address, no credential and no path of a machine."""

_DESCRIPTION: Final = f"table {TABLE} of spectral-edge, schema version {SCHEMA_VERSION}"
_CONFIGURATION: Final[dict[str, str | None]] = {"delta.checkpointInterval": "10", "delta.appendOnly": "true"}
_TRIES: Final = 5
_MANY_FILES: Final = 50
"""Files of one project after which they are merged: each line comes in a file of its own."""


@dataclass(frozen=True)
class Entry:
    """One line of the log; what does not concern its `event` is None. Columns of that name say what each is."""

    key: RunKey
    event: Event
    audit_id: str | None = None
    level: str | None = None
    into: str | None = None
    tags: int | None = None
    metric_points: int | None = None
    files: int | None = None
    bytes_written: int | None = None
    error: str | None = None
    finding_id: str | None = None
    opening: int | None = None
    group: str | None = None
    kind: str | None = None
    onset_step: int | None = None
    onset_low: int | None = None
    onset_high: int | None = None
    q_value: float | None = None
    told: bool | None = None
    reason: str | None = None

    def row(self, at: dt.datetime) -> dict[str, Any]:
        """The row of the table."""
        fields = {name: value for name, value in vars(self).items() if name != "key"}
        return {"written_at": at, "version": version("spectral-edge"), **self.key.columns(), **fields}


@dataclass(frozen=True)
class AuditLog:
    """The log of the store at `location`; holds no connection.

    Every method may raise StoreError (damaged), AccessDeniedError or StoreUnavailableError; those that write also
    DiskFullError.
    """

    location: StoreLocation

    def exists(self) -> bool:
        """Whether anything was ever logged here."""
        return delta.table_exists(self.location, TABLE)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add `entries`, all or none, with one time; creates the table, even for no entry. Writers never wait."""
        now = dt.datetime.now(dt.UTC)
        rows = pa.Table.from_pylist([entry.row(now) for entry in entries], schema=SCHEMA)
        with store_errors(self._uri):
            for attempt in range(_TRIES):
                try:
                    self._append_once(rows)
                except CommitFailedError:  # two made the table at the same moment
                    if attempt == _TRIES - 1:
                        raise
                else:
                    return

    def alerts(self, tracker: str, project_keys: Collection[str], run_id: str | None = None) -> list[dict[str, Any]]:
        """The alerts opened and closed in some projects of a tracker, or of one run there, oldest first."""
        wanted = (
            pc.field("event").isin(["alert_opened", "alert_closed"])
            & (pc.field("tracker") == pa.scalar(tracker))
            & pc.field("project_key").isin(pa.array(project_keys, pa.string()))
        )
        if run_id is not None:
            wanted &= pc.field("run_id") == pa.scalar(run_id)
        return list(self.dataset().to_table(filter=wanted).sort_by("written_at").to_pylist())

    def dataset(self, until: dt.datetime | None = None) -> pds.Dataset:
        """All rows as a lazy Arrow dataset, those written later than `until` left out; empty where there is none."""
        table = self._open()
        if table is None:
            return pds.dataset(SCHEMA.empty_table())
        found = delta.dataset(self.location, table, TABLE, SCHEMA)
        return found if until is None else found.filter(pc.field("written_at") <= pa.scalar(until, _TIME))

    def store_id(self) -> UUID:
        """Tells the store of this log from all others."""
        table = delta.open_table(self.location, "runs")
        with store_errors(table.table_uri):
            return UUID(str(table.metadata().id))

    def tidy(self) -> None:
        """Merge the files of projects that have many."""
        table = self._open()
        if table is None:
            return
        by_project: dict[tuple[str, str], list[delta.DataFile]] = {}
        for file in delta.files(table):
            by_project.setdefault((file.tracker, file.project_key), []).append(file)
        with store_errors(self._uri):
            for files in by_project.values():
                if len(files) > _MANY_FILES:
                    merge_files(files[0], table)

    @property
    def _uri(self) -> str:
        return self.location.table_uri(TABLE)

    def _append_once(self, rows: pa.Table) -> None:
        options = self.location.storage_options()
        if rows.num_rows == 0:
            DeltaTable.create(
                self._uri,
                schema=SCHEMA,
                mode="ignore",
                partition_by=list(delta.PARTITION),
                description=_DESCRIPTION,
                configuration=_CONFIGURATION,
                storage_options=options,
            )
            return
        table = self._open()
        # With the table not there yet, this makes it in the same commit: it is never seen without its first rows.
        write_deltalake(
            table or self._uri,
            rows if table is None else delta.undescribed(rows),
            mode="append",
            partition_by=list(delta.PARTITION),
            description=_DESCRIPTION,
            configuration=_CONFIGURATION,
            storage_options=options,
            writer_properties=delta.WRITER,
        )

    def _open(self) -> DeltaTable | None:
        return delta.open_table(self.location, TABLE) if self.exists() else None


def merge_files(of: delta.DataFile, table: DeltaTable) -> None:
    """Merge the files of the project that file `of` belongs to. Changes no row, and no writer or reader waits."""
    table.optimize.compact([("tracker", "=", of.tracker), ("project_key", "=", of.project_key)])
