"""The real wandb SDK and its core, over HTTP against the double: what is written there is read back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from PIL import Image
from wandb_double import Double
from wandb_double.live import no_problems, sdk_led_to_a_double, start_run


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


@pytest.fixture(scope="module")
def trained(double: Double, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the server holds of a run that the SDK logged with all there is."""
    folder = tmp_path_factory.mktemp("trained")
    run = start_run(folder, "trained", config={"lr": 0.1, "model": {"layers": 2}}, tags=["a"], notes="n", group="g")
    run.define_metric("val/*", step_metric="epoch")
    for step in range(4):
        run.log({"loss": 1 / (step + 1), "val/acc": step / 4, "epoch": step // 2}, step=10 * step)
    picture, page, weights = folder / "picture.png", folder / "page.html", folder / "weights.bin"
    Image.new("RGB", (2, 2)).save(picture)
    page.write_text("<p>page</p>")
    table = wandb.Table(columns=["step", "gap"], data=[[0, 1.5], [1, 2.5]])
    run.log({"picture": wandb.Image(str(picture)), "page": wandb.Html(str(page)), "table": table}, step=30)
    for content in (b"first", b"second", b"first"):
        weights.write_bytes(content)
        artifact = wandb.Artifact("model", "model")
        artifact.add_file(str(weights))
        run.log_artifact(artifact, aliases=["best"]).wait()
    run.log_model(str(page), name="page")
    run.save(str(weights), base_path=str(folder), policy="now")
    run.summary["best"] = 0.25
    run.finish()
    return double.run("ent", "p", "trained")


# What the SDK writes


def test_run_as_it_was_logged(trained: dict[str, Any]) -> None:
    assert (trained["state"], trained["exit_code"]) == ("finished", 0)
    assert (trained["tags"], trained["notes"], trained["group"]) == (["a"], "n", "g")
    assert trained["config"]["lr"] == 0.1
    assert trained["config"]["model"] == {"layers": 2}
    assert trained["summary"]["best"] == 0.25


def test_history_as_it_was_logged(trained: dict[str, Any]) -> None:
    assert [row["_step"] for row in trained["history"]] == [0, 10, 20, 30]
    assert [row["loss"] for row in trained["history"]] == [1 / (step + 1) for step in range(4)]
    last = trained["history"][-1]
    assert {key: last[key]["_type"] for key in ("picture", "page", "table")} == {
        "picture": "image-file",
        "page": "html-file",
        "table": "table-file",
    }


def test_step_metric_is_in_the_config(trained: dict[str, Any]) -> None:
    metrics = trained["config"]["_wandb"]["m"]
    val = next(metric for metric in metrics if metric.get("2") == "val/*")
    assert metrics[val["5"] - 1]["1"] == "epoch"


def test_files_as_they_were_saved(trained: dict[str, Any]) -> None:
    assert trained["files"]["weights.bin"] == b"first"
    media = {name.split("/")[1] for name in trained["files"] if name.startswith("media/")}
    assert media == {"images", "html", "table"}


def test_equal_artifacts_are_one_version(trained: dict[str, Any]) -> None:
    models = [logged for logged in trained["logged"] if logged["name"] == "model"]
    assert [(model["version"], model["files"]) for model in models] == [
        ("v0", {"weights.bin": b"first"}),
        ("v1", {"weights.bin": b"second"}),
    ]
    assert set(models[0]["aliases"]) == {"best", "latest"}
    assert models[1]["aliases"] == []


# What the SDK reads


def test_run_is_read_back(trained: dict[str, Any], api: Any) -> None:
    run = api.run("ent/p/trained")
    assert run.config == {"lr": 0.1, "model": {"layers": 2}}
    assert run.summary["best"] == 0.25
    assert (run.state, run.tags, run.notes, run.lastHistoryStep) == ("finished", ["a"], "n", 30)
    rows = list(run.scan_history(keys=["_step", "loss"]))
    assert [(row["_step"], row["loss"]) for row in rows] == [(10 * i, 1 / (i + 1)) for i in range(4)]
    assert [row["epoch"] for row in run.scan_history()] == [0, 0, 1, 1]
    assert [row["_step"] for row in run.history(keys=["loss"], samples=2, pandas=False)] == [0, 30]


def test_runs_are_listed_in_pages(double: Double, api: Any) -> None:
    for number in range(5):
        state = "failed" if number % 2 else "finished"
        double.put_run("team", "many", f"r{number}", state=state, created_at=f"2026-01-0{number + 1}T00:00:00Z")
    names = [run.id for run in api.runs("team/many", order="-created_at", per_page=2)]
    assert names == ["r4", "r3", "r2", "r1", "r0"]
    assert [run.id for run in api.runs("team/many", filters={"state": "failed"})] == ["r1", "r3"]
    assert [project.name for project in api.projects("team")] == ["many"]
    with pytest.raises(ValueError, match="Could not find project nope"):
        len(api.runs("team/nope"))


@pytest.mark.parametrize("algorithm", ["MD5", "XXH128"])
def test_artifact_is_downloaded_by_both_ways(double: Double, api: Any, tmp_path: Path, algorithm: str) -> None:
    double.put_run("ent", "p", f"holder-{algorithm}")
    files = {"model.bin": algorithm.encode(), "deep/er.bin": b"e" * 1000}
    name = f"put-{algorithm}"
    double.put_artifact("ent", "p", f"holder-{algorithm}", name, files, algorithm=algorithm, metadata={"step": 3})
    artifact = api.artifact(f"ent/p/{name}:v0")
    assert artifact.metadata == {"step": 3}
    artifact.download(root=str(tmp_path / "whole"))
    assert {path: (tmp_path / "whole" / path).read_bytes() for path in files} == files
    artifact.verify(root=str(tmp_path / "whole"))
    fresh = {"other.bin": b"fresh" + algorithm.encode()}
    double.put_artifact("ent", "p", f"holder-{algorithm}", name, fresh, algorithm=algorithm)
    entry = api.artifact(f"ent/p/{name}:latest").get_entry("other.bin")
    assert Path(entry.download(root=str(tmp_path / "entry"))).read_bytes() == fresh["other.bin"]


def test_references_keep_their_address(double: Double, api: Any) -> None:
    double.put_run("ent", "p", "refs")
    refs = {"w.pt": ("s3://bucket/w.pt", "etag", 7)}
    double.put_artifact("ent", "p", "refs", "elsewhere", {}, refs=refs, history_step=5)
    double.put_artifact("ent", "p", "refs", "unfinished", {"w.pt": b"half"}, committed=False)
    (artifact,) = api.run("ent/p/refs").logged_artifacts()
    entry = artifact.manifest.entries["w.pt"]
    assert (entry.ref, entry.digest, entry.size, artifact.history_step) == ("s3://bucket/w.pt", "etag", 7, 4)


def test_file_of_a_run(double: Double, api: Any, tmp_path: Path) -> None:
    double.put_run("ent", "p", "filed")
    double.put_file("ent", "p", "filed", "ckpt/a b.pt", b"bytes")
    run = api.run("ent/p/filed")
    assert [(file.name, file.size) for file in run.files()] == [("ckpt/a b.pt", 5)]
    run.file("ckpt/a b.pt").download(root=str(tmp_path)).close()
    assert (tmp_path / "ckpt" / "a b.pt").read_bytes() == b"bytes"
    assert run.file("nothing.pt").md5 == "0"


# What the SDK changes


def test_summary_tags_notes_and_files_are_changed(double: Double, api: Any, tmp_path: Path) -> None:
    double.put_run("ent", "p", "changed", config={"lr": 1}, summary={"loss": 1}, tags=["a"], notes="n")
    run = api.run("ent/p/changed")
    run.summary.update({"spectral_edge/status": "ok", "gap": float("nan")})
    run.tags.append("b")
    run.notes = "n\nm"
    run.update()
    (tmp_path / "up.txt").write_text("up")
    run.upload_file(str(tmp_path / "up.txt"), root=str(tmp_path))
    found = double.run("ent", "p", "changed")
    assert found["summary"] == {"loss": 1, "spectral_edge/status": "ok", "gap": None}
    assert (found["tags"], found["notes"], found["state"]) == (["a", "b"], "n\nm", "finished")
    assert found["files"]["up.txt"] == b"up"
    assert found["config"]["lr"] == 1


def test_resumed_run_goes_on(double: Double, tmp_path: Path) -> None:
    double.put_run("ent", "p", "resumed", state="failed", history=[{"_step": 7, "a": 1}], summary={"a": 1}, tags=["t"])
    run = start_run(tmp_path, "resumed", resume="must")
    run.log({"a": 2})
    run.finish()
    found = double.run("ent", "p", "resumed")
    assert [(row["_step"], row["a"]) for row in found["history"]] == [(7, 1), (8, 2)]
    assert (found["state"], found["tags"]) == ("finished", ["t"])


def test_lineage(double: Double, api: Any, tmp_path: Path) -> None:
    double.put_run("ent", "p", "source")
    double.put_artifact("ent", "p", "source", "used", {"w": b"w"})
    before = double.run("ent", "p", "source")
    run = start_run(tmp_path, "user", job_type="spectral-audit")
    run.use_artifact("ent/p/used:v0")
    run.finish()
    assert [user.id for user in api.artifact("ent/p/used:v0").used_by()] == ["user"]
    assert [used.name for used in api.run("ent/p/user").used_artifacts()] == ["used:v0"]
    assert double.run("ent", "p", "source") == before


def test_deleted_run_is_gone_and_its_id_taken(double: Double, api: Any, tmp_path: Path) -> None:
    double.put_run("ent", "p", "doomed")
    api.run("ent/p/doomed").delete()
    assert not double.has_run("ent", "p", "doomed")
    assert api.run("ent/p/doomed").id == "doomed"  # an Api keeps the runs that it was asked for
    api.flush()
    with pytest.raises(wandb.errors.CommError, match="Could not find run"):
        api.run("ent/p/doomed")
    with pytest.raises(wandb.errors.CommError, match="previously created and deleted; try a new run name"):
        start_run(tmp_path, "doomed", settings={"init_timeout": 1})


def test_deleted_version_is_gone_and_its_number_taken(double: Double, api: Any) -> None:
    double.put_run("ent", "p", "versions")
    for number in range(3):
        double.put_artifact("ent", "p", "versions", "three", {"w": bytes([number])})
    api.artifact("ent/p/three:v2").delete(delete_aliases=True)
    kept = [artifact.version for artifact in api.artifacts("model", "ent/p/three")]
    assert kept == ["v1", "v0"]
    assert api.artifact("ent/p/three:latest").version == "v1"
    double.put_artifact("ent", "p", "versions", "three", {"w": b"new"})
    assert api.artifact("ent/p/three:latest").version == "v3"
