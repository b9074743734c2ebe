"""`into` run: the series go into the audited W&B run, which is resumed for that, and all else there is put back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from wandb_bench import CONFIG, KEYS, NOTES, SUMMARY, Bench, connected, expected, made, points_of

from integrations import wandb_audit_run
from integrations.annotation_section import note_with_section
from integrations.tracker import Annotation, RetractReceipt, WriteReceipt
from integrations.wandb_annotations import state_of_run, write_annotation
from integrations.wandb_retract import retract_run
from spectral_edge.errors import AnnotationConflictError, RunBusyError, TrackerUnavailableError, UsageError
from tests.wandb_double import Double, wandb_environment

AXES = [{"1": "epoch", "6": [1], "7": []}, {"1": "loss", "5": 1, "6": [1], "7": []}]
OURS = [{"1": "spectral_edge/step", "6": [3, 2], "7": []}, {"2": "spectral_edge/*", "5": 3, "6": [], "7": []}]
SETTINGS = {"m": AXES, "t": {"5": "0.19.1"}, "cli_version": "0.19.1"}


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with Double() as double, pytest.MonkeyPatch.context() as patch:
        for name, value in wandb_environment(tmp_path_factory.mktemp("wandb"), double).items():
            patch.setenv(name, value)
        # What a training script's environment may say of its own run.
        for name in ("TAGS", "NOTES", "RUN_GROUP", "NAME", "JOB_TYPE", "RUN_ID", "PROJECT"):
            patch.setenv(f"WANDB_{name}", f"env-{name.lower()}")
        yield double
        assert not double.problems


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_audit_run, "ARRIVAL", 0.5)


@pytest.fixture
def bench(double: Double) -> Bench:
    return ready(double)


def ready(double: Double, **fields: Any) -> Bench:
    config = {**CONFIG, "nan": float("nan"), "_wandb": SETTINGS}
    bench = Bench.of(double, **{"config": config, "group": "g", "job_type": "train", **fields})
    for name in ("config.yaml", "wandb-summary.json", "output.log", "requirements.txt"):
        double.put_file("ent", bench.project, "r1", name, b"theirs")
    return bench


def write(bench: Bench, annotation: Annotation, *, replace: bool = False) -> WriteReceipt:
    return write_annotation(connected(), bench.run, annotation, into="run", replace=replace)


def kept(bench: Bench) -> str:
    """All of the run that `into` run leaves as it was, or puts back."""
    page = bench.original
    history = [row for row in page["history"] if not any(key.startswith("spectral_edge/") for key in row)]
    summary = {key: value for key, value in page["summary"].items() if not key.startswith("spectral_edge/")}
    config = json.loads(json.dumps(page["config"]))
    config["_wandb"]["m"] = [axis for axis in config["_wandb"]["m"] if axis in AXES]
    files = {name: data for name, data in page["files"].items() if not name.startswith("media/")}
    logged = [artifact for artifact in page["logged"] if artifact["type"] != "spectral-audit"]
    same = [page[name] for name in ("state", "display_name", "group", "job_type", "created_at")]
    tags = [tag for tag in page["tags"] if not tag.startswith("spectral_edge.")]
    return repr([history, summary, config, files, logged, same, tags])


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_the_run_gets_the_series_and_all_else_is_put_back(double: Double, state: str) -> None:
    bench = ready(double, state=state)
    before, annotation = kept(bench), made(10, 20)
    receipt = write(bench, annotation)
    assert receipt.metric_points == 4
    (warning,) = receipt.warnings
    assert "the run was resumed" in warning
    assert kept(bench) == before
    assert not bench.audits
    assert points_of(bench.original) == expected(10, 20)
    assert bench.original["config"]["_wandb"]["m"] == [*AXES, *OURS]
    assert bench.original["notes"] == note_with_section(NOTES, annotation.note)
    assert bench.ours["spectral_edge/audit_run"] == "r1"
    assert bench.ours["spectral_edge/finished"] == annotation.mark
    (files,) = [logged["files"] for logged in bench.original["logged"] if logged["type"] == "spectral-audit"]
    assert annotation.files.items() <= files.items()
    state_ = state_of_run(connected(), bench.run, "run")
    assert state_ is not None
    assert state_.complete
    assert state_of_run(connected(), bench.run, "child") is None


def test_again_nothing_is_written_and_more_checkpoints_add_only_theirs(bench: Bench) -> None:
    write(bench, made(10, 20))
    calls = len(bench.double.calls)
    assert write(bench, made(10, 20)) == WriteReceipt(0, 0, 0)
    assert not bench.writes(calls)
    receipt = write(bench, made(10, 20, 30, fingerprint="g" * 16))
    assert receipt.metric_points == 2
    assert points_of(bench.original) == expected(10, 20, 30)
    assert bench.original["config"]["_wandb"]["m"] == [*AXES, *OURS]
    assert bench.original["notes"].count("### Spectral edge audit") == 1


def test_other_settings_are_refused_unless_forced(bench: Bench) -> None:
    write(bench, made(10, 20))
    whole, other = repr(bench.original), made(10, 20, settings="t" * 16, scale=3.0)
    with pytest.raises(AnnotationConflictError, match="--force") as caught:
        write(bench, other)
    assert caught.value.run == "run"
    assert repr(bench.original) == whole
    write(bench, made(10, 20, settings="t" * 16))  # changes no point
    assert points_of(bench.original) == expected(10, 20)
    other = made(10, 20, settings="u" * 16, scale=3.0)
    for _ in range(2):
        write(bench, other, replace=True)
    both = {key: sorted(expected(10, 20)[key] + expected(10, 20, scale=3.0)[key]) for key in KEYS}
    assert points_of(bench.original) == both
    with pytest.raises(AnnotationConflictError, match="other checkpoints"):
        write(bench, made(10, 20, fingerprint="g" * 16, settings="u" * 16))


def test_a_few_values_that_moved_are_kept_and_said_so(bench: Bench) -> None:
    write(bench, made(10, 20, 30))
    moved = made(10, 20, 30, 40, fingerprint="g" * 16)
    moved = replace(moved, metrics=(replace(moved.metrics[0], value=99.0), *moved.metrics[1:]))
    assert "1 metric points already in the run" in write(bench, moved).warnings[0]
    assert points_of(bench.original) == expected(10, 20, 30, 40)


@pytest.mark.parametrize("state", ["running", "pending"])
def test_a_running_run_is_refused(double: Double, state: str) -> None:
    bench = ready(double, state=state)
    whole, calls = repr(bench.original), len(double.calls)
    with pytest.raises(UsageError, match="the run is running") as caught:
        write(bench, made(10))
    assert caught.value.run == "run"
    assert not bench.writes(calls)
    assert repr(bench.original) == whole


def test_a_crashed_run_ends_as_failed_and_that_is_said(double: Double) -> None:
    bench = ready(double, state="crashed")
    assert "its state is failed where it was crashed" in write(bench, made(10)).warnings[-1]
    assert bench.original["state"] == "failed"


def test_a_stream_that_is_swallowed_is_an_error_and_the_next_audit_writes_all(bench: Bench) -> None:
    bench.double.swallow_streams()
    with pytest.raises(TrackerUnavailableError, match="does not have all of the 2 rows"):
        write(bench, made(10, 20))
    bench.double.heal()
    state = state_of_run(connected(), bench.run, "run")
    assert state is None or not state.complete
    bench.double.state.run("ent", bench.project, "r1").state = "crashed"
    write(bench, made(10, 20))
    assert points_of(bench.original) == expected(10, 20)
    assert repr(bench.original["summary"]["nan"]) == repr(SUMMARY["nan"])


def test_rows_stay_when_it_is_taken_back_and_are_not_written_twice(bench: Bench) -> None:
    write(bench, made(10, 20))
    planned = retract_run(connected(), bench.run, dry_run=True)
    receipt = retract_run(connected(), bench.run, dry_run=False)
    assert receipt == planned
    assert receipt.kept_metrics == dict.fromkeys(sorted(KEYS), 2)
    assert "delete the run" in receipt.advice
    assert set(made().files) < set(receipt.files)
    assert receipt.note
    assert not bench.ours
    assert (bench.original["tags"], bench.original["notes"]) == (["mine", "b"], NOTES)
    assert not [name for name in bench.original["files"] if name.startswith("media/")]
    calls = len(bench.double.calls)
    again = retract_run(connected(), bench.run, dry_run=False)
    assert again == RetractReceipt(kept_metrics=receipt.kept_metrics, advice=receipt.advice)
    assert not bench.writes(calls)
    assert write(bench, made(10, 20)).metric_points == 0
    assert points_of(bench.original) == expected(10, 20)


def test_from_child_to_run_and_back(bench: Bench) -> None:
    before = kept(bench)
    write_annotation(connected(), bench.run, made(10), into="child", replace=False)
    write(bench, made(10))
    assert points_of(bench.only_audit) == points_of(bench.original) == expected(10)
    assert bench.ours["spectral_edge/audit_run"] == "r1"
    write_annotation(connected(), bench.run, made(10), into="child", replace=False)
    assert bench.ours["spectral_edge/audit_run"] in bench.audits
    receipt = retract_run(connected(), bench.run, dry_run=False)
    assert len(receipt.child_runs) == 1
    assert not bench.audits
    assert not bench.ours
    assert kept(bench) == before


def test_a_run_resumed_by_its_own_process_meanwhile(bench: Bench) -> None:
    def resume() -> None:
        bench.double.state.run("ent", bench.project, "r1").state = "running"

    bench.double.on("CommitArtifact", lambda: bench.double.on("RunHistoryKeys", resume))
    with pytest.raises(TrackerUnavailableError) as caught:
        write(bench, made(10))
    assert caught.value.run == "run"
    assert "spectral_edge/finished" not in bench.ours


def test_two_runs_of_one_id_at_a_time_are_too_much_for_the_sdk(double: Double) -> None:
    first, second = ready(double), ready(double)
    caught: list[BaseException] = []

    def other() -> None:
        with pytest.raises(RunBusyError, match="another audit of this one") as told:
            write(second, made(10))
        caught.append(told.value)

    worker = threading.Thread(target=other)

    def meanwhile() -> None:
        worker.start()
        worker.join(20)

    double.on("CommitArtifact", meanwhile)
    write(first, made(10))
    assert caught
    assert points_of(first.original) == expected(10)
    write(second, made(10))
    assert points_of(second.original) == expected(10)
