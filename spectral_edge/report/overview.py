"""What the page says of all runs together: by project, what was found, what to log, and what is new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from spectral_edge.advice import KINDS_OF_ADVICE, advice_among
from spectral_edge.report.palette import REGIMES
from spectral_edge.report.verdict import Row, count
from spectral_edge.report.view import Band, Change, RunView, moment

FOUND_SHOWN: Final = 40
"""Changes in the overview's list, those with the smallest q."""


@dataclass(frozen=True)
class Project:
    """One project: its runs by outcome, and the share of their training in each regime, in percent."""

    name: str
    views: Sequence[RunView]
    counts: Counter[str]
    regimes: tuple[Band, ...]
    regimes_text: str
    audited: str


@dataclass(frozen=True)
class Advice:
    """One kind of advice, and the runs it is given to, each with its own words."""

    kind: str
    given: tuple[tuple[RunView, str], ...]


def projects_of(views: Sequence[RunView]) -> list[Project]:
    """All projects; `views` are in the page's order."""
    return [_project(name, list(rows)) for name, rows in groupby(views, lambda view: str(view.row["project"]))]


def found_in(views: Sequence[RunView]) -> tuple[list[tuple[RunView, Change]], int]:
    """Each run's change with the smallest q, the smallest first, and how many runs are not in the list."""
    found = [(view, view.strongest) for view in views if view.strongest]
    found.sort(key=lambda one: one[1].q)
    return found[:FOUND_SHOWN], max(0, len(found) - FOUND_SHOWN)


def advice_to(views: Sequence[RunView]) -> list[Advice]:
    """Advice by kind: what to log so that a verdict becomes possible (spectral_edge/advice.py)."""
    told = [(view, words) for view in views for words in advice_among(view.row["warnings"])]
    kinds = (Advice(kind, tuple(one for one in told if one[1].startswith(kind))) for kind in KINDS_OF_ADVICE)
    return [advice for advice in kinds if advice.given]


@dataclass(frozen=True)
class News:
    """What the last audit changed.

    Attributes:
        since: When it began: the first of its runs was done then.
        lines: A run, or None where it is gone, and what became of it.
        unchanged: Runs that were audited before and not since.
        why_not: Why runs cannot be compared with what they were before; empty when they can.
    """

    since: str
    lines: tuple[tuple[RunView | None, str], ...]
    unchanged: int
    why_not: str


def news_of(views: Sequence[RunView], before: Sequence[Row] | str, since: str) -> News:
    """Compare runs with their rows of table `runs` before the last audit, or with nothing, for the reason given."""
    if isinstance(before, str):
        return News(since, (), 0, before)
    earlier = {_key(row): row for row in before}
    lines: list[tuple[RunView | None, str]] = []
    unchanged = 0
    for view in views:
        row = earlier.pop(_key(view.row), None)
        said = "new" if row is None else ", ".join(_differences(row, view.row))
        unchanged += not said
        if said:
            lines.append((view, said))
    lines += [(None, f"{row['run_name']} ({row['project']}) is no longer in the store") for row in earlier.values()]
    return News(since, tuple(lines), unchanged, "")


def _differences(before: Row, now: Row) -> Iterator[str]:
    if before["audit_id"] == now["audit_id"] and before["status"] == now["status"]:
        return
    more = (now["checkpoints"] or 0) - (before["checkpoints"] or 0)
    if before["status"] != now["status"]:
        yield f"{before['status']} before, now {now['status']}"
    if more:
        yield f"{count(abs(more), 'checkpoint')} {'more' if more > 0 else 'fewer'}"
    if before["regime"] != now["regime"]:
        yield f"regime {before['regime'] or 'unknown'} before, now {now['regime'] or 'unknown'}"
    if before["transitions"] != now["transitions"]:
        yield f"{count(now['transitions'], 'change')} reported, {before['transitions'] or 0} before"
    if before["settings_hash"] != now["settings_hash"]:
        yield "other settings"
    if before["fingerprint"] != now["fingerprint"] and not more:
        yield "other checkpoints"


def _key(row: Row) -> tuple[str, str, str]:
    return row["tracker"], row["project"], row["run_id"]


def _project(name: str, views: list[RunView]) -> Project:
    widths: Counter[str] = Counter()
    for view in views:
        for band in view.strip:
            widths[band.regime if band.regime in REGIMES else "undetermined"] += band.width  # type: ignore[assignment]
    total = sum(widths.values()) or 1
    bands, left = [], 0.0
    for regime in REGIMES:
        width = 100 * widths[regime] / total
        bands.append(Band(regime, round(left, 2), round(width, 2)))
        left += width
    shown = tuple(band for band in bands if band.width > 0)
    latest = max((view.row["audited_at"] for view in views if view.row["audited_at"]), default=None)
    text = ", ".join(f"{band.regime} {band.width:.0f} %" for band in shown)
    return Project(name, views, Counter(view.outcome for view in views), shown, text, moment(latest))
