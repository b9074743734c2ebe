"""Writing to W&B when the server fails, lies or dies: one clear error, and the audited run as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import wandb
from wandb_bench import Bench, at_level_summary, connected, expected, made, points_of

from integrations import wandb_audit_run, wandb_results
from integrations.tracker import Annotation, RetractReceipt, WriteReceipt
from integrations.wandb_annotations import state_of_run, write_annotation
from integrations.wandb_retract import retract_run
from spectral_edge.errors import AccessDeniedError, NotFoundError, RunBusyError, SpectralEdgeError
from spectral_edge.errors import TrackerUnavailableError as Unavailable
from tests.wandb_double import Double, wandb_environment


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with Double() as double, pytest.MonkeyPatch.context() as patch:
        for name, value in wandb_environment(tmp_path_factory.mktemp("wandb"), double).items():
            patch.setenv(name, value)
        yield double


@pytest.fixture(autouse=True)
def _soon(double: Double, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(wandb_audit_run, "SILENCE", 0.3)
    monkeypatch.setattr(wandb_audit_run, "ARRIVAL", 0.4)
    few = {"retry_max": 1, "retry_wait_min_seconds": 1, "retry_wait_max_seconds": 1}
    monkeypatch.setattr(wandb_results, "RETRIES", few)
    yield
    double.heal()


@pytest.fixture
def bench(double: Double) -> Bench:
    return Bench.of(double)


def write(bench: Bench, annotation: Annotation) -> WriteReceipt:
    return write_annotation(connected(), bench.run, annotation, into="child", replace=False)


def is_complete(bench: Bench) -> bool:
    state = state_of_run(connected(), bench.run, "child")
    return state is not None and state.complete


ENDLESS = {
    "the stream answers 404": ("file_stream", 404, "does not have the 2 rows"),
    "the stream answers 503": ("file_stream", 503, "does not have the 2 rows"),
    "the artifact is refused": ("CreateArtifact", 500, "artifact"),
    "its manifest is not taken": ("/upload/manifest/", 503, "artifact"),
    "it is never committed": ("CommitArtifact", 500, "artifact"),
}


@pytest.mark.parametrize("fault", ENDLESS)
def test_what_the_server_does_not_keep_is_an_error_and_the_next_audit_replaces_it(bench: Bench, fault: str) -> None:
    match, status, told = ENDLESS[fault]
    whole = repr(bench.original)
    bench.double.fault(match, status, forever=True)
    with pytest.raises(SpectralEdgeError, match=told) as caught:
        write(bench, made(10, 20))
    assert caught.value.run == "run"
    assert bench.double.key not in str(caught.value)
    assert repr(bench.original) == whole
    assert not is_complete(bench)
    bench.double.heal()
    write(bench, made(10, 20))
    assert points_of(bench.only_audit) == expected(10, 20)
    assert is_complete(bench)


def test_bursts_are_sat_out(bench: Bench) -> None:
    faults = {"Runs": 503, "UpsertBucket": 429, "file_stream": 503, "CreateArtifact": 503, "/store/": 429}
    for match, status in faults.items():
        bench.double.fault(match, status)
    write(bench, made(10))
    assert points_of(bench.only_audit) == expected(10)
    assert is_complete(bench)


def test_a_read_only_key(bench: Bench) -> None:
    whole, project = repr(bench.original), bench.project
    reader = connected()
    reader._api = wandb.Api(api_key=bench.double.read_key)
    for annotation in (made(10), at_level_summary(made(10))):
        with pytest.raises(AccessDeniedError) as caught:
            write_annotation(reader, bench.run, annotation, into="child", replace=False)
        assert caught.value.run == "run"
        assert bench.double.read_key not in str(caught.value)
    assert repr(bench.original) == whole
    assert list(bench.double.state.projects["ent", project].runs) == ["r1"]


def test_a_run_that_is_gone(bench: Bench) -> None:
    bench.double.delete_run("ent", bench.project, "r1")
    calls = len(bench.double.calls)
    acts: tuple[Callable[[], Any], ...] = (
        lambda: write(bench, made(10)),
        lambda: write(bench, at_level_summary(made(10))),
        lambda: write_annotation(connected(), bench.run, made(10), into="run", replace=False),
        lambda: state_of_run(connected(), bench.run, "child"),
        lambda: retract_run(connected(), bench.run, dry_run=True),
        lambda: retract_run(connected(), bench.run, dry_run=False),
    )
    for act in acts:
        with pytest.raises(NotFoundError, match="has been deleted") as caught:
            act()
        assert caught.value.run == "run"
    assert not bench.writes(calls)


def test_a_run_deleted_while_its_audit_is_uploaded(bench: Bench) -> None:
    bench.double.on("CommitArtifact", lambda: bench.double.delete_run("ent", bench.project, "r1"))
    with pytest.raises(NotFoundError, match="has been deleted"):
        write(bench, made(10))


def test_an_audit_run_deleted_while_it_is_written(bench: Bench) -> None:
    whole = repr(bench.original)

    def delete() -> None:
        bench.double.delete_run("ent", bench.project, next(iter(bench.audits)))

    bench.double.on("CommitArtifact", delete)
    with pytest.raises(SpectralEdgeError) as caught:
        write(bench, made(10, 20))
    assert caught.value.run == "run"
    assert repr(bench.original) == whole
    write(bench, made(10, 20))
    assert points_of(bench.only_audit) == expected(10, 20)


def overwrite(bench: Bench) -> None:
    """As an SDK does that has read the summary before us."""
    page = bench.double.state.run("ent", bench.project, "r1")
    page.summary = {key: value for key, value in page.summary.items() if not key.startswith("spectral_edge/")}


def test_an_update_that_another_process_wrote_over_is_written_once_more(bench: Bench) -> None:
    before = bench.theirs
    write(bench, made(10))
    # Right after the page is written it is read; just before, the other process writes.
    bench.double.on("Run", lambda: bench.double.on("Run", lambda: overwrite(bench)))
    write(bench, at_level_summary(made(20)))
    assert bench.ours["spectral_edge/finished"] == at_level_summary(made(20)).mark
    assert bench.theirs == before


def test_one_that_is_written_over_again_and_again(bench: Bench) -> None:
    def again() -> None:
        overwrite(bench)
        bench.double.on("Run", again)

    again()
    with pytest.raises(RunBusyError, match="ours are lost each time") as caught:
        write(bench, at_level_summary(made(10)))
    assert caught.value.run == "run"


def test_a_lost_answer_of_the_one_write_to_the_page(bench: Bench) -> None:
    write(bench, made(10))
    before = bench.theirs
    bench.double.fault("UpsertBucket", 503)
    write(bench, at_level_summary(made(20)))
    assert bench.ours["spectral_edge/windows"] == 1
    assert bench.theirs == before


def test_taking_back_deletes_all_and_tells_it_before(bench: Bench) -> None:
    before = repr(bench.original)
    write(bench, made(10, 20))
    annotated, calls = repr((bench.original, bench.audits)), len(bench.double.calls)
    planned = retract_run(connected(), bench.run, dry_run=True)
    assert not bench.writes(calls)
    assert repr((bench.original, bench.audits)) == annotated
    assert retract_run(connected(), bench.run, dry_run=False) == planned
    assert {*made().tags, "spectral_edge.started", "spectral_edge.audit_run"} < set(planned.tags)
    assert {"spectral_edge.status:ok", "spectral_edge.regime:plateau"} < set(planned.tags)
    assert set(made().files) < set(planned.files)
    assert planned.note
    assert not planned.kept_metrics
    assert len(planned.child_runs) == 1
    assert repr(bench.original) == before
    assert not bench.audits
    assert not bench.double.state.projects["ent", bench.project].collections["spectral-edge-r1"].living()
    assert state_of_run(connected(), bench.run, "child") is None
    calls = len(bench.double.calls)
    assert retract_run(connected(), bench.run, dry_run=False) == RetractReceipt()
    assert not bench.writes(calls)


def test_taking_back_from_a_running_run(double: Double) -> None:
    bench = Bench.of(double, state="running")
    write(bench, made(10))
    before = repr(bench.original)
    assert retract_run(connected(), bench.run, dry_run=False).child_runs
    assert repr(bench.original) == before
    assert not bench.audits
    double.state.run("ent", bench.project, "r1").summary["spectral_edge/status"] = "ok"
    with pytest.raises(RunBusyError, match="the run is running"):
        retract_run(connected(), bench.run, dry_run=False)


def test_half_a_section_is_told_and_left(bench: Bench) -> None:
    write(bench, made(10))
    page = bench.double.state.run("ent", bench.project, "r1")
    page.notes = str(page.notes).replace("<!-- spectral-edge:end -->", "")
    left = page.notes
    (leftover,) = retract_run(connected(), bench.run, dry_run=False).leftovers
    assert "one of the two marks" in leftover.why
    assert bench.original["notes"] == left


def test_a_server_that_is_gone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "2")
    connection = connected()
    state_of_run(connection, bench.run, "child")
    for match in ("Run", "Runs", "UpsertBucket"):
        bench.double.fault(match, 503, forever=True)
    with pytest.raises(Unavailable) as caught:
        write_annotation(connection, bench.run, made(10), into="child", replace=False)
    assert caught.value.run == "run"
