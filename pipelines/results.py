"""What an audit says of itself: one result a run, and their sum."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pipelines.wording import age_text, count_text, size_text
from spectral_edge.errors import SpectralEdgeError
from spectral_edge.tables import RunKey

Outcome = Literal["audited", "extended", "reanalysed", "updated", "unchanged", "no_checkpoints", "partial", "failed"]


@dataclass(frozen=True)
class RunResult:
    """What was done to one run.

    Attributes:
        outcome: `audited` (all checkpoints were read), `extended` (only the new ones, and those they are compared
            with), `reanalysed` (none: the store's band was analysed with other settings, or with a metric or learning
            rate that was logged since), `updated` (its state and
            annotations, from the stored tables), `unchanged` (nothing was fetched or written), `no_checkpoints` (there
            is nothing to audit), `partial` (audited, but some groups end early, see `error`) or `failed`.
        checkpoints: Checkpoints that the run has.
        series: The series of checkpoints that was followed, of those that the run offers.
        step_source: How the training steps of its checkpoints were found.
        new_checkpoints: Those by which the audit in the store was extended.
        known_of: The run in which the other checkpoints had been measured, where that was another one.
        regime: Regime of group total in the last full window, where the run was audited.
        bytes_fetched: Bytes copied to this machine's disk.
        bytes_read: Bytes of checkpoints read.
        seconds_fetch: Time spent on fetching; then on reading, and on the analysis.
        writes: Metric points and files written to the run.
        error: What went wrong, to which file, and what to do.
        error_class: The class of that error, where it is not `known`.
        known: Whether that error was in the store already: the checkpoints are the same, so they were not read again.
        traceback: Set when the error is not one of ours: a defect to report.
        project: The run's experiment, or the folder around it.
        audit_id: The audit in the store that all is as it says; None where something is left to do.
    """

    run_name: str
    run_id: str
    outcome: Outcome
    checkpoints: int = 0
    series: str | None = None
    step_source: str | None = None
    new_checkpoints: int = 0
    known_of: str | None = None
    regime: str | None = None
    transitions: int = 0
    bytes_fetched: int = 0
    bytes_read: int = 0
    seconds_fetch: float = 0.0
    seconds_gram: float = 0.0
    seconds_analyse: float = 0.0
    writes: int = 0
    error: str | None = None
    error_class: str | None = None
    known: bool = False
    warnings: tuple[str, ...] = ()
    traceback: str | None = None
    project: str = ""
    audit_id: str | None = None

    @classmethod
    def failure(cls, key: RunKey, error: SpectralEdgeError, *, checkpoints: int = 0) -> RunResult:
        """The result of a run that ended with one of our errors."""
        told = str(error.of_run(key.run_name))
        return cls(
            key.run_name,
            key.run_id,
            "failed",
            checkpoints=checkpoints,
            error=told,
            error_class=type(error).__name__,
            project=key.project,
        )

    def failed_as_before(self, error: str | None) -> RunResult:
        """This, of a run whose error is in the store already."""
        return replace(self, outcome="failed", error=error, known=True)

    def partial_as_before(self, error: str) -> RunResult:
        """This, of a run that the store holds a part of, and why."""
        return replace(self, outcome="partial", error=error, known=True)

    @property
    def is_failure(self) -> bool:
        """Whether the run, or a part of it, did not get through."""
        return self.outcome in {"failed", "partial"}

    @property
    def line(self) -> str:
        """One line for people."""
        if self.is_failure:
            return f"{self.error}{' (as before; nothing was read)' if self.known else ''}"
        if self.outcome == "no_checkpoints":
            return f"{self.run_name}: no checkpoints"
        found = f", regime {self.regime}, {count_text(self.transitions, 'transition')}" if self.regime else ""
        return f"{self.run_name}: {self._done}, {count_text(self.checkpoints, 'checkpoint')}{found}"

    @property
    def _done(self) -> str:
        if self.outcome == "extended":
            new = count_text(self.new_checkpoints, "new checkpoint")
            return (
                f"audited: {new} beyond those that {self.known_of} has too" if self.known_of else f"extended by {new}"
            )
        if self.outcome == "reanalysed":
            return (
                f"analysed from {self.known_of}, which has the same checkpoints"
                if self.known_of
                else "re-analysed from the store"
            )
        return self.outcome


@dataclass(frozen=True)
class AuditSummary:
    """The results of all runs of one source.

    Attributes:
        left: Runs that were not looked at because the budget was spent.
        oldest_debt: Since when the first of them waits.
        stopped: Whether they are left because the process was told to end.
    """

    source: str
    runs: tuple[RunResult, ...]
    left: int = 0
    stopped: bool = False
    oldest_debt: datetime | None = None

    @property
    def has_failures(self) -> bool:
        """Whether a run did not get through."""
        return any(run.is_failure for run in self.runs)

    @property
    def line(self) -> str:
        """One line for people: what was found, and what it cost."""
        fetched = sum(run.bytes_fetched for run in self.runs)
        writes = sum(run.writes for run in self.runs)
        known = sum(run.known for run in self.runs)
        new = sum(run.new_checkpoints for run in self.runs)
        news = [
            self._counted("audited", "audited"),
            self._counted("extended", f"extended by {count_text(new, 'new checkpoint')}"),
            self._counted("reanalysed", "re-analysed from the store"),
            self._counted("updated", "updated from the store"),
            _counted(sum(run.outcome == "partial" and not run.known for run in self.runs), "audited in part"),
            _counted(sum(run.outcome == "failed" and not run.known for run in self.runs), "failed"),
        ]
        rest = [_counted(known, "still failing"), self._counted("no_checkpoints", "without checkpoints")]
        parts = [", ".join(filter(None, news)) or "nothing new", *filter(None, rest)]
        cost = f"{size_text(fetched)} fetched, {count_text(writes, 'write')}"
        return f"{count_text(len(self.runs), 'run')}, {', '.join(parts)}: {cost}.{self._later}"

    @property
    def _later(self) -> str:
        if self.stopped:
            return f" Stopped: {self._are_left}; nothing is half done."
        if not self.left:
            return ""
        waits = self.oldest_debt and f", oldest debt {age_text(datetime.now(UTC) - self.oldest_debt)}"
        return f" The budget is spent: {self._are_left}{waits or ''}."

    @property
    def _are_left(self) -> str:
        return f"{count_text(self.left, 'run')} {'is' if self.left == 1 else 'are'} left for the next audit"

    def _counted(self, outcome: Outcome, words: str) -> str:
        return _counted(sum(run.outcome == outcome for run in self.runs), words)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        oldest = self.oldest_debt and self.oldest_debt.isoformat()
        runs = [asdict(run) for run in self.runs]
        return {"source": self.source, "runs": runs, "left": self.left, "oldest_debt": oldest, "stopped": self.stopped}


def _counted(number: int, words: str) -> str:
    return f"{number:,} {words}" if number else ""
