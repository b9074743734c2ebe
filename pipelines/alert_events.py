"""Alerts as Prefect events, so that automations can act on them.

Prefect's own `emit_event` returns before the server has the event, and loses it with the process. Here an event is
posted and counts when the server has answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter, EventIDFilter, EventOccurredFilter
from prefect.events.schemas.events import Event, RelatedResource, Resource
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runtime import flow_run

from pipelines.alerts import AlertEvent
from spectral_edge.errors import TransientError

_AT_ONCE: Final = 50  # more than these a server does not list at once


def send(events: Sequence[AlertEvent]) -> None:
    """Post those of `events` that the server does not have yet.

    A server drops an event whose id it has had in the last five minutes; later it would keep one event, but act twice.
    So it is asked first.

    Raises:
        TransientError: The server did not answer, or refused.
    """
    try:
        with get_client(sync_client=True) as client:
            for start in range(0, len(events), _AT_ONCE):
                some = events[start : start + _AT_ONCE]
                has = {event.id for event in client.read_events(_with_ids(some), _AT_ONCE).events}
                new = [_as_prefect(event) for event in some if event.id not in has]
                if new:
                    client.request("POST", "/events", json=new)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise TransientError(
            f"the Prefect server did not take the events of alerts: {_said(error)}.",
            next_step="see that the server answers.",
        ) from error


def _said(error: Exception) -> str:
    """Without the address, which may hold a password."""
    if isinstance(error, PrefectHTTPStatusError):
        return f"it answered {error.response.status_code}"
    return type(error).__name__


def _with_ids(events: Sequence[AlertEvent]) -> EventFilter:
    until = datetime.now(UTC) + timedelta(days=1)  # the clock of another machine may be ahead
    ids = EventIDFilter(id=[event.id for event in events])
    return EventFilter(id=ids, occurred=EventOccurredFilter(until=until))


def _as_prefect(event: AlertEvent) -> dict[str, Any]:
    related = [RelatedResource(dict(event.related))]
    if flow_run_id := flow_run.get_id():
        labels = {"prefect.resource.id": f"prefect.flow-run.{flow_run_id}", "prefect.resource.role": "flow-run"}
        related.append(RelatedResource(labels))
    made = Event(
        id=event.id,
        event=event.name,
        occurred=datetime.now(UTC),
        resource=Resource(dict(event.resource)),
        related=related,
        payload=dict(event.payload),
    )
    return made.model_dump(mode="json")
