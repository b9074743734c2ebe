"""Keeping a store quick: rows of a project sorted by run into few files, and files that nobody needs deleted.

Each audit leaves a file of its own in each table. Compaction writes the rows of a project anew, sorted by run, so that
the log's statistics tell which one or two files, and the files' own which few thousand rows, hold a given run.
deltalake's z-order would not do: it compares the first 16 bytes of a name, and runs are often named alike that far.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final
from urllib.parse import unquote

from deltalake import DeltaTable

from spectral_edge import audit_log, delta
from spectral_edge.errors import StoreLockedError, UsageError
from spectral_edge.store_errors import store_errors
from spectral_edge.store_location import StoreLocation
from spectral_edge.store_place import present
from spectral_edge.store_rewrite import FILE_BYTES, rewrite
from spectral_edge.tables import SCHEMAS

KEEP: Final = dt.timedelta(days=7)
_LEAST_KEEP: Final = dt.timedelta(days=1)

_OVERLAP: Final = 4


@dataclass(frozen=True)
class TableUpkeep:
    """What upkeep did to one table, or would do."""

    table: str
    projects: int
    """How many projects were rewritten."""
    busy: int
    """How many should have been, but others kept writing to them."""
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    files_deleted: int
    """Files of earlier versions, and of killed writers, that were deleted."""
    bytes_freed: int


def upkeep(
    location: StoreLocation, writing: Callable[[], AbstractContextManager[None]], keep: dt.timedelta, *, dry_run: bool
) -> list[TableUpkeep]:
    """See :meth:`spectral_edge.store.Store.compact`; `writing` gives the write lock.

    Raises:
        UsageError: `keep` is less than a day.
    """
    if keep < _LEAST_KEEP:
        raise UsageError(
            f"`keep` must be at least a day, got {keep}.",
            left_behind="everything, untouched",
            next_step="leave it out to keep a week: readers and writers may still need younger files",
        )
    names = [*present(location), *((audit_log.TABLE,) if delta.table_exists(location, audit_log.TABLE) else ())]
    return [_keep_up(location, name, writing, keep, dry_run=dry_run) for name in names]


def _keep_up(
    location: StoreLocation,
    table: str,
    writing: Callable[[], AbstractContextManager[None]],
    keep: dt.timedelta,
    *,
    dry_run: bool,
) -> TableUpkeep:
    before = delta.files(delta.open_table(location, table))
    wanting = [files for files in _by_project(before) if _is_scattered(files)]
    busy = 0
    if not dry_run:
        for files in wanting:
            try:
                with writing():
                    change = partial(rewrite, location, table) if table in SCHEMAS else audit_log.merge_files
                    delta.commit(location, table, partial(change, files[0]))
            except StoreLockedError:
                busy += 1
    with writing():
        latest = delta.open_table(location, table)
        deleted, freed = delete_old_files(location, latest, table, keep, dry_run=dry_run)
    after = delta.files(latest)
    spared = sum(len(files) - _ideal(files) for files in wanting) if dry_run else 0
    return TableUpkeep(
        table,
        len(wanting) - busy,
        busy,
        len(before),
        len(after) - spared,
        sum(file.size for file in before),
        sum(file.size for file in after),
        deleted,
        freed,
    )


def _by_project(files: Sequence[delta.DataFile]) -> Iterator[list[delta.DataFile]]:
    def project(file: delta.DataFile) -> tuple[str, str]:
        return file.tracker, file.project_key

    return (list(group) for _, group in groupby(sorted(files, key=project), key=project))


def _ideal(files: Sequence[delta.DataFile]) -> int:
    return math.ceil(sum(file.size for file in files) / FILE_BYTES)


def _is_scattered(files: Sequence[delta.DataFile]) -> bool:
    """Whether a project has over twice the files it needs, or a run may lie in any of more than four.

    Not each new run is reason to write a project's gigabytes again.
    """
    return len(files) > 2 * _ideal(files) or _depth(files) > _OVERLAP


def _depth(files: Sequence[delta.DataFile]) -> int:
    """In how many files one run may lie, going by their statistics."""
    # A file without statistics may hold any run: it opens before all others and closes after them.
    ends = [(-1 if file.first_run is None else 0, file.first_run or "", 0) for file in files]
    ends += [(1 if file.last_run is None else 0, file.last_run or "", 1) for file in files]
    depth = deepest = 0
    for *_, closes in sorted(ends):
        depth += -1 if closes else 1
        deepest = max(deepest, depth)
    return deepest


def delete_old_files(
    location: StoreLocation, latest: DeltaTable, table: str, keep: dt.timedelta, *, dry_run: bool
) -> tuple[int, int]:
    """Delete the files that have belonged to no version of `table` for `keep`; returns how many, and their bytes.

    Besides what changes replaced, these are the files of writers that were killed before their commit.
    """
    with store_errors(location.table_uri(table)):
        hours = math.ceil(keep / dt.timedelta(hours=1))
        old = latest.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)
        if not old:
            return 0, 0
        # The log goes on naming files that an earlier vacuum deleted.
        infos = location.filesystem().get_file_info([f"{table}/{unquote(path)}" for path in old])
        found = [entry.size or 0 for entry in infos if entry.is_file]
        if found and not dry_run:
            latest.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)
    return len(found), sum(found)
