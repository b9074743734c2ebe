"""All that this product asks of W&B, done once with the real SDK: for recording, and for seeing drift.

`python -m wandb_double.scenario FOLDER`, in the environment that `wandb_environment` gives.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from PIL import Image

from .double import Double

ENTITY, PROJECT, TRAINED, AUDIT, GONE = "ent", "vision", "train1", "spectral-0123456789abcdef", "spectral-gone"
HOME = f"{ENTITY}/{PROJECT}"


def seed(double: Double) -> None:
    """What is on the server before: a finished training run with checkpoints, a reference, a file, a history."""
    double.put_run(
        ENTITY, PROJECT, TRAINED, config={"lr": 0.1}, tags=["baseline"], summary={"loss": 0.1}, notes="first"
    )
    double.put_history(ENTITY, PROJECT, TRAINED, [{"loss": 1 / (step + 1), "lr": 0.1} for step in range(20)])
    for step in (0, 10):
        files = {"model.safetensors": f"weights {step}".encode()}
        double.put_artifact(ENTITY, PROJECT, TRAINED, "model", files, metadata={"step": step}, history_step=step + 1)
    reference = {"model.pt": ("s3://bucket/model.pt", "etag", 10)}
    double.put_artifact(ENTITY, PROJECT, TRAINED, "elsewhere", {}, refs=reference)
    double.put_file(ENTITY, PROJECT, TRAINED, "checkpoint.pt", b"saved weights")
    double.put_run(ENTITY, PROJECT, "train2", state="running", config={"lr": 0.2}, job_type="train", group="sweep")
    double.put_run(ENTITY, PROJECT, GONE, job_type="spectral-audit")


def seed_all(double: Double) -> None:
    """What is on the server after the scenario, nearly."""
    seed(double)
    double.put_run(ENTITY, PROJECT, AUDIT, job_type="spectral-audit", history=[{"spectral_edge/step": 0}])
    double.put_artifact(
        ENTITY, PROJECT, AUDIT, f"spectral-edge-{TRAINED}", {"gaps.csv": b"step\n"}, type="spectral-audit"
    )


def listing(api: Any) -> None:
    """Projects, runs with filters and pages, all of a run."""
    list(api.projects(ENTITY))
    assert api.project(PROJECT, ENTITY).id
    filters = {"$and": [{"state": {"$in": ["finished", "running"]}}, {"createdAt": {"$gt": "2020-01-01"}}]}
    runs = api.runs(HOME, filters=filters, order="+created_at", per_page=1)
    assert len(runs) == 3, list(runs)
    for run in runs:
        run.load_full_data()
    list(api.runs(HOME, filters={"config.lr.value": 0.1}, lazy=False))
    assert api.default_entity == ENTITY
    assert api.viewer.username == ENTITY


def history(run: Any) -> None:
    """The history, by each way."""
    assert len(list(run.scan_history())) == 20
    assert len(list(run.scan_history(keys=["_step", "lr"]))) == 20
    run.history(pandas=False)
    run.history(keys=["loss"], samples=5, pandas=False)
    run.history(stream="events", pandas=False)
    assert run.lastHistoryStep == 19


def artifacts(api: Any, run: Any, folder: Path) -> None:
    """Checkpoints: versions, manifests, addresses, bytes by both ways, lineage."""
    for artifact in run.logged_artifacts():
        assert artifact.manifest.entries
    list(run.used_artifacts())
    list(api.artifact_types(HOME))
    list(api.artifact_collections(HOME, "model"))
    collection = api.artifact_collection("model", f"{HOME}/model")
    assert len(list(collection.artifacts())) == 2
    list(api.artifacts("model", f"{HOME}/model"))
    artifact = api.artifact(f"{HOME}/model:v1")
    artifact.download(root=str(folder / "whole"))
    api.artifact(f"{HOME}/model:v0").get_entry("model.safetensors").download(root=str(folder / "entry"))
    list(artifact.files())
    assert artifact.logged_by().id == TRAINED
    assert api.artifact_exists(f"{HOME}/model:latest")


def files(run: Any, folder: Path) -> None:
    """Files that the run saved."""
    assert [file.name for file in run.files()] == ["checkpoint.pt"]
    list(run.files(pattern="%.pt"))
    run.file("checkpoint.pt").download(root=str(folder / "files"))


def annotated(api: Any, run: Any, folder: Path) -> None:
    """Summary, tags, notes and files of the original run."""
    run.summary.update({"spectral_edge/status": "ok"})
    fresh = api.run(f"{HOME}/{TRAINED}")
    fresh.tags, fresh.notes = [*fresh.tags, "spectral_edge.status:ok"], "first\n\nsecond"
    fresh.update()
    note = folder / "spectrum.html"
    note.write_text("<p>spectrum</p>")
    fresh.upload_file(str(note), root=str(folder))
    fresh.file("spectrum.html").delete()


def audit_run(wandb: Any, api: Any, folder: Path) -> None:
    """A run with rows, a table, a picture, a page and files of its own, linked to the checkpoints."""
    run = _init(wandb, folder, id=AUDIT, job_type="spectral-audit", group=TRAINED, tags=["spectral-edge"])
    run.define_metric("spectral_edge/*", step_metric="spectral_edge/step")
    run.use_artifact(f"{HOME}/model:v0")
    for step in range(3):
        run.log({"spectral_edge/step": step, "spectral_edge/gap": 1.0})
    picture = folder / "spectrum.png"
    Image.new("RGB", (1, 1)).save(picture)
    page = folder / "page.html"
    page.write_text("<p>spectrum</p>")
    points = wandb.Table(columns=["step", "gap"], data=[[0, 1.0]])
    run.log({"spectrum": wandb.Image(str(picture)), "page": wandb.Html(str(page)), "points": points})
    run.save(str(page), base_path=str(folder), policy="now")
    artifact = wandb.Artifact(f"spectral-edge-{TRAINED}", "spectral-audit")
    artifact.add_file(str(page))
    run.log_artifact(artifact).wait()
    run.log_model(str(page), name="probe")
    run.summary["spectral_edge/finished"] = "mark"
    run.finish()
    assert [user.id for user in api.artifact(f"{HOME}/model:v0").used_by()] == [AUDIT]


def resumed(wandb: Any, folder: Path) -> None:
    """More rows in a run that was finished."""
    run = _init(wandb, folder, id=AUDIT, resume="must")
    run.log({"spectral_edge/step": 3})
    run.finish()


def taken_back(api: Any) -> None:
    """Versions and runs deleted."""
    artifact = api.artifact(f"{HOME}/spectral-edge-{TRAINED}:latest")
    artifact.aliases.append("spare")
    artifact.metadata["retracted"] = True
    artifact.save()
    artifact.aliases.remove("spare")
    artifact.save()
    artifact.delete(delete_aliases=True)
    api.run(f"{HOME}/{GONE}").delete()
    api.run(f"{HOME}/{AUDIT}").delete(delete_artifacts=True)


def _init(wandb: Any, folder: Path, **how: object) -> Any:
    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    return wandb.init(
        entity=ENTITY, project=PROJECT, dir=str(folder), reinit="create_new", mode="online", settings=settings, **how
    )


def run_all(folder: Path) -> None:
    """Do everything once.

    Args:
        folder: for files on the way.
    """
    import wandb  # noqa: PLC0415  (after the environment is set)

    api = wandb.Api()
    run = api.run(f"{HOME}/{TRAINED}")
    listing(api)
    history(run)
    artifacts(api, run, folder)
    files(run, folder)
    annotated(api, run, folder)
    audit_run(wandb, api, folder)
    resumed(wandb, folder)
    taken_back(api)


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
