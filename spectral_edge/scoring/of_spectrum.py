"""Tests on the singular values alone: k*, the phases of R, the noise threshold, and damping of the gap."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np

from spectral_edge import spectrum as sp
from spectral_edge.band import Matrix
from spectral_edge.gap_flow import GapFlow, fewest_windows, gap_flows
from spectral_edge.groups import TOTAL
from spectral_edge.permutation import permutation_scan
from spectral_edge.scoring.evidence import Evidence
from spectral_edge.scoring.finding import Finding, decided, lacking

K_STAR: Final = {"muon": 1, "adamw": 2}
"""Published k* by optimizer, of one model of 51 M parameters."""
LEVEL: Final = 0.05
NOISE_RANGE: Final = (20.0, 300.0)
_SIDE_WINDOWS: Final = 2
FEWEST_APART: Final = 8
"""Windows without a common update that the three phases need: with 8 an arrangement in three steps has p = 1/70."""
_MOST_APART: Final = 48
"""More are averaged into so many: the number of cuts that are tried grows with the square."""


def gap_dynamics(run: Evidence) -> Finding:
    """Whether changes are reported, which is claimed of runs with weight decay and denied of those without."""
    decay = run.facts.weight_decay
    if run.tested == 0:
        return lacking("enough checkpoints", "too few checkpoints to test for changes of the spectrum")
    if decay is None or not np.isfinite(decay):
        return lacking("weight decay", "the weight decay is unknown")
    n = len(run.transitions)
    wanted = decay > 0
    reason = (
        f"{n} change(s) reported at weight decay {decay:g}, where " + ("some are" if wanted else "none is") + " due"
    )
    found = decided((n > 0) == wanted, reason, value=n, threshold=int(wanted), n=run.tested)
    return found.on("weight decay" if wanted else "no weight decay", n > 0)


def k_star(run: Evidence) -> Finding:
    """The most frequent k* (Definition 3.1) against the published one of the optimizer."""
    name = (run.facts.optimizer or "").lower()
    known = [optimizer for optimizer in K_STAR if optimizer in name]
    if len(known) != 1:
        told = f"got {run.facts.optimizer!r}" if name else "it is unknown"
        return lacking("optimizer Muon or AdamW", f"k* is published for Muon and for AdamW; {told}")
    if TOTAL not in run.groups:
        return lacking("full windows", "no full window")
    windows, wanted = run.groups[TOTAL], K_STAR[known[0]]
    plain, weighted = windows.of("k_star"), windows.of("k_star_weighted")
    sigma = windows.of("singular_values")
    sigma = sigma[np.isfinite(sigma).all(axis=1)]
    capped = sp.k_star(sigma[:, : run.window // 2 + 1], run.floor).astype(np.float64)
    modes = [_mode(values) for values in (plain, capped, weighted)]
    n = int(np.isfinite(plain).sum())
    if n < run.window or not np.isfinite(modes).all():
        return lacking("full windows", f"{n} full windows with k*, {run.window} are needed", group=TOTAL)
    share = float((plain == wanted).sum() / n)
    numbers = {"share_of_windows": share, "mode_capped": modes[1], "mode_weighted": modes[2]}
    reason = f"most frequent k* is {modes[0]:.0f} under {run.facts.optimizer}; it is {wanted} in {share:.0%} of windows"
    found = decided(modes[0] == wanted, reason, value=modes[0], threshold=wanted, n=n, group=TOTAL, numbers=numbers)
    return found if found.outcome == "not_testable" else found.on(known[0], modes[0] == 1)


def three_phases(run: Evidence, group: str) -> Finding:
    """Whether a stretch of high R stands between two of lower R, by more than windows in any order would give."""
    if group not in run.groups:
        return lacking(f"group {group}", f"no full window of group {group}")
    log_ratio = capped_log_ratio(run.groups[group].of("singular_values"), run.floor)
    apart = log_ratio[:: -run.window][::-1]
    if len(apart) < FEWEST_APART or not np.isfinite(apart).all():
        reason = f"{len(apart)} windows without a common update, {FEWEST_APART} with a finite R are needed"
        return lacking("windows without a common update", reason, group=group)
    size = -(-len(apart) // _MOST_APART)
    series = apart[len(apart) % size :].reshape(-1, size).mean(axis=1)
    scan = permutation_scan(lambda orders: series[orders], _heights, len(series), 1, LEVEL)
    p_value, height = float(scan.p_values[0]), float(scan.values.max())
    holds = p_value <= LEVEL and height > 0
    reason = (
        f"the best middle stretch has R {np.exp(height):.3g} times that of the higher of its sides, p = {p_value:.3g}"
    )
    numbers = {"height": height}
    return decided(holds, reason, value=p_value, threshold=LEVEL, n=len(apart), group=group, numbers=numbers)


def capped_log_ratio(sigma: Matrix, floor: float) -> Matrix:
    """Log of the largest sigma_j/sigma_(j+1) with j <= W/2, shape (n,); NaN where none is resolved."""
    leading = sigma[:, : sigma.shape[1] // 2 + 1]
    with np.errstate(invalid="ignore"):
        ratio = sp.gap_ratio(leading, sp.k_star(leading, floor))
    return np.where(np.isfinite(sigma).all(axis=1), np.log(ratio), np.nan)


def noise_threshold(run: Evidence) -> Finding:
    """The median of sigma_W/d_crit, where its definition lets it reach the published range at all."""
    if TOTAL not in run.groups:
        return lacking("full windows", "no full window")
    windows, (low, high) = run.groups[TOTAL], NOISE_RANGE
    bound = (windows.n_parameters / (run.window - 1)) ** 0.25
    ratios = windows.of("noise_threshold_ratio")
    ratios = ratios[np.isfinite(ratios)]
    if len(ratios) < run.window:
        reason = f"{len(ratios)} full windows with a finite ratio, {run.window} are needed"
        return lacking("full windows", reason, group=TOTAL)
    median = float(np.median(ratios))
    limit = f"the definition bounds the ratio by (P/(W-1))^(1/4) = {bound:.3g}"
    numbers = {"bound": bound, "lowest": float(ratios.min()), "highest": float(ratios.max())}
    if bound < low:
        reason = f"{limit}, so that {low:g} cannot be reached with {windows.n_parameters:,} parameters"
        return lacking(
            f"{low:g} within the definition's bound", reason, group=TOTAL, numbers=numbers | {"median": median}
        )
    reason = f"median {median:.3g}; {limit}, and it mostly tells P"
    return decided(
        low <= median <= high, reason, value=median, threshold=low, n=len(ratios), group=TOTAL, numbers=numbers
    )


def gap_damping(run: Evidence) -> Finding:
    """Whether b of dg/dt = a - b g lies above 0 on the longest stretch of one k*."""
    if TOTAL not in run.groups:
        return lacking("full windows", "no full window")
    windows = run.groups[TOTAL]
    sigma = windows.of("singular_values")
    if not np.isfinite(sigma).all():
        return lacking("finite values", "a singular value is not finite", group=TOTAL)
    longest = max(gap_flows(TOTAL, windows.steps, sigma, floor=run.floor), key=lambda flow: flow.windows)
    return _damping(longest, run.window)


def _damping(flow: GapFlow, window: int) -> Finding:
    length = {"windows": float(flow.windows)}
    if flow.untestable is not None or flow.b_low is None or flow.b_high is None:
        lacks = f"{fewest_windows(window)} windows of one k*"
        return lacking(lacks, f"longest stretch: {flow.untestable}", group=TOTAL, numbers=length)
    told = f"b in [{flow.b_low:.3g}, {flow.b_high:.3g}] a step over {flow.windows} windows of k* = {flow.k_star}"
    if flow.b_low <= 0 <= flow.b_high:
        return lacking("a sign of b", f"{told}: neither damping nor growth", group=TOTAL, numbers=length)
    holds = flow.b_low > 0
    value = flow.b_low if holds else flow.b_high
    return decided(holds, told, value=value, threshold=0, n=flow.windows, group=TOTAL)


def _heights(series: Matrix) -> Matrix:
    """How far the mean of each possible middle stands above the higher of its sides: shape (r, n) -> (r, 1, cuts)."""
    n = series.shape[1]
    rise, fall = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    allowed = (rise >= _SIDE_WINDOWS) & (fall - rise >= _SIDE_WINDOWS) & (n - fall >= _SIDE_WINDOWS)
    rise, fall = rise[allowed], fall[allowed]
    sums = np.concatenate([np.zeros((len(series), 1)), np.cumsum(series, axis=1)], axis=1)
    first, last = sums[:, rise] / rise, (sums[:, -1:] - sums[:, fall]) / (n - fall)
    middle = (sums[:, fall] - sums[:, rise]) / (fall - rise)
    return np.asarray((middle - np.maximum(first, last))[:, None, :])


def _mode(values: Matrix) -> float:
    """The most frequent value, the smallest of equals; NaN where there is none."""
    counts = Counter(values[np.isfinite(values)].tolist())
    return float(min(counts, key=lambda one: (-counts[one], one))) if counts else float("nan")
