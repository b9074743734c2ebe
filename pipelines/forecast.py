"""What an audit would do and cost: `--dry-run`. Nothing is fetched, nothing is written, Prefect is not started."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch

from integrations.tracker import CheckpointListing, CheckpointRef, OtherSeries, TrackedRun
from pipelines.decisions import Action, Decision, Scope, decide
from pipelines.fetching import bytes_to_read, plan_segments
from pipelines.settings import AuditSettings
from pipelines.sources import located
from pipelines.wording import count_text, minutes_text, size_text
from spectral_edge.block_sums import products_on, threads_given
from spectral_edge.errors import NotFoundError, SpectralEdgeError
from spectral_edge.kernels import COLUMNS, add_products, padded
from spectral_edge.resuming import lags_of
from spectral_edge.store import Store

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
    "full": "tags, note, metrics by training step, gap table, chart as PNG and HTML",
}

WORDS: Final[dict[Action, str]] = {
    "audit": "be audited",
    "extend": "be extended by {new}",
    "reanalyse": "be re-analysed from the store",
    "update": "be updated from the store",
    "nothing": "stay as it is",
    "report_known_error": "fail as before",
    "report_no_checkpoints": "have no checkpoints",
}

_PROBE_ROWS: Final = 32
_PROBE_PARAMETERS: Final = 1 << 14
_PROBE_SECONDS: Final = 0.2


@dataclass(frozen=True)
class RunForecast:
    """What would be done to one run.

    `seconds` counts fetching and reading one after the other: an upper estimate. `enough_lags` is set where the store
    holds the run's inner products, but not up to the lags asked for: with these lags, what it knows is not read again.
    `series` is the series of checkpoints that would be followed, `step_source` how its steps were found, and
    `other_series` what the run offers besides.
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
    error: str | None = None

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
            f"{self._cheaper}"
        )

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
                "time": minutes_text(run.seconds),
            }
            for run in self.runs
        ]

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
    scope = Scope.of(tracker, settings, _store_if_there(settings.store))
    rate = compute_rate(scope.analysis.lags, settings.torch_device())
    return Forecast(source, tuple(_forecast_run(scope, run, rate) for run in tracker.runs(selection)))


def compute_rate(lags: int, device: str) -> float:
    """Bytes of float32 checkpoints that this machine sums into the band per second, measured for 0.2 s."""
    count = lags + _PROBE_ROWS
    theta = torch.zeros(count + 1, _PROBE_PARAMETERS)
    updates, products = np.zeros((padded(count), COLUMNS)), np.zeros((padded(count), padded(count)))
    is_cpu = torch.device(device).type == "cpu"

    def once() -> None:
        if is_cpu:
            add_products(theta.numpy(), _PROBE_PARAMETERS, lags, lags, updates, products)
        else:
            products_on(torch.device(device), theta, _PROBE_PARAMETERS, lags)

    once()  # the first time pays for compiling, or for setting up the GPU
    started, done = time.monotonic(), 0
    while time.monotonic() - started < _PROBE_SECONDS:
        once()
        done += 1
    per_thread = done * _PROBE_ROWS * _PROBE_PARAMETERS * torch.float32.itemsize / (time.monotonic() - started)
    return per_thread * (threads_given() if is_cpu else 1)


def _store_if_there(uri: str) -> Store | None:
    try:
        return Store.open(uri, create=False)
    except NotFoundError:
        return None


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
    )


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
