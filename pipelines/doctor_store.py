"""What `doctor` finds of the store: whether it can be read and written, who writes now, and room. Writes nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from integrations.file_examine import folder_finding
from integrations.finding import CLOCK_TOLERANCE, Finding
from pipelines.wording import size_text
from spectral_edge.errors import NotFoundError, SpectralEdgeError
from spectral_edge.store import Store
from spectral_edge.store_location import StoreLocation
from spectral_edge.store_lock import HOLDER_FILE, LOCK_FILE

_LITTLE: int = 1_000_000_000


def store_findings(uri: str) -> Iterator[Finding]:
    """Of the store at `uri`."""
    try:
        location = StoreLocation.of(uri)
        yield _rows(uri)
    except SpectralEdgeError as error:
        yield Finding("store", "problem", error.what, error.next_step or "name another with --store.")
        return
    if not location.is_local:
        yield Finding("store write", "unknown", "cannot be known without writing: S3 tells no rights.")
        return
    root = Path(location.root)
    yield folder_finding("store write", root)
    yield _room(root)
    if (root / LOCK_FILE).exists():
        yield _lock(root)


def _rows(uri: str) -> Finding:
    try:
        store = Store.open(uri, create=False)
    except NotFoundError:
        return Finding("store", "ok", f"{uri} does not exist yet; an audit creates it.")
    rows = store.runs_table()
    newest = max(rows["audited_at"].to_pylist(), default=None)
    now = datetime.now(UTC)
    if newest is not None and newest > now + CLOCK_TOLERANCE:
        seen = f"{uri}: the newest audit is of {newest:%Y-%m-%d %H:%M} UTC, and this clock says {now:%Y-%m-%d %H:%M}."
        return Finding("store", "problem", seen, "set this machine's clock.")
    seen = f"{uri} holds {rows.num_rows} audited runs; this clock says {now:%Y-%m-%d %H:%M} UTC."
    return Finding("store", "ok", seen)


def _room(root: Path) -> Finding:
    place = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < _LITTLE:
        return Finding("store disk", "warning", f"{size_text(free)} free below {place}.", "free some room.")
    return Finding("store disk", "ok", f"{size_text(free)} free below {place}.")


def _lock(root: Path) -> Finding:
    """Whether somebody writes now: the kernel is asked for the lock, shared, and it is given back at once."""
    try:
        opened = os.open(root / LOCK_FILE, os.O_RDONLY)
    except OSError as error:
        return Finding("store lock", "problem", f"{root / LOCK_FILE}: {error.strerror}.", "check its owner and mode.")
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = root / HOLDER_FILE
        who = holder.read_text(encoding="utf-8", errors="replace") if holder.exists() else "another process"
        return Finding("store lock", "warning", f"{who} is writing now.", "an audit waits for its end, up to a minute.")
    finally:
        os.close(opened)
    return Finding("store lock", "ok", "nobody writes now.")
