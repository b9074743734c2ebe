"""From bands to tables: spectra, regimes and transitions of one run (theory 3 to 5 and 9)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from spectral_edge.adiabatic import adiabatic, relative_learning_rate
from spectral_edge.advice import advice
from spectral_edge.band import Band, Matrix
from spectral_edge.errors import SpectralEdgeError
from spectral_edge.metric_points import metric_rows, record_hash
from spectral_edge.regimes import Reading, read_regimes
from spectral_edge.scoring.stored import scorecard_table
from spectral_edge.series import Steps, TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.tables import INNER_PRODUCTS, SCHEMA_VERSION, RunKey, RunTables, audit_id, build
from spectral_edge.trajectory import Trajectory
from spectral_edge.transitions import Change, MetricChange, find_changes, largest_shift
from spectral_edge.versions import versions_json
from spectral_edge.windows import Windows, windows


@dataclass(frozen=True)
class Provenance:
    """Where a run's checkpoints came from and what bringing them cost.

    `fingerprint` is the hash of the checkpoints' ids, sizes and digests; `series` names them among what the run offers,
    `step_source` says how their training steps were found; `contents` has a digest of the bytes of each, where one is
    known; times are seconds, `bytes_read` bytes. `sketch_size` is the smallest sketch that the numbers are estimated
    from, None when they are exact. `tracker_name` is what its user calls the tracker.
    """

    fingerprint: str
    state: str
    url: str
    series: str | None = None
    step_source: str | None = None
    sketch_size: int | None = None
    warnings: tuple[str, ...] = ()
    contents: tuple[str | None, ...] = ()
    bytes_read: int = 0
    seconds_fetch: float = 0.0
    seconds_gram: float = 0.0
    tracker_name: str | None = None


def analyse_run(
    key: RunKey, trajectory: Trajectory, record: TrainingRecord, settings: Settings, provenance: Provenance
) -> RunTables:
    """All tables of one run.

    Status is `partial` where groups end early because tensors changed (theory 8), else `ok`.
    """
    started = time.perf_counter()
    steps = np.asarray(trajectory.steps, dtype=np.int64)
    groups = {name: _Group(name, band, steps, record, settings) for name, band in trajectory.bands.items()}
    tested = find_changes(trajectory.bands, settings)
    shift = None if record.metric is None else largest_shift(record.metric.at(steps), settings)
    metric = shift if shift is not None and shift.p_value <= settings.false_alarm_rate else None
    told = record_hash(record, steps)
    stamp = _stamp(key, provenance, settings, told)
    gaps = [stamp | row for group in groups.values() for row in group.rows()]
    transitions = [stamp | row for row in _transition_rows(tested.changes, groups, steps, record, metric)]
    summary = (
        _run_row(stamp, provenance, settings)
        | {
            "status": "partial" if trajectory.endings else "ok",
            "error": " ".join(trajectory.endings) or None,
            "warnings": [
                *provenance.warnings,
                *trajectory.warnings,
                *record.warnings,
                *advice(
                    steps,
                    settings,
                    stretches=tested.stretches,
                    identical=_identical(trajectory.bands),
                    metric=metric,
                ),
            ],
            "checkpoints": len(steps),
            "windows": int(next(iter(groups.values())).windows.full.sum()),
            "step_first": int(steps[0]),
            "step_last": int(steps[-1]),
            "regime": next(iter(groups.values())).last_regime(),
            "transitions": len(transitions),
            "stretches_tested": tested.stretches,
            "optimizer": record.optimizer,
            "weight_decay": record.weight_decay,
            "record_hash": told,
        }
        | _metric_columns(record, steps, shift, metric)
    )
    tables = RunTables(
        key=key,
        runs=build("runs", [summary]),
        inner_products=_inner_products(trajectory.bands, steps, stamp),
        gaps=build("gaps", gaps),
        transitions=build("transitions", transitions),
        metrics=build("metrics", [stamp | row for row in metric_rows(record)]),
    )
    scores = scorecard_table(tables)
    spent = {"seconds_analyse": time.perf_counter() - started}
    return replace(tables, runs=build("runs", [summary | spent]), scorecard=scores)


def failed_run(key: RunKey, error: SpectralEdgeError, settings: Settings, provenance: Provenance) -> RunTables:
    """The tables of a run that could not be analysed: one row of `runs` that says why."""
    row = _run_row(_stamp(key, provenance, settings), provenance, settings) | {
        "status": "failed",
        "error": str(error),
        "warnings": list(provenance.warnings),
        "checkpoints": 0,
        "windows": 0,
        "transitions": 0,
        "stretches_tested": 0,
        "regime": "undetermined",
        "seconds_analyse": 0.0,
    }
    tables = RunTables(
        key, build("runs", [row]), build("inner_products", []), build("gaps", []), build("transitions", [])
    )
    return replace(tables, scorecard=scorecard_table(tables))


class _Group:
    """One group's windows with what the training record adds to them."""

    def __init__(self, name: str, band: Band, steps: Steps, record: TrainingRecord, settings: Settings) -> None:
        self.name = name
        self.windows: Windows = windows(band, settings)
        self._steps = steps[: band.updates + 1]
        self._n_parameters = band.n_parameters
        self._window = settings.window
        self.readings: list[Reading] = read_regimes(self.windows, self._steps, record, settings)
        rate = record.learning_rate_at(self._steps)
        at_end, gap = self.windows.ends + 1, self.windows.scalars["gap"]
        change = self.windows.scalars["gram_change"]
        self._rates = {
            "learning_rate": rate[at_end],
            "adiabatic": adiabatic(change, gap, rate[at_end]),
            "adiabatic_relative": adiabatic(change, gap, relative_learning_rate(rate)[at_end]),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of table `gaps`, without the keys."""
        scalars = {name: _nullable(values) for name, values in (self.windows.scalars | self._rates).items()}
        for index, end in enumerate(self.windows.ends):
            updates = int(self.windows.updates[index])
            first = int(end) + 1 - updates
            spacing = np.diff(self._steps[first : end + 2])
            reading = self.readings[index]
            yield {name: values[index] for name, values in scalars.items()} | {
                "group": self.name,
                "window": self._window,
                "updates": updates,
                "short": updates < self._window,
                "step_first": int(self._steps[first]),
                "step": int(self._steps[end + 1]),
                "spacing": float(np.median(spacing)),
                "uneven": bool(spacing.min() != spacing.max()),
                "n_parameters": self._n_parameters,
                "singular_values": self.windows.singular_values[index, :updates].tolist(),
                "k_star": _position(self.windows.k_star[index]),
                "k_star_weighted": _position(self.windows.k_star_weighted[index]),
                "level_crossing": bool(self.windows.level_crossing[index]),
                "stability": _nullable(self.windows.stability[index, :updates]),
                "overlap": _nullable(self.windows.overlap[index, :updates]),
                "regime": reading.regime,
                "regime_reason": reading.reason,
            }

    def last_regime(self) -> str:
        """Regime of the last full window; undetermined when there is none."""
        full = np.flatnonzero(self.windows.full)
        return self.readings[full[-1]].regime if len(full) else "undetermined"

    def usual_k(self, first: int, stop: int) -> int | None:
        """Most frequent k* of the windows that end at updates first … stop - 1 (smallest of equals)."""
        inside = (self.windows.ends >= first) & (self.windows.ends < stop) & (self.windows.k_star > 0)
        counts = Counter(self.windows.k_star[inside].tolist())
        return min(counts, key=lambda k: (-counts[k], k)) if counts else None

    def regime_at(self, end: int) -> str | None:
        """Regime of the window that ends at update `end`."""
        found = np.flatnonzero(self.windows.ends == end)
        return self.readings[found[0]].regime if len(found) else None


def _transition_rows(
    changes: tuple[Change, ...],
    groups: Mapping[str, _Group],
    steps: Steps,
    record: TrainingRecord,
    metric: MetricChange | None,
) -> Iterator[dict[str, Any]]:
    for index, change in enumerate(changes):
        group = groups[change.group]
        later = [c.update for c in changes[index + 1 :] if c.group == change.group and c.update > change.update]
        stop = min([*later, int(group.windows.ends[-1]) + 1])
        width = group.windows.singular_values.shape[1]
        onset = _span(steps, change.update + 1, change.low + 1, change.high + 1)
        yield {
            "group": change.group,
            "kind": change.kind,
            "onset_step": onset[0],
            "onset_low": onset[1],
            "onset_high": onset[2],
            "end_step": int(steps[stop]),
            "k_before": group.usual_k(change.update - width, change.update),
            "k_after": group.usual_k(change.update + width - 1, change.update + 2 * width - 1),
            "effect": change.effect,
            "p_value": change.p_value,
            "q_value": change.q_value,
            "regime_before": group.regime_at(change.update - 1),
            "regime_after": group.regime_at(change.update + width - 1),
            "metric_name": record.metric.name if record.metric else None,
        } | _lead(onset, steps, metric)


def _lead(onset: tuple[int, int, int], steps: Steps, metric: MetricChange | None) -> dict[str, int]:
    if metric is None:
        return {}
    moved = _span(steps, metric.checkpoint, metric.low, metric.high)
    return {
        "metric_onset": moved[0],
        "lead_steps": moved[0] - onset[0],
        "lead_low": moved[1] - onset[2],
        "lead_high": moved[2] - onset[1],
    }


def _span(steps: Steps, at: int, low: int, high: int) -> tuple[int, int, int]:
    return int(steps[at]), int(steps[low]), int(steps[high])


def _metric_columns(
    record: TrainingRecord, steps: Steps, shift: MetricChange | None, established: MetricChange | None
) -> dict[str, Any]:
    """What table `runs` says of the metric: `shift` is its largest, `established` the same where it is no chance."""
    if record.metric is None:
        return {}
    told = {
        "metric_name": record.metric.name,
        "metric_higher_is_better": record.higher_is_better,
        "metric_p_value": None if shift is None else shift.p_value,
    }
    if established is None:
        return told
    onset, low, high = _span(steps, established.checkpoint, established.low, established.high)
    return told | {
        "metric_onset": onset,
        "metric_onset_low": low,
        "metric_onset_high": high,
        "metric_before": established.before,
        "metric_after": established.after,
    }


def _identical(bands: Mapping[str, Band]) -> int:
    """Checkpoints that hold the weights of the one before."""
    return int((next(iter(bands.values())).values[:, 0] <= 0).sum())


def _inner_products(bands: Mapping[str, Band], steps: Steps, stamp: Mapping[str, Any]) -> pa.Table:
    parts = [_inner_products_of(name, band, steps, stamp) for name, band in bands.items()]
    return pa.concat_tables(parts)


def _inner_products_of(name: str, band: Band, steps: Steps, stamp: Mapping[str, Any]) -> pa.Table:
    update, lag = np.nonzero(np.arange(band.updates)[:, None] >= np.arange(band.lags + 1)[None, :])
    columns: dict[str, Any] = {
        "step": steps[update + 1],
        "lag": lag.astype(np.int32),
        "value": band.values[update, lag],
        "n_parameters": np.full(len(update), band.n_parameters),
        "rounding_energy": band.rounding_energy[update],
    }
    constants = dict(stamp) | {"group": name}
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.repeat(pa.scalar(constants[field.name], field.type), len(update))
        for field in INNER_PRODUCTS
    ]
    return pa.Table.from_arrays(arrays, schema=INNER_PRODUCTS)


def _stamp(key: RunKey, provenance: Provenance, settings: Settings, record: str | None = None) -> dict[str, Any]:
    return key.columns() | {
        "audit_id": audit_id(provenance.fingerprint, settings.hash, record),
        "settings_hash": settings.hash,
        "schema_version": SCHEMA_VERSION,
    }


def _run_row(stamp: Mapping[str, Any], provenance: Provenance, settings: Settings) -> dict[str, Any]:
    return dict(stamp) | {
        "state": provenance.state,
        "url": provenance.url,
        "tracker_name": provenance.tracker_name,
        "series": provenance.series,
        "step_source": provenance.step_source,
        "sketch_size": provenance.sketch_size,
        "fingerprint": provenance.fingerprint,
        "contents": list(provenance.contents) if any(provenance.contents) else None,
        "settings": settings.as_json(),
        "seconds_fetch": provenance.seconds_fetch,
        "seconds_gram": provenance.seconds_gram,
        "bytes_read": provenance.bytes_read,
        "versions": versions_json(),
        "audited_at": datetime.now(UTC),
    }


def _nullable(values: Matrix) -> list[float | None]:
    """NaN means undefined inside; tables say null."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _position(k: np.int64) -> int | None:
    return int(k) or None
