"""The store: six Delta tables in a folder or an S3 prefix, in which an audit is there as a whole or not at all.

Rows of the other tables count only when table `runs` names their audit. A write puts those rows first, then the row of
`runs` in one Delta commit, which is the moment the audit becomes visible, and then deletes the rows of its earlier
audits. Killed anywhere, the store shows the state before or after; written again, it is what an undisturbed write makes
of it. A store that is older than a table gets that table with the next write.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
from deltalake import DeltaTable

from spectral_edge import delta
from spectral_edge.audited_run import AuditedRun
from spectral_edge.errors import NotFoundError, StoreLockedError, UsageError
from spectral_edge.run_list import RunList, find_run, select_runs
from spectral_edge.store_location import StoreLocation
from spectral_edge.store_lock import write_lock
from spectral_edge.store_place import DETAILS, add_later_tables, ensure_tables, present
from spectral_edge.store_rewrite import sort_rows
from spectral_edge.store_rows import IDENTITY, Identity, audits_of, rows_of
from spectral_edge.store_upkeep import KEEP, TableUpkeep, upkeep
from spectral_edge.tables import SCHEMAS, RunKey, RunTables
from spectral_edge.visible import VisibleRows

_TRIES: Final = 8
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class AuditState:
    """What table `runs` says of one run's last audit: columns of that name."""

    audit_id: str
    fingerprint: str
    settings_hash: str
    status: str
    error: str | None
    state: str
    checkpoints: int | None
    settings: str | None
    series: str | None = None
    step_source: str | None = None
    record_hash: str | None = None


@dataclass(frozen=True, repr=False)
class Store:
    """A store of audits; open it with :meth:`Store.open`.

    Examples:
        >>> from datetime import timedelta
        >>> store = Store.open("spectral-edge-store")
        >>> run = store.run("small-network")
        >>> len(store.runs(since=timedelta(days=7)))
        1
        >>> store.query("select count(*) as windows from gaps").to_pylist()
        [{'windows': 276}]

    Holds no connection and no open file: it can be passed between threads and processes. In a folder, one process
    writes at a time, under a lock of the kernel. On S3, writers of different runs do not wait for each other; Delta's
    conditional commits keep them apart.

    Every method may raise StoreError (damaged), StoreVersionError, AccessDeniedError or StoreUnavailableError;
    methods that write also DiskFullError and StoreLockedError.

    Args:
        location: Where the tables lie.
        lock_timeout: Seconds to wait for another writer in a folder.
        moment: When it is read as it was at that moment; see :meth:`at`.
    """

    location: StoreLocation
    lock_timeout: float = 60.0
    moment: dt.datetime | None = None

    @classmethod
    def open(cls, uri: str | Path, *, create: bool = True, lock_timeout: float = 60.0) -> Store:
        """Open the store at `uri`, a folder or `s3://bucket/prefix`.

        Args:
            uri: Where the store is, or shall be.
            create: Create it when there is nothing yet.
            lock_timeout: Seconds to wait for another writer in a folder.

        Raises:
            UsageError: `uri` is neither a folder nor an s3:// address.
            NotFoundError: There is no store, and `create` is False.
            StoreError: Something else is there, or the store is damaged.
            StoreVersionError: A newer spectral-edge wrote the store.
        """
        store = cls(StoreLocation.of(uri), lock_timeout)
        ensure_tables(store.location, store._writing, create=create)
        return store

    def __repr__(self) -> str:
        return f"Store({self.location.root!r})"

    def at(self, moment: dt.datetime) -> Store:
        """This store as it was at `moment`, to be read only.

        How far back it reaches: as long as `compact` keeps files of earlier versions, a week by default.

        Raises:
            UsageError: `moment` has no time zone, or the store was not there yet.
        """
        if moment.tzinfo is None:
            raise UsageError(f"a moment needs a time zone, got {moment.isoformat()}.")
        earlier = replace(self, moment=moment)
        began = delta.began(self.location, "runs")
        if began > moment:
            raise UsageError(
                f"there is nothing from {moment.isoformat()}: the store's history begins at {began.isoformat()}.",
                file=self.location.root,
            )
        return earlier

    def write_run(self, tables: RunTables) -> None:
        """Write one audit of one run; replaces what earlier audits said of that run.

        Atomic as a whole: readers see the run as it was before, or as `tables` say. Idempotent: after a kill at any
        point, writing again leaves the same rows as one undisturbed write.

        Raises:
            StoreLockedError: Other writers were in the way until the time was up.
        """
        self.write_runs([tables])

    def write_runs(self, audits: Sequence[RunTables]) -> None:
        """Write audits of several runs of one project, all of them or none; else as :meth:`write_run`, but quicker.

        Raises:
            ValueError: The runs are of several projects, or two audits are of one run.
            StoreLockedError: Other writers were in the way until the time was up.
        """
        keys = {(it.key.tracker, it.key.project): it.key for it in audits}
        if len(keys) != 1 or len({it.key.run_id for it in audits}) != len(audits):
            raise ValueError(f"`audits` must be of different runs of one project, got {[it.key for it in audits]}")
        with self._writing():
            for attempt in range(_TRIES):
                deleted = self._write_once(audits)
                if self.location.is_local or self._is_settled(audits, deleted):
                    return
                time.sleep(random.uniform(0, 1 + attempt))  # noqa: S311 - so that two writers fall out of step
        raise StoreLockedError(
            "another process kept replacing the rows of this run.",
            run=", ".join(it.key.run_name for it in audits[:5]),
            file=self.location.root,
            next_step="let one audit of this run end, then run the same command again",
        )

    def forget_run(self, key: RunKey) -> bool:
        """Delete all rows of one run, whatever it is called now; returns whether there were any.

        The run is gone for readers from the first commit on. After a kill, what is left is invisible to them; the next
        `forget_run` or `sweep` deletes it. Files of earlier versions stay on disk until `compact` has found them a week
        old.

        Raises:
            StoreLockedError: Other writers were in the way until the time was up.
        """
        run, found = rows_of(key), set[str]()
        with self._writing():
            for _ in range(_TRIES):
                found |= delta.delete(self.location, "runs", run, "audit_id")
                details = set().union(*(delta.delete(self.location, name, run, "audit_id") for name in self._details()))
                found |= details
                # On S3 another writer may have committed an audit whose other rows were just deleted.
                if details.isdisjoint(identity[0] for identity in self._committed(run)):
                    return bool(found)
        raise StoreLockedError(
            "another process kept writing rows of this run.",
            run=key.run_name,
            file=self.location.root,
            next_step="let the audit of this run end, then run the same command again",
        )

    def read_run(self, key: RunKey) -> RunTables | None:
        """The last audit of one run, rows sorted by group and step; None when it has none.

        `key.run_name` does not matter, as a run may have been renamed since; the result has the stored name.
        """
        run = rows_of(key)
        committed, found = self._steadily(
            run,
            lambda: {name: delta.scan(self._table(name), name, run) for name in self._present()},
        )
        if not committed:
            return None
        ours = pc.field("audit_id").isin([identity[0] for identity in committed])
        rows = {name: sort_rows(table.filter(ours), name) for name, table in found.items()}
        return RunTables(RunKey(key.tracker, key.project, key.run_id, str(rows["runs"]["run_name"][0])), **rows)

    def run(self, run: str, *, project: str | None = None) -> AuditedRun:
        """The last audit of one run.

        Args:
            run: Its id, its name, or the beginning of its id.
            project: Its project, or a pattern with `*`, where several runs are called so.

        Raises:
            NotFoundError: There is no such run; the message lists those that look like it.
            UsageError: Several are called so; the message lists them.
        """
        columns = ("tracker", "project", "run_id", "run_name")
        return self._audited(
            find_run(delta.scan(self._table("runs"), "runs", columns=columns).to_pylist(), run, project)
        )

    def runs(self, project: str | None = None, *, since: dt.datetime | dt.timedelta | None = None) -> RunList:
        """The audited runs: a list to look at, to loop over, and to make a data frame of.

        Args:
            project: Only of this project, or of those whose names match a pattern with `*`.
            since: Only those audited at this time or later, or so long ago at most.

        Raises:
            NotFoundError: No run is of that project.
            UsageError: `since` is a time without a zone.
        """
        return RunList(select_runs(self.runs_table(), project, since, dt.datetime.now(dt.UTC)), self._audited)

    def query(self, sql: str) -> pa.Table:
        """The answer to one SELECT over the tables, as an Arrow table; see :func:`spectral_edge.query.query`.

        Raises:
            UsageError: The SQL is wrong, is not one SELECT, or takes too much.
        """
        from spectral_edge.query import query  # noqa: PLC0415 - it builds on this module

        return query(self, sql)

    def audits(self) -> dict[tuple[str, str, str], AuditState]:
        """What has been audited, by (tracker, project, run_id); reads only those columns of table `runs`."""
        columns = ("tracker", "project", "run_id", *(field.name for field in fields(AuditState)))
        rows = delta.scan(self._table("runs"), "runs", columns=columns).to_pylist()
        return {(row.pop("tracker"), row.pop("project"), row.pop("run_id")): AuditState(**row) for row in rows}

    def audits_of_content(self, first: str) -> list[tuple[RunKey, tuple[str | None, ...]]]:
        """Audits `ok` of runs whose first checkpoint has the digest `first` in column `contents`, and that column."""
        table = self._table("runs")
        if "contents" not in {field.name for field in table.schema().fields}:
            return []
        columns = ("tracker", "project", "run_id", "run_name", "contents")
        rows = delta.scan(table, "runs", f"status = 'ok' AND contents[1] = {delta.quoted(first)}", columns).to_pylist()
        return [(RunKey(**row), tuple(contents)) for row in rows if (contents := row.pop("contents"))]

    def runs_table(self) -> pa.Table:
        """Table `runs`, sorted by tracker, project and run_id."""
        return sort_rows(delta.scan(self._table("runs"), "runs"), "runs")

    def datasets(self) -> dict[str, pds.Dataset]:
        """The six tables by name as lazy Arrow datasets: committed rows only, all of one moment."""
        committed, found = self._steadily(
            None,
            lambda: {name: delta.files(self._table(name)) for name in self._present()},
        )
        return {name: VisibleRows(self.location, found.get(name, []), name, committed) for name in SCHEMAS}

    def sweep(self) -> int:
        """Delete the rows that no committed audit owns, which killed writers left; returns how many audits they were.

        They are visible only to who reads the Delta tables past this class. On S3, where no lock tells whether their
        writer still lives, call it only while nothing writes.
        """
        with self._writing():
            committed = self._committed()
            found = {name: delta.distinct(self._table(name), name, IDENTITY) - committed for name in self._details()}
            for name, orphans in found.items():
                for orphan in orphans:
                    predicate = delta.equals(**dict(zip(IDENTITY, orphan, strict=True)))
                    delta.delete(self.location, name, predicate, "audit_id")
            return len(set().union(*found.values()))

    def compact(self, *, keep: dt.timedelta = KEEP, dry_run: bool = False) -> list[TableUpkeep]:
        """Sort the rows of projects that lie in many small files into few, and delete files long out of use.

        Changes no row. Readers are not disturbed: what they have open stays for `keep`. In a folder, writers wait while
        one project of one table is rewritten; on S3 nobody waits, and a project that others keep writing to is left.

        Args:
            keep: How long a file that belongs to no current version stays, for readers and for `at`.
            dry_run: Change nothing, and tell what would be done.

        Returns:
            What was done, table by table.

        Raises:
            UsageError: `keep` is less than a day.
        """
        return upkeep(self.location, self._writing, keep, dry_run=dry_run)

    def _audited(self, key: RunKey) -> AuditedRun:
        tables = self.read_run(key)
        if tables is None:
            raise NotFoundError("its audit was taken back meanwhile.", run=key.run_name, file=self.location.root)
        return AuditedRun.of(tables)

    def _writing(self) -> AbstractContextManager[None]:
        if self.moment is not None:
            raise UsageError("what the store was at an earlier moment cannot be changed.", file=self.location.root)
        if self.location.is_local:
            return write_lock(Path(self.location.root), self.lock_timeout)
        return nullcontext()

    def _table(self, name: str) -> DeltaTable:
        return delta.open_table(self.location, name, self.moment)

    def _present(self) -> tuple[str, ...]:
        return present(self.location, self.moment)

    def _details(self) -> list[str]:
        return [name for name in self._present() if name in DETAILS]

    def _write_once(self, audits: Sequence[RunTables]) -> set[str]:
        """Write the rows, commit, clean up; returns the other audits of these runs whose rows were deleted."""
        add_later_tables(self.location)
        runs, ours = rows_of(*(it.key for it in audits)), audits_of(audits)
        for name in DETAILS:
            rows = pa.concat_tables([getattr(it, name) for it in audits])
            delta.replace(self.location, name, f"{runs} AND {ours}", sort_rows(rows, name))
        delta.replace(self.location, "runs", runs, sort_rows(pa.concat_tables([it.runs for it in audits]), "runs"))
        others = f"{runs} AND NOT {ours}"
        return set().union(*(delta.delete(self.location, name, others, "audit_id") for name in DETAILS))

    def _is_settled(self, audits: Sequence[RunTables], deleted: set[str]) -> bool:
        """Whether the audits that `runs` names now have their rows, as far as this writer can have harmed them.

        Without a lock, two audits of one run may each delete what the other is about to commit. Both look here, after
        their commit and their deletions, so whichever order these came in, one of the two sees it and writes again.
        """
        current = {(identity[4], identity[0]) for identity in self._committed(rows_of(*(it.key for it in audits)))}
        ours = {(it.key.run_id, it.audit_id): it for it in audits}
        if any(audit_id in deleted for _, audit_id in current - ours.keys()):
            return False
        written = [it for pair, it in ours.items() if pair in current]
        if not written:
            return True
        where = f"{rows_of(*(it.key for it in written))} AND {audits_of(written)}"
        return all(
            delta.scan(self._table(name), name, where, ("audit_id",)).num_rows
            == sum(getattr(it, name).num_rows for it in written)
            for name in DETAILS
        )

    def _committed(self, predicate: str | None = None) -> frozenset[Identity]:
        return _identities(self._table("runs"), predicate)

    def _steadily(
        self, predicate: str | None, read: Callable[[], dict[str, _Found]]
    ) -> tuple[frozenset[Identity], dict[str, _Found]]:
        """What `read` finds, and the audits it belongs to: read again if one of them was replaced meanwhile.

        To look whether they are there afterwards is not enough: an audit may be replaced and written again meanwhile.
        """
        for _ in range(_TRIES):
            before = self._table("runs")
            committed = _identities(before, predicate)
            found = read()
            since = () if self.moment is not None else delta.versions_since(self.location, before, "runs")
            if all(committed <= _identities(later, predicate) for later in since):
                return committed, found
        raise StoreLockedError(
            "audits were replaced again and again while they were being read.",
            file=self.location.root,
            next_step="run the same command again when the running audit has ended",
        )


def _identities(runs: DeltaTable, predicate: str | None = None) -> frozenset[Identity]:
    return frozenset(delta.distinct(runs, "runs", IDENTITY, predicate))
