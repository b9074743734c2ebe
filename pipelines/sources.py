"""The runs that a source means under the settings of this call."""

from __future__ import annotations

from collections.abc import Sequence

from integrations.locate import locate
from integrations.tracker import Criteria, Selection, TrackedRun, Tracker
from pipelines.named_trackers import places
from pipelines.settings import AuditSettings
from spectral_edge.store import Store
from spectral_edge.tables import RunKey


def located(source: str, settings: AuditSettings) -> tuple[Tracker, Selection]:
    """The tracker that `source` names, and which of its runs. Nothing is asked of the tracker yet.

    Raises:
        UsageError: `source` is not written as one, or its tracker cannot do what the settings ask for.
    """
    told = settings.of_source(source)
    return locate(
        source,
        tracking_uri=told.tracking_address,
        criteria=told.criteria(),
        into=told.into,
        places=places(told.trackers),
    )


def lists_all(source: str, settings: AuditSettings) -> bool:
    """Whether all runs are listed of the experiments, projects or folder that `source` names."""
    _, selection = located(source, settings)
    return not selection.run_ids and selection.criteria == Criteria()


def not_listed(store: Store, listed: Sequence[TrackedRun]) -> list[RunKey]:
    """Runs in `store` of the projects of `listed`, which are all that these have, that are not among them.

    Two servers may have projects of one name: only runs are missed whose address is that of a listed one, but for the
    run's id or folder.
    """
    here = {(run.key.tracker, run.key.project, run.key.run_id) for run in listed}
    places = {(run.key.tracker, run.key.project, _place(run.url, run.key.run_id)) for run in listed}
    known = store.runs_table().select(["tracker", "project", "run_id", "run_name", "url"]).to_pylist()
    return [
        RunKey(row["tracker"], row["project"], row["run_id"], row["run_name"])
        for row in known
        if (row["tracker"], row["project"], row["run_id"]) not in here
        and (row["tracker"], row["project"], _place(row["url"] or "", row["run_id"])) in places
    ]


def _place(url: str, run_id: str) -> tuple[str, str]:
    before, found, after = url.rpartition(run_id)
    return (before, after) if found else (url.rpartition("/")[0], "")  # folders tell no id in their address
