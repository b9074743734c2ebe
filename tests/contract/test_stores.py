"""Every place where MLflow keeps runs and files, with and without a login: what is logged comes back, and ours goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from guarded import ADMIN, log_in
from labs import MlflowLab
from servers import S3_CREDENTIALS
from test_tracker_annotate import logged_run, made, values

SERVER, GUARDED = "server on PostgreSQL", "the same with basic auth"
SQLITE, FILES = "SQLite, without a server", "folder of files, without a server"
PROXIED, DIRECT, LOCAL = "S3, through the server", "S3, with your credentials", "a folder that this machine has"
CELLS = [
    (SERVER, PROXIED),
    (SERVER, DIRECT),
    (SERVER, LOCAL),
    (GUARDED, PROXIED),
    (GUARDED, DIRECT),
    (GUARDED, LOCAL),
    (SQLITE, DIRECT),
    (SQLITE, LOCAL),
    (FILES, DIRECT),
    (FILES, LOCAL),
]


@pytest.fixture(scope="session")
def another_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for an MLflow database in SQLite."""
    return tmp_path_factory.mktemp("another-sqlite")


@pytest.fixture
def make_place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], MlflowLab]:
    """Builds a lab by where its runs and files are."""

    def tracking(store: str) -> str:
        if store == SERVER:
            return str(request.getfixturevalue("server"))
        if store == GUARDED:
            log_in(monkeypatch, ADMIN)
            return str(request.getfixturevalue("guarded"))
        if store == SQLITE:
            # Not the database of other tests: with files in S3 in it, its files would not all be on this machine.
            return f"sqlite:///{request.getfixturevalue('another_database')}/mlflow.db"
        return (tmp_path / "mlruns").as_uri()

    def make(store: str, files: str) -> MlflowLab:
        uri = tracking(store)
        if files != DIRECT:
            return MlflowLab(tmp_path, uri, (tmp_path / "artifacts").as_uri() if files == LOCAL else None)
        reach = {**S3_CREDENTIALS, "MLFLOW_S3_ENDPOINT_URL": request.getfixturevalue("storage")}
        for name, value in reach.items():
            monkeypatch.setenv(name, value)
        return MlflowLab(tmp_path, uri, "s3://artifacts/stores")

    return make


def cells() -> list[Any]:
    return [pytest.param(*cell, marks=pytest.mark.matrix("stores", *cell), id="-".join(cell)) for cell in CELLS]


@pytest.mark.parametrize(("store", "files"), cells())
def test_a_run_is_read_annotated_and_given_back(
    make_place: Callable[[str, str], MlflowLab], tmp_path: Path, store: str, files: str
) -> None:
    lab = make_place(store, files)
    handle, run = logged_run(lab)
    before = lab.theirs(handle)
    tracker = lab.tracker
    for ref in tracker.checkpoints(run).checkpoints:
        (path,) = tracker.fetch(run, ref, tmp_path / "spool")
        assert path.read_bytes() == lab.saved[ref.step]
        assert (tmp_path / "spool" in path.parents) == (files != LOCAL)
    assert tracker.metric_series(run, "loss").values.tolist() == [2.0, 1.0]

    tracker.annotate(run, made(10))
    assert tracker.annotate(run, made(10)).metric_points == 0
    assert lab.files(handle) == made().files
    tracker.annotate(run, made(10, 20, fingerprint="g" * 16))
    assert {key: len(points) for key, points in values(lab, handle).items()} == dict.fromkeys(values(lab, handle), 2)
    assert lab.theirs(handle) == before

    receipt = lab.tracker.retract(run)
    assert set(receipt.files) == set(made().files)
    assert not receipt.leftovers
    assert (lab.tags(handle), lab.files(handle)) == ({}, {})
    assert lab.theirs(handle) == before
