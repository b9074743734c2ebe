"""`spectral-edge audit`: what a person sees of an audit, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import typer

from pipelines import progress, stopping
from pipelines.budget import sharing
from pipelines.prefect_server import PrefectServer, set_environment_defaults
from pipelines.settings import AuditSettings
from pipelines.sources import located
from pipelines.terminal import exit_code, print_error, print_json, print_note, print_table
from spectral_edge.errors import SpectralEdgeError


class _Told(Protocol):
    """What an audit or a forecast has to tell of one source."""

    @property
    def line(self) -> str: ...
    @property
    def has_failures(self) -> bool: ...
    def as_json(self) -> dict[str, Any]: ...


def audit_sources(sources: Sequence[str], settings: AuditSettings, *, as_json: bool) -> int:
    """Audit each source by the Prefect flow, print what happened, and return the exit code.

    Raises:
        UsageError: A source that cannot be.
    """
    with stopping.exiting():
        return _audit_sources(sources, settings, as_json=as_json)


def _audit_sources(sources: Sequence[str], settings: AuditSettings, *, as_json: bool) -> int:
    set_environment_defaults()
    server = PrefectServer()
    server.start()
    _require_known(sources, settings)
    with progress.showing(settings.log_format) as display:
        from pipelines.audit import run_audit  # noqa: PLC0415 - Prefect takes its settings when it is imported
        from pipelines.sources_in_turn import in_order  # noqa: PLC0415 - while the server starts

        server.wait(display.say)
        with sharing(settings):
            code = _tell(in_order(sources, settings), lambda source: run_audit(source, settings), as_json=as_json)
    if not as_json and settings.log_format == "text" and sys.stdout.isatty():
        print_note("spectral-edge report --output report.html draws it; spectral-edge runs lists it.")
    return code


def forecast_sources(sources: Sequence[str], settings: AuditSettings, *, as_json: bool) -> int:
    """Print what :func:`audit_sources` would do, and return the exit code that it would have by now.

    Raises:
        UsageError: A source that cannot be.
    """
    from pipelines.forecast import FIRST, Forecast, forecast  # noqa: PLC0415 - an audit has no use for it
    from pipelines.sources_in_turn import in_order  # noqa: PLC0415 - as above

    _require_known(sources, settings)

    def look(source: str) -> Forecast:
        found = forecast(source, settings)
        if not as_json and found.rows:
            print_table(list(found.rows[0]), found.rows, first=FIRST)
            for line in found.writes_in_words:
                typer.echo(line)
        for run in found.runs:
            if run.error:
                print_error(run.error)
        return found

    with sharing(settings):
        return _tell(in_order(sources, settings), look, as_json=as_json)


def _require_known(sources: Sequence[str], settings: AuditSettings) -> None:
    for source in sources:
        located(source, settings)


def _tell(sources: Sequence[str], work: Callable[[str], _Told], *, as_json: bool) -> int:
    code, told = 0, []
    for source in sources:
        try:
            outcome = work(source)
        except SpectralEdgeError as error:
            print_error(f"{source}: {error}")
            code = max(code, exit_code(error))
            told.append({"source": source, "error": str(error)})
            continue
        code = max(code, int(outcome.has_failures))
        told.append(outcome.as_json())
        if not as_json:
            typer.echo(outcome.line if len(sources) == 1 else f"{source}: {outcome.line}")
        if stopping.exit_code() is not None:
            code = stopping.exit_code() or code
            break
    if as_json:
        print_json({"sources": told})
    return code
