"""One run as the page shows it: every sentence and number ready, so that the template only places them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa

from spectral_edge.report.drawn import Drawn, drawn_groups
from spectral_edge.report.metric_lines import MetricLine
from spectral_edge.report.verdict import (
    Row,
    as_mapping,
    count,
    lead_phrase,
    number,
    probability,
    strongest,
    untested,
    verdict,
)

REASONS_SHOWN: Final = 12
"""Stretches without a regime that are listed one by one; the rest are counted."""


@dataclass(frozen=True)
class Change:
    """One reported change, in words."""

    kind: str
    group: str
    onset: str
    interval: str
    directions: str
    effect: str
    p_value: str
    q_value: str
    lead: str
    regimes: str
    q: float


@dataclass(frozen=True)
class Band:
    """A part of the regime strip: left edge and width in percent of the run."""

    regime: str
    left: float
    width: float


@dataclass(frozen=True)
class RunView:
    """All that the page shows of one run. Texts are as the tracker gave them: the template escapes."""

    row: Row
    anchor: str
    link: str | None
    outcome: str
    verdict: str
    error: str
    next_step: str
    changes: tuple[Change, ...]
    strongest: Change | None
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    strip: tuple[Band, ...]
    onsets: tuple[float, ...]
    strip_text: str
    groups: Mapping[str, Drawn]


def run_view(summary: Row, gaps: pa.Table, transitions: Sequence[Row], lines: tuple[MetricLine, ...] = ()) -> RunView:
    """What the page shows of one run.

    Args:
        summary: Its row of table `runs`.
        gaps: Its rows of table `gaps`, columns `GAP_COLUMNS` at least.
        transitions: Its rows of table `transitions`.
        lines: Its own metrics.
    """
    groups = drawn_groups(gaps, transitions, summary, lines)
    leading = next(iter(groups.values()), None)
    ordered = sorted(transitions, key=lambda row: (row["onset_step"], row["group"], row["kind"]))
    best = strongest(transitions)
    error, next_step = _split_error(summary["error"])
    strip, onsets = _strip(leading) if leading else ((), ())
    return RunView(
        row=summary,
        anchor="run-" + anchor(summary),
        link=_web_address(summary["url"]),
        outcome=_outcome(summary, transitions),
        verdict=verdict(summary, transitions),
        error=error,
        next_step=next_step,
        changes=tuple(_change(row) for row in ordered),
        strongest=_change(best) if best else None,
        notes=tuple(_notes(summary, leading)),
        facts=tuple(_facts(summary)),
        settings=_pairs(summary["settings"]),
        versions=_pairs(summary["versions"]),
        strip=strip,
        onsets=onsets,
        strip_text="; ".join(_stretch_text(stretch) for stretch in leading.stretches) if leading else "",
        groups=groups,
    )


def anchor(row: Row) -> str:
    """A name for links within the page: the same for a run in every report, and made of safe characters."""
    parts = (str(row[name]) for name in ("tracker", "project", "run_id"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def moment(value: datetime | None) -> str:
    """A time to the minute, in UTC."""
    return "unknown" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def size(value: int | None) -> str:
    """A number of bytes in the unit that suits it."""
    amount = float(value or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:,.3g} TB"


def _outcome(summary: Row, transitions: Sequence[Row]) -> str:
    if summary["status"] == "failed":
        return "failed"
    if transitions:
        return "change"
    return "none" if untested(summary) is None else "short"


def _split_error(text: str | None) -> tuple[str, str]:
    """The error's own text, and the next step it ends with (see `SpectralEdgeError.__str__`)."""
    if not text:
        return "", ""
    what, _, following = text.rpartition(" Next: ")
    return (what, following) if what else (text, "")


def _web_address(url: str | None) -> str | None:
    """`url` when a browser may follow it: a tracker's text may hold any scheme."""
    try:
        parts = urlsplit(url or "")
    except ValueError:
        return None
    return url if parts.scheme in {"http", "https"} and parts.netloc else None


def _change(row: Row) -> Change:
    interval = row["onset_low"] is not None and row["onset_high"] is not None
    return Change(
        kind=row["kind"].replace("_", " "),
        group=row["group"],
        onset=number(row["onset_step"]),
        interval=f"{number(row['onset_low'])}\N{EN DASH}{number(row['onset_high'])}" if interval else "",
        directions=_arrow(row["k_before"], row["k_after"]),
        effect="" if row["effect"] is None else f"{row['effect']:.3g}",
        p_value=probability(row["p_value"]),
        q_value=probability(row["q_value"]),
        lead=lead_phrase(row) or "",
        regimes=_arrow(row["regime_before"], row["regime_after"]),
        q=math.inf if row["q_value"] is None else row["q_value"],
    )


def _arrow(before: object, after: object) -> str:
    if before is None and after is None:
        return ""
    return f"{'?' if before is None else before} \N{RIGHTWARDS ARROW} {'?' if after is None else after}"


def _notes(summary: Row, drawn: Drawn | None) -> Iterator[str]:
    """What was not possible, and why."""
    yield from summary["warnings"] or ()
    if drawn is None:
        return
    short = sum(map(bool, drawn.counted["short"]))
    if short:
        yield f"{count(short, 'window')} at the start hold fewer updates than a full one and are drawn dashed."
    if not drawn.lines and summary["metric_name"]:
        yield f"No values of {summary['metric_name']} are drawn: an earlier version, which kept none, audited this run."
    if not drawn.knows("learning_rate"):
        yield "No learning rate is known for this run, so no adiabatic parameter could be computed."
    unknown = [one for one in drawn.stretches if one["regime"] == "undetermined" and one["reason"]]
    for stretch in unknown[:REASONS_SHOWN]:
        reason = stretch["reason"].rstrip(".")
        yield f"No regime from step {number(stretch['from'])} to {number(stretch['to'])}: {reason}."
    if len(unknown) > REASONS_SHOWN:
        yield f"No regime in {count(len(unknown) - REASONS_SHOWN, 'further part')}; see the table's regime column."


def _facts(summary: Row) -> Iterator[tuple[str, str]]:
    yield "tracker", summary["tracker"]
    yield "project", summary["project"]
    yield "run id", summary["run_id"]
    yield "state", summary["state"] or "unknown"
    yield "checkpoints", number(summary["checkpoints"] or 0)
    if summary.get("sketch_size") is not None:
        yield "numbers", f"estimates from recorded sketches of {number(summary['sketch_size'])} numbers"
    if summary["step_first"] is not None and summary["step_last"] is not None:
        yield "steps", f"{number(summary['step_first'])} to {number(summary['step_last'])}"
    yield "full windows", number(summary["windows"] or 0)
    yield "optimizer", summary["optimizer"] or "not logged"
    yield "weight decay", "not logged" if summary["weight_decay"] is None else f"{summary['weight_decay']:g}"
    yield "metric", summary["metric_name"] or "none found"
    yield "audited", moment(summary["audited_at"])
    yield "bytes read", size(summary["bytes_read"])
    times = [(name, summary[f"seconds_{name}"]) for name in ("fetch", "gram", "analyse")]
    yield "seconds", ", ".join(f"{name} {value:.3g}" for name, value in times if value is not None)
    yield "fingerprint", summary["fingerprint"] or ""
    yield "audit", summary["audit_id"] or ""


def _pairs(text: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, "not set" if value is None else str(value)) for name, value in as_mapping(text).items())


def _strip(drawn: Drawn) -> tuple[tuple[Band, ...], tuple[float, ...]]:
    stretches: list[dict[str, Any]] = drawn.stretches
    if not stretches:
        return (), ()
    first, last = stretches[0]["from"], stretches[-1]["to"]
    scale = 100 / max(last - first, 1)
    bands = (
        Band(one["regime"], round((one["from"] - first) * scale, 2), round((one["to"] - one["from"]) * scale, 2))
        for one in stretches
    )
    return tuple(bands), tuple(round((one["onset_step"] - first) * scale, 2) for one in drawn.transitions)


def _stretch_text(stretch: Mapping[str, Any]) -> str:
    return f"{stretch['regime']} to step {number(stretch['to'])}"
