"""Table 1 and 2: how many runs without an event are given a change, as stated and after calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.negatives.runs import Negative, of_part, statistic
from benchmarks.replication.table import Row, Table
from spectral_edge.calibration import Rate, calibrate, fewest_controls, rate_at
from spectral_edge.settings import Settings
from spectral_edge.transitions import EXCESS

TARGET: Final = 0.05


def told(rate: Rate) -> str:
    """`3/40 [0.02, 0.20]`."""
    low, high = rate.interval
    return f"{rate.hits}/{rate.total} [{low:.2f}, {high:.2f}]" if rate.total else "-"


def q_values(runs: Sequence[Negative], settings: Settings, work: Path) -> list[float]:
    """The smallest q-value of each run."""
    return [statistic(run, settings, work).q_value for run in runs]


def sets(runs: Sequence[Negative]) -> Iterator[tuple[str, str, list[Negative]]]:
    """Name, process and test runs: of each kind, of each process, of all."""
    test = of_part(runs, "test")
    for kind in dict.fromkeys(run.kind for run in test):
        members = [run for run in test if run.kind == kind]
        yield kind, members[0].process, members
    for process in dict.fromkeys(run.process for run in test):
        yield f"ALL {process}", process, [run for run in test if run.process == process]
    yield "ALL", "", test


def stated_table(
    runs: Sequence[Negative], left_out: Sequence[tuple[str, str]], settings: Settings, work: Path
) -> Table:
    """Share of test runs that are given a change at the stated 5 %, and without the factor EXCESS, and where."""
    rows: list[Row] = []
    for name, process, members in sets(runs):
        found = [statistic(run, settings, work) for run in members]
        alarmed = [one for one in found if one.q_value <= settings.false_alarm_rate]
        kinds = {run.kind for run in members}
        onsets = [one.update for one in alarmed if one.update is not None]
        rows.append(
            {
                "runs": name,
                "updates": process,
                "left out": sum(part == "test" and kind in kinds for kind, part in left_out),
                "eligible at": float(np.median([run.eligible for run in members])),
                "norm, last/first third": float(np.median([run.norm_ratio for run in members])),
                "without the factor": told(rate_at([one.q_value for one in found], EXCESS * TARGET + 1e-12)),
                "changed": told(Rate(len(alarmed), len(found))),
                "shuffled": told(rate_at(q_values([run.shuffled() for run in members], settings, work), TARGET)),
                "onsets, updates from eligible": _quartiles(onsets),
            }
        )
    return Table(
        "negatives",
        f"Table 1: runs without an event given a change (q <= {settings.false_alarm_rate:g}), 60 checkpoints, "
        f"W = {settings.window}",
        "-; stated rate 5 %",
        rows,
        "test runs; Clopper-Pearson, 95 %; shuffled: the same updates in random order; onsets: quartiles, of 14 to 45",
    )


def calibrated_table(runs: Sequence[Negative], settings: Settings, work: Path) -> Table:
    """The same after calibration: on other seeds of the same kind, on all kinds, on all kinds but this one."""
    calibration = of_part(runs, "calibration")
    rows: list[Row] = []
    for name, process, members in sets(runs):
        scores = q_values(members, settings, work)
        row: dict[str, object] = {"runs": name, "updates": process, "stated": told(rate_at(scores, TARGET))}
        own = [run for run in calibration if name in {run.kind, f"ALL {run.process}", "ALL"}]
        others = [run for run in calibration if run.kind != name]
        for label, controls in (("own kind", own), ("other kinds", others if name[:3] != "ALL" else [])):
            row |= _calibrated(label, scores, q_values(controls, settings, work))
        rows.append(row)
    return Table(
        "calibrated",
        f"Table 2: the same test runs after calibration to {TARGET:.0%}",
        "-",
        rows,
        "own kind: 20 other seeds of it (ALL: of all that are meant); never: no setting, as the rank reaches q = 0.005",
    )


def _calibrated(label: str, scores: Sequence[float], controls: Sequence[float]) -> dict[str, object]:
    if len(controls) < fewest_controls(TARGET):
        return {f"{label}: setting": "-", f"{label}: changed": "-"}
    found = calibrate(controls, TARGET)
    if found.setting is None:
        return {f"{label}: setting": "never", f"{label}: changed": "-"}
    return {f"{label}: setting": f"{found.setting:.3g}", f"{label}: changed": told(rate_at(scores, found.setting))}


def threshold_table(by_set: dict[str, list[float]]) -> Table:
    """How many runs of each set are given a change, by the threshold on q."""
    levels = (0.2, 0.155, 0.1, 0.05, 0.02, 0.01, 0.005)
    rows = [
        {"runs": name, "n": len(scores)} | {f"q <= {level:g}": rate_at(scores, level + 1e-12).hits for level in levels}
        for name, scores in by_set.items()
    ]
    return Table("thresholds", "Table 4: runs given a change, by threshold", "25,513 at 2 sigma, 1,608 at 100", rows)


def _quartiles(values: Sequence[int]) -> str:
    if not values:
        return "-"
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{low:.0f} / {middle:.0f} / {high:.0f}"
