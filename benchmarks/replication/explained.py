"""The pictures of docs/explained.md.

    python -m benchmarks.replication.explained                          # draws them from the small tables in `results`
    python -m benchmarks.replication.explained --from build/replication # makes those tables anew from the runs

`rates.csv` is copied from the tables in docs/calibration.md and docs/transitions.md by hand; a test compares.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import altair as alt
from scipy.stats import binomtest

from benchmarks.replication.recipes import queue
from benchmarks.replication.runs import Run, finished
from spectral_edge.report.palette import LIGHT
from spectral_edge.settings import Settings

ROOT: Final = Path(__file__).resolve().parents[2]
TABLES: Final = ROOT / "benchmarks/replication/results/explained"
IMAGES: Final = ROOT / "docs/images"
SHOWN: Final[Mapping[str, tuple[str, str]]] = {
    "addition-adamw-wd1-s201": (
        "explained-grokking",
        "Sums modulo 47, weight decay 1: it memorises, and generalises long after",
    ),
    "addition-adamw-wd0-s201": ("explained-no-decay", "The same without weight decay: it only memorises"),
    "random-labels-wd1-s201": (
        "explained-random-labels",
        "Random labels, weight decay 1: nothing to find, and changes are reported all the same",
    ),
}
"""Runs by name: the picture's file, and its title."""

Rows = Sequence[Mapping[str, Any]]

_WIDTH: Final = 620
_PLAIN: Final = alt.Axis(grid=False, tickCount=5, format="~g")


def table_of(run: Run, settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Full windows of group `total` with the accuracies at their ends, and the reported changes of all groups."""
    tables = run.audit(settings)
    train, held_out = (
        dict(zip(run.steps.tolist(), run.metric(f"{part}_accuracy"), strict=True)) for part in ("train", "held_out")
    )
    windows = [
        {"run": run.recipe.name, "step": row["step"], "train": f"{train[row['step']]:.3f}"}
        | {"held_out": f"{held_out[row['step']]:.3f}", "gap_ratio": f"{row['gap_ratio']:.4g}"}
        | {f"sigma_{j}": f"{sigma:.4g}" for j, sigma in enumerate(row["singular_values"], 1)}
        for row in tables.gaps.to_pylist()
        if row["group"] == "total" and not row["short"]
    ]
    columns = ("group", "kind", "onset_low", "onset_step", "onset_high", "q_value")
    found = tables.transitions.sort_by([("onset_step", "ascending")]).select(columns).to_pylist()
    return windows, [{"run": run.recipe.name} | row | {"q_value": f"{row['q_value']:.3g}"} for row in found]


def picture_of_run(title: str, windows: Rows, changes: Rows) -> alt.VConcatChart:
    """Accuracies, singular values and the gap ratio over the training steps, with the reported changes across."""
    panels = [
        _panel("Accuracy", _accuracies(windows), changes, height=90),
        _panel("Singular values of the last ten updates (log scale)", _sigmas(windows), changes, height=150),
        _panel("Ratio at the gap (log scale)", _ratio(windows), changes, height=70, last=True),
    ]
    told = f"{len(changes)} reported changes, of any group: line at the onset, band over its interval"
    words = told if changes else "no change reported"
    return (
        alt.vconcat(*panels, spacing=6)
        .resolve_scale(color="independent")
        .properties(title=alt.Title(title, subtitle=words, anchor="start", frame="group"))
        .configure_view(stroke=None)
    )


def _x(*, last: bool) -> alt.X:
    return alt.X("step:Q", title="training step" if last else None, axis=alt.Axis(labels=last, ticks=last, grid=False))


def _panel(title: str, lines: alt.Chart, changes: Rows, *, height: int, last: bool = False) -> alt.LayerChart:
    over = alt.Chart(alt.InlineData([dict(row) for row in changes]))
    band = over.mark_rect(opacity=0.12, color=LIGHT.change).encode(x="onset_low:Q", x2="onset_high:Q")
    rule = over.mark_rule(color=LIGHT.change).encode(x="onset_step:Q")
    layers = [band, rule, lines.encode(x=_x(last=last))] if changes else [lines.encode(x=_x(last=last))]
    return alt.layer(*layers).properties(
        title=alt.Title(title, fontSize=11, anchor="start"), width=_WIDTH, height=height
    )


def _accuracies(windows: Rows) -> alt.Chart:
    named = {"training data": "train", "held-out data": "held_out"}
    rows = [{"step": row["step"], "of": of, "value": float(row[key])} for row in windows for of, key in named.items()]
    scale = alt.Scale(domain=list(named), range=[LIGHT.further, LIGHT.directions[0]])
    return (
        alt.Chart(alt.InlineData(rows))
        .mark_line()
        .encode(y=alt.Y("value:Q", title=None), color=alt.Color("of:N", scale=scale, title=None))
    )


def _sigmas(windows: Rows) -> alt.Chart:
    names = ["first", "second", "third", "others"]
    rows = [
        {"step": row["step"], "j": j, "value": float(row[f"sigma_{j}"]), "which": names[min(j, 4) - 1]}
        for row in windows
        for j in range(1, 11)
    ]
    scale = alt.Scale(domain=names, range=[*LIGHT.directions, LIGHT.further])
    return (
        alt.Chart(alt.InlineData(rows))
        .mark_line(strokeWidth=1.4)
        .encode(
            y=alt.Y("value:Q", title=None, scale=alt.Scale(type="log"), axis=_PLAIN),
            detail="j:N",
            color=alt.Color("which:N", scale=scale, title=None, sort=names),
        )
    )


def _ratio(windows: Rows) -> alt.Chart:
    rows = [{"step": row["step"], "value": float(row["gap_ratio"])} for row in windows]
    chart = alt.Chart(alt.InlineData(rows)).mark_line(color=LIGHT.ink, strokeWidth=1.4)
    return chart.encode(y=alt.Y("value:Q", title=None, scale=alt.Scale(type="log", domainMin=1), axis=_PLAIN))


def picture_of_rates(rates: Rows) -> alt.LayerChart:
    """Share of runs without an event that were given a change, with Clopper-Pearson intervals, and the stated 5 %."""
    rows = []
    for row in rates:
        changed, of = int(row["changed"]), int(row["of"])
        between = binomtest(changed, of).proportion_ci()
        told = f"{row['runs']}: {changed} of {of}"
        rows.append({"runs": told, "share": changed / of, "low": between.low, "high": between.high})
    base = alt.Chart(alt.InlineData(rows)).encode(
        y=alt.Y("runs:N", sort=None, title=None, axis=alt.Axis(labelLimit=400)), color=alt.value(LIGHT.directions[0])
    )
    x = alt.X("low:Q", title="share of runs, 95 % interval", axis=alt.Axis(format="%"))
    title = alt.Title("Runs without an event that are given a change; dashed: stated", anchor="start")
    return alt.layer(
        alt.Chart().mark_rule(strokeDash=[4, 3], color=LIGHT.change).encode(x=alt.datum(0.05)),
        base.mark_rule(strokeWidth=2).encode(x=x, x2="high:Q"),
        base.mark_point(filled=True, size=50, opacity=1).encode(x="share:Q"),
    ).properties(width=380, height=220, title=title)


def draw(folder: Path) -> list[Path]:
    """Write all pictures to `folder`."""
    windows, changes = read(TABLES / "windows.csv"), read(TABLES / "changes.csv")
    charts: dict[str, Any] = {"explained-error-rate": picture_of_rates(read(TABLES / "rates.csv"))}
    for run, (name, title) in SHOWN.items():
        own, found = ([row for row in rows if row["run"] == run] for rows in (windows, changes))
        charts[name] = picture_of_run(title, own, found)
    for name, chart in charts.items():
        chart.save(str(folder / f"{name}.png"), ppi=90)
    return [folder / f"{name}.png" for name in charts]


def read(file: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file; numbers of steps are numbers."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    whole = ("step", "onset_low", "onset_step", "onset_high")
    return [{name: int(value) if name in whole else value for name, value in row.items()} for row in rows]


def _write(file: Path, rows: Rows) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="work", type=Path, metavar="FOLDER", help="of benchmarks.replication's runs")
    work = parser.parse_args(arguments).work
    if work:
        runs = finished(work, [recipe for recipe in queue(6) if recipe.name in SHOWN])
        tables = [table_of(run, Settings()) for run in runs]
        _write(TABLES / "windows.csv", [row for windows, _ in tables for row in windows])
        _write(TABLES / "changes.csv", [row for _, changes in tables for row in changes])
    for file in draw(IMAGES):
        print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
