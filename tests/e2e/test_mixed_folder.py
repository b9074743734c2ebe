"""A folder of good runs and one bad run of each kind: predicted, audited, audited again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import (
    SECRET_FILE,
    Answer,
    CommandLine,
    random_walk,
    tree,
    write_bad_runs,
    write_recorded,
    write_safetensors,
    write_torch,
)

from tests.json_documents import require_schema

GOOD = {"good_safetensors", "good_torch", "good_recorded"}
IN_PART = {"embedding_grows"}
"""Bad runs whose other groups, and whose checkpoints before the change, are audited all the same."""


@dataclass(frozen=True)
class Story:
    """The folder, what must be named in the errors, and what three commands said in this order."""

    command: CommandLine
    named: dict[str, str]
    forecast: Answer
    files_after_forecast: bool
    first: Answer
    second: Answer
    files_after_second: bool


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, with_server: Callable[[Path], CommandLine]) -> Story:
    folder = tmp_path_factory.mktemp("mixed")
    runs = folder / "runs"
    write_safetensors(runs / "good_safetensors", random_walk(12, seed=1))
    write_torch(runs / "good_torch", random_walk(12, seed=2))
    write_recorded(runs / "good_recorded.sketch", 12)
    named = write_bad_runs(runs)
    command = with_server(folder)
    before = tree(folder)
    forecast = command.run("audit", "dir:runs", "--window", "4", "--dry-run", "--json")
    after_forecast = tree(folder) == before
    first = command.run("audit", "dir:runs", "--window", "4", "--json")
    before = tree(folder)
    second = command.run("audit", "dir:runs", "--window", "4")
    return Story(command, named, forecast, after_forecast, first, second, tree(folder) == before)


def test_the_forecast_writes_nothing_and_tells_the_cost(story: Story) -> None:
    assert story.files_after_forecast
    require_schema("audit-dry-run", story.forecast.json)
    [source] = story.forecast.json["sources"]
    by_name = {run["run_name"]: run for run in source["runs"]}
    assert by_name.keys() == story.named.keys() | GOOD
    good = by_name["good_safetensors"]
    on_disk = sum(
        path.stat().st_size for path in (story.command.folder / "runs/good_safetensors").glob("*.safetensors")
    )
    assert (good["action"], good["checkpoints"]) == ("audit", 12)
    assert (good["bytes_to_fetch"], good["bytes_to_read"], good["requests"]) == (0, on_disk, 0)
    assert "gap table" in good["written_back"]
    assert "without_steps" in by_name["without_steps"]["error"]


def test_good_runs_are_done_and_bad_runs_are_not(story: Story) -> None:
    assert story.first.code == 1
    require_schema("audit", story.first.json)
    [source] = story.first.json["sources"]
    outcomes = {run["run_name"]: run["outcome"] for run in source["runs"]}
    assert outcomes == (
        dict.fromkeys(GOOD, "audited") | dict.fromkeys(story.named, "failed") | dict.fromkeys(IN_PART, "partial")
    )


def test_every_error_is_one_line_that_names_run_and_file(story: Story) -> None:
    assert len(story.first.errors) == len(story.named)
    for run_name, file in story.named.items():
        [line] = [line for line in story.first.errors if f"run {run_name}" in line]
        assert file in line


def test_pickled_code_was_not_executed(story: Story) -> None:
    assert not list(story.command.folder.rglob(SECRET_FILE))


def test_failures_are_in_the_store(story: Story) -> None:
    rows = story.command.run("runs", "--json").json
    require_schema("runs", rows)
    status = {row["run_name"]: row["status"] for row in rows}
    failed = dict.fromkeys(story.named, "failed") | dict.fromkeys(IN_PART, "partial")
    assert status == dict.fromkeys(GOOD, "ok") | failed
    assert all(row["error"] for row in rows if row["run_name"] in story.named)


def test_the_second_audit_does_nothing_and_says_so_in_one_line(story: Story) -> None:
    assert story.files_after_second
    assert story.second.code == 1
    assert story.second.out == "13 runs, nothing new, 10 still failing: 0 bytes fetched, 0 writes.\n"
    assert len(story.second.errors) == len(story.named)


def test_nothing_is_left_in_the_working_directory(story: Story) -> None:
    assert {path.name for path in story.command.folder.iterdir()} == {"runs", "spectral-edge-store"}


def test_queries_come_as_json_csv_and_table(story: Story) -> None:
    sql = "select run_name, count(*) as n, list(step)[:2] as steps from gaps where run_name like 'good_s%' group by all"
    [row] = story.command.run("query", "--json", sql).json
    assert row["run_name"] == "good_safetensors"
    assert row["n"] > 0
    header, line = story.command.run("query", "--csv", sql).out.splitlines()
    assert header == "run_name,n,steps"
    assert line == f'good_safetensors,{row["n"]},"[{row["steps"][0]}, {row["steps"][1]}]"'
    table = story.command.run("query", sql)
    assert "good_safetensors" in table.out
    assert "\x1b" not in table.out


def test_the_report_is_written(story: Story) -> None:
    page = story.command.folder.parent / "mixed-report.html"
    answer = story.command.run("report", "--output", str(page))
    assert answer.code == 0
    assert "good_torch" in page.read_text()
