"""Runs made of simulated updates: drift and noise, with or without a second direction that opens at a known step."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from spectral_edge.metric_points import metric_rows
from spectral_edge.scoring.evidence import RunFacts
from spectral_edge.scoring.score import Score
from spectral_edge.scoring.stored import scorecard_table, scores_of_rows
from spectral_edge.series import FurtherMetric, MetricSeries, TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.tables import RunKey, RunTables, audit_id, build

SPACING = 40
DEFAULT_GROUPS = ("total", "attention", "mlp", "embedding")
VERSIONS = json.dumps({"spectral-edge": "0.1.0", "numpy": "2.4.0", "torch": "2.13.0"})
AUDITED = datetime(2025, 11, 24, 9, 30, tzinfo=UTC)


def updates(checkpoints: int, seed: int, *, change_at: int | None, dimensions: int = 120) -> np.ndarray:
    """Updates of shape (checkpoints - 1, dimensions); from `change_at` on, a second direction carries energy."""
    rng = np.random.default_rng(seed)
    t = np.arange(checkpoints - 1)
    made = rng.normal(scale=0.05, size=(len(t), dimensions)) * np.exp(-t / 60)[:, None]
    made[:, 0] += 0.9 * np.exp(-t / 40) + 0.1
    if change_at is not None:
        made[:, 1] += 1.3 / (1 + np.exp(-(t - change_at) / 2.0)) * np.exp(-np.maximum(t - change_at, 0) / 30)
    return made


def _window(made: np.ndarray, t: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rows = made[max(0, t - width + 1) : t + 1]
    _, sigma, directions = np.linalg.svd(rows, full_matrices=False)
    return sigma, directions


def _regime(change: float, *, short: bool, known: bool) -> tuple[str, str | None]:
    if short:
        return "undetermined", "the window has fewer than 10 updates"
    if not known:
        return "undetermined", "rounding of the checkpoints' dtype makes up 31 % of the updates' energy"
    if change < 0.12:
        return "plateau", None
    return ("transition", None) if change < 0.3 else ("unstable", "no held-out metric was logged")


def gap_rows(group: str, made: np.ndarray, width: int, *, learning_rate: bool, blurred: range) -> list[dict[str, Any]]:
    """One row a window, as the analysis would give them."""
    rows: list[dict[str, Any]] = []
    before: tuple[np.ndarray, np.ndarray] | None = None
    for t in range(1, len(made)):
        sigma, directions = _window(made, t, width)
        ratios = sigma[:-1] / sigma[1:]
        k = int(np.argmax(ratios)) + 1
        n = min(len(sigma), len(before[0])) if before else 0
        cosines = before[1][:n] @ directions[:n].T if before else np.zeros((0, 0))
        change = float(abs((sigma**2).sum() - (before[0] ** 2).sum()) / (sigma**2).sum()) + 0.05 if before else None
        short = t + 1 < width
        regime, reason = _regime(change or 0.0, short=short, known=t not in blurred)
        top = min(k, n)
        angle = np.linalg.svd(cosines[:top, :top], compute_uv=False).min() if top else None
        rows.append(
            {
                "group": group,
                "window": width,
                "updates": min(t + 1, width),
                "short": short,
                "step_first": max(0, t - width + 1) * SPACING,
                "step": (t + 1) * SPACING,
                "n_parameters": made.shape[1],
                "singular_values": sigma.tolist(),
                "k_star": k,
                "gap": float(sigma[k - 1] - sigma[k]),
                "gap_ratio": float(ratios[k - 1]),
                "overlap": np.abs(np.diag(cosines)).tolist(),
                "rotation_degrees": float(np.degrees(np.arccos(min(angle, 1.0)))) if angle is not None else None,
                "gram_change_relative": None if short else change,
                "learning_rate": 1e-3 * min(1.0, (t + 1) / 10) if learning_rate else None,
                "regime": regime,
                "regime_reason": reason,
            }
        )
        before = (sigma, directions)
    return rows


def transition_rows(group: str, change_at: int, *, metric: bool) -> list[dict[str, Any]]:
    """Two established changes around `change_at`."""
    onset = (change_at + 1) * SPACING
    lead = {"metric_name": "test_accuracy", "metric_onset": onset + 340, "lead_steps": 340}
    first = {
        "group": group,
        "kind": "gap_opening",
        "onset_step": onset,
        "onset_low": onset - 60,
        "onset_high": onset + 120,
        "k_before": 1,
        "k_after": 2,
        "effect": 1.83,
        "p_value": 0.002,
        "q_value": 0.01,
        "regime_before": "plateau",
        "regime_after": "transition",
    } | (lead | {"lead_low": 180, "lead_high": 460} if metric else {})
    second = first | {
        "kind": "rotation",
        "onset_step": onset + 160,
        "onset_low": onset + 80,
        "onset_high": onset + 240,
        "effect": 0.71,
        "p_value": 0.011,
        "q_value": 0.03,
    }
    return [first, second | ({"lead_steps": 180, "lead_low": -40, "lead_high": 300} if metric else {})]


def make_run(
    name: str = "grok-wd1-s0",
    *,
    project: str = "modular addition",
    run_id: str | None = None,
    checkpoints: int = 100,
    change_at: int | None = 45,
    seed: int = 0,
    groups: tuple[str, ...] = DEFAULT_GROUPS,
    metric: bool = True,
    learning_rate: bool = True,
    blurred: range = range(0),
    **summary: Any,
) -> RunTables:
    """All tables of one simulated run; `summary` replaces columns of its row in `runs`."""
    settings = Settings()
    key = RunKey("mlflow", project, run_id or f"{seed:08x}{name.encode().hex()[:24]:0>24}", name)
    audit = audit_id(f"fingerprint {project} {name} {seed}", settings.hash)
    shared = {**key.columns(), "audit_id": audit, "settings_hash": settings.hash, "schema_version": 1}
    gaps: list[dict[str, Any]] = []
    transitions: list[dict[str, Any]] = []
    for number, group in enumerate(groups):
        made = updates(checkpoints, 1000 * seed + number, change_at=change_at)
        gaps += gap_rows(group, made, settings.window, learning_rate=learning_rate, blurred=blurred)
        if change_at is not None and number < 2:
            transitions += transition_rows(group, change_at, metric=metric)
    full = [row for row in gaps if row["group"] == "total" and not row["short"]]
    row = shared | {
        "status": "ok",
        "state": "finished",
        "url": f"https://mlflow.example/#/experiments/1/runs/{key.run_id}",
        "checkpoints": checkpoints,
        "windows": len(full),
        "step_first": 0,
        "step_last": (checkpoints - 1) * SPACING,
        "regime": full[-1]["regime"] if full else "undetermined",
        "transitions": len(transitions),
        "stretches_tested": 4 if full else 0,
        "optimizer": "AdamW",
        "weight_decay": 1.0,
        "metric_name": "test_accuracy" if metric else None,
        **(_metric_columns(change_at) if metric else {}),
        "fingerprint": "9f2c4e1ab07d55aa",
        "settings": settings.as_json(),
        "warnings": [],
        "seconds_fetch": 1.24,
        "seconds_gram": 3.8,
        "seconds_analyse": 0.9,
        "bytes_read": 39_791 * 4 * checkpoints,
        "versions": VERSIONS,
        "audited_at": AUDITED + timedelta(minutes=seed),
    }
    stamped = ([shared | r for r in rows] for rows in (gaps, transitions))
    tables = RunTables(
        key,
        build("runs", [row | summary]),
        build("inner_products", []),
        *(build(table, rows) for table, rows in zip(("gaps", "transitions"), stamped, strict=True)),
    )
    if metric:
        points = [shared | one for one in metric_rows(_logged(checkpoints, change_at, seed, row | summary))]
        tables = replace(tables, metrics=build("metrics", points))
    scored = replace(tables, runs=build("runs", [row | summary | {"settings": settings.as_json()}]))
    return replace(tables, scorecard=scorecard_table(scored))


def _logged(checkpoints: int, change_at: int | None, seed: int, row: dict[str, Any]) -> TrainingRecord:
    """Accuracy of training rises first, that of held-out data, where it does, some steps after `change_at`."""
    steps = np.arange(0, (checkpoints - 1) * SPACING + 1, 10)
    noise = 0.01 * np.random.default_rng(seed).standard_normal((3, len(steps)))
    onset = np.inf if change_at is None else (change_at + 1) * SPACING + 340
    values = {
        row["metric_name"]: np.where(steps < onset, 0.1, 0.9),
        "train_accuracy": 1 - np.exp(-steps / 400),
        "train_loss": 3 * np.exp(-steps / 500) + 0.05,
    }
    series = [MetricSeries(name, steps, one + more) for (name, one), more in zip(values.items(), noise, strict=True)]
    further = (FurtherMetric(series[1], True), FurtherMetric(series[2], False))
    return TrainingRecord(metric=series[0], higher_is_better=True, further=further)


def _metric_columns(change_at: int | None) -> dict[str, Any]:
    if change_at is None:
        return {"metric_higher_is_better": True, "metric_p_value": 0.4}
    onset = (change_at + 1) * SPACING + 340
    interval = {"metric_onset": onset, "metric_onset_low": onset - 40, "metric_onset_high": onset}
    return interval | {
        "metric_higher_is_better": True,
        "metric_before": 0.1,
        "metric_after": 0.9,
        "metric_p_value": 1e-3,
    }


def make_failed(name: str, error: str, *, project: str = "modular addition", seed: int = 0) -> RunTables:
    """A run that could not be audited."""
    return make_run(
        name,
        project=project,
        checkpoints=12,
        change_at=None,
        seed=seed,
        groups=(),
        status="failed",
        error=error,
        regime=None,
        windows=0,
        transitions=0,
    )


def stacked(*runs: RunTables) -> tuple[pa.Table, pa.Table, pa.Table, list[Score], pa.Table]:
    """Tables `runs`, `gaps` and `transitions` of a store that holds `runs`, their scores, and table `metrics`."""
    names = ("runs", "gaps", "transitions", "metrics")
    *tables, metrics = (pa.concat_tables([getattr(run, name) for run in runs]) for name in names)
    scores = [score for run in runs for score in scores_of_rows(RunFacts.of(run.summary), run.scorecard.to_pylist())]
    return (*tables, scores, metrics)


def small_store() -> tuple[RunTables, ...]:
    """What a first audit may look like: changes, none, a short run, blurred weights, failures."""
    return (
        make_run("grok-wd1-s0", seed=1),
        make_run("grok-wd1-s1", seed=2, change_at=52),
        make_run("grok-wd0-s0", seed=3, change_at=None, weight_decay=0.0),
        make_run("grok-wd0-s1 still running", seed=4, change_at=None, checkpoints=70, state="running"),
        make_run(
            "digits-control",
            project="digits",
            seed=5,
            change_at=None,
            metric=False,
            learning_rate=False,
            blurred=range(50, 75),
            warnings=[
                "No learning rate was found among the run's metrics or parameters: `adiabatic` is empty.",
                "Checkpoint step 1,640 has no file of its own and was left out.",
            ],
        ),
        make_run(
            "just started",
            project="digits",
            seed=6,
            checkpoints=7,
            change_at=None,
            state="running",
            warnings=["Changes were not tested: 7 checkpoints, and a window of 10 updates needs at least 41."],
        ),
        make_failed(
            "digits-truncated",
            "run digits-truncated, file checkpoints/step-1200.safetensors: The header promises 159,164 bytes of data, "
            "the file holds 81,920. Left behind: nothing. Next: fetch or save this checkpoint again, then run "
            "`spectral-edge audit mlflow:digits` once more; the other runs are done.",
            project="digits",
            seed=7,
        ),
        make_failed(
            "grok-nan",
            "run grok-nan, file ckpt_0800.pt, tensor blocks.0.attn.in_proj_weight: 12 of 12,288 entries are NaN. "
            "Next: audit up to step 760 with `--last-step 760`.",
            seed=8,
        ),
    )
