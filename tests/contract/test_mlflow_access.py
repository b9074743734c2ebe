"""What MLflow's doors say when they are shut: no server, no credentials, read-only users, no store, a full disk."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from guarded import ADMIN, READER, log_in
from labs import Logged, MlflowLab, trained
from servers import S3_CREDENTIALS, free_port
from test_tracker_annotate import made

from integrations.mlflow_tracker import MlflowTracker
from integrations.tracker import Selection
from spectral_edge.errors import AccessDeniedError, NotFoundError, TrackerUnavailableError, UsageError


def test_wrong_credentials(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(monkeypatch, ("admin", "not-the-password"))
    with pytest.raises(AccessDeniedError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        list(MlflowTracker(guarded).runs(Selection("Default")))
    assert "not-the-password" not in str(caught.value)


def test_who_may_read_but_not_write(guarded: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log_in(monkeypatch, ADMIN)
    lab = MlflowLab(tmp_path, guarded)
    project = lab.project()
    handle = lab.log(project, Logged("run", trained(1, 2)))
    log_in(monkeypatch, READER)
    run = lab.run(project)
    assert len(lab.tracker.checkpoints(run).checkpoints) == 2
    with pytest.raises(AccessDeniedError) as caught:
        lab.tracker.annotate(run, made(10))
    assert caught.value.run == "run"
    log_in(monkeypatch, ADMIN)
    assert not lab.points(handle)
    assert not lab.files(handle)


def test_nothing_listens() -> None:
    with pytest.raises(TrackerUnavailableError, match="doctor"):
        MlflowTracker(f"http://127.0.0.1:{free_port()}").check()


def test_a_server_that_takes_the_connection_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(TrackerUnavailableError):
        MlflowTracker(f"http://127.0.0.1:{deaf.getsockname()[1]}").check()


def test_no_secret_of_the_tracking_uri_is_shown() -> None:
    port = free_port()
    for uri in (f"http://user:hunter2@127.0.0.1:{port}", f"postgresql+psycopg://user:hunter2@127.0.0.1:{port}/mlflow"):
        with pytest.raises(TrackerUnavailableError, match=f"127.0.0.1:{port}") as caught:
            MlflowTracker(uri).check()
        assert "hunter2" not in str(caught.value)
        assert "hunter2" not in "".join(map(str, chain_of(caught.value)))


def test_a_database_file_that_is_not_there_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="MLFLOW_TRACKING_URI"):
        MlflowTracker(f"sqlite:///{tmp_path}/none.db").check()
    with pytest.raises(NotFoundError):
        MlflowTracker((tmp_path / "mlruns").as_uri()).check()
    assert not list(tmp_path.iterdir())


def test_a_folder_store_that_mlflow_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    with pytest.raises(UsageError, match="MLFLOW_ALLOW_FILE_STORE=true"):
        MlflowTracker(tmp_path.as_uri()).check()


def test_a_deleted_experiment(server: str, tmp_path: Path) -> None:
    lab = MlflowLab(tmp_path, server)
    project = lab.project()
    lab.client.delete_experiment(lab.client.get_experiment_by_name(project.container).experiment_id)
    with pytest.raises(NotFoundError, match="restore"):
        lab.tracker.runs(project)


def test_an_experiment_by_its_id(server: str, tmp_path: Path) -> None:
    lab = MlflowLab(tmp_path, server)
    project = lab.project()
    lab.log(project, Logged("run", trained(1, 2)))
    experiment_id = lab.client.get_experiment_by_name(project.container).experiment_id
    assert [run.key.project for run in lab.tracker.runs(Selection(experiment_id))] == [project.container]


def test_a_misspelled_experiment_names_the_near_ones(server: str, tmp_path: Path) -> None:
    lab = MlflowLab(tmp_path, server)
    project = lab.project("modular addition")
    with pytest.raises(NotFoundError, match="choose one of") as caught:
        lab.tracker.runs(Selection(project.container[:-2] + "no"))
    assert project.container in str(caught.value)


def test_more_runs_than_fit_on_a_page(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = MlflowLab(tmp_path, server)
    project = lab.project()
    for number in range(5):
        lab.log(project, Logged(f"run{number}"))
    monkeypatch.setattr("integrations.mlflow_runs._PAGE", 2)
    assert [run.key.run_name for run in lab.tracker.runs(project)] == [f"run{number}" for number in range(5)]


def test_artifacts_that_the_client_reaches_without_the_server(
    server: str, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**S3_CREDENTIALS, "MLFLOW_S3_ENDPOINT_URL": storage}.items():
        monkeypatch.setenv(name, value)
    lab = MlflowLab(tmp_path, server, "s3://artifacts/direct")
    project = lab.project()
    handle = lab.log(project, Logged("run", trained(1, 2)))
    run = lab.run(project)
    for ref in lab.tracker.checkpoints(run).checkpoints:
        (path,) = lab.tracker.fetch(run, ref, tmp_path / "spool")
        assert path.read_bytes() == lab.saved[ref.step]
    lab.tracker.annotate(run, made(10))
    assert lab.files(handle) == made().files


def test_an_artifact_store_that_refuses_its_client(
    server: str, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**S3_CREDENTIALS, "MLFLOW_S3_ENDPOINT_URL": storage}.items():
        monkeypatch.setenv(name, value)
    lab = MlflowLab(tmp_path, server, "s3://no-such-bucket/direct")
    experiment = lab.client.get_experiment_by_name(lab.project().container)
    lab.client.create_run(experiment.experiment_id, run_name="run")
    with pytest.raises(NotFoundError, match="bucket does not exist") as caught:
        lab.tracker.checkpoints(lab.run(Selection(experiment.name)))
    assert caught.value.run == "run"


def test_artifacts_in_a_folder_of_the_servers_own_disk(server: str, tmp_path: Path) -> None:
    lab = MlflowLab(tmp_path, server, (tmp_path / "of the server").as_uri())
    experiment = lab.client.get_experiment_by_name(lab.project().container)
    lab.client.create_run(experiment.experiment_id, run_name="run")
    listing = lab.tracker.checkpoints(lab.run(Selection(experiment.name)))
    assert not listing.checkpoints
    assert "which this machine does not have" in listing.warnings[0]


FETCH_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from integrations.mlflow_tracker import MlflowTracker
from integrations.tracker import Selection
from spectral_edge.errors import DiskFullError

tracker = MlflowTracker(sys.argv[1])
run = next(tracker.runs(Selection(sys.argv[2])))
ref = tracker.checkpoints(run).checkpoints[0]
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # no file may grow past 100 bytes: as a quota does
try:
    tracker.fetch(run, ref, Path(sys.argv[3]))
except DiskFullError as error:
    left = list(Path(sys.argv[3]).rglob("*"))
    print(error.run, error.file, len(left))
"""


def test_no_room_for_a_download(server: str, tmp_path: Path) -> None:
    lab = MlflowLab(tmp_path, server)
    project = lab.project()
    lab.log(project, Logged("run", trained(1, 2)))
    command = [sys.executable, "-c", FETCH_UNDER_A_LIMIT, server, project.container, str(tmp_path / "spool")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "run checkpoints/step_000001.safetensors 0"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The errors that a log of `error` would show."""
    shown: BaseException | None = error
    while shown is not None:
        yield shown
        shown = shown.__cause__ if shown.__cause__ or shown.__suppress_context__ else shown.__context__
