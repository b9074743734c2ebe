"""What a W&B server tells of its clock and of our rights. Only asked, never written to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import requests

from integrations.finding import Finding, clock_finding
from integrations.wandb_connection import WandbConnection

_PROJECT: Final = """
query SpectralEdgeRights($entity: String!, $project: String!) {
    project(name: $project, entityName: $entity) { readOnly }
}
"""
_SECONDS: Final = 5


def examine(connection: WandbConnection, project: str | None) -> Iterator[Finding]:
    """What can be told of the server, and of rights in `project` (ENTITY/PROJECT; None where no run was found).

    Raises:
        SpectralEdgeError: The server does not answer, or refuses us.
    """
    with connection.errors():
        answer = requests.head(connection.absolute("/"), timeout=_SECONDS, auth=_nobody)
    yield clock_finding("clock", answer.headers)
    if project is None:
        return
    entity, _, name = project.partition("/")
    with connection.errors():
        service = connection.api._service_api  # noqa: SLF001 - no public half of the SDK tells rights
        told: dict[str, Any] = service.execute_graphql(_PROJECT, {"entity": entity, "project": name})
    read_only = (told.get("project") or {}).get("readOnly")
    if read_only is None:
        yield Finding("write", "unknown", f"cannot be known without writing: the server tells no rights in {project}.")
    elif read_only:
        advice = "ask for a role that may write, or audit with --annotate none."
        yield Finding("write", "problem", f"this key may only read {project}.", advice)
    else:
        yield Finding("write", "ok", f"this key may write to {project}.")


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
