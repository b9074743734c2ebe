"""Wrong use and small commands: exit codes, one line on stderr, nothing slow imported, nothing written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CommandLine, random_walk, tree, write_safetensors

from spectral_edge.store import Store

SLOW = {"torch", "mlflow", "prefect", "wandb", "altair", "scipy", "sklearn"}


@pytest.fixture
def command(tmp_path: Path) -> CommandLine:
    """In an empty working directory; of Prefect's servers, none can be reached."""
    return CommandLine(tmp_path, {"PREFECT_API_URL": "http://127.0.0.1:9/api"})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty store at the default place."""
    Store.open(tmp_path / "spectral-edge-store")
    return tmp_path / "spectral-edge-store"


def test_version_and_help(command: CommandLine) -> None:
    assert command.run("--version").out.startswith("spectral-edge ")
    answer = command.run("--help")
    assert answer.code == 0
    for name in ("audit", "query", "runs", "report", "demo", "doctor"):
        assert name in answer.out
        assert "Example" in command.run(name, "--help").out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("audit", "dri:runs"), "write dir:runs"),
        (("audit", "runs"), "`source` must be written as"),
        (("audit", "dir:nowhere", "--dry-run"), "nowhere"),
        (("audit", "dir:x", "--window", "2"), "`window` must be a whole number of updates, at least 3, got 2"),
        (("audit", "dir:x", "--max-disk", "much"), "`max_disk` must be a size such as 20GB"),
        (("audit", "dir:x", "--state", "done"), "`state` must be one or more of running, finished,"),
        (("audit", "dir:x", "--state", "failed", "--dry-run"), "`state` cannot be applied to dir: sources"),
        (("retract", "dir:x", "--filter", "metrics.loss < 1", "--dry-run"), "`filter` cannot be applied to dir:"),
        (("retract", "dir:x", "--since", "yesterday"), "`since` must be an age such as 24h, 7d or 2w, or a date"),
        (("audit", "dir:x", "--lags", "4"), "`lags` must be at least `window` (10), got 4"),
        (("query", "select 1"), "there is no store here"),
        (("query", "select 1", "--json", "--csv"), "not both"),
        (("runs", "--store", "gs://bucket"), "`store` must be a folder or s3://"),
        (("report", "--output", "x.html"), "there is no store here"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(command: CommandLine, arguments: tuple[str, ...], told: str) -> None:
    answer = command.run(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert len(answer.errors) == len(answer.err.splitlines()) == 1
    assert told in answer.errors[0]
    assert tree(command.folder) == {}


def test_wrong_flags_are_exit_code_2(command: CommandLine) -> None:
    assert command.run("audit").code == 2
    assert command.run("audit", "dir:x", "--window", "ten").code == 2
    assert command.run("audit", "dir:x", "--nonsense").code == 2


def test_wrong_sql_is_one_line(command: CommandLine, store: Path) -> None:
    answer = command.run("query", "select nonsense from runs")
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
    assert "nonsense" in answer.err


def test_the_store_can_be_named_in_the_settings_file(command: CommandLine, store: Path) -> None:
    store.rename(command.folder / "elsewhere")
    (command.folder / "spectral-edge.toml").write_text('store = "elsewhere"\n')
    answer = command.run("query", "--json", "select count(*) as n from runs")
    assert answer.json == [{"n": 0}]
    assert command.run("runs", "--json").json == []


@pytest.mark.parametrize("arguments", [("--help",), ("audit", "--help"), ("runs",), ("query", "select 1")])
def test_small_commands_import_nothing_slow(store: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    program = (
        "import sys; from pipelines.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        f"print(code, sorted({SLOW} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "0 []"


def test_the_doctor_writes_nothing_and_says_what_to_do(command: CommandLine, store: Path) -> None:
    write_safetensors(command.folder / "runs" / "one", random_walk(3))
    before = tree(command.folder)
    answer = command.run("doctor", "dir:runs", "dir:nowhere", "mlflow:x", "--tracking-uri", "http://127.0.0.1:9")
    assert tree(command.folder) == before
    assert answer.code == 1
    unwell = {line.split(":")[0] + ":" + line.split(":")[1] for line in answer.out.splitlines() if line[:2] == "no"}
    assert unwell == {"no prefect: PREFECT_API_URL is http", "no dir:nowhere", "no mlflow:x"}
    assert "holds 0 audited runs" in answer.out
    assert "torch" in answer.out


def test_the_doctor_is_content(tmp_path: Path, with_server: Callable[[Path], CommandLine]) -> None:
    answer = with_server(tmp_path).run("doctor", "--store", "new")
    assert answer.code == 0, answer.out
    assert "new does not exist yet" in answer.out
    assert "answered 200" in answer.out
    assert tree(tmp_path) == {}
