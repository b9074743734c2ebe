"""A run that offers several series of checkpoints: which is followed, where that is told, how to choose another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from one_folder import audit, tables, weights, write

from integrations.tracker import OtherSeries
from pipelines.forecast import forecast
from pipelines.settings import load_settings
from spectral_edge.errors import NotFoundError
from spectral_edge.query import query
from spectral_edge.store import Store

MAIN, OTHER = "step_#.safetensors", "target_step_#.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with eight checkpoints, and five of a target network beside them."""
    folder = tmp_path / "runs" / "two_series"
    folder.mkdir(parents=True)
    for index, row in enumerate(weights(5, seed=1)):
        write(folder, index, row)
    for path in folder.glob("step_*"):
        path.rename(path.with_name(f"target_{path.name}"))
    for index, row in enumerate(weights(8)):
        write(folder, index, row)
    return folder


def test_the_longest_is_followed_and_another_by_name(folder: Path) -> None:
    first = audit(folder)
    assert (first.outcome, first.checkpoints, first.series, first.step_source) == ("audited", 8, MAIN, "file_name")
    assert [warning for warning in first.warnings if f"`{OTHER}` also holds 5 checkpoints" in warning]
    asked = "select series, step_source, checkpoints from runs"
    store = Store.open("spectral-edge-store")
    assert query(store, asked).to_pylist() == [{"series": MAIN, "step_source": "file_name", "checkpoints": 8}]
    assert audit(folder, series=MAIN).outcome == "unchanged"  # the same checkpoints, however they were chosen

    other = audit(folder, series="target*")
    assert (other.outcome, other.checkpoints, other.series) == ("audited", 5, OTHER)
    assert not [warning for warning in other.warnings if "also holds" in warning]
    assert tables(folder).summary["series"] == OTHER
    assert audit(folder, series="target*").outcome == "unchanged"


def test_a_name_that_a_run_does_not_have_leaves_its_audit_alone(folder: Path) -> None:
    audit(folder)
    before = tables(folder).summary
    with pytest.raises(NotFoundError, match=rf"two_series: no series .* 'model:\*'.* `{MAIN}` \(8\), `{OTHER}` \(5\)"):
        audit(folder, series="model:*")
    assert tables(folder).summary == before


def test_the_forecast_tells_what_is_followed_and_what_else_there_is(folder: Path) -> None:
    for index, row in enumerate(weights(4)):
        write(folder.parent / "one_series", index, row)
    source = f"dir:{folder.parent}"
    one, two = forecast(source, load_settings(annotate="none", window=3)).runs
    assert (one.series, one.other_series) == (MAIN, ())
    assert (two.series, two.step_source, two.checkpoints) == (MAIN, "file_name", 8)
    assert two.other_series == (OtherSeries(OTHER, 5),)

    Path("spectral-edge.toml").write_text('series = "target*"\n')
    told = forecast(source, load_settings(annotate="none", window=3))
    one, two = told.runs
    assert one.error is not None
    assert "one_series" in one.error
    assert (two.series, two.checkpoints, two.error) == (OTHER, 5, None)
    shown = told.rows[1]
    assert (shown["series"], shown["step from"], shown["other series"]) == (OTHER, "file_name", f"{MAIN} (8)")
    [_, as_json] = json.loads(json.dumps(told.as_json()))["runs"]
    assert (as_json["series"], as_json["step_source"]) == (OTHER, "file_name")
    assert as_json["other_series"] == [{"name": MAIN, "checkpoints": 8}]


def test_steps_recorded_in_a_folder_are_in_the_table(tmp_path: Path) -> None:
    for index, row in enumerate(weights(6)):
        path = write(tmp_path / "run", index, row)
        home = path.parent / f"epoch_{index}"
        home.mkdir()
        path.rename(home / "model.safetensors")
        (home / "trainer_state.json").write_text(json.dumps({"global_step": 25 * index, "epoch": index}))
    result = audit(tmp_path / "run")
    assert (result.outcome, result.step_source) == ("audited", "metadata")
    summary = tables(tmp_path / "run").summary
    assert (summary["step_source"], summary["step_last"]) == ("metadata", 125)
