"""Files of recorded sketches audited like any run: the same tables as from Python, read once, and safe to damage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_folder import audit, tables, tracked
from torch import nn

from integrations.folder_tracker import FolderTracker
from integrations.recordings import records_as_listed
from integrations.tracker import Selection
from pipelines.forecast import forecast
from pipelines.probe_command import ProbeRequest, probe_source
from pipelines.settings import load_settings
from pipelines.store_commands import RUNS_SQL
from spectral_edge.advice import KINDS_OF_ADVICE
from spectral_edge.errors import CheckpointFormatError, FetchInterruptedError, TrajectoryError
from spectral_edge.query import query
from spectral_edge.recorded import analyse_recorded
from spectral_edge.recorder import Recorder
from spectral_edge.report import run_chart_html, write_report
from spectral_edge.settings import Settings
from spectral_edge.store import Store
from spectral_edge.tables import RunTables

ESTIMATES = "All numbers are estimates from sketches of 50 numbers"


def record(path: Path, first: int, last: int, *, size: int = 50, every: int = 10) -> Path:
    """Records `first` to `last` of a model that walks at random, the same walk each time, `every` steps apart."""
    path.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 5))
    with Recorder(path, model, every=every, size=size) as recorder:
        for index in range(1, last + 1):
            for parameter in model.parameters():
                value = np.float32(rng.standard_normal(tuple(parameter.shape)))
                parameter.data = parameter.data * (index > 1) + parameter.data.new_tensor(value)
            if index >= first:
                recorder.step(every * index, learning_rate=1e-3, val_loss=1 / index, odd=2.0)
    return path


def same(found: RunTables, expected: RunTables) -> None:
    """The same numbers in `gaps` and `inner_products`."""
    assert found.gaps.num_rows == expected.gaps.num_rows > 0
    order = [("group", "ascending"), ("step", "ascending")]
    rows = [table.gaps.sort_by(order).to_pylist() for table in (found, expected)]
    for ours, theirs in zip(*rows, strict=True):
        for name in ("group", "step", "k_star", "regime", "learning_rate", "spacing"):
            assert ours[name] == theirs[name], name
        np.testing.assert_allclose(ours["singular_values"], theirs["singular_values"], rtol=1e-9)
    order.append(("lag", "ascending"))
    ours, theirs = (table.inner_products.sort_by(order)["value"].to_numpy() for table in (found, expected))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12 * np.abs(theirs).max())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_tables_are_those_from_python_and_tell_of_the_sketch(tmp_path: Path) -> None:
    path = record(tmp_path / "runs/one.sketch", 1, 30)
    result = audit(path)
    assert (result.outcome, result.checkpoints, result.series) == ("audited", 30, "recorded sketches")
    found = tables(path)
    same(found, analyse_recorded(path, settings=Settings(window=3, metric="val_loss", metric_direction="lower")))
    row = found.summary
    assert (row["run_name"], row["project"], row["tracker"]) == ("one", "runs", "dir")
    assert (row["sketch_size"], row["step_source"], row["metric_name"]) == (50, "record", "val_loss")
    assert [warning.startswith(ESTIMATES) for warning in row["warnings"]].count(True) == 1
    assert set(found.gaps["learning_rate"].to_pylist()) == {1e-3}


def test_what_is_kept_whole_is_exact_and_says_nothing_of_sketches(tmp_path: Path) -> None:
    path = record(tmp_path / "one.sketch", 1, 12, size=10_000)
    audit(path)
    assert tables(path).summary["sketch_size"] is None
    assert "sketch" not in " ".join(tables(path).summary["warnings"])


def test_a_file_that_has_not_changed_is_left_alone(tmp_path: Path) -> None:
    path = record(tmp_path / "one.sketch", 1, 12)
    audit(path, annotate="full")
    assert audit(path, annotate="full").outcome == "unchanged"
    path.touch()  # what counts is what it holds
    assert audit(path, annotate="full").outcome == "unchanged"


def test_a_file_that_grew_is_read_from_where_it_was(tmp_path: Path) -> None:
    path = record(tmp_path / "one.sketch", 1, 30)
    audit(path)
    record(path, 31, 40)
    result = audit(path)
    assert (result.outcome, result.new_checkpoints) == ("extended", 10)
    assert 0 < result.bytes_read < 0.8 * path.stat().st_size
    grown = tables(path)
    audit(path, force=True)
    same(grown, tables(path))
    assert grown.summary["warnings"][0].startswith(ESTIMATES)
    assert grown.summary["sketch_size"] == 50


def test_another_window_reads_nothing_and_states_its_own_error(tmp_path: Path) -> None:
    path = record(tmp_path / "one.sketch", 1, 30)
    audit(path, window=4)
    result = audit(path, window=3, lags=20)
    assert (result.outcome, result.bytes_read) == ("reanalysed", 0)
    estimates = [warning for warning in tables(path).summary["warnings"] if warning.startswith(ESTIMATES)]
    assert len(estimates) == 1
    assert "among 3 that lie together" in estimates[0]
    assert tables(path).summary["sketch_size"] == 50


def test_steps_that_were_trained_again_count_as_trained_last(tmp_path: Path) -> None:
    path = record(tmp_path / "one.sketch", 1, 30)
    audit(path)
    record(path, 20, 26)
    result = audit(path)
    assert (result.outcome, result.checkpoints) == ("audited", 26)
    assert "11 record(s)" in " ".join(tables(path).summary["warnings"])


def test_the_forecast_tells_what_the_audit_then_does(tmp_path: Path) -> None:
    path = record(tmp_path / "one.sketch", 1, 30)
    settings = load_settings(window=3, annotate="none")
    for action, outcome in (("audit", "audited"), ("nothing", "unchanged"), ("extend", "extended")):
        if action == "extend":
            record(path, 31, 33)
        [told] = forecast(f"dir:{path}", settings).runs
        assert told.action == action
        result = audit(path)
        assert (result.outcome, result.bytes_read) == (outcome, told.bytes_to_read)


def flipped(content: bytes, at: float) -> bytes:
    damaged = bytearray(content)
    damaged[int(at * len(content))] ^= 1
    return bytes(damaged)


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a record": (lambda content: flipped(content, 0.5), "record of step"),
    "the header": (lambda content: flipped(content, 0.01), "header"),
    "another kind of file": (lambda _: b"PK\x03\x04 a drawing" * 50, "no file of recorded sketches"),
    "nothing": (lambda _: b"", "no file of recorded sketches"),
    "cut within the header": (lambda content: content[:40], "header"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_fails_once_and_is_told_of(tmp_path: Path, name: str) -> None:
    path = record(tmp_path / "one.sketch", 1, 12)
    damage, told = DAMAGED[name]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    with pytest.raises(CheckpointFormatError, match=told):
        audit(path)
    assert tables(path).summary["status"] == "failed"
    again = audit(path)
    assert (again.outcome, again.known) == ("failed", True)
    path.write_bytes(whole)
    assert audit(path, force=True).outcome == "audited"
    assert tables(path).summary["status"] == "ok"


def test_a_file_cut_within_a_record_is_read_up_to_there(tmp_path: Path) -> None:
    path = record(tmp_path / "one.sketch", 1, 12)
    path.write_bytes(path.read_bytes()[:-9])
    assert audit(path).checkpoints == 11
    assert "no whole record" in " ".join(tables(path).summary["warnings"])
    record(path, 12, 14)  # the recorder cuts it off, and goes on
    assert audit(path).checkpoints == 14


def test_two_records_are_too_few(tmp_path: Path) -> None:
    path = record(tmp_path / "one.sketch", 1, 2)
    with pytest.raises(TrajectoryError, match="at least 3"):
        audit(path)
    assert audit(record(tmp_path / "none.sketch", 1, 0)).outcome == "no_checkpoints"


def test_only_parameters_are_recorded(tmp_path: Path) -> None:
    path = record(tmp_path / "one.sketch", 1, 12)
    with pytest.raises(TrajectoryError, match="only parameters were recorded"):
        audit(path, include="buffers")


def test_no_probe_of_a_recorded_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = record(tmp_path / "one.sketch", 1, 12)
    assert probe_source(f"dir:{path}", load_settings(window=3), ProbeRequest("a:b"), as_json=False) == 1
    assert "only sketches of them were recorded" in capsys.readouterr().err


def test_a_file_written_over_after_it_was_listed_is_tried_again_later(tmp_path: Path) -> None:
    path = record(tmp_path / "one.sketch", 1, 12)
    listed = FolderTracker().checkpoints(tracked(path)).checkpoints
    record(path, 13, 14)
    assert len(records_as_listed(path, listed, "one").records) == 12
    record(path, 6, 7)
    with pytest.raises(FetchInterruptedError, match="7 of the 12 records"):
        records_as_listed(path, listed, "one")


def test_annotations_lie_beside_the_file_and_are_taken_back_alone(tmp_path: Path) -> None:
    one, two = (record(tmp_path / f"{name}.sketch", 1, 12) for name in ("one", "two"))
    for path in (one, two):
        assert audit(path, annotate="full").writes > 0
    folder = tmp_path / "one.sketch.spectral_edge"
    assert {"tags.json", "note.md", "metrics.csv", "gaps.parquet"} <= {path.name for path in folder.iterdir()}
    assert "estimates from sketches" in (folder / "note.md").read_text()
    assert [run.key.run_name for run in FolderTracker().runs(Selection(str(tmp_path)))] == ["one", "two"]
    receipt = FolderTracker().retract(tracked(one))
    assert "tags.json" in receipt.files
    assert not folder.exists()
    assert (tmp_path / "two.sketch.spectral_edge/tags.json").is_file()
    assert audit(one, annotate="full").outcome == "updated"


def test_parameters_come_from_the_configuration_beside_the_file(tmp_path: Path) -> None:
    path = record(tmp_path / "one.sketch", 1, 12)
    (tmp_path / "config.json").write_text(json.dumps({"optimizer": "AdamW", "weight_decay": 0.1}))
    audit(path)
    assert tables(path).summary["weight_decay"] == 0.1


def test_the_report_and_runs_say_it_and_escape_the_name(tmp_path: Path) -> None:
    path = record(tmp_path / "runs/<b>bold.sketch", 1, 12)
    audit(path, window=10)
    write_report(Store.open("spectral-edge-store"), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "estimates from recorded sketches of 50 numbers" in run_chart_html(tables(path, "spectral-edge-store"))
    assert "Changes were not tested: 12 checkpoints" in page
    assert "<b>bold" not in page
    [row] = query(Store.open("spectral-edge-store"), RUNS_SQL).to_pylist()
    assert row["advice"].startswith("Changes were not tested: 12 checkpoints")
    assert "estimates" not in row["advice"]


@pytest.mark.parametrize("begin", KINDS_OF_ADVICE)
def test_runs_shows_each_kind_of_advice(tmp_path: Path, begin: str) -> None:
    path = record(tmp_path / "one.sketch", 1, 12)
    audit(path)
    stored = tables(path)
    field = stored.runs.schema.get_field_index("warnings")
    column: Any = [["Odd.", f"{begin}: so and so."]]
    runs = stored.runs.set_column(field, stored.runs.schema.field(field), [column])
    Store.open("spectral-edge-store").write_run(replace(stored, runs=runs))
    [row] = query(Store.open("spectral-edge-store"), RUNS_SQL).to_pylist()
    assert row["advice"] == f"{begin}: so and so."
