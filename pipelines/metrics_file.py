"""How audits went, as a file in Prometheus's text format, for the textfile collector of the node exporter.

The file holds the last audit of each source. An audit of another source, in this process or another, leaves what is
said of this one: each writes its own samples anew and copies the rest, under a lock. The file is replaced as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families

from pipelines.results import AuditSummary, RunResult
from pipelines.wording import plain_text
from spectral_edge.errors import AccessDeniedError, SpectralEdgeError, TerminalError, TransientError

MOST_PROJECTS: Final = 100
"""Projects of a source that have samples of their own; the others are summed as :data:`OTHERS`."""
OTHERS: Final = "(other projects)"
MOST_SOURCES: Final = 100
"""Sources in one file; those whose last audit is longest ago go first."""
_MOST_TEXT: Final = 200
_LOCK_SECONDS: Final = 10.0

AUDITED: Final = "spectral_edge_last_audit_timestamp_seconds"
SUCCEEDED: Final = "spectral_edge_last_success_timestamp_seconds"

GAUGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "spectral_edge_runs": ("Runs of the last audit by outcome", ("tracker", "project", "outcome")),
    "spectral_edge_fetched_bytes": ("Bytes that the last audit copied to its disk", ("tracker", "project")),
    "spectral_edge_read_bytes": ("Bytes of checkpoints that the last audit read", ("tracker", "project")),
    "spectral_edge_writes": ("Metric points and files that it wrote to runs", ("tracker", "project")),
    "spectral_edge_work_seconds": (
        "Seconds of work on runs by phase: fetch, gram (reading and summing) and analyse",
        ("tracker", "project", "phase"),
    ),
    "spectral_edge_failures": (
        "Runs that failed by the class of the error; as_before: known from an earlier audit, and not read again",
        ("tracker", "project", "error"),
    ),
    "spectral_edge_alerts_open": (
        "Findings that people were told of and that still hold",
        ("tracker", "project"),
    ),
    "spectral_edge_source_failed": ("1 where the source as a whole could not be audited", ("error",)),
    "spectral_edge_runs_left": ("Runs left for the next audit because the budget was spent", ()),
    "spectral_edge_oldest_debt_timestamp_seconds": ("Since when the run that waits longest has waited", ()),
    "spectral_edge_audit_seconds": ("How long the last audit took", ()),
    AUDITED: ("When the last audit ended", ()),
    SUCCEEDED: ("When the last audit ended in which nothing failed", ()),
}
"""All that the file can hold: by name, what it says, and its labels besides `source`."""

Sample = tuple[str, tuple[str, ...], float]
"""Name, values of the labels (`source` first), value."""


@dataclass(frozen=True)
class Audited:
    """One audit of one source.

    Attributes:
        source: As the user wrote it.
        tracker: The kind of its tracker.
        outcome: What came of it: the error where the source could not be audited at all.
        alerts_open: Open alerts by project.
        seconds: How long it took.
        ended: Seconds since the epoch.
    """

    source: str
    tracker: str
    outcome: AuditSummary | SpectralEdgeError
    alerts_open: Mapping[str, int]
    seconds: float
    ended: float


def record(path: Path, audited: Audited) -> None:
    """Write what `audited` came to into the file `path`, in place of what it said of the same source.

    Raises:
        AccessDeniedError, TerminalError: It cannot be written.
        TransientError: Another process keeps it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
            _write(path, _merged(_read(path), audited))
    except Timeout as error:
        raise TransientError("another process keeps the file of metrics locked.", file=str(path)) from error
    except PermissionError as error:
        raise AccessDeniedError("the metrics cannot be written.", file=str(path)) from error
    except OSError as error:
        raise TerminalError(f"the metrics cannot be written: {error.strerror}.", file=str(path)) from error


def _merged(before: Sequence[Sample], audited: Audited) -> list[Sample]:
    source = _label(audited.source)
    others = [sample for sample in before if sample[1][0] != source]
    ended = sorted((value, labels[0]) for name, labels, value in others if name == AUDITED)
    kept = {name for _, name in ended[-(MOST_SOURCES - 1) :]}
    mine = [(name, (source, *labels), value) for name, labels, value in _samples(audited)]
    if not any(name == SUCCEEDED for name, _, _ in mine):
        mine += [sample for sample in before if sample[0] == SUCCEEDED and sample[1] == (source,)]
    return [*(sample for sample in others if sample[1][0] in kept), *mine]


def _samples(audited: Audited) -> Iterator[Sample]:
    """What is said of one audit, without the label `source`."""
    yield AUDITED, (), audited.ended
    yield "spectral_edge_audit_seconds", (), audited.seconds
    outcome = audited.outcome
    if not isinstance(outcome, AuditSummary):
        yield "spectral_edge_source_failed", (type(outcome).__name__,), 1
        return
    if not outcome.has_failures:
        yield SUCCEEDED, (), audited.ended
    yield "spectral_edge_runs_left", (), outcome.left
    if outcome.oldest_debt is not None:
        yield "spectral_edge_oldest_debt_timestamp_seconds", (), outcome.oldest_debt.timestamp()
    sums = Counter[tuple[str, tuple[str, ...]]]()
    shown = _shown([run.project for run in outcome.runs])
    for run in outcome.runs:
        where = audited.tracker, shown[run.project]
        for name, more, value in _of_run(run):
            sums[name, (*where, *more)] += value  # type: ignore[assignment]  # a Counter adds up any numbers
    for project, name in shown.items():
        sums["spectral_edge_alerts_open", (audited.tracker, name)] += audited.alerts_open.get(project, 0)
    for (name, labels), value in sums.items():
        yield name, labels, value


def _of_run(run: RunResult) -> Iterator[Sample]:
    yield "spectral_edge_runs", (run.outcome,), 1
    yield "spectral_edge_fetched_bytes", (), run.bytes_fetched
    yield "spectral_edge_read_bytes", (), run.bytes_read
    yield "spectral_edge_writes", (), run.writes
    yield "spectral_edge_work_seconds", ("fetch",), run.seconds_fetch
    yield "spectral_edge_work_seconds", ("gram",), run.seconds_gram
    yield "spectral_edge_work_seconds", ("analyse",), run.seconds_analyse
    if run.is_failure:
        yield "spectral_edge_failures", ("as_before" if run.known else run.error_class or "in_part",), 1


def _shown(projects: Sequence[str]) -> dict[str, str]:
    """What each project is called: the largest by their names, so that no number of projects fills the server."""
    most = [project for project, _ in Counter(projects).most_common(MOST_PROJECTS)]
    return {project: _label(project) if project in set(most) else OTHERS for project in dict.fromkeys(projects)}


def _label(text: str) -> str:
    return plain_text(text)[:_MOST_TEXT]


def _read(path: Path) -> list[Sample]:
    """The samples of ours in the file; none where there is no file, or not one of ours."""
    try:
        families = list(text_string_to_metric_families(path.read_text()))
    except (FileNotFoundError, ValueError):
        return []
    found = [sample for family in families if family.name in GAUGES for sample in family.samples]
    return [
        (sample.name, tuple(sample.labels[label] for label in _labels(sample.name)), sample.value)
        for sample in found
        if set(_labels(sample.name)) == sample.labels.keys()
    ]


def _write(path: Path, samples: Sequence[Sample]) -> None:
    registry = CollectorRegistry()
    gauges = {name: Gauge(name, said, _labels(name), registry=registry) for name, (said, _) in GAUGES.items()}
    for name, labels, value in sorted(samples):
        gauges[name].labels(*labels).set(value)
    write_to_textfile(str(path), registry)


def _labels(name: str) -> tuple[str, ...]:
    return ("source", *GAUGES[name][1])
