"""The runs that a source means under the settings of this call."""

from __future__ import annotations

from integrations.locate import locate
from integrations.tracker import Selection, Tracker
from pipelines.settings import AuditSettings


def located(source: str, settings: AuditSettings) -> tuple[Tracker, Selection]:
    """The tracker that `source` names, and which of its runs. Nothing is asked of the tracker yet.

    Raises:
        UsageError: `source` is not written as one, or its tracker cannot do what the settings ask for.
    """
    return locate(source, tracking_uri=settings.tracking_address, criteria=settings.criteria(), into=settings.into)
