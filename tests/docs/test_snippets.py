"""Every block of code in the documentation is run, or checked as far as it can be; the rest is listed with a reason."""

from __future__ import annotations

import configparser
import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from snippets import ALL, PAGES, ROOT, Block, commands, known, parsed
from typer.testing import CliRunner

from integrations.folder_tracker import FolderTracker
from integrations.tracker import Selection
from pipelines.cli import app
from pipelines.decisions import Scope
from pipelines.metrics_file import GAUGES
from pipelines.one_run import Job, audit_one
from pipelines.settings import load_settings
from spectral_edge.store import Store

NOT_RUN = {
    ("README.md", "addition-wd1-seed2: grokked"): "what the demo prints",
    ("docs/faults.md", "vit-7: the last audit of it"): "what an audit prints",
    ("docs/faults.md", "5 runs, 3 audited"): "what an audit prints",
    ("docs/incremental.md", "412 runs, 38 audited"): "what an audit prints",
    ("docs/scorecard.md", "spectral-edge scorecard --store"): "a synopsis",
    ("docs/tutorial.md", "import csv"): "a file for a command; tests/docs/test_tutorial.py runs it",
    ("docs/api.md", ""): "tests/docs/test_python_api.py runs its examples, and writes its signatures",
    ("docs/lake.md", "spark = ("): "Spark is not among the dependencies; the page says that it was not run",
    ("docs/observability.md", "import os"): "needs a Prefect server; tests/e2e/test_alerts.py runs it",
    ("docs/probe.md", "import torch"): "a file for a command; tests/pipelines/test_probe_command.py runs it",
    ("docs/recorder.md", "from integrations.recorder_callbacks import"): (
        "arguments of a Trainer that is not there; tests/integrations/test_recorder_callbacks.py has both"
    ),
    ("deploy/README.md", "export MLFLOW_BACKEND_STORE_URI"): "tests/deploy/test_readme.py runs it",
}
"""Blocks that this file leaves alone, by page and how they begin ("": all of the page), and why.

An entry that fits no block is an error.
"""

OTHERS = {
    "cd": "of the shell",
    "chmod": "of the shell",
    "docker": "no containers in the tests",
    "export": "of the shell",
    "git": "clones this repository",
    "install": "makes a folder",
    "jq": "shown as an example of what can read JSON",
    "kubectl": "no cluster in the tests",
    "openssl": "makes a password",
    "pip": "installs what the tests run on",
    "prefect": "tests/deploy has a server for it",
    "python3": "makes a virtual environment",
    "sudo": "installs a server",
    "wandb": "W&B's own; it needs an account",
    ".": "of the shell",
}
"""Programs in shell blocks that are not ours, and why they are not run. One that is used nowhere is an error."""

ANSWERED = {"query", "runs", "report", "compact"}
"""Commands over a store alone: they are run wherever they stand in the documentation."""


def is_listed(block: Block) -> bool:
    return any(block.page == page and block.text.lstrip().startswith(start) for page, start in NOT_RUN)


def of_language(*languages: str) -> list[Block]:
    return [block for block in ALL if block.language in languages and not is_listed(block)]


SHELL = of_language("", "sh")
OURS = [(block, words[1:]) for block in SHELL for words in commands(block.text) if words[0] == "spectral-edge"]


def test_every_block_says_what_it_is() -> None:
    shown = {"text", "nginx"}  # output, and what another program is told
    known = {"", "sh", "sql", "python", "py", "toml", "yaml", "ini", "json"} | shown
    odd = [f"{block} is of language `{block.language}`" for block in ALL if block.language not in known]
    assert not odd, "mark what is only shown as ```text, or say in this file how it is checked"


def test_the_list_of_what_is_not_run_is_not_stale() -> None:
    for page, start in NOT_RUN:
        assert [block for block in ALL if block.page == page and block.text.lstrip().startswith(start)], (page, start)
    assert set(OTHERS) <= {words[0] for block in SHELL for words in commands(block.text)}


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_are_known(block: Block) -> None:
    """Each is a call of a program that is there, with options that it takes."""
    for program, *arguments in commands(block.text):
        if program == "spectral-edge":
            continue
        if program == "make":
            targets = re.findall(r"^([a-z.-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
            assert set(arguments) <= set(targets), "there is no such target"
        elif program == "pytest" or (program == "python" and arguments[:1] == ["-m"]):
            assert program == "pytest" or importlib.util.find_spec(arguments[1]), f"there is no module {arguments[1]}"
            assert all((ROOT / word).exists() for word in arguments if word.startswith("tests/"))
        elif program == "python":
            assert arguments[0] in written_files(block.page), f"the page has no file {arguments[0]}"
        else:
            assert program in OTHERS, f"{block}: what is `{program}`? Mark what is only shown as ```text"


def written_files(page: str) -> set[str]:
    """Names of Python files that a page tells to write: those in backquotes."""
    return set(re.findall(r"`([\w/]+\.py)`", (ROOT / page).read_text()))


@pytest.mark.parametrize(("block", "arguments"), OURS, ids=str)
def test_our_commands_are_understood(
    block: Block, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert arguments, f"{block}: a command is missing"
    parsed(arguments)


def test_commands_within_sentences_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inline = [(page, words) for page in PAGES for words in re.findall(r"`(spectral-edge [^`]+)`", page.read_text())]
    wrong = []
    for page, text in inline:
        for words in commands(re.sub(r"\s+", " ", text)):
            if words[1] == "help":  # pipelines/cli_help.py makes --help of it
                continue
            try:
                known(words[1]) if len(words) == 2 else parsed(words[1:])
            except Exception as error:  # noqa: BLE001 - all of them are shown at once
                wrong.append(f"{page.relative_to(ROOT)}: `{text}`: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: folders of checkpoints, and a store in which they are audited."""
    folder = tmp_path_factory.mktemp("prepared")
    weights = np.cumsum(np.random.default_rng(0).normal(size=(16, 12, 5)), axis=0)
    for name in ("runs/my-run", "path/to/run", "path/to/runs/first"):
        (folder / name).mkdir(parents=True)
        for index, row in enumerate(weights):
            tensors = {"layers.0.mlp.weight": torch.tensor(row, dtype=torch.float32)}
            save_file(tensors, folder / name / f"step_{100 * index}.safetensors")
        log = ["step,lr,val_accuracy", *(f"{100 * index},0.001,{index / 20}" for index in range(len(weights)))]
        (folder / name / "metrics.csv").write_text("\n".join(log))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = load_settings(annotate="none")
        store = Store.open(settings.store)
        job = Job(Scope.of(FolderTracker(), settings, store), store, "cpu")
        assert all(audit_one(job, run).outcome == "audited" for run in FolderTracker().runs(Selection("runs")))
        shutil.copytree("spectral-edge-store", "spectral-edge-demo/store")
    return folder


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of one test with all of that."""
    monkeypatch.chdir(shutil.copytree(prepared, tmp_path / "place"))
    return tmp_path / "place"


@pytest.mark.usefixtures("place")
def test_commands_over_a_store_are_answered() -> None:
    lacking = {"--at", "s3://", "--serve"}  # a history of days, a bucket; and what does not end
    asked = [
        (it, words) for it, words in OURS if words[0] in ANSWERED and not any(one in str(words) for one in lacking)
    ]
    asked = list({tuple(words): (it, words) for it, words in asked}.values())
    assert {words[0] for _, words in asked} == ANSWERED
    for block, arguments in asked:
        answer = CliRunner().invoke(app, arguments)
        assert answer.exit_code == 0, f"{block}: {arguments}: {answer.output} {answer.exception}"


@pytest.mark.parametrize("page", sorted({block.page for block in of_language("python", "py")}))
@pytest.mark.usefixtures("place")
def test_python_runs(page: str) -> None:
    """In one namespace a page, as a reader would who types it in."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in of_language("python", "py"):
        if block.page == page:
            exec(compile("\n" * block.line + block.text, ROOT / page, "exec"), namespace)


@pytest.mark.parametrize("block", of_language("toml"), ids=str)
def test_settings_are_valid(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spectral-edge.toml").write_text(block.text)
    load_settings()


@pytest.mark.parametrize("block", of_language("yaml"), ids=str)
def test_rules_for_prometheus_name_metrics_that_are_written(block: Block) -> None:
    rules = yaml.safe_load(block.text)
    assert all(set(rule) == {"alert", "expr"} for rule in rules), "this test knows no other YAML"
    assert {name for rule in rules for name in re.findall(r"spectral_edge_\w+", rule["expr"])} <= set(GAUGES)


def test_json_is_json() -> None:
    for block in of_language("json"):
        json.loads(block.text)


@pytest.mark.parametrize("block", of_language("ini"), ids=str)
def test_a_unit_of_systemd_can_be_read(block: Block) -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser's own documentation has it
    unit.read_string(block.text)
    program, *arguments = unit["Service"]["ExecStart"].split()
    assert Path(program).name == "spectral-edge"
    parsed(arguments)
