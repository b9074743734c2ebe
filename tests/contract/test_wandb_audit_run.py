"""What an annotation of a W&B run is there: an audit run beside it, and what points to that from the run itself."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from PIL import Image
from wandb_bench import KEYS, NOTES, Bench, at_level_summary, connected, expected, made, points_of

from integrations import wandb_audit_run
from integrations.annotation_section import note_with_section
from integrations.tracker import Annotation, WriteReceipt
from integrations.wandb_annotations import state_of_run, write_annotation
from spectral_edge.errors import RunBusyError
from tests.wandb_double import Double, wandb_environment


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with Double() as double, pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("wandb")
        for name, value in wandb_environment(home, double).items():
            patch.setenv(name, value)
        yield double
        assert not double.problems


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_audit_run, "SILENCE", 0.3)
    monkeypatch.setattr(wandb_audit_run, "ARRIVAL", 0.5)


@pytest.fixture
def bench(double: Double) -> Bench:
    return Bench.of(double)


def write(bench: Bench, annotation: Annotation) -> WriteReceipt:
    return write_annotation(connected(), bench.run, annotation, into="child", replace=False)


def test_the_audit_run_holds_all_and_the_original_only_points_to_it(bench: Bench) -> None:
    before, annotation = bench.theirs, made(10, 20)
    receipt = write(bench, annotation)
    assert receipt == WriteReceipt(4, 2, sum(map(len, annotation.files.values())))
    assert bench.theirs == before
    (audit_id,) = bench.audits
    audit = bench.audits[audit_id]
    assert points_of(audit) == expected(10, 20)
    assert (audit["job_type"], audit["group"], audit["state"]) == ("spectral-audit", "r1", "finished")
    assert (audit["display_name"], audit["tags"]) == ("spectral-edge run", ["spectral-edge"])
    ours = audit["config"]["spectral_edge"]
    assert (ours["audit_of"], ours["fingerprint"]) == ("r1", "f" * 16)
    assert ours["audit_of_url"] == bench.run.url
    (files,) = [logged["files"] for logged in audit["logged"] if logged["type"] == "spectral-audit"]
    assert annotation.files.items() <= files.items()
    assert [used["name"] + used["version"] for used in audit["used"]] == ["weightsv1"]
    assert {"1": "spectral_edge/step", "6": [3, 2], "7": []} in audit["config"]["_wandb"]["m"]
    marks = {"spectral_edge/started": annotation.mark, "spectral_edge/finished": annotation.mark}
    told = {
        "spectral_edge/status": "ok",
        "spectral_edge/regime": "plateau",
        "spectral_edge/windows": 2,
        "spectral_edge/settings_hash": "s" * 16,
        **marks,
    }
    assert told.items() <= audit["summary"].items()
    url = f"{bench.double.url}/ent/{bench.project}/runs/{audit_id}"
    assert bench.ours == {**told, "spectral_edge/audit_run": audit_id, "spectral_edge/audit_url": url}
    assert bench.original["tags"] == ["mine", "b", "spectral_edge.regime:plateau", "spectral_edge.status:ok"]
    assert bench.original["notes"] == note_with_section(NOTES, annotation.note)
    state = state_of_run(connected(), bench.run, "child")
    assert state is not None
    assert (state.fingerprint, state.settings_hash, state.complete) == ("f" * 16, "s" * 16, True)
    assert state_of_run(connected(), bench.run, "run") is None


def test_the_audit_run_shows_the_chart_the_page_and_a_table_by_training_step(bench: Bench) -> None:
    """What W&B draws by itself: a picture, a page, a table, and lines over the training step."""
    drawn = io.BytesIO()
    Image.new("RGB", (30, 20), "teal").save(drawn, "PNG")
    annotation = made(10, 20)
    picture, vector = drawn.getvalue(), b'<svg xmlns="http://www.w3.org/2000/svg"/>'
    annotation = replace(annotation, files={**annotation.files, "spectrum.png": picture, "spectrum.svg": vector})
    write(bench, annotation)
    audit = bench.only_audit
    shown = {key: value for row in audit["history"] for key, value in row.items() if isinstance(value, dict)}
    image, page, table = (shown[f"spectral_edge/{name}"] for name in ("spectrum", "report", "points"))
    assert (image["_type"], image["format"], image["width"], image["height"]) == ("image-file", "png", 30, 20)
    assert audit["files"][image["path"]] == picture
    assert page["_type"] == "html-file"
    assert audit["files"][page["path"]] == annotation.files["spectrum.html"]
    assert (table["_type"], table["nrows"]) == ("table-file", 2 * len({key.rpartition("/")[0] for key in KEYS}))
    told = json.loads(audit["files"][table["path"]])
    assert told["columns"][:2] == ["group", "step"]
    assert {row[1] for row in told["data"]} == {10, 20}
    (files,) = [logged["files"] for logged in audit["logged"] if logged["type"] == "spectral-audit"]
    assert {"spectrum.png", "spectrum.svg", "spectrum.html", "gaps.parquet"} < files.keys()
    axes = audit["config"]["_wandb"]["m"]
    place = axes.index({"1": "spectral_edge/step", "6": [3, 2], "7": []})
    (lines,) = [axis for axis in axes if axis.get("2") == "spectral_edge/*"]
    assert lines["5"] == place + 1, "each of our lines is drawn over the training step"


def test_again_nothing_is_written(bench: Bench) -> None:
    write(bench, made(10, 20))
    whole, calls = repr((bench.original, bench.audits)), len(bench.double.calls)
    assert write(bench, made(10, 20)) == WriteReceipt(0, 0, 0)
    assert not bench.writes(calls)
    assert repr((bench.original, bench.audits)) == whole


def test_another_annotation_gets_a_run_of_its_own_and_the_earlier_one_is_deleted_with_its_files(bench: Bench) -> None:
    before = bench.theirs
    write(bench, made(10, 20))
    (first,) = bench.audits
    grown = made(10, 20, 30, fingerprint="g" * 16)
    assert write(bench, grown).metric_points == 6
    (second,) = bench.audits
    assert second != first
    assert points_of(bench.only_audit) == expected(10, 20, 30)
    other = replace(made(10, settings="t" * 16, scale=3.0), files=grown.files)
    write(bench, other)
    assert points_of(bench.only_audit) == expected(10, scale=3.0)
    (files,) = [logged["files"] for logged in bench.only_audit["logged"] if logged["type"] == "spectral-audit"]
    assert other.files.items() <= files.items()
    home = bench.double.state.project("ent", bench.project)
    assert home is not None
    assert len(home.collections["spectral-edge-r1"].living()) == 1
    assert bench.ours["spectral_edge/audit_run"] in bench.audits
    assert bench.original["notes"].count("### Spectral edge audit") == 1
    assert bench.theirs == before
    state = state_of_run(connected(), bench.run, "child")
    assert state is not None
    assert (state.settings_hash, state.complete) == ("t" * 16, True)


def test_an_id_that_was_deleted_is_not_used_again(bench: Bench) -> None:
    ids = []
    for _ in range(3):
        write(bench, made(10))
        ids += bench.audits
        bench.double.delete_run("ent", bench.project, ids[-1])
        state = state_of_run(connected(), bench.run, "child")
        assert state is not None
        assert not state.complete
    assert [audit_id.removeprefix(ids[0]) for audit_id in ids] == ["", "-2", "-3"]


def test_level_summary_writes_keys_alone_and_takes_what_an_earlier_audit_said_elsewhere(bench: Bench) -> None:
    before, short = bench.theirs, at_level_summary(made(10))
    for earlier in (False, True):
        if earlier:
            write(bench, made(10))
        assert write(bench, short) == WriteReceipt(0, 0, 0)
        assert bench.ours["spectral_edge/finished"] == short.mark
        assert "spectral_edge/audit_run" not in bench.ours
        assert (bench.original["tags"], bench.original["notes"]) == (["mine", "b"], NOTES)
        assert len(bench.audits) == earlier
        for into in ("child", "run"):
            state = state_of_run(connected(), bench.run, into)
            assert state is not None
            assert state.complete
    assert bench.theirs == before


def test_an_audit_that_failed_has_no_run_of_its_own(bench: Bench) -> None:
    failed = Annotation(
        "f" * 16, "s" * 16, {"spectral_edge.status": "failed", "spectral_edge.error": "no"}, "It failed."
    )
    write(bench, failed)
    assert not bench.audits
    assert bench.ours["spectral_edge/error"] == "no"
    assert "It failed." in bench.original["notes"]
    state = state_of_run(connected(), bench.run, "child")
    assert state is not None
    assert state.complete


@pytest.mark.parametrize("live", ["running", "pending", "preempting"])
def test_to_a_running_run_nothing_is_written(double: Double, live: str) -> None:
    bench = Bench.of(double, state=live)
    whole = repr(bench.original)
    receipt = write(bench, made(10))
    (warning,) = receipt.warnings
    assert "the run is running" in warning
    assert next(iter(bench.audits)) in warning
    assert repr(bench.original) == whole
    assert points_of(bench.only_audit) == expected(10)
    state = state_of_run(connected(), bench.run, "child")
    assert state is not None
    assert state.complete
    receipt = write(bench, at_level_summary(made(10)))
    assert "nothing was written" in receipt.warnings[0]
    assert repr(bench.original) == whole
    bench.double.state.run("ent", bench.project, "r1").state = "finished"
    state = state_of_run(connected(), bench.run, "child")
    assert state is not None
    assert not state.complete
    assert write(bench, made(10)) == WriteReceipt(0, 0, 0)
    assert bench.ours["spectral_edge/audit_run"] in bench.audits


def half_written(bench: Bench, state: str) -> str:
    """What a process leaves that was killed while it wrote: the audit run as it then is."""
    write(bench, made(10, 20))
    (audit_id,) = bench.audits
    left = bench.double.state.run("ent", bench.project, audit_id)
    left.state = state
    del left.summary["spectral_edge/finished"], left.history[1:]
    return audit_id


@pytest.mark.parametrize("state", ["running", "failed", "crashed", "killed", "finished"])
def test_a_half_written_audit_run_is_replaced(bench: Bench, state: str) -> None:
    left = half_written(bench, state)
    told = state_of_run(connected(), bench.run, "child")
    assert told is not None
    assert not told.complete
    write(bench, made(10, 20))
    assert list(bench.audits) == [f"{left}-2"]
    assert points_of(bench.only_audit) == expected(10, 20)
    assert bench.ours["spectral_edge/audit_run"] == f"{left}-2"


def test_one_that_is_being_written_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_audit_run, "PATIENCE", 0.5)
    left = bench.double.state.run("ent", bench.project, half_written(bench, "running"))
    whole, signs = repr(bench.original), iter(range(1000))

    def beat() -> None:
        left.heartbeat_at = f"2026-01-01T00:00:{next(signs):02d}Z"
        bench.double.on("Runs", beat)

    beat()
    with pytest.raises(RunBusyError, match="another process") as caught:
        write(bench, made(10, 20))
    assert caught.value.run == "run"
    bench.double.heal()
    assert list(bench.audits) == [left.name]
    assert repr(bench.original) == whole


def test_a_run_that_only_looks_like_an_audit_of_this_one_is_left_alone(bench: Bench) -> None:
    config = {"spectral_edge": {"audit_of": "another"}}
    for name, fields in {
        "user": {"job_type": "spectral-audit", "group": "r1"},
        "other": {"job_type": "spectral-audit", "group": "r1", "config": config},
        "train": {"job_type": "train", "group": "r1", "config": {"spectral_edge": {"audit_of": "r1"}}},
    }.items():
        bench.double.put_run("ent", bench.project, name, state="running", **fields)
    for steps in ((10,), (10, 20)):
        write(bench, made(*steps))
    assert {"user", "other", "train"} < set(bench.audits)
    assert len(bench.audits) == 4


def test_several_at_once_leave_no_thread_no_file_and_print_nothing(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    benches = [Bench.of(double) for _ in range(4)]
    connection = connected()
    write_annotation(connection, benches[0].run, made(1), into="child", replace=False)
    staging = Path(os.environ["WANDB_DATA_DIR"], "artifacts", "staging")
    before = len(threading.enumerate()), len(psutil.Process().children())
    failed: list[BaseException] = []

    def audit(bench: Bench) -> None:
        try:
            write_annotation(connection, bench.run, made(10, 20), into="child", replace=False)
        except BaseException as error:  # noqa: BLE001 - told by the assertion
            failed.append(error)

    workers = [threading.Thread(target=audit, args=(bench,)) for bench in benches]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed
    assert [points_of(bench.only_audit) for bench in benches] == [expected(10, 20)] * 4
    ours = [thread.name for thread in threading.enumerate() if "process_request" not in thread.name]
    assert (len(ours) <= before[0], len(psutil.Process().children())) == (True, before[1])
    assert not list(tmp_path.iterdir())
    assert not list(staging.iterdir())
    assert capfd.readouterr() == ("", "")
