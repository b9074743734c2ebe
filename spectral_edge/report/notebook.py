"""What a notebook shows of a run, and of a list of runs, as HTML.

Plain elements, no script and no style sheet: they stay readable where a front-end takes those away (GitHub, nbviewer,
notebooks that are not trusted), and take the colours of the notebook, dark or light. The chart is an image within.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import jinja2

from spectral_edge.report.charts import run_chart_png, told_group
from spectral_edge.report.drawn import Drawn
from spectral_edge.report.run_chart import shown_width, small
from spectral_edge.report.verdict import count, number
from spectral_edge.report.view import Change, RunView, run_view
from spectral_edge.tables import RunTables

REGIMES_SHOWN: Final = 30
"""Stretches that the table of regimes has; `gaps` has all."""


def run_html(tables: RunTables) -> str:
    """One run: the sentence with its error rate, its chart, changes, regimes, what was not possible.

    All text from trackers is escaped.
    """
    transitions = tables.transitions.to_pylist()
    view = run_view(tables.summary, tables.gaps, transitions)
    group = told_group(view.groups, transitions)
    drawn = view.groups.get(group)
    png = small(run_chart_png(tables)) if drawn else b""
    return _template().render(
        view=view,
        extent=_extent(view),
        picture=base64.b64encode(png).decode(),
        width=shown_width(png),
        alt=f"Singular values, gap, k*, overlap, rotation and regimes of parameter group {group} by training step",
        group=group,
        regimes=_regimes(drawn) if drawn else [],
        changes=[_cells(change) for change in view.changes],
    )


def runs_html(title: str, names: Sequence[str], rows: Sequence[Sequence[str]], more: str) -> str:
    """A table of runs under `title`; `more` says what it leaves out."""
    return _template().render(title=title, names=names, runs=rows, more=more)


def _extent(view: RunView) -> str:
    row: Any = view.row
    told = [count(row["checkpoints"], "checkpoint")]
    if row["step_first"] is not None and row["step_last"] is not None:
        told.append(f"steps {number(row['step_first'])} to {number(row['step_last'])}")
    return ", ".join(told)


def _cells(change: Change) -> tuple[str, ...]:
    told = (change.kind, change.group, change.onset, change.interval, change.directions, change.effect)
    return (*told, change.q_value, change.lead, change.regimes)


def _regimes(drawn: Drawn) -> list[tuple[str, str, str, str]]:
    rows = [
        (one["regime"], number(one["from"]), number(one["to"]), one["reason"] or "")
        for one in drawn.stretches[:REGIMES_SHOWN]
    ]
    left = len(drawn.stretches) - len(rows)
    return [*rows, ("\N{HORIZONTAL ELLIPSIS}", "", "", f"and {number(left)} more")] if left else rows


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spectral_edge.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("notebook.html")
