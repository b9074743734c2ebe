"""Table 6: power against the gap's growth and the length of the series, without the factor EXCESS and with it.

python -m benchmarks.negatives.power [--repetitions 20] [--settings 0.155 0.05]
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.negatives.rates import told
from benchmarks.replication.table import Row, Table
from benchmarks.synthetic_updates import band_of_gram, planted
from spectral_edge.calibration import rate_at, strongest
from spectral_edge.settings import Settings
from spectral_edge.transitions import EXCESS
from spectral_edge.window_series import window_series

STRENGTHS = (0.0, 0.4, 0.6, 0.8, 1.2)
LENGTHS = (45, 60, 120)


def power_table(repetitions: int, levels: tuple[float, ...], settings: Settings) -> Table:
    """Share of runs given any change, when a drift begins in the middle; growth of the gap ratio R that it brings."""
    rows: list[Row] = []
    for updates in LENGTHS:
        for strength in STRENGTHS:
            rng = np.random.default_rng([updates, int(10 * strength)])
            scores, growth = [], []
            for _ in range(repetitions):
                gram = planted(updates, updates // 2, strength, rng)
                ratio = window_series(gram, settings.window)[0]
                half = updates // 2
                growth.append(ratio[half:].mean() - ratio[: half - settings.window + 1].mean())
                scores.append(strongest({"total": band_of_gram(gram, settings.lags)}, settings).q_value)
            rows.append(
                {"checkpoints": updates + 1, "drift / noise": strength, "R grows by": float(np.exp(np.median(growth)))}
                | {f"found, q <= {level:g}": told(rate_at(scores, level + 1e-12)) for level in levels}
            )
    return Table("power", "Table 6: a planted drift from the middle of the series on, one group", "-", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--settings", type=float, nargs="+", default=[EXCESS * 0.05, 0.05])
    options = parser.parse_args()
    print(power_table(options.repetitions, tuple(options.settings), Settings()).text())


if __name__ == "__main__":
    main()
