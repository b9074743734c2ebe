"""`spectral-edge probe`: evaluate a user's loss along the directions of a few windows of each run. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import typer
from pydantic import ByteSize, TypeAdapter, ValidationError

from integrations.tracker import CheckpointRef, TrackedRun, Tracker
from integrations.training_record import training_record
from pipelines.decisions import fingerprint
from pipelines.fetching import fetch_segments
from pipelines.probe_process import Limits, Task, probe_in_child
from pipelines.settings import AuditSettings
from pipelines.sources import located
from pipelines.spool import spool_folder, sweep
from pipelines.terminal import exit_code, print_error, print_json, print_line, print_table, stderr_console
from pipelines.wording import size_text
from spectral_edge.errors import (
    DiskFullError,
    NotFoundError,
    SpectralEdgeError,
    TooFewCheckpointsError,
    TrajectoryError,
    UsageError,
)
from spectral_edge.groups import TOTAL

_COLUMNS = ("j", "sigma", "stability", "gradient_train", "gradient_validation", "curvature", "contribution")
_REMOVALS = ("displacement", "removal_train", "removal_validation")


@dataclass(frozen=True)
class ProbeRequest:
    """What is asked: the probe's name, how many windows of each run, in which group, and what a window may take."""

    name: str
    windows: int = 5
    group: str = TOTAL
    limits: Limits = field(default_factory=Limits)


def limits_of(seconds: float | None, memory: str | None) -> Limits:
    """The limits that flags ask for; None leaves the default.

    Raises:
        UsageError: `seconds` is not above 0, or `memory` no size such as 8GB.
    """
    usual = Limits()
    if seconds is not None and not 0 < seconds < np.inf:
        raise UsageError(f"`timeout` must be a number of seconds above 0, got {seconds:g}.")
    try:
        size = usual.memory if memory is None else int(TypeAdapter(ByteSize).validate_python(memory))
    except ValidationError:
        size = 0
    if size <= 0:
        raise UsageError(f"`memory` must be a size such as 8GB, got {memory!r}.")
    return Limits(usual.seconds if seconds is None else seconds, size)


def probe_source(source: str, settings: AuditSettings, request: ProbeRequest, *, as_json: bool) -> int:
    """Probe the runs of `source`, print what comes out, and return the exit code.

    Raises:
        UsageError: A source that cannot be, or fewer than one window asked for.
        NotFoundError: No such experiment or folder, or no run in it.
        SpectralEdgeError: The tracker cannot be used at all.
    """
    if request.windows < 1:
        raise UsageError(f"`windows` must be at least 1, got {request.windows}.")
    tracker, selection = located(source, settings)
    sweep(settings.spool)
    code, told = 0, []
    for run in tracker.runs(selection):
        windows: list[dict[str, Any]] = []
        error = None
        try:
            for window in _windows(tracker, run, settings, request):
                windows.append(window)
                if not as_json:
                    _show(run, window)
        except SpectralEdgeError as failure:
            error = str(failure.of_run(run.key.run_name))
            print_error(error)
            code = max(code, exit_code(failure))
        told.append({"run_name": run.key.run_name, "run_id": run.key.run_id, "windows": windows, "error": error})
    if not told:
        raise NotFoundError(f"{source} has no run to probe.", next_step="see `spectral-edge doctor`.")
    if as_json:
        print_json({"source": source, "probe": request.name, "group": request.group, "runs": told})
    return code


def _windows(
    tracker: Tracker, run: TrackedRun, settings: AuditSettings, request: ProbeRequest
) -> Iterator[dict[str, Any]]:
    """What the probe says of each chosen window; stops at the first that fails."""
    analysis = settings.analysis()
    listing = tracker.checkpoints(run, settings.series)
    if listing.is_recorded:
        raise TrajectoryError(
            "a probe evaluates the loss at parameters, and only sketches of them were recorded.",
            next_step="probe checkpoints of this run.",
        )
    refs = listing.checkpoints
    record = training_record(tracker, run, [ref.step for ref in refs], analysis)
    for end in chosen_ends(len(refs), analysis.window, request.windows):
        of_window = refs[max(0, end - analysis.window - 1) : end + 1]
        rate = float(record.learning_rate_at(np.array([of_window[-1].step]))[0])
        yield _probed(tracker, run, of_window, settings, request, (rate, record.weight_decay))


def chosen_ends(checkpoints: int, window: int, wanted: int) -> list[int]:
    """Indices of the checkpoints at which `wanted` windows end, evenly spread, the run's last one among them.

    Windows that have one before them to compare with come first in question; without any, the only full one is taken.

    Raises:
        TooFewCheckpointsError: Not even one full window.
    """
    if checkpoints < window + 1:
        raise TooFewCheckpointsError(
            f"got {checkpoints} checkpoint(s), and a window of {window} updates has {window + 1}.",
            next_step="keep more checkpoints, or use a smaller --window.",
        )
    first = min(window + 1, checkpoints - 1)
    ends = np.linspace(checkpoints - 1, first, wanted).round().astype(int)
    return sorted(set(ends.tolist()))


def _probed(
    tracker: Tracker,
    run: TrackedRun,
    refs: Sequence[CheckpointRef],
    settings: AuditSettings,
    request: ProbeRequest,
    training: tuple[float, float | None],
) -> dict[str, Any]:
    size, analysis = sum(ref.size for ref in refs), settings.analysis()
    if size > settings.max_disk and not tracker.capabilities.local_checkpoints:
        raise DiskFullError(
            f"the {len(refs)} checkpoints of a window take {size_text(size)}, and `max_disk` allows "
            f"{size_text(settings.max_disk)}.",
            next_step="raise --max-disk, or use a smaller --window.",
        )
    rate, weight_decay = training
    with spool_folder(settings.spool, fingerprint(refs)[:12]) as folder:
        segments = fetch_segments(
            tracker, run, refs, keep=len(refs), max_disk=settings.max_disk, folder=folder, on_fetched=lambda _: None
        )
        with closing(segments):
            [segment] = segments
            task = Task(
                request.name,
                segment.new,
                analysis.window,
                analysis.include,
                request.group,
                rate if np.isfinite(rate) else None,
                weight_decay,
                run.params,
            )
            return probe_in_child(task, request.limits)


def _show(run: TrackedRun, window: dict[str, Any]) -> None:
    validation = window["validation_loss"]
    typer.echo(
        f"{run.key.run_name}, steps {window['step_first']} to {window['step']}, group {window['group']}: training loss "
        f"{window['train_loss']:.6g}" + ("" if validation is None else f", validation loss {validation:.6g}")
    )
    names = [name for name in (*_COLUMNS, *_REMOVALS) if window["directions"][0][name] is not None]
    print_table(names, window["directions"])
    flow = window["flow"]
    facts = {
        "k*": window["k_star"],
        "Krylov bound": window["krylov_bound"],
        "in steps": window["krylov_bound_steps"],
        "Spearman": window["spearman"],
    } | ({} if flow is None else {name: value for name, value in flow.items() if name != "k_star"})
    print_table(list(facts), [facts])
    if window["learning_rate"] is None:
        print_line(
            stderr_console(), "note:", "yellow", "the learning rate is unknown: no Krylov bound and no gap flow."
        )
