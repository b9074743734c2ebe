"""The public Python API: its examples run, its signatures change on purpose only, and it is light to import."""

from __future__ import annotations

import doctest
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import spectral_edge
from spectral_edge import Store, analyse

ROOT = Path(__file__).resolve().parents[2]
PINNED = ROOT / "tests/spectral/public_api.txt"
EXECUTE = "from nbclient.cli import main; main()"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of examples/make_run.py, and the first 12 checkpoints of it as another run."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copy(ROOT / "examples/make_run.py", folder)
    subprocess.run([sys.executable, "make_run.py"], cwd=folder, check=True)
    run, short = folder / "example-runs/small-network", folder / "example-runs/short"
    short.mkdir()
    for step in range(0, 480, 40):
        shutil.copy(run / f"step_{step}.safetensors", short)
    (short / "metrics.csv").write_text("\n".join((run / "metrics.csv").read_text().splitlines()[:13]))
    return folder


@pytest.fixture(scope="module")
def stored(made: Path) -> Path:
    """The same with a store that has the audit of the first."""
    run = analyse(made / "example-runs/small-network", metric="val_accuracy", learning_rate="lr")
    Store.open(made / "spectral-edge-store").write_run(run)
    return made


@pytest.mark.parametrize("name", spectral_edge.__all__)
def test_examples_in_docstrings_run(name: str, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stored)
    public = {one: getattr(spectral_edge, one) for one in spectral_edge.__all__}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    told: list[str] = []
    for test in doctest.DocTestFinder(recurse=False).find(public[name], name, globs=dict(public)):
        runner.run(test, out=told.append)
    assert "".join(told) == ""
    assert runner.summarize(verbose=False).attempted or name not in {"AuditedRun", "Store", "analyse"}


def test_the_first_lines_of_the_page_run(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stored)
    page = (ROOT / "docs/api.md").read_text()
    first, forms, from_store = (block.split("```")[0] for block in page.split("```python\n")[1:4])
    frame = pd.DataFrame({"step": range(0, 480, 40)})
    frame = frame.assign(**{"eval/loss": 1.0, "train/lr": 1e-3, "val_accuracy": 0.5})
    frame.to_csv("wandb-export.csv", index=False)
    for code in (first, forms, from_store):
        own = code.replace("runs/my-run", "example-runs/short").replace("my-project", "example-runs")
        own = own.replace("grok-wd1-s0", "small-network").replace('"attention"', '"mlp"')
        exec(own, {"frame": frame, "analyse": analyse})
    assert Path("my-run.html").stat().st_size > 100_000


def test_the_notebook_runs_and_shows_html_and_images(made: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples/one_run.ipynb", made)
    folders = {name: str(tmp_path) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    subprocess.run(
        [sys.executable, "-c", EXECUTE, "one_run.ipynb", "--inplace", "--kernel_name=python3", "--timeout=240"],
        cwd=made,
        env=os.environ | folders,
        check=True,
    )
    cells = json.loads((made / "one_run.ipynb").read_text())["cells"]
    data = [output["data"] for cell in cells for output in cell.get("outputs", [])]
    run, chart, _, runs, answer = data[1:]
    assert "data:image/png;base64," in "".join(run["text/html"])
    assert "The spectrum of group total changed at step" in "".join(run["text/plain"])
    assert "application/vnd.vegalite.v5+json" in chart
    assert "image/png" in chart
    assert "1 audited run" in "".join(runs["text/html"])
    assert "level_crossing" in "".join(answer["text/html"])
    assert str(made) not in json.dumps(cells)


def test_signatures_change_on_purpose_only() -> None:
    command = [sys.executable, "tools/api_reference.py"]
    now = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    assert now == PINNED.read_text(), (
        "the public API has changed. Is that meant, and by the rules of docs/api.md? Then: "
        "python tools/api_reference.py > tests/spectral/public_api.txt"
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'pyarrow', 'altair', 'deltalake', 'duckdb', 'pandas', 'numba'} & set(sys.modules)"
    light = "import spectral_edge, sys; dir(spectral_edge); from spectral_edge import errors"
    subprocess.run([sys.executable, "-c", f"{light}; assert not {heavy}"], check=True)
    looking = "import sys; from spectral_edge import AuditedRun, RunList, Settings, Store"
    charts = "{'torch', 'altair', 'vl_convert', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{looking}; assert not {charts}, {charts}"], check=True)
