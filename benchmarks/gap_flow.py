"""False alarms, coverage and bias of the gap flow fit, beside the plain regression of dg/dt on g.

    python -m benchmarks.gap_flow [--repetitions 400] [--window 10]

First on simulated series of gaps, seen through windows as the shipped code sees them; then on the spectra of simulated
updates, where the stretches of constant k* are found by the code and so may select what they hold. Shares come with
Clopper-Pearson intervals, 95 %; one repetition is one run.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.signal import lfilter

from benchmarks.synthetic_updates import Rng, band_of_gram
from benchmarks.transitions import share
from spectral_edge.band import Matrix
from spectral_edge.gap_flow import GapFlow, fewest_windows, fit, gap_flows
from spectral_edge.spectrum import spectrum

DIRECTIONS = 40


def deviation(length: int, damping: float, rng: Rng) -> Matrix:
    """Ornstein-Uhlenbeck of unit variance with rate `damping` a step of the series; 0 is a free walk."""
    noise = rng.standard_normal(length)
    if damping == 0:
        return np.asarray(0.3 * np.cumsum(noise))
    kept = np.exp(-damping)
    noise[1:] *= np.sqrt(1 - kept**2)
    return np.asarray(lfilter([1.0], [1.0, -kept], noise))


def windowed(series: Matrix, window: int, count: int) -> Matrix:
    return np.asarray(np.convolve(series, np.ones(window) / window, "valid")[:count])


def gaps(kind: str, count: int, window: int, rng: Rng) -> Matrix:
    """A series of `count` gaps: what they do by themselves, as windows show it."""
    length = count + window
    if kind == "independent noise":
        return np.asarray(5 + rng.standard_normal(count))
    noise = np.sqrt(window) * rng.standard_normal(length)
    if kind == "constant, window noise":
        return 5 + windowed(noise, window, count)
    if kind == "free walk":
        return 5 + windowed(deviation(length, 0.0, rng), window, count)
    if kind == "free walk, window noise":
        return 5 + windowed(deviation(length, 0.0, rng) + noise, window, count)
    return 5 + windowed(deviation(length, 0.0, rng) + 0.1 * np.arange(length), window, count)


NULLS = ("independent noise", "constant, window noise", "free walk", "free walk, window noise", "free walk and drift")


def plain(g: Matrix) -> tuple[float, float]:
    """b of ordinary regression of dg/dt on g, and its usual standard error."""
    centred, change = g[:-1] - g[:-1].mean(), np.diff(g)
    b = -(centred @ change) / (centred @ centred)
    residual = change - change.mean() + b * centred
    return b, np.sqrt(residual @ residual / (len(g) - 3) / (centred @ centred))


def false_alarms(repetitions: int, window: int) -> None:
    print(f"\nGaps without damping (W = {window}): damping found (b > 0, and 0 outside of its interval)")
    for count in (fewest_windows(window), 3 * fewest_windows(window)):
        for kind in NULLS:
            rng = np.random.default_rng(3)
            ours, theirs = 0, 0
            for _ in range(repetitions):
                g = gaps(kind, count, window, rng)
                ours += fit(np.arange(count), g, window).damped
                b, error = plain(g)
                theirs += b / error > 1.645
            print(f"  {count:4d} windows  {kind:26s} {share(ours, repetitions)}   plain {theirs / repetitions:5.0%}")


def coverage(repetitions: int, window: int) -> None:
    print("\nDamped gaps: interval of b (stated: 95 %), bias, power; noise and start in deviations of the gap")
    for count in (fewest_windows(window), 3 * fewest_windows(window), 7 * fewest_windows(window)):
        for damping in (0.1, 0.3, 1.0):
            for noise, start in ((0.0, 0.0), (1.0, 0.0), (0.0, 10.0)):
                rng = np.random.default_rng(5)
                fits: list[GapFlow] = []
                plains = []
                for _ in range(repetitions):
                    length = count + window
                    series = deviation(length, damping / window, rng)
                    series += np.sqrt(noise * window) * rng.standard_normal(length)
                    series += start * np.exp(-damping / window * np.arange(length))
                    g = windowed(series, window, count)
                    fits.append(fit(np.arange(count), g, window))
                    plains.append(plain(g))
                told((count, damping / window, noise, start), fits, np.array(plains), window)


def told(case: tuple[int, float, float, float], fits: list[GapFlow], plains: Matrix, window: int) -> None:
    count, b, noise, start = case
    covered = sum(one.b_low <= b <= one.b_high for one in fits if one.b_low is not None and one.b_high is not None)
    bounded = sum(one.b_high is not None and np.isfinite(one.b_high) for one in fits)
    # An open estimate lies beyond the grid: it counts as large, so that leaving it out cannot make the median small.
    median = np.median([np.inf if one.b is None else one.b for one in fits])
    power = sum(one.damped for one in fits)
    naive = np.mean(np.abs(plains[:, 0] - b) <= 1.96 * plains[:, 1])
    ours = f"median b W {median * window:5.2f}  bounded {bounded / len(fits):4.0%}  power {power / len(fits):4.0%}"
    theirs = f"plain: covered {naive:4.0%}, median {np.median(plains[:, 0]) * window:5.2f}"
    name = f"{count:4d} windows  b W {b * window:3.1f} noise {noise:3.1f} start {start:2.0f}"
    print(f"  {name}   covered {share(covered, len(fits))}  {ours}   {theirs}")


def from_updates(repetitions: int, window: int) -> None:
    """Updates whose leading direction has a strength that stays, walks, or is damped; all else is noise."""
    print("\nSpectra of simulated updates, stretches of constant capped k* found by the code; longest stretch of a run")
    count = 3 * fewest_windows(window)
    kinds = ("constant", "near a crossing", "walks", "damped, b W = 0.3")
    for kind in kinds:
        rng = np.random.default_rng(9)
        tested, alarms, covered = 0, 0, 0
        for _ in range(repetitions):
            longest = max(_flows(kind, count, window, rng), key=lambda flow: flow.windows)
            if longest.testable:
                tested += 1
                alarms += longest.damped
                true = 0.3 / window if kind.startswith("damped") else 0.0
                if longest.b_low is not None and longest.b_high is not None:
                    covered += longest.b_low <= true <= longest.b_high
        print(f"  {kind:22s} testable {share(tested, repetitions)}", end="")
        if tested:
            print(f"   damping found {share(alarms, tested)}   b covered {share(covered, tested)}", end="")
        print()


def _flows(kind: str, count: int, window: int, rng: Rng) -> list[GapFlow]:
    length = count + window - 1
    updates = rng.standard_normal((length, DIRECTIONS))
    strength = np.full(length, 4.0)
    if kind == "near a crossing":
        strength[:] = 0.5
    elif kind == "walks":
        strength *= np.exp(0.1 * deviation(length, 0.0, rng))
    elif kind.startswith("damped"):
        strength *= np.exp(0.4 * deviation(length, 0.3 / window, rng))
    updates[:, 0] = strength * np.sqrt(DIRECTIONS)
    band = band_of_gram(updates @ updates.T, window)
    ends = np.arange(window - 1, length)
    return gap_flows("total", ends, spectrum(band, ends, window).sigma)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--window", type=int, default=10)
    arguments = parser.parse_args()
    started = time.perf_counter()
    false_alarms(arguments.repetitions, arguments.window)
    coverage(arguments.repetitions, arguments.window)
    from_updates(max(50, arguments.repetitions // 2), arguments.window)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
