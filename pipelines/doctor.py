"""`spectral-edge doctor`: looks at everything an audit depends on, writes nothing, and says what to do."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

import httpx
import torch
from packaging.requirements import Requirement

from pipelines.settings import AuditSettings
from pipelines.sources import located
from pipelines.terminal import print_line, stdout_console
from pipelines.wording import count_text, size_text
from spectral_edge.errors import NotFoundError, SpectralEdgeError
from spectral_edge.store import Store

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far in the future the newest audit may seem to lie."""

_HEALTH_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether an audit can do with it, what was seen, and what to do if not."""

    name: str
    is_well: bool
    seen: str
    advice: str = ""


def examine(sources: Sequence[str], settings: AuditSettings) -> int:
    """Print findings on stdout; the exit code is 1 when something is not well."""
    console = stdout_console()
    findings = list(findings_on(sources, settings))
    for finding in findings:
        label, style = ("ok", "green") if finding.is_well else ("no", "bold red")
        advice = f" Next: {finding.advice}" if finding.advice else ""
        print_line(console, label, style, f"{finding.name}: {finding.seen}{advice}")
    return int(not all(finding.is_well for finding in findings))


def findings_on(sources: Sequence[str], settings: AuditSettings) -> Iterator[Finding]:
    """What there is to say of this machine, the store and each source."""
    yield Finding("python", is_well=True, seen=f"{platform.python_version()} on {platform.platform()}")
    yield from _versions()
    yield _device(settings)
    yield _looked("prefect", _prefect)
    yield _looked("store", lambda: _store(settings.store))
    yield _disk(settings)
    for source in sources:
        yield _looked(source, partial(_tracker, source, settings))


def _looked(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except SpectralEdgeError as error:
        return Finding(name, is_well=False, seen=str(error))


def _versions() -> Iterator[Finding]:
    """Installed versions against the ranges that spectral-edge declares."""
    declared = [Requirement(text) for text in requires("spectral-edge") or []]
    for requirement in declared:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        advice = f'pip install "{requirement}"'
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, is_well=False, seen=f"not installed, need {requirement}.", advice=advice)
            continue
        is_well = requirement.specifier.contains(installed, prereleases=True)
        seen = f"{installed}" if is_well else f"{installed} is installed, need {requirement.specifier}."
        yield Finding(requirement.name, is_well, seen, "" if is_well else advice)


def _device(settings: AuditSettings) -> Finding:
    if not torch.cuda.is_available():
        is_well = settings.device != "cuda"
        seen = f"no CUDA in torch {torch.__version__}: audits run on the CPU with {torch.get_num_threads()} threads."
        return Finding("device", is_well, seen, "" if is_well else "set `device` to auto.")
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Finding("device", is_well=True, seen=f"CUDA {torch.version.cuda}: {names}")


def _prefect() -> Finding:
    """The server that flows are recorded on. Prefect itself is not imported: that takes longer than all else here."""
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return Finding("prefect", is_well=True, seen="a temporary server is started for each audit.")
    try:
        answer = httpx.get(f"{address.rstrip('/')}/health", timeout=_HEALTH_SECONDS)
    except httpx.HTTPError as error:
        seen = f"PREFECT_API_URL is {address}, which did not answer ({type(error).__name__})."
        return Finding("prefect", is_well=False, seen=seen, advice="start that server, or unset PREFECT_API_URL.")
    seen = f"{address} answered {answer.status_code}."
    return Finding("prefect", answer.is_success, seen, "" if answer.is_success else "check PREFECT_API_URL.")


def _store(uri: str) -> Finding:
    try:
        store = Store.open(uri, create=False)
    except NotFoundError:
        return Finding("store", is_well=True, seen=f"{uri} does not exist yet; an audit creates it.")
    rows = store.runs_table()
    newest = max(rows["audited_at"].to_pylist(), default=None)
    now = datetime.now(UTC)
    if newest is not None and newest > now + CLOCK_TOLERANCE:
        seen = f"{uri}: the newest audit is of {newest:%Y-%m-%d %H:%M} UTC, and this clock says {now:%Y-%m-%d %H:%M}."
        return Finding("store", is_well=False, seen=seen, advice="set this machine's clock.")
    seen = f"{uri} holds {rows.num_rows} audited runs; this clock says {now:%Y-%m-%d %H:%M} UTC."
    return Finding("store", is_well=True, seen=seen)


def _disk(settings: AuditSettings) -> Finding:
    spool = settings.spool.absolute()
    place = next(folder for folder in (spool, *spool.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    is_well = free >= settings.max_disk and os.access(place, os.W_OK)
    seen = f"{size_text(free)} free for downloads below {place}, `max_disk` is {size_text(settings.max_disk)}."
    return Finding("disk", is_well, seen, "" if is_well else "free some room, or change `spool` or `max_disk`.")


def _tracker(source: str, settings: AuditSettings) -> Finding:
    tracker, selection = located(source, settings)
    seen = tracker.check()
    projects = [run.key.project for run in tracker.runs(selection)]
    among = f" in {len(set(projects)):,} projects" if len(set(projects)) > 1 else ""
    return Finding(source, is_well=True, seen=f"{seen}. {count_text(len(projects), 'run')}{among} selected.")
