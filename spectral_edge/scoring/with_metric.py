"""Tests that need to know when the evaluation metric changed: order in time, A, and the decline of g23."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from spectral_edge.band import Matrix
from spectral_edge.groups import TOTAL
from spectral_edge.scoring.evidence import ATTENTION, Evidence, MetricOnset
from spectral_edge.scoring.finding import Finding, decided, lacking
from spectral_edge.series import Steps

DECLINE: Final = 2.0
"""From which ratio on g23 counts as declined: it halves. The paper reports 30 to 40 and states no threshold."""
SMALL: Final = 0.1
LARGE: Final = 10.0
"""A << 1 and A >> 1, taken as a factor of ten on either side; the paper gives no numbers."""
G23_DECLINES: Final = "g23_declines"
"""Name of the one prediction in which runs without a change of the metric count: as controls."""
MOVES, STAYS = "metric changes", "no change of the metric established"


@dataclass(frozen=True)
class G23:
    """lambda_2 - lambda_3 of the full windows of one group, by increasing step: shapes (n,), NaN where undefined."""

    group: str
    steps: Steps
    values: Matrix
    window: int

    def decline(self, until: int) -> tuple[float, int]:
        """Largest over last value until that step and windows that it is of; NaN where fewer than W have a value."""
        values = self.values[self.steps <= until]
        if len(values) < self.window or not np.isfinite(values).all() or values[-1] <= 0:
            return float("nan"), int(np.isfinite(values).sum())
        return float(values.max() / values[-1]), len(values)


def gap_before_metric(run: Evidence) -> Finding:
    """A change of the spectrum, of any kind and group, whose interval ends before the metric's begins."""
    if run.tested == 0:
        return lacking("enough checkpoints", "too few checkpoints to test for changes of the spectrum")
    onset = _onset(run)
    if isinstance(onset, Finding):
        return onset
    windows = run.groups.get(TOTAL)
    if windows is None or len(windows.steps) <= run.window // 2:
        return lacking("full windows", f"{run.window // 2 + 1} full windows are needed")
    # A change is sought from W // 2 windows on either side of it on (docs/transitions.md): none can come earlier.
    first_possible = int(windows.steps[run.window // 2])
    if onset.low <= first_possible:
        reason = (
            f"{run.metric} may change at step {onset.low}, and no change of the spectrum is found by {first_possible}"
        )
        return lacking("time before the metric's onset", reason)
    return _ahead(run, onset)


def _ahead(run: Evidence, onset: MetricOnset) -> Finding:
    """Whether one of the changes lies before `onset`, intervals included."""
    told = {"metric_onset": float(onset.step), "metric_onset_low": float(onset.low)}
    if not run.transitions:
        reason = f"{run.metric} changes at step {onset.step}, and the spectrum has no change at all"
        return Finding("fails", reason, threshold=0.0, numbers=told)
    lows = [onset.low - int(row["onset_high"]) for row in run.transitions]
    highs = [onset.high - int(row["onset_low"]) for row in run.transitions]
    best = int(np.argmax(lows))
    first = run.transitions[best]
    told |= {"lead_high": float(highs[best]), "before": float(sum(low > 0 for low in lows))}
    if lows[best] <= 0 <= max(highs):
        return lacking(
            "order in time", "the intervals of the changes nearest to the metric's overlap with it", numbers=told
        )
    reason = (
        f"{first['kind']} in {first['group']} at step {first['onset_step']}; {run.metric} changes at step {onset.step}"
    )
    return decided(lows[best] > 0, reason, value=lows[best], threshold=0, n=len(lows), numbers=told)


def adiabatic_elementwise(run: Evidence) -> Finding:
    """A of column `adiabatic`, whose change of the Gram matrix is elementwise."""
    return _adiabatic(run, "adiabatic")


def adiabatic_operator(run: Evidence) -> Finding:
    """A with the change of the operator X'X, for which Davis-Kahan holds."""
    return _adiabatic(run, "gram_change_operator")


def g23_declines(run: Evidence) -> Finding:
    """Largest over last value of lambda_2 - lambda_3 until the metric changes; in controls, until `run.until`."""
    group = ATTENTION if ATTENTION in run.groups else TOTAL
    if group not in run.groups:
        return lacking("full windows", "no full window")
    windows, onset = run.groups[group], _onset(run)
    g23 = G23(group, windows.steps, windows.of("g23_eigen"), run.window)
    if isinstance(onset, Finding):
        is_control = run.facts.moved is False and run.until is not None
        return onset if run.until is None or not is_control else as_control(onset, g23, run.until)
    ratio, n = g23.decline(onset.low)
    if not np.isfinite(ratio):
        reason = f"{n} full windows with g23 end by step {onset.low}, {run.window} are needed"
        return lacking("full windows before the metric changes", reason, group=group)
    reason = f"largest over last g23 until step {onset.low}, where the metric's change may begin"
    found = decided(ratio >= DECLINE, reason, value=ratio, threshold=DECLINE, n=n, group=group)
    return found.on(MOVES, ratio >= DECLINE)


def as_control(silent: Finding, g23: G23, until: int) -> Finding:
    """What a run without a change of the metric shows until the step at which others have theirs.

    Not testable, as the claim is of runs that generalise; its decline counts on the other side.

    Args:
        silent: What the run shows by itself.
        g23: Of its attention weights where there are any, else of all.
        until: Step.
    """
    ratio, n = g23.decline(until)
    if not np.isfinite(ratio):
        return silent
    reason = f"{silent.why}; as a control: largest over last g23 until step {until}"
    told = Finding("not_testable", reason, silent.lacks, g23.group, ratio, DECLINE, n)
    return told.on(STAYS, ratio >= DECLINE)


def _adiabatic(run: Evidence, change: str) -> Finding:
    if TOTAL not in run.groups:
        return lacking("full windows", "no full window")
    windows = run.groups[TOTAL]
    if not np.isfinite(windows.of("learning_rate")).any():
        return lacking("learning rate", "the learning rate is unknown, and A is in units of it", group=TOTAL)
    onset = _onset(run)
    if isinstance(onset, Finding):
        return onset
    a = windows.of("adiabatic") if change == "adiabatic" else _literal(run, windows.of(change))
    before = a[windows.steps <= onset.low][-run.window :]
    at = a[windows.steps > onset.low][: run.window]
    if min(len(before), len(at)) < run.window or not np.isfinite(np.concatenate([before, at])).all():
        reason = f"{run.window} windows with A are needed on either side of step {onset.low}"
        return lacking("full windows around the metric's change", reason, group=TOTAL)
    still, moving = float(np.median(before)), float(np.median(at))
    reason = f"median A of {run.window} windows before the metric's change {still:.3g}, and of those after {moving:.3g}"
    holds = still < SMALL <= moving <= LARGE
    return decided(
        holds, reason, value=still, threshold=SMALL, n=2 * run.window, group=TOTAL, numbers={"at_transition": moving}
    )


def _literal(run: Evidence, change: Matrix) -> Matrix:
    windows = run.groups[TOTAL]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(change / (windows.of("learning_rate") * windows.of("gap") ** 2))


def _onset(run: Evidence) -> MetricOnset | Finding:
    """Where the metric changes for the better, as far as is known; otherwise why that is not known."""
    if run.metric is None:
        return lacking("evaluation metric", "the run logged no evaluation metric")
    if run.onset is None and run.earlier:
        reason = f"audited by an earlier version, which did not store where {run.metric} changes; audit the run again"
        return lacking("audited by an earlier version", reason)
    if run.onset is None and run.facts.moved is None:
        reason = f"{run.metric} could not be tested: too few checkpoints, or it is not known at each of them"
        return lacking("a test of the metric", reason)
    if run.onset is None:
        return lacking("change of the metric", f"no change of {run.metric} is established")
    if run.onset.improved is False:
        return lacking("gain of the metric", f"the largest change of {run.metric} is for the worse")
    return run.onset
