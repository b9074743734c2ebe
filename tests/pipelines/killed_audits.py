"""Audits in child processes that die by SIGKILL where they are told to."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from types import FrameType
from typing import Any

from one_folder import audit

from pipelines.results import RunResult
from pipelines.settings import load_settings
from pipelines.spool import sweep
from spectral_edge.store import Store

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pipelines.one_run", "integrations.folder_tracker", "safetensors.torch"])
_WATCHED = (
    "pipelines/one_run.py",
    "pipelines/measuring.py",
    "spectral_edge/store.py",
    "spectral_edge/delta.py",
    "integrations/folder_annotations.py",
)
"""Modules whose lines are counted: those that read, write and order what is read and written."""


def audit_folder(folder: Path, store: str) -> RunResult:
    """What the flow does for a folder that is one run, sweeping what the killed have left, without Prefect."""
    sweep(load_settings().spool)
    Store.open(store).sweep()
    return audit(folder, store=store, window=3, lags=8, annotate="summary")


def lines_of(folder: Path, store: str) -> int:
    """Audit in a child; how many lines of the watched modules that takes."""
    answer = PROCESSES.Queue()
    child = PROCESSES.Process(target=_count, args=(folder, store, answer), daemon=True)
    child.start()
    lines = answer.get(timeout=120)
    child.join(60)
    assert child.exitcode == 0
    return int(lines)


def killed_at(folder: Path, store: str, line: int) -> int | None:
    """Audit in a child that is killed before line number `line`; its exit code."""
    child = PROCESSES.Process(target=_die, args=(folder, store, line), daemon=True)
    child.start()
    child.join(120)
    return child.exitcode


def _count(folder: Path, store: str, answer: Queue[int]) -> None:
    counts = [0]
    _watch(lambda count: counts.__setitem__(0, count))
    audit_folder(folder, store)
    sys.settrace(None)
    answer.put(counts[0])


def _die(folder: Path, store: str, line: int) -> None:
    _watch(lambda count: os.kill(os.getpid(), signal.SIGKILL) if count == line else None)
    audit_folder(folder, store)


def _watch(on_line: Callable[[int], None]) -> None:
    seen = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.endswith(_WATCHED):
            return None
        if event == "line":
            seen += 1
            on_line(seen)
        return trace

    sys.settrace(trace)
