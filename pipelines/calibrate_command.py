"""`spectral-edge calibrate`: how often a user's own control runs are given a change, and at which setting rarely.

Only the store is read, and the trackers' lists of runs: no checkpoint, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import typer

from pipelines.settings import AuditSettings
from pipelines.sources import located
from pipelines.terminal import print_json, print_line, print_table, stderr_console
from pipelines.wording import count_text, plain_text
from spectral_edge.calibration import LEVEL, SMALLEST_Q, Calibration, Rate, calibrate, rate_at, strongest
from spectral_edge.errors import NotFoundError
from spectral_edge.resuming import lags_of, stored_trajectory
from spectral_edge.settings import Settings, same_pass
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables
from spectral_edge.trajectory import Trajectory
from spectral_edge.transitions import fewest_updates


@dataclass(frozen=True)
class Control:
    """One control run and what stands out most in it.

    Attributes:
        tests: How many were done; runs with other numbers of tests are not quite alike.
        q_value: The smallest; None where `skipped` says why the run does not count.
        group: Of the change that it belongs to.
        kind: Of that change.
        onset_step: Of that change.
    """

    project: str
    run_name: str
    run_id: str
    checkpoints: int = 0
    tests: int = 0
    q_value: float | None = None
    group: str | None = None
    kind: str | None = None
    onset_step: int | None = None
    skipped: str | None = None


def calibrate_sources(sources: Sequence[str], settings: AuditSettings, *, target: float, as_json: bool) -> int:
    """Calibrate on the runs of `sources` that the store holds, print what comes out, and return the exit code.

    Args:
        sources: Control runs: runs like those that are to be judged, in which nothing happens.
        settings: Which runs, which store, and those of the analysis that the audits are made with.
        target: Share of such runs that may be given a change.
        as_json: Print one JSON document on stdout instead of text.

    Raises:
        UsageError: A source that cannot be, or too few control runs for `target`.
        NotFoundError: There is no store, no such experiment or folder, or the store holds none of its runs.
        SpectralEdgeError: The tracker or the store cannot be used at all.
    """
    store, analysis = Store.open(settings.store, create=False), settings.analysis()
    found = [control for source in sources for control in _controls(source, store, settings, analysis)]
    controls = list({(one.project, one.run_id): one for one in found}.values())
    for control in controls:
        if control.skipped:
            print_line(stderr_console(), "left out:", "yellow", f"run {control.run_name}: {control.skipped}")
    counted = [control for control in controls if control.q_value is not None]
    if not counted:
        raise NotFoundError(
            f"of {count_text(len(controls), 'run')} of {', '.join(sources)} the store {settings.store} holds none that "
            "was tested for changes.",
            next_step="run `spectral-edge audit` on them first.",
        )
    q_values = [control.q_value for control in counted if control.q_value is not None]
    stated, calibrated = rate_at(q_values, analysis.false_alarm_rate), calibrate(q_values, target)
    if as_json:
        print_json(_document(controls, analysis, stated, calibrated))
    else:
        _tell(counted, analysis, stated, calibrated)
    return 0


def _controls(source: str, store: Store, settings: AuditSettings, analysis: Settings) -> Iterator[Control]:
    tracker, selection = located(source, settings)
    for run in tracker.runs(selection):
        yield control_of(run.key, store.read_run(run.key), analysis)


def control_of(key: RunKey, tables: RunTables | None, analysis: Settings) -> Control:
    """What the stored audit of a run says under the settings `analysis`; the tests are done anew from its band."""
    control = Control(key.project, key.run_name, key.run_id)
    doubt = _doubt(tables, analysis)
    if tables is None or doubt is not None:
        return replace(control, skipped=doubt)
    trajectory = _trajectory(tables, analysis)
    if trajectory is None:
        return replace(control, skipped="the store does not hold its inner products as a whole; audit it again.")
    control = replace(control, checkpoints=len(trajectory.steps))
    if (lags := lags_of(trajectory)) < analysis.lags:
        why = f"the store has its inner products up to lag {lags}, and {analysis.lags} are asked for; audit it again."
        return replace(control, skipped=why)
    found = strongest(trajectory.bands, analysis)
    if not found.tests:
        need = fewest_updates(analysis.window) + 1
        why = f"it has {control.checkpoints} checkpoints; a test needs {need} with no two identical in a row."
        return replace(control, skipped=why)
    told = replace(control, tests=found.tests, q_value=found.q_value)
    if (change := found.change) is None:
        return told
    return replace(told, group=change.group, kind=change.kind, onset_step=trajectory.steps[change.update + 1])


def _doubt(tables: RunTables | None, analysis: Settings) -> str | None:
    """Why the stored audit of a run is of no use; None where it is."""
    if tables is None:
        return "the store does not hold it; audit it first."
    if tables.summary["status"] == "failed":
        return "its audit failed."
    if not same_pass(tables.summary["settings"], analysis):
        return "it was audited with another `include` or by another version; audit it again."
    return None


def _trajectory(tables: RunTables, analysis: Settings) -> Trajectory | None:
    """The run's trajectory from its stored rows alone: each update's row tells the step at which it ends."""
    ends = np.unique(tables.inner_products["step"].to_numpy())
    steps = [int(tables.summary["step_first"]), *ends.tolist()]
    return stored_trajectory(tables, steps, [f"step {step}" for step in steps], analysis.lags)


def _document(controls: Sequence[Control], analysis: Settings, stated: Rate, calibrated: Calibration) -> dict[str, Any]:
    low, high = stated.interval
    return {
        "runs": [asdict(control) for control in controls],
        "false_alarm_rate": analysis.false_alarm_rate,
        "changed": {"runs": stated.hits, "of": stated.total, "share": stated.share, "low": low, "high": high},
        "calibrated": asdict(calibrated),
    }


def _tell(controls: Sequence[Control], analysis: Settings, stated: Rate, calibrated: Calibration) -> None:
    rows = [
        {
            "run": one.run_name,
            "checkpoints": one.checkpoints,
            "tests": one.tests,
            "smallest q": one.q_value,
            "group": one.group,
            "kind": one.kind,
            "onset": one.onset_step,
        }
        for one in sorted(controls, key=lambda one: one.q_value or 0.0)
    ]
    print_table(list(rows[0]), rows)
    low, high = stated.interval
    typer.echo(
        f"With false_alarm_rate = {analysis.false_alarm_rate:g}, {stated.hits} of {count_text(stated.total, 'run')} "
        f"{'is' if stated.hits == 1 else 'are'} given a change: {stated.share:.1%} ({LEVEL:.0%} interval {low:.1%} to "
        f"{high:.1%})."
    )
    typer.echo(_advice(calibrated))
    several = sorted({one.tests for one in controls})
    if len(several) > 1:
        note = plain_text(f"the runs differ in how much is tested ({several[0]} to {several[-1]} tests): {_LIKE}")
        print_line(stderr_console(), "note:", "yellow", note)


_LIKE: Final = "what is said of them holds for runs of the same mixture."


def _advice(calibrated: Calibration) -> str:
    k, n = calibrated.rank, calibrated.controls
    if calibrated.setting is None:
        return (
            f"No setting keeps {calibrated.target:.1%}: {count_text(k, 'control')} of {n} have a q-value of "
            f"{SMALLEST_Q:g} or less. Their spectrum does change; see where, and whether they are controls from the "
            "first checkpoint on."
        )
    return (
        f"With false_alarm_rate = {calibrated.setting:g}, further runs like these are given a change in at most "
        f"{calibrated.expected:.1%} on average over draws of {n} controls; with these, the rate lies between "
        f"{calibrated.low:.1%} and {calibrated.high:.1%} ({LEVEL:.0%}; below, where q-values are equal)."
    )
