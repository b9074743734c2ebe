"""What people see on terminals of 60 and of 120 columns, and what a pipe gets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from terminals import LONG, Terminal, Typed, piped

from pipelines.columns import FOLDED, fitting
from tests.json_documents import require_schema

COLUMNS = ["project", "run_name", "status", "state", "checkpoints", "step_last", "regime", "transitions", "audited_at"]


def test_a_narrow_terminal_shows_what_matters_and_says_what_it_left_out(place: Path) -> None:
    screen = Terminal(place, 60).run("runs")
    assert screen.code == 0
    header = screen.text.splitlines()[0].split()
    assert header[:2] == ["run_name", "status"]
    assert "project" not in header
    table, _, note = screen.text.partition("note:")
    assert max(map(len, table.splitlines())) <= 60
    assert "name of third" in table
    assert "do not fit into 60: project, " in note
    assert screen.has_colours  # the word `note:`


def test_a_wide_terminal_shows_more_and_folds_the_error(place: Path) -> None:
    screen = Terminal(place, 120).run("runs")
    table, _, note = screen.text.partition("note:")
    assert max(map(len, table.splitlines())) <= 120
    assert {"error", "regime", "transitions", "checkpoints"} <= set(table.splitlines()[0].split())
    assert "this run was stopped by" in table
    assert LONG not in table
    assert "audited_at" in note


def test_a_pipe_gets_everything_on_one_line_a_run_without_colours(place: Path) -> None:
    done = piped(place, "runs", TERM="xterm-256color")
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = done.stdout.splitlines()
    assert header.split() == [*COLUMNS, "error", "advice"]
    assert len(rows) == 3
    assert LONG in rows[2]
    assert "\x1b" not in done.stdout


def test_json_and_csv(place: Path, typed: Typed) -> None:
    done = typed(place, "runs", "--json")
    assert done.err == ""
    rows = json.loads(done.out)
    require_schema("runs", rows)
    assert [row["status"] for row in rows] == ["ok", "ok", "failed"]
    assert typed(place, "runs", "--csv").out.splitlines()[0] == ",".join([*COLUMNS, "error", "advice"])


@pytest.mark.parametrize(
    ("more", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"CLICOLOR": "0"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_colours_on_a_terminal(place: Path, more: dict[str, str], coloured: bool) -> None:
    screen = Terminal(place, 80, more).run("query")
    assert screen.code == 2
    assert screen.has_colours is coloured
    assert screen.text.startswith("error: missing argument 'SQL'. Next: spectral-edge query --help")


@pytest.mark.parametrize(
    ("more", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"CLICOLOR_FORCE": "1"}, True), ({"FORCE_COLOR": "0"}, False)],
)
def test_colours_in_a_pipe(place: Path, more: dict[str, str], coloured: bool) -> None:
    assert ("\x1b[" in piped(place, "query", **more).stderr) is coloured


def test_columns_are_left_out_by_importance_and_none_is_squeezed() -> None:
    cells = {"a": ["x" * 10], "b": ["y" * 100], "c": ["z"], "d": ["w" * 5]}
    assert fitting(cells, 200) == ["a", "b", "c", "d"]
    assert fitting(cells, 10 + 2 + FOLDED) == ["a", "b"]
    assert fitting(cells, 10 + 1 + FOLDED) == ["a"]
    assert fitting(cells, 12, first=("c", "d", "none")) == ["c", "d"]
    assert fitting(cells, 1) == ["a"]


def test_an_audit_at_a_terminal_ends_with_where_to_look(tmp_path: Path) -> None:
    for step in range(4):
        save_file({"w.weight": np.full(8, float(step**2), np.float32)}, tmp_path / f"step_{step}.safetensors")
    shown = Terminal(tmp_path, 120).run("audit", "dir:.", "--window", "3", "--annotate", "none")
    assert (shown.code, "report --output report.html" in shown.text) == (0, True)
    assert "note" not in piped(tmp_path, "audit", "dir:.", "--window", "3", "--annotate", "none").stderr
