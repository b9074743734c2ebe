"""What an audit shows while it works: on a terminal a bar a run, elsewhere one line a run, always on stderr.

The display in use is a context variable, so that flows take no parameter that cannot be written as JSON. Prefect hands
the context on to the threads of its tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Literal, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from pipelines.json_log import JsonLog, all_in_json
from pipelines.results import AuditSummary, RunResult
from pipelines.terminal import print_line, redraws, stderr_console
from pipelines.wording import plain_text
from spectral_edge.tables import RunKey

LogFormat = Literal["text", "json"]


class RunProgress(Protocol):
    """Where one run stands."""

    def fetched(self, n_bytes: int) -> None:
        """One more checkpoint, of `n_bytes`, is on disk."""

    def read(self, n_bytes: int) -> None:
        """`n_bytes` more have been read and summed."""


class Display(Protocol):
    """Shows an audit to people. Methods may be called from any thread."""

    def say(self, text: str) -> None:
        """What is being waited for."""

    def warn(self, text: str) -> None:
        """What a person should know of the audit as a whole."""

    def run_started(self, key: RunKey, checkpoints: int, to_fetch: int, to_read: int) -> RunProgress:
        """A run whose `checkpoints` will be fetched and read, with the bytes of both."""
        ...

    def run_ended(self, result: RunResult) -> None:
        """A run is done, for better or worse."""

    def source_ended(self, summary: AuditSummary) -> None:
        """All runs of a source are done; the command line tells so on stdout."""


class Silent:
    """Shows nothing: the display of flows that no person started."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def warn(self, text: str) -> None:
        """Show nothing."""

    def source_ended(self, summary: AuditSummary) -> None:
        """Show nothing."""

    def run_started(self, key: RunKey, checkpoints: int, to_fetch: int, to_read: int) -> RunProgress:
        """Show nothing."""
        del key, checkpoints, to_fetch, to_read
        return self

    def run_ended(self, result: RunResult) -> None:
        """Show nothing."""

    def fetched(self, n_bytes: int) -> None:
        """Show nothing."""

    def read(self, n_bytes: int) -> None:
        """Show nothing."""


class Lines(Silent):
    """One line a run, for logs and pipes. Runs that nothing was done to are only counted at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """One line."""
        self._print(text)

    def warn(self, text: str) -> None:
        """One line."""
        print_line(self._console, "warning:", "yellow", text)

    def run_ended(self, result: RunResult) -> None:
        """One line, unless nothing was done."""
        if result.is_failure:
            print_line(self._console, "error:", "bold red", result.line)
        elif result.outcome != "unchanged":
            self._print(result.line)
            for warning in result.warnings:
                print_line(self._console, "  warning:", "yellow", warning)
        for line in (result.traceback or "").splitlines():
            self._print(line)

    def _print(self, text: str) -> None:
        self._console.print(plain_text(text), markup=False, highlight=False, soft_wrap=True)


class Bars(Lines):
    """A live bar a run: checkpoint, bytes, time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[doing]}"),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,  # stdout may be a file of JSON while stderr is a terminal
        )
        self._bars: dict[str, _Bar] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def run_started(self, key: RunKey, checkpoints: int, to_fetch: int, to_read: int) -> RunProgress:
        """Open a bar."""
        self._close(key.run_id)  # of an earlier try
        self._bars[key.run_id] = _Bar(self._progress, key.run_name, checkpoints, to_fetch, to_read)
        return self._bars[key.run_id]

    def run_ended(self, result: RunResult) -> None:
        """Turn the bar into a line."""
        self._close(result.run_id)
        super().run_ended(result)

    def _close(self, run_id: str) -> None:
        if bar := self._bars.pop(run_id, None):
            bar.close()


class _Bar:
    def __init__(self, progress: Progress, run_name: str, checkpoints: int, to_fetch: int, to_read: int) -> None:
        self._progress, self._checkpoints, self._to_read = progress, checkpoints, to_read
        self._fetched = self._read = 0
        total = to_fetch + to_read
        self._task: TaskID = progress.add_task(plain_text(run_name), total=total, doing=f"0/{checkpoints} checkpoints")

    def fetched(self, n_bytes: int) -> None:
        self._fetched += 1
        self._advance(n_bytes, f"fetched {self._fetched}/{self._checkpoints}")

    def read(self, n_bytes: int) -> None:
        self._read += n_bytes
        done = min(self._checkpoints, self._checkpoints * self._read // max(self._to_read, 1))
        self._advance(n_bytes, f"read {done}/{self._checkpoints}")

    def _advance(self, n_bytes: int, doing: str) -> None:
        self._progress.update(self._task, advance=n_bytes, doing=doing)

    def close(self) -> None:
        self._progress.remove_task(self._task)


_CURRENT: ContextVar[Display] = ContextVar("display")


def current() -> Display:
    """The display in use; a silent one unless :func:`showing` set another."""
    return _CURRENT.get(Silent())


@contextmanager
def showing(log_format: LogFormat = "text") -> Iterator[Display]:
    """Show audits inside the block on stderr: as JSON, or as bars when it is a terminal, as lines when it is not."""
    if log_format == "json":
        with all_in_json(JsonLog(sys.stderr)) as log:
            yield from _shown(log)
        return
    console = stderr_console()
    display: Display = Lines(console)
    if not redraws(console):
        yield from _shown(display)
        return
    with Bars(console) as bars:
        yield from _shown(bars)


@contextmanager
def showing_in_flow(log_format: LogFormat) -> Iterator[None]:
    """In a flow that no person started: JSON where it is asked for, and nothing otherwise."""
    if _CURRENT.get(None) is not None or log_format == "text":
        yield
        return
    with showing(log_format):
        yield


def _shown(display: Display) -> Iterator[Display]:
    token = _CURRENT.set(display)
    try:
        yield display
    finally:
        _CURRENT.reset(token)
