"""Making a place into a store, and telling whether it is one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from spectral_edge import delta
from spectral_edge.errors import NotFoundError, StoreError
from spectral_edge.store_errors import store_errors
from spectral_edge.store_location import StoreLocation
from spectral_edge.store_lock import HOLDER_FILE, LOCK_FILE
from spectral_edge.tables import SCHEMAS

DETAILS: Final = ("inner_products", "gaps", "transitions", "scorecard", "metrics")
"""The tables whose rows belong to an audit that table `runs` must name."""


def ensure_tables(
    location: StoreLocation, writing: Callable[[], AbstractContextManager[None]], *, create: bool
) -> None:
    """See that the store at `location` is there, complete, and of a version that we know.

    `runs` is created last, so where it is the others are too: one that is missing was lost, and is not created again,
    unless the store is older than that table. A kill while creating is made good by the next call.

    Args:
        location: Where the store is, or shall be.
        writing: Gives the write lock.
        create: Create the store when there is nothing.

    Raises:
        NotFoundError: There is no store, and `create` is False.
        StoreError: Something else is there, or a table was lost.
        StoreVersionError: A newer spectral-edge wrote the store.
    """
    with store_errors(location.root):
        if location.is_local and Path(location.root).is_file():
            raise _not_a_store(location, "a file")
        if not delta.table_exists(location, "runs"):
            _create(location, writing, create=create)
    older_than = delta.older_than(location)
    for lost in (name for name in DETAILS if not delta.table_exists(location, name)):
        if lost not in older_than:
            raise _damaged(location, lost)


def present(location: StoreLocation, moment: dt.datetime | None = None) -> tuple[str, ...]:
    """Names of the tables that are there: all, but for those that came in a later version than the store's last write.

    Of an earlier `moment`, those that had rows then. One that was lost counts as there, so that whoever opens it finds
    the damage.
    """
    older_than = delta.older_than(location, moment)
    later = [name for name in older_than if moment is not None or not delta.table_exists(location, name)]
    return tuple(name for name in SCHEMAS if name not in later)


def add_later_tables(location: StoreLocation) -> None:
    """Create the tables that the store is older than; call it before anything of this version is written."""
    for name in delta.older_than(location):
        delta.create_table(location, name)


def _create(location: StoreLocation, writing: Callable[[], AbstractContextManager[None]], *, create: bool) -> None:
    if foreign := sorted(_foreign_entries(location)):
        raise _not_a_store(location, ", ".join(foreign[:5]))
    if not create:
        raise NotFoundError(
            "there is no store here.",
            file=location.root,
            next_step=f"spectral-edge audit SOURCE --store '{location.root}'",
        )
    if location.is_local:
        Path(location.root).mkdir(parents=True, exist_ok=True)
    with writing():
        for name in DETAILS:
            delta.create_table(location, name)
        # In this order: who creates the same store at this moment creates `runs` before it writes a row. The version
        # would not tell: two creators on S3 can make an empty table of version 1 between them.
        in_use = any(delta.open_table(location, name).file_uris() for name in DETAILS)
        if in_use and not delta.table_exists(location, "runs"):
            raise _damaged(location, "runs")
        delta.create_table(location, "runs")


def _foreign_entries(location: StoreLocation) -> frozenset[str]:
    """What lies in this place and cannot come from a store, nor from one whose creation was killed."""
    here = location.entries()
    foreign = here - SCHEMAS.keys() - {LOCK_FILE, HOLDER_FILE}
    for table in here & SCHEMAS.keys():
        if not delta.table_exists(location, table):
            foreign |= {f"{table}/{name}" for name in location.entries(table) - {"_delta_log"}}
    return foreign


def _not_a_store(location: StoreLocation, found: str) -> StoreError:
    return StoreError(
        f"this is not a store, and not empty: found {found}.",
        file=location.root,
        left_behind="everything, untouched",
        next_step="name an empty or a new folder with --store",
    )


def _damaged(location: StoreLocation, lost: str) -> StoreError:
    return StoreError(
        f"the store is damaged: table `{lost}` is missing.",
        file=location.root,
        left_behind="the other tables, untouched",
        next_step="restore the folder from a copy, or audit into a new store with --store",
    )
