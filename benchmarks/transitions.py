"""False alarms, power and coverage of the onset's interval, of the detector as shipped.

    python -m benchmarks.transitions [--repetitions 200] [--updates 60]

A false alarm is a run without any change that is given at least one, of any kind. Intervals are Clopper-Pearson, 95 %.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.stats import binomtest

from benchmarks.synthetic_updates import NULLS, band_of_gram, planted
from spectral_edge.settings import Settings
from spectral_edge.transitions import find_changes


def share(hits: int, total: int) -> str:
    interval = binomtest(hits, total).proportion_ci()
    return f"{hits:4d}/{total}  {hits / total:6.1%}  [{interval.low:.1%}, {interval.high:.1%}]"


def false_alarms(repetitions: int, updates: int, settings: Settings) -> None:
    print(f"\nRuns without a change ({updates} updates, W = {settings.window}): reported at least one")
    for name, family in NULLS.items():
        rng = np.random.default_rng(7)
        hits = sum(
            bool(find_changes({"total": band_of_gram(family(updates, rng), settings.lags)}, settings).changes)
            for _ in range(repetitions)
        )
        print(f"  {name:36s} {share(hits, repetitions)}")


def power(repetitions: int, updates: int, settings: Settings) -> None:
    print(f"\nA constant drift begins at a random update of {updates}: opening found, onset within its interval")
    for strength in (0.1, 0.2, 0.3, 0.5, 1.0):
        rng = np.random.default_rng(11)
        found, covered, widths = 0, 0, []
        for _ in range(repetitions):
            onset = int(rng.integers(updates // 4, 3 * updates // 4))
            band = band_of_gram(planted(updates, onset, strength, rng), settings.lags)
            openings = [c for c in find_changes({"total": band}, settings).changes if c.kind == "gap_opening"]
            if openings:
                nearest = min(openings, key=lambda change: abs(change.update - onset))
                found += 1
                covered += nearest.low <= onset <= nearest.high
                widths.append(nearest.high - nearest.low + 1)
        width = f"median width {np.median(widths):.0f} updates" if widths else ""
        print(
            f"  drift {strength:3.1f} x noise   found {share(found, repetitions)}   covered {covered}/{found} {width}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--updates", type=int, default=60)
    arguments = parser.parse_args()
    started = time.perf_counter()
    false_alarms(arguments.repetitions, arguments.updates, Settings())
    power(max(20, arguments.repetitions // 4), arguments.updates, Settings())
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
