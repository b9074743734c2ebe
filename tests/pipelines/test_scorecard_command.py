"""`spectral-edge scorecard` over a store of invented runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.scorecard_command import scorecard
from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.scorecard import PREDICTIONS
from spectral_edge.store import Store
from tests.json_documents import require_schema
from tests.spectral.scorecard_runs import BEFORE, LONG, ONSET, run_tables


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("scored") / "store"
    opened = Store.open(folder)
    opened.write_run(run_tables(LONG, name="grok", changes=BEFORE, onset=ONSET))
    opened.write_run(run_tables(LONG, name="control", weight_decay=0.0))
    opened.write_run(run_tables(LONG, name="grok", project="other", optimizer="Muon"))
    return str(folder)


def test_the_table_has_every_prediction_with_its_counts(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    scorecard(store)
    said = capsys.readouterr()
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert set(lines) >= {prediction.name for prediction in PREDICTIONS}
    assert lines["gap_before_metric"].split()[1:4] == ["1", "0", "2"]
    assert "change of the metric (2)" in lines["gap_before_metric"]
    assert "gap_dynamics_need_decay: not_testable. at least one change is reported: 1/2 [0.01, 0.99]" in said.out
    assert "optimizer (AdamW, Muon against AdamW)" in said.out
    assert "docs/scorecard.md" in said.err


def test_json_is_one_document(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    scorecard(store, project="invented", run="control", as_json=True)
    said = capsys.readouterr()
    found = json.loads(said.out)
    require_schema("scorecard", found)
    assert said.err == ""
    assert [row["prediction"] for row in found["predictions"]] == [prediction.name for prediction in PREDICTIONS]
    assert {row["run_id"] for row in found["runs"]} == {"control"}
    by_test = {row["prediction"]: row for row in found["runs"]}
    assert by_test["gap_dynamics_need_decay"]["outcome"] == "holds"
    assert by_test["k_star_by_optimizer"]["value"] == 1
    scorecard(store, as_json=True)
    assert json.loads(capsys.readouterr().out)["runs"] == []


def test_a_run_is_shown_with_what_decided(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    scorecard(store, project="invented", run="grok")
    said = capsys.readouterr().out
    assert "rotation in total at step 80; val_accuracy changes at step 250" in said


def test_what_is_not_there_is_named(store: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no audited run of project 'nothing'"):
        scorecard(store, project="nothing")
    with pytest.raises(NotFoundError, match=r"run nothing, file .*no audited run has this id or name"):
        scorecard(store, run="nothing")
    with pytest.raises(UsageError, match="2 runs are called so: invented grok, other grok"):
        scorecard(store, run="grok")
    with pytest.raises(NotFoundError):
        scorecard(str(tmp_path / "no store"))
