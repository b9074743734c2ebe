"""What an audit says on stderr as one JSON object a line, for machines that collect logs.

Each object has `time`, `level`, `event` and `text`; what concerns a run also has `run_id`, `run_name`, `project` and
numbers. JSON escapes newlines and control characters, so no name can break a line or add one.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from pipelines.results import AuditSummary, RunResult
from spectral_edge.tables import RunKey

Level = Literal["info", "warning", "error"]

_NUMBERS: Final = (
    "checkpoints",
    "new_checkpoints",
    "transitions",
    "bytes_fetched",
    "bytes_read",
    "seconds_fetch",
    "seconds_gram",
    "seconds_analyse",
    "writes",
)
_LEVELS: Final[dict[int, Level]] = {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}


class JsonLog:
    """Writes objects to `stream`, each whole, from any thread. Is a Display of :mod:`pipelines.progress`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, level: Level, event: str, text: str, **more: Any) -> None:
        """One line. What JSON has no number for becomes text."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        told = {"time": now, "level": level, "event": event, "text": text}
        told |= {name: value for name, value in more.items() if value is not None}
        line = json.dumps(told, default=str)
        with self._lock:
            self._stream.write(f"{line}\n")
            self._stream.flush()

    def say(self, text: str) -> None:
        """What is being waited for."""
        self.write("info", "waiting", text)

    def warn(self, text: str) -> None:
        """Something of the audit as a whole that a person should know."""
        self.write("warning", "audit_warning", text)

    def run_started(self, key: RunKey, checkpoints: int, to_fetch: int, to_read: int) -> JsonLog:
        """A run whose checkpoints will be read."""
        self.write(
            "info",
            "run_started",
            f"{key.run_name}: reading",
            tracker=key.tracker,
            project=key.project,
            run_id=key.run_id,
            run_name=key.run_name,
            checkpoints=checkpoints,
            bytes_to_fetch=to_fetch,
            bytes_to_read=to_read,
        )
        return self

    def fetched(self, n_bytes: int) -> None:
        """Bytes are told once, at the end of the run."""

    def read(self, n_bytes: int) -> None:
        """As above."""

    def run_ended(self, result: RunResult) -> None:
        """The run, whatever came of it, and a line for each of its warnings."""
        run = {"project": result.project, "run_id": result.run_id, "run_name": result.run_name}
        self.write(
            "error" if result.is_failure else "info",
            "run_ended",
            result.line,
            **run,
            outcome=result.outcome,
            error=result.error,
            error_class=result.error_class,
            known=result.known or None,
            regime=result.regime,
            audit_id=result.audit_id,
            traceback=result.traceback,
            **{name: getattr(result, name) for name in _NUMBERS},
        )
        for warning in result.warnings:
            self.write("warning", "run_warning", warning, **run)

    def source_ended(self, summary: AuditSummary) -> None:
        """The sum of a source."""
        level: Level = "error" if summary.has_failures else "info"
        self.write(
            level, "source_ended", summary.line, source=summary.source, runs=len(summary.runs), left=summary.left
        )


class _Handler(logging.Handler):
    """Records of Python's logging as lines of `log`."""

    def __init__(self, log: JsonLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = _LEVELS.get(min(record.levelno // 10 * 10, logging.ERROR), "info")
        self._log.write(level, "log", record.getMessage(), logger=record.name)


@contextmanager
def all_in_json(log: JsonLog) -> Iterator[JsonLog]:
    """Inside the block, what libraries log and warn of is written to `log` as well, and nowhere else."""
    root, handler = logging.getLogger(), _Handler(log)
    before, shown = root.handlers[:], warnings.showwarning
    root.handlers = [handler]
    moved = [logger for logger in _loggers() if any(_is_terminal(it) for it in logger.handlers)]
    kept = [(logger, logger.handlers[:], logger.propagate) for logger in moved]
    for logger in moved:
        logger.handlers = [it for it in logger.handlers if not _is_terminal(it)] + [handler]
        logger.propagate = False
    logging.captureWarnings(True)
    try:
        yield log
    finally:
        logging.captureWarnings(False)
        warnings.showwarning = shown
        root.handlers = before
        for logger, handlers, propagate in kept:
            logger.handlers, logger.propagate = handlers, propagate


def _loggers() -> list[logging.Logger]:
    return [it for it in list(logging.Logger.manager.loggerDict.values()) if isinstance(it, logging.Logger)]


def _is_terminal(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in {sys.stderr, sys.stdout}
