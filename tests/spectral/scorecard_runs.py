"""Tables of invented runs in which a prediction holds, fails, or cannot be told, by construction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.gap_flow import deviation, windowed
from spectral_edge.band import Matrix
from spectral_edge.gap_flow import fewest_windows
from spectral_edge.scoring.stored import scorecard_table
from spectral_edge.settings import Settings
from spectral_edge.tables import RunKey, RunTables, build

W = 5
EVERY = 10
SETTINGS = Settings(window=W)
FIRST = EVERY * W
"""Step at which the first full window ends."""


def spectra(leading: Matrix, width: int = W) -> Matrix:
    """Singular values whose only gap lies behind the first: sigma_1 as given, the others a hair below 1."""
    rest = 1 - 1e-3 * np.arange(width - 1)
    return np.column_stack([leading, np.tile(rest, (len(leading), 1))])


def run_tables(
    sigma: Matrix | None = None,
    *,
    name: str = "run",
    project: str = "invented",
    optimizer: str | None = "AdamW",
    weight_decay: float | None = 1.0,
    metric: str | None = "val_accuracy",
    changes: Sequence[tuple[int, int, int]] = (),
    onset: tuple[int, int, int] | None = None,
    gain: float = 0.5,
    metric_tested: bool = True,
    earlier: bool = False,
    tested: int = 4,
    groups: Sequence[str] = ("total",),
    n_parameters: int = 1000,
    columns: Mapping[str, Any] | None = None,
) -> RunTables:
    """One run: full windows with the spectra `sigma`, shape (n, W); `changes` and `onset` as (step, low, high).

    The metric changes by `gain` at `onset`, or not at all. An `earlier` version stored neither that nor a scorecard.
    `columns` overrides columns of table `gaps`, one entry a window. A short window with a wild spectrum comes first.
    """
    key = RunKey("dir", project, name, name)
    stamp = key.columns() | {"audit_id": f"audit-{name}", "settings_hash": SETTINGS.hash, "schema_version": 1}
    values = spectra(np.full(12, 3.0)) if sigma is None else sigma
    rows = [row for group in groups for row in _gap_rows(group, values, n_parameters, columns or {})]
    transitions = [_transition(one, onset, metric) for one in changes]
    run = {
        "status": "ok",
        "windows": len(values),
        "transitions": len(changes),
        "stretches_tested": tested,
        "optimizer": optimizer,
        "weight_decay": weight_decay,
        "metric_name": metric,
        "settings": SETTINGS.as_json(),
        "fingerprint": name,
        "audited_at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    }
    if not earlier:
        run |= _metric(metric, onset, gain, tested=metric_tested)
    tables = RunTables(
        key,
        build("runs", [stamp | run]),
        build("inner_products", []),
        build("gaps", [stamp | row for row in rows]),
        build("transitions", [stamp | row for row in transitions]),
    )
    return tables if earlier else replace(tables, scorecard=scorecard_table(tables))


def _metric(name: str | None, onset: tuple[int, int, int] | None, gain: float, *, tested: bool) -> dict[str, Any]:
    if name is None:
        return {}
    if onset is None or not tested:
        return {"metric_higher_is_better": True, "metric_p_value": 0.5 if tested else None}
    return {
        "metric_higher_is_better": True,
        "metric_p_value": 0.001,
        "metric_onset": onset[0],
        "metric_onset_low": onset[1],
        "metric_onset_high": onset[2],
        "metric_before": 0.25,
        "metric_after": 0.25 + gain,
    }


def _gap_rows(group: str, sigma: Matrix, n_parameters: int, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"group": group, "short": True, "step": EVERY, "singular_values": [1e9, 1e-9], "k_star": 1, "adiabatic": 1e9}
    ]
    for index, values in enumerate(sigma):
        gap = values[0] - values[1]
        row = {
            "group": group,
            "short": False,
            "step": FIRST + EVERY * index,
            "n_parameters": n_parameters,
            "singular_values": values.tolist(),
            "k_star": int(np.argmax(values[:-1] / values[1:])) + 1,
            "k_star_weighted": 1,
            "gap": gap,
            "g23_eigen": values[1] ** 2 - values[2] ** 2,
            "learning_rate": 1e-3,
            "gram_change": 0.1,
            "gram_change_operator": 0.1,
            "adiabatic": 0.1 / (1e-3 * gap**2),
            "overlap": [0.99, *[0.9] * (len(values) - 1)],
            "stability": [0.9, *[0.1] * (len(values) - 1)],
            "noise_threshold_ratio": 3.0,
        }
        rows.append(row | {name: _entry(entries[index]) for name, entries in columns.items()})
    return rows


def _entry(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _transition(change: tuple[int, int, int], onset: tuple[int, int, int] | None, metric: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "group": "total",
        "kind": "rotation",
        "onset_step": change[0],
        "onset_low": change[1],
        "onset_high": change[2],
        "metric_name": metric,
    }
    if onset is None:
        return row
    lead = {"lead_steps": onset[0] - change[0], "lead_low": onset[1] - change[2], "lead_high": onset[2] - change[1]}
    return row | {"metric_onset": onset[0]} | lead


MIDDLE = FIRST + EVERY * 20
ONSET = (MIDDLE, MIDDLE, MIDDLE)
BEFORE = ((80, 70, 90),)


def hill() -> Matrix:
    """R low, high, low; 60 windows."""
    noise = 0.02 * np.random.default_rng(1).standard_normal(60)
    return spectra(np.repeat([2.0, 8.0, 2.0], 20) * np.exp(noise))


def falling_g23(ratio: float) -> Matrix:
    """g23 falls by `ratio` from the first window to that at MIDDLE, and goes on falling."""
    values = np.tile([5.0, 0.0, 1.0, 0.9, 0.8], (40, 1))
    values[:, 1] = np.sqrt(1 + 4 * ratio ** -(np.arange(40) / 20))
    return values


def damped(seed: int = 3) -> Matrix:
    """A gap that comes back to its mean within a window or two."""
    count = 4 * fewest_windows(W)
    series = deviation(count + W, 0.8 / W, np.random.default_rng(seed))
    return spectra(1 + 8 + windowed(series, W, count))


def adiabatic(before: float, after: float) -> dict[str, Any]:
    """Column `adiabatic` of 40 windows, `before` up to MIDDLE and `after` from there."""
    return {"adiabatic": np.where(np.arange(40) <= 20, before, after)}


def operator(before: float, after: float) -> dict[str, Any]:
    """The change of the operator that gives these A at a gap of 2 and a rate of 10^-3."""
    return {"gram_change_operator": np.where(np.arange(40) <= 20, before, after) * 1e-3 * 4}


LONG = spectra(np.full(40, 3.0))
TIMED: dict[str, Any] = {"changes": BEFORE, "onset": ONSET}

HOLDING: dict[str, Callable[[], RunTables]] = {
    "gap_before_metric": lambda: run_tables(LONG, **TIMED),
    "gap_dynamics_need_decay": lambda: run_tables(LONG, **TIMED),
    "k_star_by_optimizer": lambda: run_tables(optimizer="Muon"),
    "three_phases": lambda: run_tables(hill()),
    "three_phases_attention": lambda: run_tables(hill(), groups=("attention", "total")),
    "stability_order": run_tables,
    "overlap_order": run_tables,
    "noise_threshold": lambda: run_tables(n_parameters=10**9, columns={"noise_threshold_ratio": np.full(12, 25.0)}),
    "adiabatic_elementwise": lambda: run_tables(LONG, **TIMED, columns=adiabatic(0.01, 1.0)),
    "adiabatic_operator": lambda: run_tables(LONG, **TIMED, columns=operator(0.01, 1.0)),
    "g23_declines": lambda: run_tables(falling_g23(3.0), **TIMED),
    "gap_damping": lambda: run_tables(damped()),
    "davis_kahan": lambda: run_tables(columns={"gram_change_operator": np.full(12, 4.0)}),
}
"""A run for each prediction in which it holds."""
