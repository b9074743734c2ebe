"""What child processes of these tests do. They start from a fork server that has only imported, in about 20 ms."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from types import FrameType
from typing import Any

from audits import audit, key_of

import spectral_edge.store
from spectral_edge.errors import DiskFullError
from spectral_edge.export import export_query, export_runs
from spectral_edge.importing import import_runs
from spectral_edge.store import Store
from spectral_edge.store_lock import write_lock

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["audits", "spectral_edge.importing", "spectral_edge.export"])
_OURS = str(Path(spectral_edge.store.__file__).parent)


def aws_environment(endpoint: str) -> dict[str, str]:
    """The variables that lead to a moto server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
    }


def start(target: Callable[..., None], *args: Any) -> ForkServerProcess:
    child = PROCESSES.Process(target=target, args=args, daemon=True)
    child.start()
    return child


def finish(child: ForkServerProcess) -> int | None:
    child.join(120)
    return child.exitcode


def write_runs(
    uri: str, settings_hash: str, runs: Sequence[str], environment: Mapping[str, str], together: Barrier | None = None
) -> None:
    """Write one audit of each of `runs`."""
    os.environ.update(environment)
    if together is not None:
        together.wait(60)
    store = Store.open(uri)
    for run in runs:
        store.write_run(audit(key_of(run), settings_hash=settings_hash))


def write_killed_at(uri: str, settings_hash: str, runs: Sequence[str], line: int) -> None:
    """Write like `write_runs`, and die by SIGKILL just before our code runs its `line`-th line."""
    _count_lines(lambda count: os.kill(os.getpid(), signal.SIGKILL) if count == line else None)
    write_runs(uri, settings_hash, runs, {})


def count_lines(uri: str, settings_hash: str, runs: Sequence[str], answer: Queue[int]) -> None:
    """Write like `write_runs`, and answer how many lines of ours that ran."""
    counts = [0]
    _count_lines(lambda count: counts.__setitem__(0, count))
    write_runs(uri, settings_hash, runs, {})
    sys.settrace(None)
    answer.put(counts[0])


def export_killed_at(uri: str, output: str, sql: str | None, line: int) -> None:
    """Export all runs to a folder, or the answer to `sql` to a file, and die like `write_killed_at`."""
    _count_lines(lambda count: os.kill(os.getpid(), signal.SIGKILL) if count == line else None)
    if sql is None:
        export_runs(Store.open(uri), Path(output))
    else:
        export_query(Store.open(uri), sql, Path(output))
    sys.settrace(None)


def import_killed_at(uri: str, source: str, line: int) -> None:
    """Import `source`, and die like `write_killed_at`."""
    _count_lines(lambda count: os.kill(os.getpid(), signal.SIGKILL) if count == line else None)
    import_runs(Store.open(uri), source)
    sys.settrace(None)


def _count_lines(on_line: Callable[[int], None]) -> None:
    seen = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        if event == "line":
            seen += 1
            on_line(seen)
        return trace

    sys.settrace(trace)


def hold_lock(folder: str, held: Event) -> None:
    """Take the write lock of the store in `folder` and keep it."""
    with write_lock(Path(folder), 10):
        held.set()
        signal.pause()


def write_with_file_limit(uri: str, limit: int, answer: Queue[str]) -> None:
    """Write a run while no file may grow beyond `limit` bytes, as if the disk ended there."""
    store = Store.open(uri)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        store.write_run(audit(key_of("big"), rows=900))
    except DiskFullError as error:
        answer.put(str(error))
