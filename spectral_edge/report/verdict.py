"""One plain sentence on a run, with its error rate. The same words on every surface that shows a verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from spectral_edge.advice import UNTESTED, advice_among

Row = Mapping[str, Any]


def verdict(summary: Row, transitions: Sequence[Row]) -> str:
    """What the audit established of a run, and how often it would say so of a run without a change.

    It tells order and place of changes in the spectrum. It predicts nothing, and names no ability.

    Args:
        summary: The run's row of table `runs`.
        transitions: Its rows of table `transitions`.
    """
    if summary["status"] == "failed":
        return "This run could not be audited, so nothing is said of its spectrum."
    doubts = "".join(f" {told}" for told in advice_among(summary["warnings"]) if not told.startswith(UNTESTED))
    if (row := strongest(transitions)) is not None:
        return _changed(row, len(transitions) - 1, false_alarm_rate(summary)) + doubts
    if (reason := untested(summary)) is not None:
        return f"No change of the spectrum is established. {reason}{doubts}"
    return (
        f"No change of the spectrum is established in {count(summary['windows'], 'full window')} per group: no test "
        f"stands out{_rate_of(false_alarm_rate(summary))}. This does not say that nothing changed.{doubts}"
    )


def untested(summary: Row) -> str | None:
    """Why nothing could be tested, in the analysis' own words; None when changes were tested.

    A run may have full windows and still be too short for any test, so the number of windows does not tell.
    """
    told = (warning for warning in summary["warnings"] or () if warning.startswith(UNTESTED))
    return next(told, None if summary["windows"] else f"{UNTESTED}: there is no full window.")


def strongest(transitions: Sequence[Row]) -> Row | None:
    """The change with the smallest q-value; of equals the earliest, that of the whole model, and then by name.

    Whatever order the rows have: a store keeps another than the analysis. None when there is no change.
    """

    def rank(row: Row) -> tuple[float, int, bool, str, str]:
        return _or_inf(row["q_value"]), row["onset_step"], row["group"] != "total", row["group"], row["kind"]

    return min(transitions, key=rank, default=None)


def lead_phrase(transition: Row) -> str | None:
    """How the run's own metric moved relative to this change, e.g. `test_accuracy 340 steps later (180 to 460)`."""
    lead = transition["lead_steps"]
    if lead is None or transition["metric_name"] is None:
        return None
    place = "at the same step" if lead == 0 else f"{steps(abs(lead))} {'later' if lead > 0 else 'earlier'}"
    low, high = transition["lead_low"], transition["lead_high"]
    if low is None or high is None:
        return f"{transition['metric_name']} {place}"
    open_order = "; the order is not established" if low <= 0 <= high else ""
    return f"{transition['metric_name']} {place} ({number(low)} to {number(high)}{open_order})"


def false_alarm_rate(summary: Row) -> float | None:
    """The chance of any report in a run without a change, from the run's settings; None when they do not tell."""
    settings = as_mapping(summary["settings"])
    rate = settings.get("false_alarm_rate")
    return float(rate) if isinstance(rate, int | float) else None


def as_mapping(text: str | None) -> dict[str, Any]:
    """The JSON object in `text`; empty when there is none."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def number(value: int) -> str:
    """An integer with thousands separated; a true minus sign."""
    return f"{value:,}".replace("-", "\N{MINUS SIGN}")


def steps(value: int) -> str:
    """A number of training steps, in words."""
    return count(value, "step")


def count(value: int | None, noun: str) -> str:
    """A count and its noun, in the plural where it should be."""
    return f"{number(value or 0)} {noun}{'' if value == 1 else 's'}"


def probability(value: float | None) -> str:
    """A p- or q-value: two significant digits, never a false zero."""
    if value is None:
        return "unknown"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def _changed(row: Row, others: int, rate: float | None) -> str:
    q = probability(row["q_value"])
    what = [f"between {number(row['onset_low'])} and {number(row['onset_high'])}"] if _has_interval(row) else []
    what += [row["kind"].replace("_", " "), f"q {q}" if q.startswith("<") else f"q = {q}"]
    more = f", with {count(others, 'further change')} reported" if others else ""
    lead = lead_phrase(row)
    return (
        f"The spectrum of group {row['group']} changed at step {number(row['onset_step'])} "
        f"({'; '.join(what)}{_rate_of(rate)}){more}.{f' The metric moved: {lead}.' if lead else ''}"
    )


def _rate_of(rate: float | None) -> str:
    return "" if rate is None else f", chance of any report in a run without a change: {100 * rate:.3g} %"


def _has_interval(row: Row) -> bool:
    return row["onset_low"] is not None and row["onset_high"] is not None


def _or_inf(value: float | None) -> float:
    return float("inf") if value is None else value
