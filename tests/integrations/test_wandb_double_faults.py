"""What the real SDK and its core make of the errors of a server: retried, told, or lost in silence."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import wandb
from wandb_double import Cut, Double, Lost
from wandb_double.live import BOUNDS, no_problems, sdk_led_to_a_double, start_run


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with sdk_led_to_a_double(tmp_path_factory.mktemp("wandb")) as double:
        yield double


@pytest.fixture(autouse=True)
def all_is_understood(double: Double) -> Iterator[None]:
    with no_problems(double):
        yield


@pytest.fixture(scope="module")
def api(double: Double) -> Any:
    return wandb.Api()


def test_bursts_of_errors_are_retried_by_the_core(double: Double, api: Any) -> None:
    double.put_run("ent", "p", "flaky")
    double.fault("Run", 429)
    assert api.run("ent/p/flaky").id == "flaky"
    assert [call.status for call in double.calls if call.operation == "Run"][-2:] == [429, 200]


def test_denied_writing_is_an_error(double: Double) -> None:
    double.put_run("ent", "p", "guarded", summary={"a": 1})
    run = wandb.Api(api_key=double.read_key).run("ent/p/guarded")
    with pytest.raises(Exception, match="permission denied"):
        run.summary.update({"a": 2})
    assert double.run("ent", "p", "guarded")["summary"] == {"a": 1}


def test_bad_key_is_an_error(double: Double) -> None:
    with pytest.raises(wandb.errors.AuthenticationError):
        wandb.Api(api_key="x" * 40)


def test_lost_answer_is_asked_again(double: Double, api: Any) -> None:
    double.put_run("ent", "p", "lost")
    double.fault("UpsertBucket", Lost())
    api.run("ent/p/lost").summary.update({"a": 1})
    assert [call.status for call in double.calls if call.operation == "UpsertBucket"][-2:] == [0, 200]
    assert double.run("ent", "p", "lost")["summary"] == {"a": 1}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK leaves its file open
def test_cut_download_is_an_error(double: Double, api: Any, tmp_path: Path) -> None:
    double.put_run("ent", "p", "cut")
    double.put_artifact("ent", "p", "cut", "torn", {"w.bin": b"0123456789"})
    double.fault("/store/", Cut(after=4))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        api.artifact("ent/p/torn:v0").download(root=str(tmp_path))
    gc.collect()
    api.artifact("ent/p/torn:v0").download(root=str(tmp_path))
    assert (tmp_path / "w.bin").read_bytes() == b"0123456789"


@pytest.mark.parametrize(("match", "state"), [("CreateArtifact", None), ("/store/", "PENDING")])
def test_artifact_that_fails_is_told_by_wait_alone(
    double: Double, tmp_path: Path, match: str, state: str | None
) -> None:
    name = f"failing-{state}"
    (tmp_path / "w.bin").write_text(name)
    artifact = wandb.Artifact(name, "model")
    artifact.add_file(str(tmp_path / "w.bin"))
    double.fault(match, 403)
    run = start_run(tmp_path, name, settings=BOUNDS)
    run.log({"a": 1})
    with pytest.raises(ValueError, match="ArtifactSaver"):
        run.log_artifact(artifact).wait()
    run.finish()
    found = double.run("ent", "p", name)
    assert (found["state"], len(found["history"])) == ("finished", 1)
    assert [logged["state"] for logged in found["logged"]] == ([] if state is None else [state])


def test_swallowed_stream_looks_like_success(double: Double, tmp_path: Path) -> None:
    double.swallow_streams()
    run = start_run(tmp_path, "swallowed")
    run.log({"a": 1})
    run.finish()
    assert double.run("ent", "p", "swallowed")["history"] == []
    assert double.run("ent", "p", "swallowed")["state"] == "running"


def test_run_deleted_in_the_middle_looks_like_success(double: Double, tmp_path: Path) -> None:
    run = start_run(tmp_path, "vanishing", settings=BOUNDS)  # without bounds, finish() asks again and again
    double.on("file_stream", lambda: double.delete_run("ent", "p", "vanishing"))
    run.log({"a": 1})
    run.finish()
    assert not double.has_run("ent", "p", "vanishing")
