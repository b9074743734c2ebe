"""`spectral-edge demo`: trains small models that grok, logs them to a tracker of its own, and audits them.

The folder afterwards holds all that a real audit leaves: the tracker's records and files, the store, the report page.
Runs that are complete already are not trained again, and what the store holds is not audited again.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from integrations.tracker import TrackedRun, Tracker
from pipelines.audit_command import audit_sources
from pipelines.demo_logging import DemoTracking, train_missing
from pipelines.demo_mlflow import MlflowDemo
from pipelines.demo_training import RECIPES, Recipe
from pipelines.settings import load_settings
from pipelines.sources import located
from pipelines.wording import command_text
from spectral_edge.errors import TerminalError
from spectral_edge.query import query
from spectral_edge.report import write_report
from spectral_edge.store import Store

LEARNT = 0.95
"""Accuracy from which a split of the data counts as learnt."""

TRY_SQL = "select run_name, weight_decay, checkpoints, regime, transitions from runs order by run_name"
TRANSITIONS_SQL = """
select run_name, "group", kind, onset_step, q_value, metric_name, lead_low, lead_high from transitions
order by run_name, onset_step, "group", kind
"""


@dataclass(frozen=True)
class Learning:
    """When a run learnt its training data, and when the held-out data; None where it never did."""

    run_name: str
    trained_at: int | None
    generalised_at: int | None

    @property
    def line(self) -> str:
        """One line for people."""
        if self.trained_at is None or self.generalised_at is None:
            return f"{self.run_name}: did not grok (validation accuracy never reached {LEARNT:.0%})"
        if self.generalised_at < 2 * self.trained_at:
            return f"{self.run_name}: nothing to grok (validation data were learnt along with training data)"
        return (
            f"{self.run_name}: grokked at step {self.generalised_at} "
            f"({LEARNT:.0%} of the training data were learnt at step {self.trained_at})"
        )


@dataclass(frozen=True)
class DemoResult:
    """Where the demo left things, and what it found. Printed, it says what to open and what to try."""

    folder: Path
    where_to_look: tuple[str, ...]
    learning: tuple[Learning, ...]
    transitions: tuple[dict[str, Any], ...]
    answer: tuple[dict[str, Any], ...]

    @property
    def store(self) -> Path:
        """The store of the audit."""
        return self.folder / "store"

    @property
    def report(self) -> Path:
        """The page over all runs."""
        return self.folder / "report.html"

    def __str__(self) -> str:
        found = [line for run in self.learning for line in (run.line, *self._transitions_of(run.run_name))]
        return "\n".join(
            [
                "",
                *found,
                "",
                f"Report       {self.report}",
                f"Store        {self.store}",
                *self.where_to_look,
                "Try          "
                + shlex.join([command_text("spectral-edge"), "query", "--store", str(self.store), TRY_SQL]),
                *(f"             {line}" for line in _columns(self.answer)),
            ]
        )

    def _transitions_of(self, run_name: str) -> list[str]:
        found = [_transition(row) for row in self.transitions if row["run_name"] == run_name]
        return [f"  {line}" for line in found] or ["  no transition reported"]


def run_demo(folder: Path, recipes: Sequence[Recipe] = RECIPES, *, in_wandb: bool = False) -> DemoResult:
    """Train what is missing in `folder`, audit it as `spectral-edge audit` does, and write the report page.

    Args:
        folder: Where everything is kept.
        recipes: What is trained.
        in_wandb: Log to offline runs of W&B, not to an embedded MLflow.

    Raises:
        TerminalError: The audit of a run failed; the lines before say which.
        SpectralEdgeError: As :func:`pipelines.audit_command.audit_sources`.
    """
    tracking = _tracking(folder, in_wandb=in_wandb)
    run_ids = train_missing(recipes, tracking, lambda line: typer.echo(line, err=True))
    store = folder / "store"
    settings = load_settings(
        store=str(store), tracking_uri=tracking.tracking_uri, spool=folder / "spool", annotate="full"
    )
    if audit_sources([tracking.source], settings, as_json=False) != 0:
        raise TerminalError(
            "the audit of the demo's runs failed, see above.",
            left_behind=f"the trained runs in {folder}",
            next_step="run the demo again: it goes on where it stopped.",
        )
    opened = Store.open(str(store), create=False)
    write_report(opened, folder / "report.html")
    tracker, selection = located(tracking.source, settings)
    runs = {run.key.run_id: run for run in tracker.runs(selection)}
    return DemoResult(
        folder,
        tracking.where_to_look,
        tuple(_learning(tracker, runs[run_ids[recipe.name]]) for recipe in recipes),
        tuple(query(opened, TRANSITIONS_SQL).to_pylist()),
        tuple(query(opened, TRY_SQL).to_pylist()),
    )


def _tracking(folder: Path, *, in_wandb: bool) -> DemoTracking:
    if not in_wandb:
        return MlflowDemo(folder)
    from pipelines.demo_wandb import WandbDemo  # noqa: PLC0415 - not everybody has wandb

    return WandbDemo(folder)


def _learning(tracker: Tracker, run: TrackedRun) -> Learning:
    trained, generalised = (_learnt_at(tracker, run, metric) for metric in ("train_accuracy", "val_accuracy"))
    return Learning(run.key.run_name, trained, generalised)


def _learnt_at(tracker: Tracker, run: TrackedRun, metric: str) -> int | None:
    series = tracker.metric_series(run, metric)
    return min(series.steps[series.values >= LEARNT].tolist(), default=None)


def _transition(row: Mapping[str, Any]) -> str:
    return f"{row['kind']} of {row['group']} at step {row['onset_step']}, q = {row['q_value']:.2g}{_order(row)}"


def _order(row: Mapping[str, Any]) -> str:
    """Which came first, where the interval of the lead tells."""
    low, high, metric = row["lead_low"], row["lead_high"], row["metric_name"]
    if low is None or high is None:
        return ""
    if low <= 0 <= high:
        return f"; whether before or after {metric} moved is not established"
    nearest, furthest = sorted((abs(low), abs(high)))
    return f"; {nearest} to {furthest} steps {'before' if low > 0 else 'after'} {metric} moved"


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows as aligned text, under a line of their names."""
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
