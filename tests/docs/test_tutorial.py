"""Part two of the tutorial, from its training loop to the report, as it is written there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from snippets import ROOT, blocks, commands
from typer.testing import CliRunner

from integrations.folder_tracker import FolderTracker
from integrations.tracker import Selection
from pipelines.cli import app
from pipelines.decisions import Scope
from pipelines.one_run import Job, audit_one
from pipelines.settings import load_settings
from spectral_edge.store import Store

PAGE = ROOT / "docs/tutorial.md"


def masked(line: str) -> str:
    """A line of output without its numbers, times, and spaces: these may differ."""
    return re.sub(r"\s+", " ", re.sub(r"[\d.,:]+", "#", line)).strip()


def test_the_tutorial_leads_to_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands are called here as the command line calls them, but the audit goes without Prefect's server.

    That server takes longer to start than all the rest; tests/e2e has it.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    said: list[str] = []
    own = [block for block in blocks(PAGE) if block.line > at_line("## 2. A run of my own")]
    assert [block.language for block in own] == ["python", "sh", "sh", "text", "sh", "text", "sh"]
    for block in own:
        if block.language == "python":
            (tmp_path / "train.py").write_text(block.text)
        elif block.language == "text":
            shown = {masked(told) for told in block.text.splitlines() if told.strip()}
            assert shown <= set(map(masked, said)), f"{block}: a command prints this no more"
        for program, *arguments in commands(block.text) if block.language == "sh" else ():
            if program == "python":
                subprocess.run([sys.executable, *arguments], cwd=tmp_path, check=True)
            elif arguments == ["audit", "dir:runs"]:
                audit()
            else:
                answer = CliRunner().invoke(app, arguments)
                assert answer.exit_code == 0, f"{block}: {answer.output}"
                said += answer.output.splitlines()
    assert len(torch.load(tmp_path / "runs/sums/step_4000.pt", weights_only=True)) == 5
    for name in ("spectrum.png", "spectrum.html", "metrics.csv", "gaps.parquet"):
        assert f"`{name}`" in PAGE.read_text()
        assert (tmp_path / "runs/sums/spectral_edge" / name).stat().st_size
    assert "sums" in (tmp_path / "report.html").read_text()


def audit() -> None:
    """What `spectral-edge audit dir:runs` does."""
    settings = load_settings()
    store = Store.open(settings.store)
    job = Job(Scope.of(FolderTracker(), settings, store), store, "cpu")
    [run] = FolderTracker().runs(Selection("runs"))
    assert audit_one(job, run).outcome == "audited"


def at_line(heading: str) -> int:
    """Number of the line of `heading`."""
    return PAGE.read_text().splitlines().index(heading) + 1
