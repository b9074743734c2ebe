"""Tables 2 and 3: k* by optimizer and phase, and sigma_W over the threshold of BBP theory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from benchmarks.replication.phases import phases
from benchmarks.replication.runs import Run
from benchmarks.replication.statistics import capped_k
from benchmarks.replication.table import Table
from spectral_edge import spectrum as sp
from spectral_edge.settings import Settings

_OPTIMIZERS = {
    "addition-adamw-wd1", "addition-adamw-wd0", "addition-sgd-wd", "addition-sgd-wd0", "addition-muon-wd1"
}  # fmt: skip


def position_table(runs: Sequence[Run], settings: Settings) -> Table:
    """k* by family, group and phase: the most frequent one, and the share of windows with k* = 1, mean over runs."""
    found: dict[tuple[str, str, str, str], list[np.ndarray]] = defaultdict(list)
    floor = settings.numerical_floor
    for run in runs:
        label = phases(run, settings.window)
        for group in ("total", "attention"):
            if group not in run.grams:
                continue
            ends, sigma = _sigma(run, settings, group)
            variants = {
                "plain": sp.k_star(sigma, floor),
                "capped": capped_k(sigma, floor),
                "weighted": sp.k_star_weighted(sigma, floor),
            }
            for phase in dict.fromkeys(label[ends + 1].tolist()):
                inside = label[ends + 1] == phase
                for variant, k in variants.items():
                    found[run.recipe.family, group, phase, variant].append(k[inside])
    rows = [
        {
            "family": family,
            "group": group,
            "phase": phase,
            "k*": variant,
            "runs": len(per_run),
            "windows": sum(map(len, per_run)),
            "most frequent": _mode(np.concatenate(per_run)),
            "share k*=1": float(np.mean([(k == 1).mean() for k in per_run])),
            "share k*=2": float(np.mean([(k == 2).mean() for k in per_run])),
            "lowest, highest share k*=1": _range([(k == 1).mean() for k in per_run]),
        }
        for (family, group, phase, variant), per_run in found.items()
    ]
    return Table(
        "positions",
        f"Table 2: k* by family, group and phase (W = {settings.window}; capped: j <= W/2; weighted: paper's Table 7)",
        "k* = 1 under Muon, 2 under AdamW (51 M parameters), 3 at 124 M",
        rows,
        "shares are means over runs",
    )


def of_optimizers(table: Table) -> list[dict[str, object]]:
    """The rows of the addition families alone, without those of the fit."""
    return [
        dict(row) for row in table.rows if row["family"] in _OPTIMIZERS and row["phase"] not in {"fitting", "between"}
    ]


def threshold_table(runs: Sequence[Run], settings: Settings) -> Table:
    """sigma_W/d_crit over all full windows, and the most that its definition allows.

    sigma_W is at most the root mean square of the sigma_j with j > W/2 from which the noise is taken, so that the
    ratio is at most (P/(W - 1))^(1/4), whatever the run does.
    """
    found: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    sizes: dict[tuple[str, str], int] = {}
    for run in runs:
        for group in ("total", "attention"):
            if group in run.grams:
                _, sigma = _sigma(run, settings, group)
                sizes[run.recipe.family, group] = run.n_parameters[group]
                found[run.recipe.family, group].append(sp.noise_threshold_ratio(sigma, run.n_parameters[group]))
    rows: list[dict[str, object]] = []
    for (family, group), per_run in found.items():
        values, bound = np.concatenate(per_run), (sizes[family, group] / (settings.window - 1)) ** 0.25
        rows.append(
            {
                "family": family,
                "group": group,
                "runs": len(per_run),
                "parameters": sizes[family, group],
                "lowest": float(np.nanmin(values)),
                "median": float(np.nanmedian(values)),
                "highest": float(np.nanmax(values)),
                "bound": bound,
                "median / bound": float(np.nanmedian(values)) / bound,
            }
        )
    return Table(
        "threshold",
        "Table 3: sigma_W/d_crit over all full windows",
        "20 to 300",
        rows,
        "bound = (P/(W-1))^(1/4): the most that the definition allows. It reaches 20 at 1.4 M parameters, 61 at 124 M, "
        "300 at 73 billion",
    )


def _sigma(run: Run, settings: Settings, group: str) -> tuple[np.ndarray, np.ndarray]:
    band = run.bands(settings)[group]
    ends = np.arange(settings.window - 1, band.updates)
    return ends, sp.spectrum(band, ends, settings.window).sigma


def _mode(k: np.ndarray) -> int:
    counts = Counter(k.tolist())
    return int(min(counts, key=lambda one: (-counts[one], one)))


def _range(shares: Sequence[float]) -> str:
    return f"{min(shares):.2f}, {max(shares):.2f}"
