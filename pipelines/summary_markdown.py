"""An audit in Markdown, for Prefect's page of the flow run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote, urlsplit

from integrations.annotation_note import escaped
from pipelines.results import AuditSummary, RunResult
from pipelines.wording import count_text

SHOWN: Final = 50
"""Runs in each list; the table beside has all of them."""


def summary_markdown(summary: AuditSummary, addresses: Mapping[str, str]) -> str:
    """What failed with its next step, and what changed, each with a link to the run where it has a page on the web.

    Args:
        summary: What was done.
        addresses: Each run's page or folder in its tracker, by the run's id.
    """
    failed = [run for run in summary.runs if run.is_failure]
    changed = [run for run in summary.runs if run.transitions and not run.is_failure]
    parts = [f"**{escaped(summary.source)}**: {escaped(summary.line)}"]
    for title, runs in (("Failed", failed), ("Runs with a reported change", changed)):
        if runs:
            parts += [f"## {title}", "\n".join(_lines(runs, addresses))]
    return "\n\n".join(parts)


def _lines(runs: list[RunResult], addresses: Mapping[str, str]) -> Iterator[str]:
    for run in runs[:SHOWN]:
        told = run.error if run.is_failure else f"{count_text(run.transitions, 'change')}, regime {run.regime}"
        yield f"- {_name(run, addresses.get(run.run_id, ''))}: {escaped(told or 'no reason was recorded')}"
    if len(runs) > SHOWN:
        yield f"- and {count_text(len(runs) - SHOWN, 'further run')}"


def _name(run: RunResult, address: str) -> str:
    """The run's name, as a link where a browser may follow its address: a tracker's text may hold any scheme."""
    name = escaped(run.run_name) or escaped(run.run_id)
    try:
        parts = urlsplit(address)
    except ValueError:
        return name
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        return name
    return f"[{name}]({quote(address, safe=':/?#@!$&*+,;=%')})"
