"""What is read out of the records of a run's logs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.wandb_run_log import RunLog, first_words, read_run
from integrations.wandb_values import params_of
from tests.integrations.wandb_logs import (
    artifact,
    define,
    exit_with,
    log_of,
    names_steps,
    output,
    pb,
    row,
    run,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


def read(folder: Path, *logs: tuple[Any, ...]) -> RunLog:
    paths = [folder / f"run-{number}.wandb" for number in range(len(logs))]
    for path, records in zip(paths, logs, strict=True):
        path.write_bytes(log_of(*records))
    return read_run(paths)


def series(log: RunLog, name: str) -> list[tuple[int, float]]:
    found = log.history.series(name, log.axes.of(name))
    return list(zip(found.steps.tolist(), found.values.tolist(), strict=True))


def config(**nested: object) -> Any:
    record = pb.Record()
    for path, value in nested.items():
        record.config.update.add(nested_key=path.split("__"), value_json=str(value))
    return record


def test_a_run_is_described_as_it_was_begun_and_ended(folder: Path) -> None:
    begun = run("abc", entity="e", project="p", display_name="n", notes="hello", tags=["a", "b"], config={"lr": 0.1})
    log = read(folder, (begun, output("hi"), *exit_with(0, 90)))
    assert (log.run_id, log.entity, log.project, log.name, log.notes) == ("abc", "e", "p", "n", "hello")
    assert (log.tags, log.config, log.exit_code, log.runtime) == (("a", "b"), {"lr": 0.1}, 0, 90.0)
    assert log.started_at == datetime.fromtimestamp(1_700_000_000, tz=UTC)


def test_a_run_without_an_end_has_none(folder: Path) -> None:
    log = read(folder, (run(), row(0, {"loss": 1.0})))
    assert (log.exit_code, log.runtime) == (None, None)


def test_nested_configuration_is_set_changed_and_removed(folder: Path) -> None:
    gone = pb.Record()
    gone.config.remove.add(nested_key=["opt", "name"])
    gone.config.remove.add(nested_key=["no", "such"])
    gone.config.remove.add(key="lr")
    log = read(folder, (run(config={"lr": 1, "opt": 3}), config(opt__beta=0.9, opt__name='"adam"'), gone))
    assert log.config == {"opt": {"beta": 0.9}}


def test_only_numbers_of_the_history_are_kept(folder: Path) -> None:
    typed = pb.Record()
    typed.history.item.add(key="typed").number = 2.5
    typed.history.item.add(key="whole").integer = 7
    typed.history.item.add(key="flag").boolean = True
    values = {"loss": 1, "word": "5", "flag": True, "none": None, "image": {"_type": "image-file"}, ("a", "b"): 0.5}
    log = read(folder, (run(), row(3, values), row(4, {"loss": float("nan")}), typed))
    assert set(log.history.columns) == {"loss", "a.b", "typed", "whole"}
    assert series(log, "loss") == [(3, 1.0)]
    assert series(log, "a.b") == [(3, 0.5)]
    assert series(log, "no such") == []


def test_the_step_metric_of_the_run_is_the_axis(folder: Path) -> None:
    defined = (define("val/*", "epoch"), define("special", "tokens"))
    rows = (row(0, {"epoch": 1, "val/x": 10}), row(1, {"val/x": 20}), row(2, {"epoch": 2, "val/x": 30, "special": 5}))
    log = read(folder, (run(), *defined, row(9, {"val/early": 1}), *rows))
    assert series(log, "val/x") == [(1, 20.0), (2, 30.0)]  # what was logged without an epoch belongs to the last one
    assert series(log, "val/early") == []
    assert series(log, "special") == [(2, 5.0)]  # its axis was never logged


def test_the_step_of_an_artifact_is_that_of_the_row_it_was_logged_with(folder: Path) -> None:
    at_once = (row(0, {"x": 1}), artifact("m"), row(1, {"x": 1}), row(2, {"x": 1}), artifact("m"), row(3, {"x": 1}))
    log = read(folder, (run(), *at_once))
    assert [log.step_of(each) for each in log.artifacts] == [0, 2]
    # With `step=` a row is written when the next one begins.
    late = (names_steps(), artifact("m"), row(10, {"x": 1}), artifact("m"), row(20, {"x": 1}), artifact("m"))
    log = read(folder, (run(), *late))
    assert [log.step_of(each) for each in log.artifacts] == [10, 20, 20]
    counted = (define("*", "trainer/global_step"), row(0, {"trainer/global_step": 49}), row(1, {"x": 1}), artifact("m"))
    log = read(folder, (run(), artifact("early"), *counted))
    assert [log.step_of(each) for each in log.artifacts] == [49, 49]
    log = read(folder, (run(), artifact("alone")))
    assert [log.step_of(each) for each in log.artifacts] == [None]


def test_artifacts_that_are_no_models_are_passed_over(folder: Path) -> None:
    entry = {"path": "model.ckpt", "digest": "abcd", "size": 7, "local_path": "/staging/tmp1"}
    kept = artifact("m", [entry], aliases=["best"], metadata={"score": 0.5})
    log = read(folder, (run(), artifact("t", kind="run_table"), kept, artifact("d", kind="dataset")))
    (found,) = log.artifacts
    assert (found.name, found.aliases, found.metadata) == ("m", ("best",), {"score": 0.5})
    (held,) = found.entries
    assert (held.path, held.size, held.digest, held.algorithm) == ("model.ckpt", 7, "abcd", "MD5")


def test_a_run_that_was_resumed_goes_on_where_it_ended(folder: Path) -> None:
    first = (run(project="p", start=100), row(0, {"loss": 4}), row(1, {"loss": 3}), *exit_with(1))
    second = (run(project="p", start=900, resume=True), row(0, {"loss": 2}), row(1, {"loss": 1}))
    log = read(folder, first, second)
    assert series(log, "loss") == [(0, 4.0), (1, 3.0), (2, 2.0), (3, 1.0)]
    assert log.exit_code is None
    assert log.started_at == datetime.fromtimestamp(100, tz=UTC)


def test_steps_that_the_training_loop_gave_are_not_moved_when_it_resumes(folder: Path) -> None:
    first = (run(), names_steps(), row(100, {"loss": 4}), row(200, {"loss": 3}))
    second = (run(resume=True), names_steps(), row(200, {"loss": 2}), row(300, {"loss": 1}))
    assert series(read(folder, first, second), "loss") == [(100, 4.0), (200, 2.0), (300, 1.0)]


def test_saved_files_are_those_of_the_user(folder: Path) -> None:
    record = pb.Record()
    record.files.files.add(path="ck/step_1.pt")
    record.files.files.add(path="requirements.txt", type=1)
    record.files.files.add(path="media/images/x.png", type=2)
    assert list(read(folder, (run(), record)).saved) == ["ck/step_1.pt"]


def test_a_damaged_log_is_told_with_its_name(folder: Path) -> None:
    path = folder / "run-torn.wandb"
    path.write_bytes(log_of(run(), row(0, {"loss": 1}))[:-3])
    log = read_run([path])
    assert log.damage == [f"run-torn.wandb: it ends within the record at byte {len(log_of(run()))}"]
    assert log.history.columns == {}


def test_the_first_words_are_whose_log_it_is(folder: Path) -> None:
    path = folder / "run-first.wandb"
    path.write_bytes(log_of(output("x"), run("abc", job_type="train", config={"a": 1}), row(0, {"loss": 1})))
    words = first_words(path)
    assert (words.run_id, words.job_type, words.config, len(words.history.steps)) == ("abc", "train", {"a": 1}, 0)


DEEP = "[" * 900 + "]" * 900
JSON = st.sampled_from(
    [DEEP, "", "nan", "{", "1e999", "-Infinity", '{"a":' * 2000, "[" * 5000, '"x"', "true", "1" * 400]
)
KEYS = st.lists(st.text(max_size=3), max_size=40)


@given(st.lists(st.tuples(KEYS, JSON), max_size=4), st.integers(-(2**63), 2**63 - 1))
def test_odd_items_are_left_out(folder: Path, items: list[tuple[list[str], str]], step: int) -> None:
    records = [pb.Record(), pb.Record(), pb.Record()]
    records[1].history.step.num = step
    for path, text in items:
        for part in (records[0].config.update, records[1].history.item, records[2].summary.remove):
            part.add(nested_key=path, **({} if part is records[2].summary.remove else {"value_json": text}))
    resumed = (run(resume=True), records[1])
    log = read(folder, (run(), *records, row(5, {"loss": 1.0}), artifact("m", metadata={"a": 1})), resumed, resumed)
    assert all(isinstance(value, str) for value in params_of(log.config).values())
    assert (5, 1.0) in series(log, "loss")
    assert [log.step_of(each) for each in log.artifacts] == [5]
