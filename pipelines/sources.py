"""The runs that a source means under the settings of this call."""

from __future__ import annotations

from integrations.locate import locate
from integrations.tracker import Selection, Tracker
from pipelines.named_trackers import places
from pipelines.settings import AuditSettings


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
