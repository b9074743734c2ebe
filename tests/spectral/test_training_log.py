"""Metric and learning rate in whatever form a researcher has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from spectral_edge import MetricSeries, Settings, TrainingRecord, analyse
from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.training_log import record_of, require_same_axis
from tests.spectral.trajectories import trained_states, write_checkpoints

STEPS = [0, 100, 200, 300]
COLUMNS = {"step": STEPS, "lr": [0.1, 0.1, 0.2, 0.2], "val_loss": [4.0, 3.0, 2.0, 1.0], "note": list("abcd")}
FRAME = pd.DataFrame(COLUMNS)
CSV = "step,lr,val_loss,note\n0,0.1,4,a\n0,,,only text\n100,0.1,3,b\n200,0.2,2,\n300,0.2,1,d\n"
JSON = "".join(
    f'{{"_step": {step}, "lr": {rate}}}\n{{"_step": {step}, "val_loss": {loss}}}\n'
    for step, rate, loss in zip(STEPS, COLUMNS["lr"], COLUMNS["val_loss"], strict=True)
)


def record(
    folder: Path, metric: Any = None, learning_rate: Any = None, log: Any = None, **asked: Any
) -> TrainingRecord:
    return record_of(metric, learning_rate, log, folder=folder, settings=Settings(**asked))


def assert_same(found: TrainingRecord) -> None:
    assert found.metric is not None
    assert found.learning_rate is not None
    assert (found.metric.name, found.learning_rate.name) == ("val_loss", "lr")
    np.testing.assert_array_equal(found.metric.steps, STEPS)
    np.testing.assert_array_equal(found.metric.values, COLUMNS["val_loss"])
    np.testing.assert_array_equal(found.learning_rate.values, COLUMNS["lr"])
    assert not found.higher_is_better
    assert found.warnings == ()


@pytest.mark.parametrize("log", [FRAME, pl.DataFrame(COLUMNS), COLUMNS, FRAME.set_index("step")])
def test_a_column_of_a_frame(tmp_path: Path, log: Any) -> None:
    assert_same(record(tmp_path, "val_loss", "lr", log))


@pytest.mark.parametrize(("name", "text"), [("log.csv", CSV), ("a.jsonl", JSON), ("a.ndjson", JSON)])
def test_a_column_of_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert_same(record(tmp_path, "val_loss", "lr", tmp_path / name))
    FRAME.to_parquet(tmp_path / "a.parquet")
    assert_same(record(tmp_path, "val_loss", "lr", str(tmp_path / "a.parquet")))


def test_the_file_of_the_run_is_found_and_the_settings_may_name_its_columns(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV)
    assert_same(record(tmp_path, metric="val_loss", learning_rate="lr"))
    named = Settings(metric="val_loss", learning_rate_metric="lr")
    assert_same(record_of(None, None, None, folder=tmp_path, settings=named))


def test_values_by_step(tmp_path: Path) -> None:
    by_step = dict(zip(STEPS, COLUMNS["val_loss"], strict=True))
    named = record(tmp_path, FRAME.set_index("step")["val_loss"], FRAME.set_index("step")["lr"])
    assert_same(named)
    bare = record(tmp_path, by_step, 3e-4)
    assert bare.constant_learning_rate == 3e-4
    assert bare.metric is not None
    assert bare.metric.name == "metric"
    assert bare.higher_is_better
    assert "does not tell its direction" in bare.warnings[0]
    assert record(tmp_path, by_step, metric_direction="lower").warnings == ()
    assert_same(record(tmp_path, MetricSeries.from_points("val_loss", STEPS, COLUMNS["val_loss"]), "lr", FRAME))


@pytest.mark.parametrize(
    ("metric", "log", "said"),
    [
        ("val_los", FRAME, r"'val_los' of the log is not there; .*'lr', 'val_loss'\. Next: did you mean 'val_loss'\?"),
        ("note", FRAME, "'note' of the log holds text"),
        ("lr", {"epoch": [1], "lr": [1.0]}, r"no column of steps \(step, .*\); its columns of numbers: 'epoch', 'lr'"),
        ("lr", {"step": [0.5], "lr": [1.0]}, r"'lr' has a value at step 0\.5, which is no whole number"),
        ("lr", {"step": [1, 2], "lr": [1.0]}, "`log` must be a file, a data frame or a mapping"),
        ("lr", 7, "`log` must be a file, a data frame or a mapping of names to columns, got int"),
        ("lr", "log.txt", r"`log` must end in \.csv, \.jsonl, \.ndjson, \.parquet, got 'log\.txt'"),
        ("lr", None, r"`log` is not given, and there is no metrics\.csv or metrics\.jsonl in "),
        ([0.1, 0.2], None, "`metric` must be the name of a column of `log`, a mapping .* got list"),
        ({"a": 0.1}, None, "'metric' holds something that is no number"),
        ({0: "a"}, None, "'metric' holds something that is no number"),
    ],
)
def test_what_cannot_be_meant_is_told(tmp_path: Path, metric: Any, log: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        record(tmp_path, metric, None, log)


def test_files_that_are_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no such file"):
        record(tmp_path, "lr", None, tmp_path / "a.csv")
    (tmp_path / "a.jsonl").write_text("{{{")
    with pytest.raises(UsageError, match="cannot be read as JSONL"):
        record(tmp_path, "lr", None, tmp_path / "a.jsonl")


def test_a_metric_that_counts_epochs_is_not_joined_with_steps(tmp_path: Path) -> None:
    steps = np.arange(0, 4000, 40)
    with pytest.raises(UsageError, match="'metric' has values at steps 0 to 9, the checkpoints lie at 0 to 3960"):
        require_same_axis(record(tmp_path, dict.fromkeys(range(10), 0.5)), steps)
    with pytest.raises(UsageError, match="'metric' holds no finite value"):
        require_same_axis(record(tmp_path, {0: float("nan")}), steps)
    require_same_axis(record(tmp_path, dict.fromkeys(range(0, 4000, 100), 0.5)), steps)


def test_analysing_with_a_log_is_analysing_with_the_record(tmp_path: Path) -> None:
    write_checkpoints(tmp_path, trained_states(30, seed=3), every=5)
    (tmp_path / "metrics.csv").write_text("step,lr,val_acc\n" + "".join(f"{s},0.003,{s / 150}\n" for s in range(150)))
    told: list[tuple[int, int]] = []
    settings = Settings(window=6)
    run = analyse(
        tmp_path, metric="val_acc", learning_rate="lr", settings=settings, progress=lambda *now: told.append(now)
    )
    series = MetricSeries.from_points("val_acc", range(150), [s / 150 for s in range(150)])
    same = analyse(tmp_path, settings=settings, record=TrainingRecord(constant_learning_rate=0.003, metric=series))
    # One is told as a series and one as a number: two records, and two audits.
    assert run.gaps.drop_columns(["audit_id"]).equals(same.gaps.drop_columns(["audit_id"]))
    assert run.summary["metric_name"] == "val_acc"
    size = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    with pytest.raises(UsageError, match="not both"):
        analyse(tmp_path, metric="val_acc", record=TrainingRecord())
    with pytest.raises(UsageError, match="'val_acc' has values at steps"):
        analyse(tmp_path, metric=MetricSeries.from_points("val_acc", [0, 1, 2], [0.1, 0.2, 0.3]))
