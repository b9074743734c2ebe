"""`spectral-edge doctor`: looks at everything an audit depends on, writes nothing, and says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Final

from integrations.finding import Finding, Level
from pipelines.doctor_machine import machine_findings
from pipelines.doctor_store import store_findings
from pipelines.settings import AuditSettings
from pipelines.sources import located
from pipelines.terminal import print_json, print_line, stdout_console
from pipelines.wording import count_text
from spectral_edge.errors import AccessDeniedError, SpectralEdgeError, TransientError

_LABELS: Final[dict[Level, tuple[str, str]]] = {
    "ok": ("ok", "green"),
    "unknown": ("??", "cyan"),
    "warning": ("!!", "yellow"),
    "problem": ("no", "bold red"),
}


def examine(sources: Sequence[str], settings: AuditSettings, *, as_json: bool = False) -> int:
    """Print findings on stdout; the exit code is 1 when there is a problem. Warnings leave it 0."""
    console = stdout_console()
    findings = []
    for finding in findings_on(sources, settings):
        findings.append(finding)
        if not as_json:
            advice = f" Next: {finding.advice}" if finding.advice else ""
            print_line(console, *_LABELS[finding.level], f"{finding.name}: {finding.seen}{advice}")
    counts = {level: sum(finding.level == level for finding in findings) for level in _LABELS}
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings], "counts": counts})
    return int(counts["problem"] > 0)


def findings_on(sources: Sequence[str], settings: AuditSettings) -> Iterator[Finding]:
    """What there is to say of this machine, the store, and each source or tracker.

    Without `sources`, those of the settings, and each named tracker that none of them is of.
    """
    yield from machine_findings(settings)
    yield from store_findings(settings.store)
    asked = tuple(sources) or settings.sources
    for source in asked:
        yield from _source_findings(source, settings)
    if not sources:
        of_sources = {settings.tracker_name(source) for source in asked}
        for name in settings.trackers:
            if name not in of_sources:
                yield from _tracker_findings(name, settings)


def _source_findings(source: str, settings: AuditSettings) -> Iterator[Finding]:
    """Of one source: whether it is reached, what may be read, and what may be written."""
    try:
        tracker, selection = located(source, settings)
        seen = tracker.check()
        runs = list(tracker.runs(selection))
        first = runs[0] if runs else None
        for finding in tracker.examine(first):
            yield replace(finding, name=f"{source} {finding.name}")
        if first is not None:
            yield _listing(source, lambda: len(tracker.checkpoints(first).checkpoints), first.key.run_name)
    except SpectralEdgeError as error:
        yield _problem(source, error)
        return
    among = len({run.key.project for run in runs})
    projects = f" in {among:,} projects" if among > 1 else ""
    yield Finding(source, "ok", f"{seen}. {count_text(len(runs), 'run')}{projects} selected.")


def _problem(name: str, error: SpectralEdgeError) -> Finding:
    advice = error.next_step or ""
    error.next_step = None
    return Finding(name, "problem", str(error), advice)


def _listing(source: str, count: Callable[[], int], run_name: str) -> Finding:
    """Whether the files of a run may be listed; that its steps cannot be told is not a matter of rights."""
    name = f"{source} read"
    try:
        return Finding(name, "ok", f"run {run_name} has {count_text(count(), 'checkpoint')}.")
    except (AccessDeniedError, TransientError) as error:
        return _problem(name, error)
    except SpectralEdgeError as error:
        return Finding(name, "warning", str(error))


def _tracker_findings(name: str, settings: AuditSettings) -> Iterator[Finding]:
    """Of a named tracker of which no source was given."""
    kind = settings.trackers[name].kind
    if kind in {"dir", "wandb-offline"}:
        yield from _source_findings(f"{name}:.", settings)
        return
    try:
        tracker, _selection = located(f"{name}:any/any", settings)
        seen = tracker.check()
        for finding in tracker.examine(None):
            yield replace(finding, name=f"{name} {finding.name}")
    except SpectralEdgeError as error:
        yield _problem(name, error)
        return
    yield Finding(name, "ok", f"{seen}.")
