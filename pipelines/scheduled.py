"""The flows that schedules run: audits of sources, and the compaction of the store.

Their parameters are what Prefect's page shows as a form, so each has bounds and a description. What belongs to the
machine stays with it: the store, the room for downloads, addresses and credentials come from `spectral-edge.toml` and
the environment of the worker, and are never parameters.

`spectral-edge deploy` and `serve` import this module only to register the flows. So what takes seconds to import, torch
and MLflow, is imported by the flows when they run.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Optional

from prefect import State, flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.concurrency.sync import concurrency
from prefect.states import Cancelled, Failed
from prefect.utilities.engine import is_prefect_sigterm_handler_installed
from pydantic import BaseModel, ConfigDict, Field, create_model

from integrations.selection import STATES, moment
from pipelines.settings import AuditSettings, load_settings
from pipelines.wording import markdown_text, plain_text
from spectral_edge import interruption
from spectral_edge.errors import NotFoundError, SpectralEdgeError, UsageError

SUMMARY_KEY: Final = "spectral-edge-summary"
COMPACTION_KEY: Final = "spectral-edge-compaction"
TIED: Final = "SPECTRAL_EDGE_TIED_TO_PARENT"
"""The process that a flow run must not outlive: `spectral-edge serve`."""

OF_THE_MACHINE: Final = frozenset(
    {
        *("store", "device", "dask", "max_disk", "spool", "tracking_uri", "metrics_file", "log_format"),
        *("sources", "trackers", "schedules"),
    }
)
"""Settings that whoever may start a flow run may not change: places, addresses, credentials."""

Source = Annotated[
    str,
    Field(
        max_length=1000,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}:\s*\S",
        description="mlflow:EXPERIMENT, wandb:ENTITY/PROJECT, wandb-offline:PATH, dir:PATH or NAME:... of a tracker",
    ),
]
Runs = Literal["all", "running and new"]
Age = Annotated[str, Field(pattern=r"^\d{1,4}[mhdw]$", description="an age such as 90m, 3h or 2d")]

_LOOK_SECONDS: Final = 1.0
_LEASE_SECONDS: Final = 60.0
"""For how long the place of a killed audit stays taken; the shortest that Prefect allows."""


def _optional(name: str) -> tuple[Any, Any]:
    field = AuditSettings.model_fields[name]
    kept: Any = Field(None, description=field.description)
    kept.metadata = list(field.metadata)  # the bounds
    return Optional[field.annotation], kept  # noqa: UP045 - the type is a value here


class _Changes(BaseModel):
    """Settings of this audit; what is left out is the worker's own, by its environment and `spectral-edge.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


if TYPE_CHECKING:
    Changes = _Changes
else:
    _offered = [name for name in AuditSettings.model_fields if name not in OF_THE_MACHINE]
    Changes = create_model("Changes", __base__=_Changes, **{name: _optional(name) for name in _offered})


@flow(name="spectral-edge-audit", persist_result=False)
def audit_sources(
    sources: tuple[Source, ...] = (),
    runs: Runs = "all",
    new_within: Age = "2h",
    changes: Changes | None = None,
) -> str | State[str]:
    """Audit runs, and read only what is not in the store yet.

    All sources share one budget. Ends Failed when a run or a source failed; what was done is in the artifact
    `spectral-edge-summary` either way.

    Args:
        sources: mlflow:EXPERIMENT, wandb:ENTITY/PROJECT, wandb-offline:PATH, dir:PATH, or NAME:... of a tracker in the
            worker's `spectral-edge.toml`. None given: the `sources` of that file.
        runs: All runs, or those that are running and those that started or ended within `new_within`. Settings narrow
            either down.
        new_within: An age such as 90m, 3h or 2d.
        changes: Settings of this audit, in place of the worker's own.

    Raises:
        UsageError: There are no sources, or a setting that cannot be.
    """
    from pipelines.budget import sharing  # noqa: PLC0415 - as the module says
    from pipelines.sources_in_turn import in_order  # noqa: PLC0415 - likewise

    _die_with_parent()
    settings = load_settings(**(changes.model_dump(exclude_none=True) if changes else {}))
    wanted = sources or settings.sources
    if not wanted:
        raise UsageError(
            "no sources to audit.",
            next_step='give the parameter `sources`, or write `sources = ["mlflow:my-experiment"]` into '
            "spectral-edge.toml in the worker's folder.",
        )
    with sharing(settings):
        wanted_looks = (
            (source, look)
            for source in in_order(wanted, settings)
            for look in looks(source, runs, new_within, settings)
        )
        rows = [_audited(*each) for each in takewhile(lambda _: not interruption.is_asked(), wanted_looks)]
    failed = sum(row["outcome"] == "failed" for row in rows)
    line = f"{len(rows) - failed} of {len(rows)} audits went well"
    create_table_artifact(table=rows, key=SUMMARY_KEY, description=line)
    if interruption.is_asked():
        if is_prefect_sigterm_handler_installed():
            signal.raise_signal(signal.SIGTERM)  # ends as Prefect ends flows: without a traceback in the log
        return Cancelled(message="The process was told to end. The next audit goes on where this one ended.")
    return Failed(message=f"{line}; the artifact {SUMMARY_KEY} tells what failed.", data=line) if failed else line


@flow(name="spectral-edge-compact", persist_result=False)
def compact_store() -> str:
    """Merge the small files of the worker's store, and delete those that no reader has needed for a week.

    Raises:
        SpectralEdgeError: The store cannot be used.
    """
    from spectral_edge.store import Store  # noqa: PLC0415 - as the module says

    _die_with_parent()
    log = get_run_logger()
    address = load_settings().store
    try:
        store = Store.open(address, create=False)
    except NotFoundError:
        log.info("%s: no store yet", plain_text(address))
        return "no store yet"
    tables = store.compact()
    rows = [asdict(table) for table in tables]
    create_table_artifact(table=rows, key=COMPACTION_KEY, description=f"Files in {address}")
    before, after = sum(table.files_before for table in tables), sum(table.files_after for table in tables)
    line = f"{before} files of rows became {after}"
    log.info("%s: %s", plain_text(address), line)
    return line


def limit_name(source: str, settings: AuditSettings) -> str:
    """The global concurrency limit that audits of `source` share with all audits of its tracker."""
    return settings.concurrency_limit(source) or f"spectral-edge-{source.partition(':')[0]}"


def looks(source: str, runs: Runs, new_within: str, settings: AuditSettings) -> list[AuditSettings]:
    """The settings of each look at `source`; they ask for no run that the settings of `source` leave out.

    "Running and new" takes two looks, so that a server is asked for these runs alone. A folder tells no state of its
    run, but one that is being trained is written to, which makes it new.
    """
    if runs == "all":
        return [settings]
    told = settings.of_source(source)
    since = new_within if told.since is None else _later(new_within, told.since)
    if _is_folder(source, settings):
        return [_narrowed(settings, since=since)]
    states = told.state or STATES
    ended = tuple(state for state in states if state != "running")
    found = [_narrowed(settings, state=("running",))] if "running" in states else []
    return [*found, _narrowed(settings, state=ended, since=since)] if ended else found


def _narrowed(settings: AuditSettings, **criteria: Any) -> AuditSettings:
    """With these criteria, for which the tables of trackers have no say any more."""
    names = frozenset(criteria)
    trackers = {name: tracker.without(names) for name, tracker in settings.trackers.items()}
    return settings.model_copy(update={**criteria, "trackers": trackers})


def _later(one: str, other: str) -> str:
    now = datetime.now(UTC)
    return max(one, other, key=lambda text: moment(text, now))


def _is_folder(source: str, settings: AuditSettings) -> bool:
    name = source.partition(":")[0]
    tracker = settings.trackers.get(name)
    return (name if tracker is None else tracker.kind) == "dir"


def _audited(source: str, settings: AuditSettings) -> dict[str, str]:
    """One row of the summary. An error of one source never stops the others."""
    from pipelines.audit import run_audit  # noqa: PLC0415 - as the module says

    log = get_run_logger()
    try:
        # Should the server not answer for a while, the audit goes on: two audits at once are slow, not wrong.
        with concurrency(
            limit_name(source, settings),
            occupy=1,
            lease_duration=_LEASE_SECONDS,
            strict=False,
            raise_on_lease_renewal_failure=False,
        ):
            summary = run_audit(source, settings)
    except SpectralEdgeError as error:
        log.error("%s: %s", plain_text(source), plain_text(str(error)))  # noqa: TRY400 - ours need no traceback
        return _row(source, settings, "failed", str(error))
    for run in summary.runs:
        if run.is_failure:
            log.error("%s", plain_text(run.line))
    log.info("%s: %s", plain_text(source), plain_text(summary.line))
    return _row(source, settings, "failed" if summary.has_failures else "audited", summary.line)


def _row(source: str, settings: AuditSettings, outcome: str, says: str) -> dict[str, str]:
    return {
        "source": source,
        "runs": ", ".join(settings.state) or "all",
        "outcome": outcome,
        "says": markdown_text(says),
    }


def _die_with_parent() -> None:
    """End this process when the one that it is tied to is gone.

    After kill -9 of `spectral-edge serve` nobody else would end its flow runs, and the next one starts them again. The
    store is safe to be left at any instruction.
    """
    parent = int(os.environ.get(TIED, "0"))
    if not parent:
        return

    def watch() -> None:
        with suppress(ProcessLookupError, PermissionError):  # the latter: another user's, with the number of the old
            while True:
                os.kill(parent, 0)
                time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()
