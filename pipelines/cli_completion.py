"""What Tab completes beside commands and options: sources, questions, tables, and the runs of a store on this machine.

No network is used: a store on S3 and the runs of a tracker are not asked. What cannot be read completes to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import typer

from integrations.place import SCHEMES
from spectral_edge.errors import SpectralEdgeError
from spectral_edge.questions import QUESTIONS

_MOST = 200
"""More than these help nobody who looks for one."""


def complete_source(incomplete: str) -> list[tuple[str, str]]:
    """Kinds of sources, and the trackers that spectral-edge.toml names."""
    from pipelines.settings import load_settings  # noqa: PLC0415 - as everything here, only when Tab is pressed

    named: dict[str, str] = {}
    with suppress(SpectralEdgeError):
        named = {name: f"the {tracker.kind} tracker of that name" for name, tracker in load_settings().trackers.items()}
    return _beginning(incomplete, {f"{name}:": text for name, text in (SCHEMES | named).items()}.items())


def complete_query(incomplete: str) -> list[tuple[str, str]]:
    """The questions that have a name."""
    return _beginning(incomplete, ((name, question.meaning) for name, question in QUESTIONS.items()))


def complete_table(incomplete: str) -> list[tuple[str, str]]:
    """The tables of a store."""
    from spectral_edge.tables import SCHEMAS  # noqa: PLC0415 - loads pyarrow

    return _beginning(incomplete, ((name, f"{len(schema)} columns") for name, schema in SCHEMAS.items()))


def complete_run(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids of the runs that the store of this machine holds."""
    return _beginning(incomplete, ((run_id, f"{name}, {project}") for run_id, name, project in _runs(context)))


def complete_project(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Its projects."""
    return _beginning(incomplete, {project: "project" for _, _, project in _runs(context)}.items())


def complete_schema(incomplete: str) -> list[tuple[str, str]]:
    """The documents that have a schema."""
    from pipelines.json_schemas import NAMES  # noqa: PLC0415 - loads pyarrow and torch

    return _beginning(incomplete, ((name, "a document of --json") for name in NAMES))


def _runs(context: typer.Context) -> list[tuple[str, str, str]]:
    from pipelines.settings import load_settings  # noqa: PLC0415 - as above

    with suppress(SpectralEdgeError):
        place = context.params.get("store") or load_settings().store
        if not str(place).startswith("s3://"):
            from spectral_edge.store import Store  # noqa: PLC0415 - loads deltalake

            runs = Store.open(place, create=False).datasets()["runs"]
            rows = runs.to_table(columns=["run_id", "run_name", "project"]).to_pylist()
            return sorted((row["run_id"], row["run_name"], row["project"]) for row in rows)
    return []


def _beginning(incomplete: str, found: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(word, text) for word, text in found if word.startswith(incomplete) and word.isprintable()][:_MOST]
