"""`spectral-edge schema`: what a script may rely on in the output of `--json`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.cli_completion import complete_schema
from spectral_edge.errors import UsageError
from spectral_edge.suggestions import meant


def add_schema(app: typer.Typer) -> None:
    """Give `app` the command `schema`."""
    app.command()(schema)


def schema(
    name: Annotated[
        str | None, typer.Argument(metavar="[COMMAND]", help="Default: list them.", autocompletion=complete_schema)
    ] = None,
) -> None:
    """Print the JSON Schema of what a command prints with --json.

    Keys stay and keep their meaning while `schema_version` is the same. New keys may come.
    """
    from pipelines.json_schemas import NAMES, schema_of  # noqa: PLC0415 - loads torch, and `--help` needs none of it

    if name is None:
        typer.echo("\n".join(NAMES))
        return
    if name not in NAMES:
        raise UsageError(f"there is no schema {name!r}.", next_step=meant(name, NAMES))
    typer.echo(json.dumps(schema_of(name), indent=2, ensure_ascii=False))
