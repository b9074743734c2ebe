"""Help: examples that the commands take, the order of commands, and how to begin."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import typer
from terminals import Terminal, Typed

from pipelines.cli import app
from pipelines.cli_help import example_commands
from pipelines.json_schemas import NAMES, schema_of
from tests.json_documents import require_schema

ROOT = typer.main.get_command(app)
COMMANDS = ROOT.list_commands(typer.Context(ROOT))  # type: ignore[attr-defined]  # it is a group
WITHOUT_JSON = {"demo", "serve", "schema"}


@pytest.mark.parametrize(("name", "line"), example_commands())
def test_examples_are_taken(name: str, line: str) -> None:
    program, command, *arguments = shlex.split(line)
    assert (program, command) == ("spectral-edge", name)
    assert len(line) <= 79, "it would be folded, and could not be copied"
    context = ROOT.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]  # as above
    assert context.params


def test_every_command_has_examples() -> None:
    assert {name for name, _ in example_commands()} == set(COMMANDS)


def test_help_begins_with_what_a_new_user_needs(place: Path, typed: Typed) -> None:
    assert COMMANDS[:4] == ["demo", "doctor", "audit", "runs"]
    without = typed(place)
    assert (without.code, without.err) == (0, "")
    assert "spectral-edge demo" in [line.strip() for line in without.out.splitlines()]
    assert without == typed(place, "--help") == typed(place, "help")
    assert without.out.index("demo ") < without.out.index("audit ") < without.out.index("import ")


def test_help_of_a_command_shows_lines_to_copy(place: Path) -> None:
    screen = Terminal(place, 80).run("help", "audit")
    lines = [line.strip() for line in screen.text.splitlines()]
    for name, line in example_commands():
        if name == "audit":
            assert line in lines
    for panel in ("Which runs", "What is computed", "What is written to the runs"):
        assert f"─ {panel} ─" in screen.text
    assert screen.widest <= 80
    assert Terminal(place, 60).run("help", "audit").widest <= 60


def test_every_document_has_a_schema_and_only_those() -> None:
    having = {name for name, command in ROOT.commands.items() if any(it.name == "as_json" for it in command.params)}  # type: ignore[attr-defined]  # as above
    assert having == set(COMMANDS) - WITHOUT_JSON
    assert set(NAMES) == having | {"audit-dry-run"}


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_refused_where_it_is_not_met(name: str) -> None:
    assert schema_of(name)["title"].startswith("spectral-edge ")
    with pytest.raises(AssertionError):
        require_schema(name, {"schema_version": 1, "invented": True})


def test_the_command_schema_prints_them(place: Path, typed: Typed) -> None:
    assert typed(place, "schema").out.split() == list(NAMES)
    assert json.loads(typed(place, "schema", "audit").out) == schema_of("audit")
