"""An audit in Markdown and links, for Prefect's page of the flow run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from pipelines.results import AuditSummary, RunResult
from pipelines.wording import count_text, label_text, markdown_text, plain_text

SHOWN: Final = 50
"""Runs in each list; the table beside has all of them."""
PAGES_SHOWN: Final = 10
"""Pages of projects that get a link of their own."""
_RUNS: Final = "/runs/"
"""What stands between a project's page and that of a run, in MLflow and W&B."""


@dataclass(frozen=True)
class WebLink:
    """A link as Markdown takes it: the text is shown as it is, the address ends where it ends."""

    text: str
    address: str

    @classmethod
    def of(cls, text: str, address: str) -> WebLink | None:
        """None where a browser may not follow the address: a tracker's text may hold any scheme."""
        try:
            parts = urlsplit(address)
        except ValueError:
            return None
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            return None
        return cls(label_text(text), quote(address, safe=":/?#@!$&*+,;=%"))


def pages_of(summary: AuditSummary, addresses: Mapping[str, str]) -> list[WebLink]:
    """The page of the one run of `summary`, or those of the projects of its runs, where they are on the web.

    Args:
        summary: What was done.
        addresses: Each run's page or folder in its tracker, by the run's id.
    """
    if len(summary.runs) == 1:
        (run,) = summary.runs
        page = WebLink.of(_shown(run), addresses.get(run.run_id, ""))
        return [page] if page else []
    projects = {run.project: addresses.get(run.run_id, "").rpartition(_RUNS)[0] for run in summary.runs}
    pages = (WebLink.of(project or page, page) for project, page in projects.items())
    return [page for page in pages if page][:PAGES_SHOWN]


def summary_markdown(summary: AuditSummary, addresses: Mapping[str, str]) -> str:
    """What failed with its next step, and what changed, each with a link to the run where it has a page on the web.

    Args:
        summary: What was done.
        addresses: Each run's page or folder in its tracker, by the run's id.
    """
    failed = [run for run in summary.runs if run.is_failure]
    changed = [run for run in summary.runs if run.transitions and not run.is_failure]
    parts = [f"**{markdown_text(summary.source)}**: {markdown_text(summary.line)}"]
    for title, runs in (("Failed", failed), ("Runs with a reported change", changed)):
        if runs:
            parts += [f"## {title}", "\n".join(_lines(runs, addresses))]
    return "\n\n".join(parts)


def _lines(runs: list[RunResult], addresses: Mapping[str, str]) -> Iterator[str]:
    for run in runs[:SHOWN]:
        told = run.error if run.is_failure else f"{count_text(run.transitions, 'change')}, regime {run.regime}"
        yield f"- {_name(run, addresses.get(run.run_id, ''))}: {markdown_text(told or 'no reason was recorded')}"
    if len(runs) > SHOWN:
        yield f"- and {count_text(len(runs) - SHOWN, 'further run')}"


def _name(run: RunResult, address: str) -> str:
    """The run's name, as a link where a browser may follow its address."""
    link = WebLink.of(_shown(run), address)
    return f"[{link.text}]({link.address})" if link else markdown_text(_shown(run))


def _shown(run: RunResult) -> str:
    """Its name, unless nothing of that can be seen."""
    return run.run_name if plain_text(run.run_name) else run.run_id
