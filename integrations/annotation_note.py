"""The note on a run: what was found, how sure that is, and what could not be said and why.

It says where the spectrum changed. It says nothing of what the model will learn, because the tables do not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from spectral_edge.tables import RunTables

_MAX_NAME: Final = 120
_MAX_SENTENCE: Final = 400
_MAX_TRANSITIONS: Final = 8
_MAX_WARNINGS: Final = 5

_KINDS: Final[Mapping[str, str]] = {
    "gap_opening": "the gap opened",
    "gap_collapse": "the gap closed",
    "level_crossing": "the number of leading directions changed",
    "rotation": "the leading directions turned",
}

Row = Mapping[str, Any]


def note_of(tables: RunTables) -> str:
    """The note for one run, in Markdown without links."""
    row = tables.summary
    sentences = ["### Spectral edge audit", _extent(row)]
    if row["error"]:
        sentences.append(
            f"{'The audit failed' if row['status'] == 'failed' else 'Part of it failed'}: {_plain(row['error'])}"
        )
    if row["status"] != "failed":
        sentences += _findings(row, tables.transitions.to_pylist())
        sentences += _state(row, tables.gaps)
    sentences += _unsaid(row)
    return "\n\n".join(sentences)


def escaped(text: str, limit: int = _MAX_SENTENCE) -> str:
    """`text` as Markdown that shows it literally: no emphasis, no HTML, no link, no line break.

    Entities are used because backslash escapes differ between the Markdown dialects of trackers.
    """
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    line = line if len(line) <= limit else f"{line[: limit - 1]}…"
    line = re.sub(r"[&<>`*\[\]\\#|~!@$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", _entity, line)
    return re.sub(r":(?=//)|(?<=www)\.", _entity, line, flags=re.IGNORECASE)


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match.group())};"


def _plain(text: str) -> str:
    return escaped(text) if text.rstrip().endswith((".", "…")) else f"{escaped(text)}."


def _extent(row: Row) -> str:
    if row["checkpoints"] is None or row["step_first"] is None:
        return "No checkpoint was analysed."
    settings = _settings(row)
    return (
        f"{row['checkpoints']} checkpoints from step {row['step_first']} to step {row['step_last']} were analysed in "
        f"windows of {settings.get('window', '?')} updates ({row['windows'] or 0} full windows)."
    )


def _settings(row: Row) -> Mapping[str, Any]:
    return json.loads(row["settings"]) if row["settings"] else {}


def _findings(row: Row, transitions: Sequence[Row]) -> list[str]:
    if not transitions:
        rate = _settings(row).get("false_alarm_rate")
        at = "" if rate is None else f" at a false-alarm rate of {rate:.0%} per run"
        return [f"No change of the spectrum was established{at}. That does not show that there was none."]
    ordered = sorted(transitions, key=lambda found: (found["group"] != "total", found["onset_step"], found["kind"]))
    lines = [f"- {_transition(found)}" for found in ordered[:_MAX_TRANSITIONS]]
    if len(ordered) > _MAX_TRANSITIONS:
        lines.append(f"- {len(ordered) - _MAX_TRANSITIONS} more are in the tables.")
    return ["The spectrum changed here:\n" + "\n".join(lines)]


def _transition(found: Row) -> str:
    kind = _KINDS.get(found["kind"], escaped(found["kind"], _MAX_NAME))
    counts = f" from {found['k_before']} to {found['k_after']}" if found["kind"] == "level_crossing" else ""
    return (
        f"group {escaped(found['group'], _MAX_NAME)}: {kind}{counts} at step {found['onset_step']} "
        f"(between {found['onset_low']} and {found['onset_high']}; {_chance(found['q_value'])}).{_lead(found)}"
    )


def _chance(q_value: float | None) -> str:
    if q_value is None:
        return "no q-value"
    return "q < 0.001" if q_value < 0.001 else f"q = {q_value:.2g}"


def _lead(found: Row) -> str:
    if found["metric_name"] is None or found["metric_onset"] is None:
        return ""
    lead = found["lead_steps"] or 0
    order = "at the same step" if lead == 0 else f"{abs(lead)} steps {'later' if lead > 0 else 'earlier'}"
    interval = "" if found["lead_low"] is None else f" (interval {found['lead_low']} to {found['lead_high']})"
    return f" {escaped(found['metric_name'], _MAX_NAME)} changed at step {found['metric_onset']}, {order}{interval}."


def _state(row: Row, gaps: pa.Table) -> list[str]:
    full = [gap for gap in gaps.to_pylist() if gap["group"] == "total" and not gap["short"]]
    if not full or row["regime"] is None:
        return ["No full window exists, so no regime can be told."]
    last = max(full, key=lambda gap: gap["step"])
    reason = f": {_plain(last['regime_reason'])}" if last["regime_reason"] else "."
    return [f"Regime of all parameters at step {last['step']}, a reading of geometry, is {row['regime']}{reason}"]


def _unsaid(row: Row) -> Iterator[str]:
    if row["status"] != "failed" and row["metric_name"] is None:
        yield "No evaluation metric was found among the run's metrics, so nothing is said of what came first."
    warnings = list(row["warnings"] or ())
    if warnings:
        lines = [f"- {_plain(warning)}" for warning in warnings[:_MAX_WARNINGS]]
        if len(warnings) > _MAX_WARNINGS:
            lines.append(f"- {len(warnings) - _MAX_WARNINGS} more are in the tables.")
        yield "Left out or odd:\n" + "\n".join(lines)
