"""`spectral-edge probe` with the worked example of docs/probe.md, on short runs in a folder."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from pipelines.demo_training import Recipe, train
from pipelines.probe_command import ProbeRequest, chosen_ends, limits_of, probe_source
from pipelines.probe_process import Limits
from pipelines.settings import load_settings
from spectral_edge.errors import NotFoundError, TooFewCheckpointsError, UsageError
from tests.json_documents import require_schema

PAGE = Path(__file__).resolve().parents[2] / "docs/probe.md"
RECIPE = Recipe("short", "modular addition", 3, 1.0, "constant", "pt", steps=50, checkpoint_every=10)


@pytest.fixture
def example(tmp_path: Path) -> str:
    """The probe of the documentation, in the working directory."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    (tmp_path / "addition_probe.py").write_text(code)
    return "addition_probe:probe"


def train_into(folder: Path, recipe: Recipe = RECIPE) -> None:
    """A run in a folder: checkpoints, parameters, metrics."""
    folder.mkdir(parents=True)
    rows: dict[int, dict[str, float]] = defaultdict(dict)
    for snapshot in train(recipe):
        save_file(snapshot.model_state, folder / f"step_{snapshot.step}.safetensors")
        for point in snapshot.points:
            rows[point.step][point.name] = point.value
    (folder / "params.json").write_text(json.dumps(recipe.params()))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["step", *sorted({name for row in rows.values() for name in row})])
        writer.writeheader()
        writer.writerows({"step": step} | row for step, row in sorted(rows.items()))


def probed(source: str, request: ProbeRequest, capsys: pytest.CaptureFixture[str], **flags: Any) -> tuple[int, Any]:
    code = probe_source(source, load_settings(window=3, **flags), request, as_json=True)
    found = json.loads(capsys.readouterr().out)
    require_schema("probe", found)
    return code, found


def test_the_example_of_the_documentation_probes_a_folder(
    example: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_into(tmp_path / "runs" / "short")
    code, found = probed("dir:runs", ProbeRequest(example, windows=1), capsys)
    [run] = found["runs"]
    [window] = run["windows"]
    assert (code, run["error"], window["step"], window["step_first"]) == (0, None, 50, 20)
    with (tmp_path / "runs/short/metrics.csv").open() as file:
        logged = {int(row["step"]): row for row in csv.DictReader(file)}
    assert window["validation_loss"] == pytest.approx(float(logged[50]["val_loss"]), rel=1e-5)
    assert (window["learning_rate"], window["weight_decay"]) == (1e-3, 1.0)
    assert [direction["j"] for direction in window["directions"]] == [1, 2, 3]
    assert window["directions"][0]["removal_train"] > 0  # fifty steps into training, the leading way down has helped
    flow = window["flow"]
    assert flow["residual"] == pytest.approx(flow["measured"] - flow["predicted"])
    assert not list(Path("spectral-edge-spool").glob("*"))


def test_people_see_tables_and_a_probe_that_fails_is_one_line(
    example: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_into(tmp_path / "runs" / "good")
    train_into(tmp_path / "runs" / "without_seed")
    (tmp_path / "runs/without_seed/params.json").unlink()
    settings = load_settings(window=3)
    assert probe_source("dir:runs", settings, ProbeRequest(example, windows=1), as_json=False) == 2
    out, err = capsys.readouterr()
    assert "good, steps 20 to 50, group total: training loss" in out
    assert re.search(r"^ *j +sigma +stability +gradient_train +gradient_validation", out, flags=re.MULTILINE)
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1
    assert "run without_seed: the probe addition_probe:probe raised KeyError: 'seed'" in err
    assert {path.name for path in (tmp_path / "runs/good").iterdir()} == {
        "metrics.csv", "params.json", *(f"step_{step}.safetensors" for step in range(10, 60, 10))
    }  # fmt: skip


def test_windows_are_spread_over_the_run_and_end_at_its_last_checkpoint() -> None:
    assert chosen_ends(60, 10, 5) == [11, 23, 35, 47, 59]
    assert chosen_ends(13, 10, 5) == [11, 12]
    assert chosen_ends(11, 10, 5) == [10]  # the only full window, with none before it
    assert chosen_ends(60, 10, 1) == [59]
    with pytest.raises(TooFewCheckpointsError, match="got 10 checkpoint"):
        chosen_ends(10, 10, 5)


def test_requests_that_cannot_be_are_refused(tmp_path: Path) -> None:
    settings = load_settings()
    with pytest.raises(UsageError, match="`windows` must be at least 1"):
        probe_source("dir:runs", settings, ProbeRequest("a:b", windows=0), as_json=True)
    with pytest.raises(NotFoundError):
        probe_source("dir:nowhere", settings, ProbeRequest("a:b"), as_json=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError):
        probe_source("dir:empty", settings, ProbeRequest("a:b"), as_json=True)


def test_limits_are_read_as_people_write_them() -> None:
    assert limits_of(None, None) == Limits()
    assert limits_of(30, "8GB") == Limits(30, 8_000_000_000)
    with pytest.raises(UsageError, match="`timeout` must be a number of seconds above 0, got 0"):
        limits_of(0, None)
    for wrong in ("much", "0", "-3GB"):
        with pytest.raises(UsageError, match="`memory` must be a size such as 8GB"):
            limits_of(None, wrong)


def test_a_run_with_too_few_checkpoints_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], example: str
) -> None:
    train_into(tmp_path / "runs" / "tiny", Recipe("tiny", "modular addition", 3, 1.0, "constant", "pt", 30, 10))
    code, found = probed("dir:runs", ProbeRequest(example), capsys)
    assert code == 1
    assert "run tiny: got 3 checkpoint(s)" in found["runs"][0]["error"]
