"""Audits that end before everything is done, and go on the next time; and those with nothing to do."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CommandLine, random_walk, write_safetensors

AUDIT = ("audit", "dir:new", "dir:old", "--window", "3", "--annotate", "none", "--json")
AGES = {"new/c": 1, "new/b": 3, "old/d": 2, "old/a": 5}
"""Days since the last checkpoint of each run."""


@pytest.fixture
def command(tmp_path: Path, with_server: Callable[[Path], CommandLine]) -> CommandLine:
    for number, (name, days) in enumerate(AGES.items()):
        for path in write_safetensors(tmp_path / name, random_walk(6, seed=number)):
            os.utime(path, (0, time.time() - 86_400 * days))
    return with_server(tmp_path)


def task_runs(command: CommandLine) -> int:
    request = urllib.request.Request(
        f"{command.environment['PREFECT_API_URL']}/task_runs/count", b"{}", {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return int(json.load(answer))


def outcomes(told: dict[str, object]) -> dict[str, list[tuple[str, str]]]:
    return {s["source"]: [(run["run_name"], run["outcome"]) for run in s["runs"]] for s in told["sources"]}  # type: ignore[attr-defined]


def test_the_oldest_debts_come_first_and_the_rest_waits(command: CommandLine) -> None:
    one = command.run(*AUDIT, "--max-runs", "1")
    assert one.code == 0
    assert one.err.startswith("a: audited, 6 checkpoints")
    # Both sources spend from the same budget, and that with the oldest debt is served first.
    assert outcomes(one.json) == {"dir:old": [("a", "audited")], "dir:new": []}
    assert [(told["source"], told["left"]) for told in one.json["sources"]] == [("dir:old", 1), ("dir:new", 2)]

    two = command.run(*AUDIT, "--max-bytes", "1KB")
    assert outcomes(two.json) == {"dir:new": [("b", "audited")], "dir:old": [("a", "unchanged")]}
    rest = command.run("audit", "dir:new", "dir:old", "--window", "3", "--annotate", "none", "--max-minutes", "60")
    assert rest.code == 0
    assert "dir:new: 2 runs, 1 audited: 0 bytes fetched, 0 writes.\n" in rest.out

    before = task_runs(command)
    nothing = command.run(*AUDIT)
    assert {told for found in outcomes(nothing.json).values() for _, told in found} == {"unchanged"}
    assert [told["left"] for told in nothing.json["sources"]] == [0, 0]
    assert task_runs(command) == before
