"""An audit of all runs of a source without Prefect: what needs no look gets none."""

from __future__ import annotations

from contextlib import closing, suppress

from pipelines.audit import prepare
from pipelines.looking import Looks, by_debt, settled
from pipelines.one_run import audit_one
from pipelines.results import RunResult
from pipelines.settings import AuditSettings
from spectral_edge.errors import TerminalError


def audit_all(source: str, settings: AuditSettings) -> tuple[dict[str, str], list[str]]:
    """The outcome of each run by its name, and the names of the runs that were looked at, in that order."""
    job, runs = prepare(source, settings)
    found = {run.key: result for run in runs if (result := settled(job.scope, run))}
    outcomes = {key.run_name: result.outcome for key, result in found.items()}
    looked_at = by_debt(job.scope, (run for run in runs if run.key not in found))
    with closing(Looks(job.scope, job.store)) as looks:
        for run in looked_at:
            result = RunResult(run.key.run_name, run.key.run_id, "failed")
            with suppress(TerminalError):
                result = audit_one(job, run)
            looks.add(run, result)
            outcomes[run.key.run_name] = result.outcome
    return outcomes, [run.key.run_name for run in looked_at]
