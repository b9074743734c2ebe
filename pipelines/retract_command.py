"""`spectral-edge retract`: what a person is asked and told, and the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import typer

from pipelines import asking
from pipelines.alerts import alerts_of
from pipelines.prefect_server import set_environment_defaults
from pipelines.retract import Request, Retraction, Retractor, RunRetraction, metrics_kept, taken_back
from pipelines.terminal import exit_code, print_error, print_json, print_line, print_table, stderr_console
from pipelines.wording import count_text
from spectral_edge.errors import SpectralEdgeError


def retract_source(request: Request, *, dry_run: bool, ask: bool, as_json: bool) -> int:
    """Take back what `request` names, print what happened, and return the exit code.

    Args:
        request: What to take back.
        dry_run: Only tell what would be taken back.
        ask: Ask on the terminal before anything is taken back.
        as_json: Print one JSON document on stdout instead of text.

    Raises:
        UsageError: `ask` where nobody can be asked.
    """
    if ask and not dry_run:
        asking.require_someone(
            "retract asks before it takes anything back",
            otherwise="add --yes, or --dry-run to see what would be taken back.",
        )
    try:
        done = _retract(request, dry_run=dry_run, ask=ask)
    except SpectralEdgeError as error:
        print_error(f"{request.source}: {error}")
        if as_json:
            print_json({"sources": [{"source": request.source, "error": str(error)}]})
        return exit_code(error)
    if as_json:
        print_json({"sources": [done.as_json()]})
    else:
        _tell(done)
    return int(done.has_failures)


def _retract(request: Request, *, dry_run: bool, ask: bool) -> Retraction:
    work = Retractor.of(request)
    if dry_run or ask:
        planned = Retraction(request.source, tuple(work.retract(run, dry_run=True) for run in work.runs), dry_run=True)
        if dry_run:
            _print_errors(planned.runs)
            return planned
        _ask(planned)
    done = []
    for run in work.runs:
        done.append(work.retract(run, dry_run=False))
        _show(done[-1], "took back from")
    work.tidy()
    _close_alerts(work, done)
    return Retraction(request.source, tuple(done), dry_run=False)


def _close_alerts(work: Retractor, done: Sequence[RunRetraction]) -> None:
    """Tell people that findings are taken back, where a Prefect server is named; else the next audit tells."""
    if work.store is None or not any(run.rows for run in done):
        return
    set_environment_defaults()
    from prefect.settings import get_current_settings  # noqa: PLC0415 - takes its settings when it is imported

    from pipelines.alert_events import send  # noqa: PLC0415 - likewise

    if get_current_settings().api.url:
        warning = alerts_of(work.store, send).catch_up(work.tracker.kind, {run.key.project_key for run in work.runs})
        if warning:
            print_line(stderr_console(), "warning:", "yellow", warning)


def _ask(planned: Retraction) -> None:
    """Show what would be taken back, and end the program when the person does not want it."""
    concerned = [run for run in planned.runs if run.outcome in {"retracted", "in_part"}]
    for run in concerned:
        _show(run, "would take back from")
    if not concerned:
        return
    asking.ask(f"Take this back from {count_text(len(concerned), 'run')}?", if_not="nothing was taken back.")


def _show(run: RunRetraction, doing: str) -> None:
    """One line on stderr, unless there is nothing of ours; and one for each error."""
    if run.outcome in {"retracted", "in_part"}:
        kept = metrics_kept([run])
        line = f"{run.run_name}: {taken_back([run])}{'; ' if kept else ''}{kept}{' stay' if kept else ''}"
        print_line(stderr_console(), doing, "bold", line)
    _print_errors([run])


def _print_errors(runs: Sequence[RunRetraction]) -> None:
    for run in runs:
        for error in run.errors:
            print_error(error)
        if run.receipt.foreign_files:
            names = ", ".join(run.receipt.foreign_files)
            told = (
                f"run {run.run_name}: files in spectral_edge/ that spectral-edge did not write are left alone: {names}"
            )
            print_line(stderr_console(), "note:", "yellow", told)


def _tell(done: Retraction) -> None:
    """The results on stdout: on a dry run the runs, then the metrics that stay and what to do about them."""
    if done.dry_run and done.runs:
        several = len({run.project for run in done.runs}) > 1
        rows: list[dict[str, str]] = [
            ({"project": run.project} if several else {})
            | {
                "run": run.run_name,
                "id": run.run_id,
                "takes back": taken_back([run]),
                "stays": metrics_kept([run]) or "-",
            }
            for run in done.runs
        ]
        print_table(list(rows[0]), rows)
    kept = _kept_metrics(done.runs)
    if kept:
        print_table(list(kept[0]), kept)
    for advice in dict.fromkeys(run.receipt.advice for run in done.runs if run.receipt.advice):
        typer.echo(advice)
    typer.echo(done.line)


def _kept_metrics(runs: Sequence[RunRetraction]) -> list[dict[str, str | int]]:
    """Each metric that stays: on how many runs, with how many points."""
    having, points = Counter[str](), Counter[str]()
    for run in runs:
        having.update(run.receipt.kept_metrics.keys())
        points.update(run.receipt.kept_metrics)
    return [{"metric that stays": name, "runs": having[name], "points": points[name]} for name in sorted(having)]
