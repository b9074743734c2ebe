"""A folder with a store of three runs, as a user has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from terminals import LONG, Said, Typed

from pipelines import cli_run
from pipelines.cli import app
from spectral_edge.store import Store
from tests.store.audits import audit, key_of


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Runs a command in a folder as the entry point does, but in this process; nobody can be asked."""

    def run(folder: Path, *arguments: str) -> Said:
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["spectral-edge", *arguments])
        capsys.readouterr()
        code = cli_run.run(app)
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its default store holds two runs that are well, and one that failed with a long error."""
    folder = tmp_path_factory.mktemp("place")
    store = Store.open(folder / "spectral-edge-store")
    for run_id in ("first", "second"):
        store.write_run(audit(key_of(run_id)))
    failed = audit(key_of("third"), rows=0, status="failed")
    at = failed.runs.schema.get_field_index("error")
    runs = failed.runs.set_column(at, failed.runs.schema.field(at), pa.array([LONG]))
    store.write_run(replace(failed, runs=runs))
    return folder
