"""`spectral-edge calibrate` on audited folders: nothing but the store is read, and what it tells is what was tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from one_folder import audit, weights, write

from pipelines.calibrate_command import calibrate_sources
from pipelines.settings import load_settings
from spectral_edge.calibration import calibrate
from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.store import Store
from tests.json_documents import require_schema

RUNS, CHECKPOINTS = 4, 13
FLAGS: dict[str, Any] = {"window": 3, "lags": 11}
TARGET = 0.3


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Audited random walks in a folder, whose checkpoints are gone, and one of each kind that cannot count."""
    lengths = {f"walk{index}": CHECKPOINTS for index in range(RUNS)} | {"short": 6, "never-audited": CHECKPOINTS}
    for seed, (name, count) in enumerate(lengths.items()):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        for index, row in enumerate(weights(count, seed)):
            write(folder, index, row)
        if name != "never-audited":
            audit(folder, **FLAGS)
        for file in folder.glob("*.safetensors"):
            file.write_bytes(b"whoever reads this fails")
    return tmp_path / "runs"


def calibrated(capsys: pytest.CaptureFixture[str], source: str = "dir:runs", **flags: Any) -> dict[str, Any]:
    settings = load_settings(**{**FLAGS, **flags})
    assert calibrate_sources([source], settings, target=TARGET, as_json=True) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    require_schema("calibrate", found)
    return found


def test_it_tells_the_rate_and_the_setting_from_the_store_alone(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = calibrated(capsys)
    counted = {run["run_name"]: run for run in found["runs"] if run["skipped"] is None}
    assert sorted(counted) == [f"walk{index}" for index in range(RUNS)]
    assert {run["checkpoints"] for run in counted.values()} == {CHECKPOINTS}
    assert {run["tests"] for run in counted.values()} == {4}
    told = calibrate([run["q_value"] for run in counted.values()], TARGET)
    assert found["calibrated"] == vars(told)
    assert found["changed"]["of"] == RUNS
    skipped = {run["run_name"]: run["skipped"] for run in found["runs"] if run["skipped"]}
    assert "the store does not hold it" in skipped["never-audited"]
    assert "it has 6 checkpoints; a test needs 13" in skipped["short"]


def test_an_audit_with_the_setting_found_reports_what_was_told(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = calibrated(capsys)
    for setting in (found["calibrated"]["setting"], 0.999):
        again = calibrated(capsys, false_alarm_rate=setting)["changed"]["runs"]
        settings = load_settings(**FLAGS, false_alarm_rate=setting)
        q_values = [run["q_value"] for run in found["runs"] if run["q_value"] is not None]
        assert again == sum(q <= settings.false_alarm_rate for q in q_values)
    assert calibrated(capsys, false_alarm_rate=found["calibrated"]["setting"])["changed"]["runs"] <= TARGET * RUNS


def test_people_see_the_controls_and_the_setting(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert calibrate_sources(["dir:runs", "dir:runs"], load_settings(**FLAGS), target=TARGET, as_json=False) == 0
    out, err = capsys.readouterr()
    assert out.count("walk1") == 1  # named twice, counted once
    assert "of 4 runs" in out
    assert "With false_alarm_rate = 0." in out
    assert err.count("left out:") == 2


def test_other_lags_than_those_stored_are_refused_run_by_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, row in enumerate(weights(40, 0)):
        write(runs / "walk0", index, row)
    audit(runs / "walk0", **FLAGS)
    with pytest.raises(UsageError, match="got 3 control run"):
        calibrate_sources(["dir:runs"], load_settings(window=3, lags=20), target=0.2, as_json=True)
    assert "up to lag 11, and 20 are asked for" in capsys.readouterr().err.replace("\n", " ")


def test_too_few_controls_and_empty_stores_are_refused(runs: Path) -> None:
    with pytest.raises(UsageError, match="needs at least 19"):
        calibrate_sources(["dir:runs"], load_settings(**FLAGS), target=0.05, as_json=True)
    with pytest.raises(NotFoundError):
        calibrate_sources(["dir:runs"], load_settings(**FLAGS, store="nowhere"), target=0.05, as_json=True)
    Store.open("empty")
    with pytest.raises(NotFoundError, match="holds none that was tested"):
        calibrate_sources(["dir:runs"], load_settings(**FLAGS, store="empty"), target=0.05, as_json=True)
