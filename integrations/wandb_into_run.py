"""Writing what an audit found into the audited W&B run itself, for those who ask for it: by resuming that run.

The SDK can add rows to a history only as the process of the run. It begins the configuration's list of x-axes anew,
writes the summary without NaN, and lets the run end once more. So the run is read before; afterwards configuration and
summary are put back as they were, with ours added, in one request that also sets the mark that the annotation is
complete. What stays changed is said in the receipt.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as fields_replaced
from typing import Any, Final

from integrations import wandb_audit_run
from integrations.scratch import scratch_folder
from integrations.tracker import Annotation, TrackedRun, WriteReceipt
from integrations.wandb_audit_run import ended, online, opened_run
from integrations.wandb_connection import WandbConnection
from integrations.wandb_page import AUDIT_RUN, RunPage, full_content, put_on_page, read_page
from integrations.wandb_results import PREFIX, STEP, log_results, quiet_settings, refuse_others_context, rows_of
from spectral_edge.errors import AnnotationConflictError, RunBusyError, TrackerUnavailableError, UsageError

SAME: Final = 0.01
"""Values closer than this, relatively, are the same number computed on another machine or device."""
_ENDED_WELL: Final = "finished"
_KEPT_STATES: Final = frozenset({"finished", "failed"})
_PAUSE: Final = 0.5

Row = Mapping[str, Any]


def write_into_run(
    connection: WandbConnection, run: TrackedRun, annotation: Annotation, *, replace: bool
) -> WriteReceipt:
    """Write `annotation` into `run`, which gets the rows that its history lacks.

    Raises:
        NotFoundError: The run has been deleted.
        UsageError: The run is running.
        AnnotationConflictError: It carries other values at the same steps, and `replace` is False.
        RunBusyError: Another process writes over what was written.
        TrackerUnavailableError: The server did not answer, or does not have what was sent.
    """
    before = read_page(connection, run)
    if before.finished == annotation.mark and before.mark(AUDIT_RUN) == run.key.run_id:
        return WriteReceipt(0, 0, 0)
    _require_ended(run, before)
    there = our_rows(connection, run)
    plan = _plan(run, before, there, annotation, replace=replace)
    _resume(connection, run, before, annotation, plan)
    _verify(connection, run, plan, len(there))
    theirs = fields_replaced(before, config=_with_axis(before.config))
    if not put_on_page(connection, run, full_content(annotation, (run.key.run_id, run.url)), theirs):
        raise RunBusyError(
            "the run has been resumed by another process meanwhile.",
            run=run.key.run_name,
            left_behind="metric points and files in the run, without the mark that they are complete",
            next_step="run the same audit again when it has ended.",
        )
    written = sum(map(len, plan.rows.values()))
    size = sum(map(len, annotation.files.values()))
    return WriteReceipt(written, len(annotation.files), size, (*plan.warnings, _changed(before)))


def our_rows(connection: WandbConnection, run: TrackedRun) -> list[Row]:
    """The rows of the run's history that are ours, in the order they were logged in."""
    read = connection.run(run.key.project, run.key.run_id, run.key.run_name)
    if STEP not in ((read.history_keys or {}).get("keys") or {}):
        return []
    with connection.errors(run=run.key.run_name):
        places = [row["_step"] for row in read.scan_history(keys=["_step", STEP], use_cache=False)]
        if not places:
            return []
        rows = read.scan_history(min_step=min(places), use_cache=False)
        return [row for row in rows if STEP in row]


def points_by_key(rows: Sequence[Row]) -> dict[str, int]:
    """How many points each of our metrics has in `rows`, doubles included."""
    found: dict[str, int] = {}
    for row in rows:
        for key in row:
            if key.startswith(PREFIX) and key != STEP:
                found[key] = found.get(key, 0) + 1
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class _Plan:
    """The points to log, by training step, and what to say of those that are left out."""

    rows: Mapping[int, Mapping[str, float]]
    warnings: tuple[str, ...] = ()


def _plan(run: TrackedRun, page: RunPage, there: Sequence[Row], annotation: Annotation, *, replace: bool) -> _Plan:
    """The points that the run lacks; with `replace` also those that it has with another value."""
    have = {(row[STEP], key): row[key] for row in there for key in row}
    wanted = [(step, key, value) for step, row in rows_of(annotation).items() for key, value in row.items()]
    new = [(step, key) for step, key, _ in wanted if (step, key) not in have]
    other = [(step, key) for step, key, value in wanted if (step, key) in have and _differ(have[step, key], value)]
    if other and not replace:
        _refuse_to_mix(run, page, annotation, shared=len(wanted) - len(new), differing=len(other))
    chosen = {*new, *(other if replace else ())}
    rows: dict[int, dict[str, float]] = {}
    for step, key, value in wanted:
        if (step, key) in chosen:
            rows.setdefault(step, {})[key] = value
    return _Plan(rows, () if replace or not other else (_kept(len(other)),))


def _differ(old: Any, new: float) -> bool:
    return not isinstance(old, int | float) or abs(old - new) > SAME * max(abs(old), abs(new))


def _refuse_to_mix(run: TrackedRun, page: RunPage, annotation: Annotation, *, shared: int, differing: int) -> None:
    """Stop before points of two analyses stand side by side under one name."""
    settings = page.ours.get(f"{PREFIX}settings_hash")
    if settings is not None and settings != annotation.settings_hash:
        why = f"an audit with other settings (settings_hash {settings}, now {annotation.settings_hash})"
    elif 2 * differing > shared:
        why = f"other checkpoints, or of an audit that was taken back: {differing} of {shared} have another value now"
    else:
        return
    raise AnnotationConflictError(
        f"the run already carries metric points of {why}. W&B cannot delete or replace a row of a history.",
        run=run.key.run_name,
        left_behind="nothing was written",
        next_step="leave `--into run` out, keep the settings of that audit, or pass --force to add the new points "
        "beside the old ones.",
    )


def _kept(differing: int) -> str:
    kept = f"{differing} metric points already in the run have another value now and were left as they are"
    return f"{kept}, because W&B cannot replace a row of a history; the gap table has the new values."


def _require_ended(run: TrackedRun, page: RunPage) -> None:
    if page.is_live:
        raise UsageError(
            "the run is running: two processes that write one run spoil its history.",
            run=run.key.run_name,
            left_behind="nothing was written",
            next_step="leave `--into run` out, or wait until the run has ended.",
        )


def _resume(connection: WandbConnection, run: TrackedRun, before: RunPage, annotation: Annotation, plan: _Plan) -> None:
    refuse_others_context()
    with scratch_folder("wandb") as folder, connection.errors(run=run.key.run_name):
        settings = quiet_settings(
            folder,
            **online(connection, run),
            resume="must",
            run_id=run.key.run_id,
            # The files config.yaml and wandb-summary.json are those of the process that trained.
            x_primary=False,
            # Empty, or the SDK takes what the environment says of other runs.
            run_tags=(),
            run_group="",
            run_name="",
            run_job_type="",
        )
        opened = opened_run(run, settings)
        with ended(opened, exit_code=int(before.state != _ENDED_WELL)):
            log_results(opened, annotation, run.key.run_id, folder / "files", rows=plan.rows, finished=False)


def _verify(connection: WandbConnection, run: TrackedRun, plan: _Plan, before: int) -> None:
    """Wait until the server tells all that was sent."""
    begin = time.monotonic()
    while True:
        rows = our_rows(connection, run)
        latest = {(row[STEP], key): row[key] for row in rows for key in row}
        sent = {(step, key): value for step, row in plan.rows.items() for key, value in row.items()}
        is_ended = not read_page(connection, run).is_live
        if is_ended and len(rows) == before + len(plan.rows) and sent.items() <= latest.items():
            return
        if time.monotonic() - begin >= wandb_audit_run.ARRIVAL:
            raise TrackerUnavailableError(
                f"W&B at {connection.address} reported no error, and does not have all of the {len(plan.rows)} rows "
                f"that were sent ({len(rows) - before} are there).",
                run=run.key.run_name,
                left_behind="the run resumed, with the mark of an unfinished annotation",
                next_step="start the same audit again; it adds what is missing.",
            )
        time.sleep(min(wandb_audit_run.ARRIVAL / 10, _PAUSE))


def _with_axis(config: Mapping[str, str]) -> dict[str, str]:
    """The configuration with our x-axis added to those that `define_metric` has put there.

    W&B keeps that list under `_wandb`, `m`, with the field numbers of its own messages: 1 is a name, 2 a pattern, 5 the
    place of the x-axis in the list, counted from 1, and 6 what was told explicitly.
    """
    own = json.loads(config.get("_wandb", "{}"))
    value = own.setdefault("value", {})
    axes = value.setdefault("m", [])
    if any(axis.get("1") == STEP for axis in axes):
        return dict(config)
    axes.append({"1": STEP, "6": [3, 2], "7": []})
    axes.append({"2": f"{PREFIX}*", "5": len(axes), "6": [], "7": []})
    return {**config, "_wandb": json.dumps(own)}


def _changed(before: RunPage) -> str:
    state = "" if before.state in _KEPT_STATES else f", its state is failed where it was {before.state}"
    return (
        "the run was resumed to take this: its history's own step counter has gone on, the time of its end is now"
        f"{state}, and W&B cannot take the rows back."
    )
