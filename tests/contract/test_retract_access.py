"""Who may take what back: readers nothing, editors all but files, and stores that delete nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from guarded import ADMIN, EDITOR, READER, log_in
from labs import NOTE_TAG, MlflowLab
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import _cached_get_s3_client
from test_tracker_annotate import logged_run, made

from integrations.annotation_section import NOTE_BEGIN, NOTE_END
from integrations.tracker import Leftover
from spectral_edge.errors import AccessDeniedError


def test_readers_take_nothing_back_and_editors_all_but_files(
    guarded: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log_in(monkeypatch, ADMIN)
    lab = MlflowLab(tmp_path, guarded)
    project = lab.project()
    experiment = lab.client.get_experiment_by_name(project.container)
    handle = lab.client.create_run(experiment.experiment_id, run_name="run", tags={NOTE_TAG: "Mine."}).info.run_id
    run = lab.run(project)
    lab.tracker.annotate(run, made(10))
    before = (lab.tags(handle), lab.note(handle))

    log_in(monkeypatch, READER)
    with pytest.raises(AccessDeniedError, match="Next: check MLFLOW_TRACKING_USERNAME") as caught:
        lab.tracker.retract(run)
    assert caught.value.run == "run"
    assert READER[1] not in str(caught.value)
    assert (lab.tags(handle), lab.note(handle)) == before
    state = lab.tracker.annotation_state(run)
    assert state is not None
    assert state.complete

    log_in(monkeypatch, EDITOR)
    receipt = lab.tracker.retract(run)
    assert receipt.note
    assert not receipt.files
    assert (lab.tags(handle), lab.note(handle)) == ({}, "Mine.")
    place = lab.client.get_run(handle).info.artifact_uri
    assert [left.what for left in receipt.leftovers] == [f"spectral_edge/{name} in {place}" for name in made().files]
    assert all("403" in left.why and "MLFLOW_TRACKING_USERNAME" in left.why for left in receipt.leftovers)

    log_in(monkeypatch, ADMIN)
    assert set(lab.tracker.retract(run).files) == set(made().files)
    assert not lab.client.list_artifacts(handle)


class WriteOnce(LocalArtifactRepository):
    """An artifact store that keeps what it has, as plugins and MLflow's own for some services do."""

    how: str = "silently"

    def __init__(self, artifact_uri: str, *_args: object, **_options: object) -> None:
        super().__init__(artifact_uri.removeprefix(f"{self.how}:"))

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Nothing."""


class Unable(WriteOnce):
    """One that says that it cannot."""

    how = "unable"

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        raise NotImplementedError("This artifact repository does not support deleting artifacts")


@pytest.mark.parametrize(("store", "why"), [(WriteOnce, "reported no error"), (Unable, "cannot delete")])
def test_a_store_that_deletes_nothing(
    store: type[WriteOnce], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_artifact_repository_registry._registry, store.how, store)
    place = f"{store.how}:{tmp_path}/artifacts"
    # A database of its own: a tracker's capabilities depend on all experiments of the database that others share.
    lab = MlflowLab(tmp_path, f"sqlite:///{tmp_path}/mlflow.db", place)
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(10))
    receipt = lab.tracker.retract(run)
    assert not receipt.files
    assert [left.what.split(" in ")[0] for left in receipt.leftovers] == [
        f"spectral_edge/{name}" for name in made().files
    ]
    assert all(place in left.what and why in left.why for left in receipt.leftovers)
    assert not lab.tags(handle)
    assert lab.files(handle) == made().files


def test_files_in_a_folder_that_this_machine_does_not_have(server: str, tmp_path: Path) -> None:
    lab = MlflowLab(tmp_path, server, (tmp_path / "of the server").as_uri())
    handle, run = logged_run(lab)
    assert not lab.tracker.retract(run).leftovers
    lab.tracker.annotate(run, made(10))
    shutil.rmtree(tmp_path / "of the server")
    [left] = lab.tracker.retract(run).leftovers
    assert "spectral_edge/ in file:" in left.what
    assert "this machine does not have that folder" in left.why
    assert not lab.tags(handle)


def test_an_artifact_store_that_cannot_be_looked_into(
    server: str, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", storage)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps credentials that are in the environment no more
    _cached_get_s3_client.cache_clear()  # so do the clients that MLflow keeps
    lab = MlflowLab(tmp_path, server, "s3://artifacts/direct")
    project = lab.project()
    experiment = lab.client.get_experiment_by_name(project.container)
    lab.client.create_run(experiment.experiment_id, run_name="run", tags={"spectral_edge.status": "ok"})
    run = lab.run(project)
    receipt = lab.tracker.retract(run)
    assert receipt.tags == ("spectral_edge.status",)
    [left] = receipt.leftovers
    assert "set the credentials of the artifact store" in left.why
    _cached_get_s3_client.cache_clear()  # those made here have none


def test_half_a_section_in_the_note_is_told(make_lab: Callable[[str], MlflowLab]) -> None:
    lab = make_lab("mlflow-file")
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(10))
    half = lab.note(handle).replace(NOTE_END, "")
    lab.client.set_tag(handle, "mlflow.note.content", half)
    [left] = lab.tracker.retract(run).leftovers
    assert isinstance(left, Leftover)
    assert "by hand" in left.why
    assert lab.note(handle) == half
    assert NOTE_BEGIN in half
