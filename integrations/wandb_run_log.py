"""What the transaction logs of one W&B run say: configuration, history, artifacts, saved files, how it ended.

A run that was resumed without a network has several logs. They are read one after another, as `wandb sync` sends them.
All text in them is untrusted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from integrations.wandb_artifacts import is_model
from integrations.wandb_log import Record, TransactionLog
from integrations.wandb_offline_history import LARGEST_STEP, History
from integrations.wandb_offline_manifest import ArtifactEntry, entry_of
from integrations.wandb_values import StepMetrics

_STEP: Final = "_step"
_DEEPEST: Final = 32
"""Levels of nested keys that are followed; deeper ones are left out."""
_USERS_FILE: Final = 0
"""`FilesItem.type` of what `run.save` was given; the others are the SDK's own files, media and artifacts."""


@dataclass(frozen=True)
class ArtifactRecord:
    """One artifact as it was logged.

    Attributes:
        name: Without a version: that is the server's to give.
        aliases: As logged.
        metadata: As logged.
        entries: Its files; empty where `manifest_file` lists them.
        manifest_file: Path of the file that lists them, of an artifact with very many.
        rows_before: How many rows of the history were written before it.
    """

    name: str
    aliases: tuple[str, ...]
    metadata: Mapping[str, object]
    entries: tuple[ArtifactEntry, ...]
    manifest_file: str
    rows_before: int


@dataclass
class RunLog:
    """All that the logs of one run say, or as much as has been read.

    Attributes:
        runtime: Seconds for which the run went on, where it has ended and says so.
        exit_code: None where no log says that the run has ended.
        has_named_steps: Whether the training loop passed `step=` to `run.log`.
        damage: A sentence for each log of which something could not be read.
    """

    run_id: str = ""
    entity: str = ""
    project: str = ""
    name: str = ""
    job_type: str = ""
    notes: str = ""
    tags: tuple[str, ...] = ()
    started_at: datetime | None = None
    runtime: float | None = None
    exit_code: int | None = None
    config: dict[str, object] = field(default_factory=dict)
    summary: dict[str, object] = field(default_factory=dict)
    history: History = field(default_factory=History)
    artifacts: list[ArtifactRecord] = field(default_factory=list)
    saved: dict[str, None] = field(default_factory=dict)
    step_metrics: dict[str, str] = field(default_factory=dict)
    step_patterns: dict[str, str] = field(default_factory=dict)
    has_named_steps: bool = False
    damage: list[str] = field(default_factory=list)

    @property
    def axes(self) -> StepMetrics:
        """Which metric counts the steps of which."""
        return StepMetrics(self.step_metrics, tuple(self.step_patterns.items()))

    def step_of(self, artifact: ArtifactRecord) -> int | None:
        """The training step of the row of the history that `artifact` was logged with; None where there is no row."""
        # A row that was given its step is written when the next one begins, so that it stands behind the artifact.
        row = artifact.rows_before if self.has_named_steps else artifact.rows_before - 1
        return self.history.step_at(max(row, 0), self.step_patterns.get(""))


def read_run(logs: Sequence[Path]) -> RunLog:
    """Read the logs of one run, oldest first.

    Raises:
        UnreadableLogError: One of them is no transaction log.
        OSError: One of them cannot be read.
    """
    read = _Reading()
    for path in logs:
        log = TransactionLog(path)
        read.begin()
        for record in log.records():
            read.take(record)
        if log.damage.sentence:
            read.run.damage.append(f"{path.name}: {log.damage.sentence}")
    return read.run


def first_words(path: Path, records: int = 64) -> RunLog:
    """What the log at `path` says at its beginning: whose it is, and the configuration that the run began with.

    Raises:
        UnreadableLogError: It is no transaction log.
        OSError: It cannot be read.
    """
    read = _Reading()
    for _, record in zip(range(records), TransactionLog(path).records(), strict=False):
        read.take(record)
        if read.run.run_id:
            break
    return read.run


class _Reading:
    """Takes records one by one."""

    def __init__(self) -> None:
        self.run = RunLog()
        self._shift = 0
        self._is_begun = False
        self._takers = {
            "run": self._run,
            "config": self._config,
            "summary": self._summary,
            "history": self._history,
            "artifact": self._artifact,
            "files": self._files,
            "metric": self._metric,
            "telemetry": self._telemetry,
            "exit": self._exit,
        }

    def begin(self) -> None:
        """Another log of the same run comes."""
        self._is_begun = False

    def take(self, record: Record) -> None:
        kind = record.WhichOneof("record_type")
        taker = self._takers.get(kind)
        if taker is not None:
            taker(getattr(record, kind))

    def _run(self, record: Record) -> None:
        run = self.run
        for name in ("run_id", "entity", "project", "job_type", "notes"):
            setattr(run, name, getattr(record, name) or getattr(run, name))
        run.name = record.display_name or run.name
        run.tags = tuple(record.tags) or run.tags
        run.exit_code = None  # resumed after it had ended
        _merge(run.config, record.config)
        _merge(run.summary, record.summary)
        if record.HasField("start_time") and run.started_at is None:
            run.started_at = _moment(record.start_time)
        if not self._is_begun and record.resume and run.history.steps and not run.has_named_steps:
            self._shift = max(run.history.steps) + 1  # the log counts from 0 again, and the server goes on counting
        self._is_begun = True

    def _config(self, record: Record) -> None:
        _merge(self.run.config, record)

    def _summary(self, record: Record) -> None:
        _merge(self.run.summary, record)

    def _history(self, record: Record) -> None:
        values = {}
        for item in record.item:
            value = _number(item)
            path = _path(item)
            if value is not None and len(path) <= _DEEPEST:
                values[".".join(path)] = value
        step = values.pop(_STEP, record.step.num)
        if abs(step + self._shift) < LARGEST_STEP:
            self.run.history.add(int(step) + self._shift, values)

    def _artifact(self, record: Record) -> None:
        if not is_model(record.type):
            return
        metadata = _parsed(record.metadata or "{}")
        self.run.artifacts.append(
            ArtifactRecord(
                name=record.name,
                aliases=tuple(record.aliases),
                metadata=metadata if isinstance(metadata, dict) else {},
                entries=tuple(map(entry_of, record.manifest.contents)),
                manifest_file=record.manifest.manifest_file_path,
                rows_before=len(self.run.history.steps),
            )
        )

    def _files(self, record: Record) -> None:
        self.run.saved.update({file.path: None for file in record.files if file.type == _USERS_FILE})

    def _metric(self, record: Record) -> None:
        if record.step_metric and record.glob_name:
            self.run.step_patterns[record.glob_name.removesuffix("*")] = record.step_metric
        elif record.step_metric and record.name:
            self.run.step_metrics[record.name] = record.step_metric

    def _telemetry(self, record: Record) -> None:
        self.run.has_named_steps |= record.feature.set_step_log

    def _exit(self, record: Record) -> None:
        self.run.exit_code = record.exit_code
        own = self.run.summary.get("_wandb")
        runtime = own.get("runtime") if isinstance(own, dict) else None
        self.run.runtime = float(runtime) if isinstance(runtime, int | float) else None


def _moment(timestamp: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(timestamp.seconds + timestamp.nanos / 1e9, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _path(item: Record) -> Sequence[str]:
    return item.nested_key or (item.key,)


def _number(item: Record) -> float | None:
    """The number of an item of the history; texts, truth values, tables and images are none."""
    kind = item.WhichOneof("value")
    if kind in {"number", "integer"}:
        return float(item.number if kind == "number" else item.integer)
    try:
        return float(item.value_json)
    except ValueError:
        return None


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _merge(values: dict[str, object], record: Record) -> None:
    """Apply updates and removals of a part of the configuration or of the summary."""
    for item in record.update:
        _set(values, _path(item), _parsed(item.value_json))
    for item in record.remove:
        inner = _level(values, _path(item)[:-1])
        if inner is not None:
            inner.pop(_path(item)[-1], None)


def _set(values: dict[str, object], path: Sequence[str], value: object) -> None:
    if len(path) > _DEEPEST:
        return
    inner: MutableMapping[str, Any] = values
    for key in path[:-1]:
        if not isinstance(inner.get(key), dict):
            inner[key] = {}
        inner = inner[key]
    inner[path[-1]] = value


def _level(values: dict[str, object], path: Sequence[str]) -> dict[str, object] | None:
    inner: object = values
    for key in path:
        inner = inner.get(key) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else None
