"""In which order the sources of one command are served, where they share a budget."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from pipelines.budget import current
from pipelines.decisions import Scope
from pipelines.looking import LONG_AGO, by_debt, settled, waits_since
from pipelines.settings import AuditSettings
from pipelines.sources import located
from spectral_edge.errors import NotFoundError, SpectralEdgeError
from spectral_edge.store import Store


def in_order(sources: Sequence[str], settings: AuditSettings) -> list[str]:
    """`sources` by how long a run of theirs waits, where a limited budget is shared; so none of them waits for ever.

    Those without a run that waits come last, and so do those whose runs cannot be listed: that is told in their turn.
    """
    if len(sources) < 2 or not current(settings).is_limited:
        return list(sources)

    def order(source: str) -> tuple[bool, datetime]:
        with suppress(SpectralEdgeError):
            tracker, selection = located(source, settings)
            scope = Scope.of(tracker, settings, store_if_there(settings.store))
            waiting = by_debt(scope, (run for run in tracker.runs(selection) if settled(scope, run) is None))
            if waiting:
                return False, waits_since(scope, waiting[0]) or LONG_AGO
        return True, LONG_AGO

    return sorted(sources, key=order)


def store_if_there(uri: str) -> Store | None:
    """The store at `uri`; None where there is none yet."""
    with suppress(NotFoundError):
        return Store.open(uri, create=False)
    return None
