"""What an audit would do and cost: `--dry-run`. Nothing is fetched, nothing is written, Prefect is not started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from integrations.tracker import CheckpointListing, CheckpointRef, OtherSeries, TrackedRun
from pipelines.budget import Budget, current
from pipelines.compute_rate import compute_rate
from pipelines.decisions import Action, Decision, Scope, decide
from pipelines.fetching import bytes_to_read, plan_segments
from pipelines.forecast_writes import NOTHING, Work, Writes, in_words, update_of, writes_of
from pipelines.looking import by_debt, settled
from pipelines.results import Outcome, RunResult
from pipelines.settings import AuditSettings
from pipelines.sources import located
from pipelines.sources_in_turn import store_if_there
from pipelines.wording import count_text, minutes_text, size_text
from spectral_edge.errors import SpectralEdgeError
from spectral_edge.resuming import lags_of
from spectral_edge.tables import RunKey

FETCH_BYTES_PER_SECOND: Final = 100e6
"""Assumed of the way from an artifact store: MLflow's proxy on one machine gave 70 to 180 MB/s."""

DISK_BYTES_PER_SECOND: Final = 1e9
"""Assumed of the local disk."""

LOOKING_REQUESTS: Final = 4
"""To a tracker that is not local: the run's checkpoints, its metrics' names, a learning rate, an evaluation metric."""

WRITING_REQUESTS: Final = {"none": 0, "summary": 3, "full": 12}
"""Tags and note; with `full` also files and metrics, which go in batches of 1,000 points."""

LEASE_REQUESTS: Final = 4
"""To write to a run while no other process does."""

WRITTEN_BACK: Final = {
    "none": "nothing",
    "summary": "tags, note",
    "full": "tags, note, metrics by training step, gap table, chart as PNG, SVG and HTML",
}

WORDS: Final[dict[Action, str]] = {
    "audit": "be audited",
    "extend": "be extended by {new}",
    "reanalyse": "be re-analysed from the store",
    "update": "be updated from the store",
    "nothing": "stay as it is",
    "quarantine": "be put in quarantine",
    "report_known_error": "fail as before",
    "report_no_checkpoints": "have no checkpoints",
}

_NO_WORK: Final[frozenset[Action | None]] = frozenset(
    {None, "nothing", "quarantine", "report_known_error", "report_no_checkpoints"}
)


FIRST: Final = ("run", "would", "to read", "to fetch", "to write", "store grows", "time", "requests", "checkpoints")
"""Columns by importance, for terminals that have no room for all."""


@dataclass(frozen=True)
class RunForecast:
    """What would be done to one run.

    `seconds` counts fetching and reading one after the other: an upper estimate. `enough_lags` is set where the store
    holds the run's inner products, but not up to the lags asked for: with these lags, what it knows is not read again.
    `series` is the series of checkpoints that would be followed, `step_source` how its steps were found, and
    `other_series` what the run offers besides. `is_left` says that the budget would be spent before its turn. `writes`
    tells by name and size what `written_back` says in words, and what the store would take.
    """

    project: str
    run_name: str
    run_id: str
    action: Action | None
    checkpoints: int = 0
    new_checkpoints: int = 0
    bytes_to_fetch: int = 0
    bytes_to_read: int = 0
    requests: int = 0
    seconds: float = 0.0
    written_back: str = "nothing"
    enough_lags: int | None = None
    series: str | None = None
    step_source: str | None = None
    other_series: tuple[OtherSeries, ...] = ()
    is_left: bool = False
    error: str | None = None
    writes: Writes = NOTHING

    @property
    def would(self) -> str:
        """What would be done, in words."""
        if self.action is None:
            return "cannot be looked at"
        return WORDS[self.action].format(new=count_text(self.new_checkpoints, "new checkpoint"))


@dataclass(frozen=True)
class Forecast:
    """What an audit of one source would do and cost."""

    source: str
    runs: tuple[RunForecast, ...]

    @property
    def line(self) -> str:
        """The totals, in one line."""
        runs = self.runs
        return (
            f"{count_text(len(runs), 'run')}, {self._to_do}: "
            f"{size_text(sum(run.bytes_to_fetch for run in runs))} to fetch, "
            f"{size_text(sum(run.bytes_to_read for run in runs))} to read, "
            f"{count_text(sum(run.requests for run in runs), 'request')}, "
            f"{minutes_text(sum(run.seconds for run in runs))}; {self._written_back}. Nothing was fetched or written."
            f"{self._cheaper}{self._left}"
        )

    @property
    def _left(self) -> str:
        """What the budget would not reach; nothing when it reaches everything."""
        left = [run for run in self.runs if run.is_left]
        if not left:
            return ""
        read = size_text(sum(run.bytes_to_read for run in self.runs if not run.is_left))
        return f" The budget would be spent after {read}: {count_text(len(left), 'run')} would be left."

    @property
    def _to_do(self) -> str:
        def counted(action: Action) -> int:
            return sum(run.action == action for run in self.runs)

        more = [(counted("extend"), "to extend"), (counted("reanalyse"), "to re-analyse from the store")]
        return ", ".join([f"{counted('audit')} to audit", *(f"{number} {words}" for number, words in more if number)])

    @property
    def _cheaper(self) -> str:
        """What would spare reading again what the store knows; nothing when nothing would."""
        lags = {run.enough_lags for run in self.runs if run.enough_lags is not None}
        if not lags:
            return ""
        number = sum(run.enough_lags is not None for run in self.runs)
        return (
            f" The store knows checkpoints of {count_text(number, 'run')} already, but not up to the lags asked for: "
            f"with --lags {min(lags)} they would not be read again."
        )

    @property
    def _written_back(self) -> str:
        written = {run.written_back for run in self.runs} - {WRITTEN_BACK["none"]}
        return f"each would get {written.pop()}" if written else "nothing to write back"

    @property
    def rows(self) -> list[dict[str, str]]:
        """One row a run, for people; with its experiment or folder where there are several."""
        several = len({run.project for run in self.runs}) > 1
        is_short = any(run.is_left for run in self.runs)
        return [
            ({"project": run.project} if several else {})
            | {
                "run": run.run_name,
                "would": run.would,
                "checkpoints": str(run.checkpoints),
                "series": run.series or "-",
                "step from": run.step_source or "-",
                "other series": ", ".join(f"{other.name} ({other.checkpoints})" for other in run.other_series) or "-",
                "to fetch": size_text(run.bytes_to_fetch),
                "to read": size_text(run.bytes_to_read),
                "requests": str(run.requests),
                "to write": size_text(run.writes.bytes),
                "store grows": size_text(run.writes.store_bytes),
                "time": minutes_text(run.seconds),
            }
            | ({"budget": "left" if run.is_left else "reached"} if is_short else {})
            for run in self.runs
        ]

    @property
    def writes_in_words(self) -> list[str]:
        """What would be written to the runs that the budget reaches."""
        return in_words([run.writes for run in self.runs if not run.is_left and run.writes != NOTHING])

    @property
    def has_failures(self) -> bool:
        """Whether a run is known to fail, or could not be looked at."""
        return any(run.error is not None for run in self.runs)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"source": self.source, "runs": [asdict(run) for run in self.runs]}


def forecast(source: str, settings: AuditSettings) -> Forecast:
    """Look at the runs of `source`, and at the store if there is one.

    Raises:
        UsageError: A wrong source or setting.
        NotFoundError: No such experiment or folder.
        TransientError: The tracker did not answer.
    """
    settings = settings.of_source(source)
    tracker, selection = located(source, settings)
    scope = Scope.of(tracker, settings, store_if_there(settings.store))
    rate = compute_rate(scope.analysis.lags, settings.torch_device())
    runs = list(tracker.runs(selection))
    known = {run.key: _as_told(result) for run in runs if (result := settled(scope, run))}
    looked_at = {run.key: _forecast_run(scope, run, rate) for run in by_debt(scope, runs) if run.key not in known}
    _hold_to(current(settings), looked_at, settings.workers)
    return Forecast(source, tuple((known | looked_at)[run.key] for run in runs))


def _hold_to(budget: Budget, runs: dict[RunKey, RunForecast], workers: int) -> None:
    """Mark the runs that `budget` would not reach, and spend of it what the others would."""
    for key, run in runs.items():
        if not budget.allows():
            runs[key] = replace(run, is_left=True)
        elif run.action not in _NO_WORK:
            budget.foresee(run.bytes_to_read, run.seconds / workers)


def _as_told(result: RunResult) -> RunForecast:
    """Of a run that needs no look."""
    action: dict[Outcome, Action] = {"no_checkpoints": "report_no_checkpoints", "failed": "report_known_error"}
    return RunForecast(
        result.project,
        result.run_name,
        result.run_id,
        action.get(result.outcome, "nothing"),
        checkpoints=result.checkpoints,
        series=result.series,
        step_source=result.step_source,
        error=result.error,
    )


def _forecast_run(scope: Scope, run: TrackedRun, rate: float) -> RunForecast:
    try:
        decision = decide(scope, run)
        if decision.action in {"audit", "extend", "reanalyse"}:
            return _forecast_audit(scope, run, decision, rate)
    except SpectralEdgeError as error:
        told = str(error.of_run(run.key.run_name))
        return RunForecast(run.key.project, run.key.run_name, run.key.run_id, None, error=told)
    writes = decision.action == "update"
    return RunForecast(
        run.key.project,
        run.key.run_name,
        run.key.run_id,
        decision.action,
        **_chosen(decision.listing),
        requests=0 if scope.tracker.capabilities.local_checkpoints or not writes else _writing_requests(scope.settings),
        written_back=_written_back(scope) if writes else "nothing",
        error=decision.known_error,
        writes=update_of(scope.tracker.capabilities, scope.settings.annotate) if writes else NOTHING,
    )


def _forecast_audit(scope: Scope, run: TrackedRun, decision: Decision, rate: float) -> RunForecast:
    refs, settings = decision.to_read, scope.settings
    to_fetch, to_read = _bytes(scope, refs, lags_of(decision.known) if decision.known else scope.analysis.lags)
    is_local = scope.tracker.capabilities.local_checkpoints
    files = sum(len(ref.files) for ref in refs)
    return RunForecast(
        run.key.project,
        run.key.run_name,
        run.key.run_id,
        decision.action,
        **_chosen(decision.listing),
        new_checkpoints=decision.new_checkpoints if decision.action == "extend" else 0,
        bytes_to_fetch=to_fetch,
        bytes_to_read=to_read,
        requests=0 if is_local else LOOKING_REQUESTS + files + _writing_requests(settings),
        seconds=to_fetch / FETCH_BYTES_PER_SECOND + to_read / DISK_BYTES_PER_SECOND + to_read / rate,
        written_back=_written_back(scope),
        enough_lags=decision.enough_lags,
        writes=_writes(scope, decision),
    )


def _writes(scope: Scope, decision: Decision) -> Writes:
    checkpoints, known = len(decision.listing.checkpoints), decision.known
    new = decision.new_checkpoints if decision.action == "extend" else checkpoints
    groups = len(known.bands) if known else None
    analysis, capabilities = scope.analysis, scope.tracker.capabilities
    work = Work(checkpoints, new, analysis.window, analysis.lags, groups, capabilities)
    return writes_of(work, scope.settings.annotate)


def _chosen(listing: CheckpointListing) -> dict[str, Any]:
    return {
        "checkpoints": len(listing.checkpoints),
        "series": listing.series,
        "step_source": listing.step_source,
        "other_series": listing.others,
    }


def _writing_requests(settings: AuditSettings) -> int:
    return 0 if settings.annotate == "none" else WRITING_REQUESTS[settings.annotate] + LEASE_REQUESTS


def _written_back(scope: Scope) -> str:
    words = WRITTEN_BACK[scope.settings.annotate]
    is_apart = scope.tracker.capabilities.results_apart and scope.settings.annotate != "none"
    return f"{words}; results in a run of its own" if is_apart else words


def _bytes(scope: Scope, refs: Sequence[CheckpointRef], lags: int) -> tuple[int, int]:
    sizes = [ref.size for ref in refs]
    if not sizes or scope.tracker.capabilities.local_checkpoints:
        return 0, sum(sizes)
    plan = plan_segments(sizes, lags + 1, scope.settings.max_disk_per_run)
    return sum(sizes), bytes_to_read(sizes, plan, lags + 1)
