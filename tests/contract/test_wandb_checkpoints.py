"""Checkpoints in the ways that wandb's SDK logs them, by the SDK itself: steps, sources, bytes; and metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb_double import Double
from wandb_labs import ENTITY

from integrations.tracker import Selection, TrackedRun
from integrations.wandb_tracker import WandbTracker
from spectral_edge.errors import NoStepError, NotFoundError

STEPS = (100, 200, 300)
Log = Callable[[wandb.Run, int, Path], None]


def weights(folder: Path, name: str, step: int) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"weights of step {step}".encode())
    return path


def log_model(run: wandb.Run, step: int, folder: Path) -> None:
    run.log_model(str(weights(folder, f"step_{step}.pt", step)))


def log_model_under_one_name(run: wandb.Run, step: int, folder: Path) -> None:
    run.log_model(str(weights(folder, "model.pt", step)), name="named", aliases=[f"step_{step}"])


def artifact_with_metadata(run: wandb.Run, step: int, folder: Path) -> None:
    artifact = wandb.Artifact("net", "model", metadata={"step": step, "score": 0.5})
    artifact.add_file(str(weights(folder, "model.safetensors", step)))
    run.log_artifact(artifact)


def lightning(run: wandb.Run, step: int, folder: Path) -> None:
    """As WandbLogger(log_model="all") does."""
    name = f"epoch={step // 100}-step={step}.ckpt"
    artifact = wandb.Artifact(f"model-{run.id}", "model", metadata={"score": 1.0, "original_filename": name})
    artifact.add_file(str(weights(folder, name, step)), name="model.ckpt")
    run.log_artifact(artifact, aliases=["latest", "best"])


def transformers(run: wandb.Run, step: int, folder: Path) -> None:
    """As Trainer with WANDB_LOG_MODEL=checkpoint does."""
    home = folder / f"checkpoint-{step}"
    weights(home, "model.safetensors", step)
    (home / "config.json").write_text("{}")
    artifact = wandb.Artifact(f"checkpoint-{run.id}", "model", metadata={"train/global_step": step - 10})
    artifact.add_dir(str(home))
    run.log_artifact(artifact, aliases=[f"checkpoint-{step}"])


def saved_files(run: wandb.Run, step: int, folder: Path) -> None:
    run.save(str(weights(folder, f"ck/step_{step}.pt", step)), base_path=str(folder), policy="now")


def references(run: wandb.Run, step: int, folder: Path) -> None:
    artifact = wandb.Artifact("referring", "model", metadata={"step": step})
    artifact.add_reference(weights(folder, f"far/{step}/model.pt", step).as_uri())
    run.log_artifact(artifact)


def told_by_history(run: wandb.Run, step: int, folder: Path) -> None:
    """Nothing but the row at which it was logged, and the metric that counts the steps."""
    if run.step == 0:
        run.define_metric("trainer/step")
        run.define_metric("*", step_metric="trainer/step")
    run.log({"trainer/step": step, "loss": 1.0 / step})
    artifact = wandb.Artifact("silent", "model")
    artifact.add_file(str(weights(folder, "model.pt", step)))
    run.log_artifact(artifact).wait()


LAYOUTS: Mapping[Log, tuple[str, str]] = {
    log_model: ("artifact:run-ID-step_#.pt", "file_name"),
    log_model_under_one_name: ("artifact:named", "alias"),
    artifact_with_metadata: ("artifact:net", "metadata"),
    lightning: ("artifact:model-ID", "file_name"),
    transformers: ("artifact:checkpoint-ID", "alias"),
    saved_files: ("ck/step_#.pt", "file_name"),
    references: ("artifact:referring", "metadata"),
    told_by_history: ("artifact:silent", "history"),
}
"""How the runs below are logged, what their series are called, and where the steps come from."""


def started(double: Double, project: str, name: str) -> wandb.Run:
    """A run as in a script; the server is named, since wandb remembers the first of this process."""
    server = {"base_url": double.url, "api_key": double.key}
    quiet = {"console": "off", "silent": True, "x_disable_stats": True, "x_disable_meta": True, "disable_git": True}
    settings = wandb.Settings(**server, **quiet)
    return wandb.init(entity=ENTITY, project=project, name=name, reinit="create_new", settings=settings)


@pytest.fixture(scope="module")
def logged(double: Double, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A project with a run for each layout."""
    project = f"layouts-{time.monotonic_ns()}"
    double.put_project(ENTITY, project)
    for log in LAYOUTS:
        with started(double, project, log.__name__) as run:
            for step in STEPS:
                log(run, step, tmp_path_factory.mktemp(log.__name__))
    return f"{ENTITY}/{project}"


@pytest.fixture
def runs(logged: str) -> Mapping[str, TrackedRun]:
    return {run.key.run_name: run for run in WandbTracker().runs(Selection(logged))}


@pytest.mark.parametrize("log", LAYOUTS, ids=lambda log: log.__name__)
def test_steps_sources_and_bytes(runs: Mapping[str, TrackedRun], log: Log, tmp_path: Path) -> None:
    tracker, run = WandbTracker(), runs[log.__name__]
    series, source = LAYOUTS[log]
    listing = tracker.checkpoints(run)
    assert listing.series == series.replace("ID", run.key.run_id)
    assert [(ref.step, ref.step_source) for ref in listing.checkpoints] == [(step, source) for step in STEPS]
    assert bool(listing.warnings) == (log is told_by_history)
    for ref in listing.checkpoints:
        for fetching in (tracker, WandbTracker()):
            (path,) = fetching.fetch(run, ref, tmp_path / "spool")
            assert path.read_bytes() == f"weights of step {ref.step}".encode()
            assert ref.size == path.stat().st_size


def test_the_metrics_of_a_run_have_the_axis_that_it_gave_them(runs: Mapping[str, TrackedRun]) -> None:
    tracker, run = WandbTracker(), runs["told_by_history"]
    assert "loss" in tracker.metric_names(run)
    series = tracker.metric_series(run, "loss")
    assert (series.steps.tolist(), series.values.tolist()) == (list(STEPS), [1.0 / step for step in STEPS])


@pytest.fixture
def project() -> str:
    """A project of its own."""
    return f"own-{time.monotonic_ns()}"


def run_of(project: str) -> TrackedRun:
    (run,) = WandbTracker().runs(Selection(f"{ENTITY}/{project}"))
    return run


def by(*metrics: str, axis: str, exact: bool = False) -> dict[str, object]:
    """A configuration as define_metric leaves it: `axis` counts the steps of `metrics`, or of all that begin so."""
    kinds = [{"1": name, "5": 1} if exact else {"2": name, "5": 1} for name in metrics]
    return {"_wandb": {"m": [{"1": axis}, *kinds]}}


def test_a_long_history_is_complete(double: Double, project: str) -> None:
    rows = [{"_step": step, "loss": 1 / (1 + step), "rare": step} for step in range(0, 7500, 3)]
    double.put_run(ENTITY, project, "run", history=rows)
    series = WandbTracker().metric_series(run_of(project), "loss")
    assert series.steps.tolist() == list(range(0, 7500, 3))
    assert series.values.tolist() == [1 / (1 + step) for step in range(0, 7500, 3)]


def test_a_few_rows_with_large_numbers_take_one_request(double: Double, project: str) -> None:
    double.put_run(ENTITY, project, "run", history=[{"_step": step, "loss": 1.0} for step in range(0, 10**6, 10**4)])
    tracker, run = WandbTracker(), run_of(project)
    before = double.operations().count("SampledHistoryPage")
    assert len(tracker.metric_series(run, "loss").steps) == 100
    assert double.operations().count("SampledHistoryPage") == before + 1


def test_only_whole_steps_and_finite_numbers_are_points(double: Double, project: str) -> None:
    values = [(0, 1.0), (1.5, 2.0), (2.0, "NaN"), ("x", 3.0), (True, 4.0), (-1, 5.0), (7.0, True), (8, {}), (9, 6)]
    rows = [{"epoch": axis, "loss": value} for axis, value in [*values, (10, "Infinity"), (9, 7.5)]]
    double.put_run(ENTITY, project, "run", history=[*rows, {"loss": 9.0}], config=by("loss", axis="epoch", exact=True))
    series = WandbTracker().metric_series(run_of(project), "loss")
    assert (series.steps.tolist(), series.values.tolist()) == ([0, 9], [1.0, 7.5])


def test_metrics_are_those_with_numbers_that_the_run_logged_itself(double: Double, project: str) -> None:
    row = {
        "loss": 1,
        "system/cpu": 1,
        "_runtime": 1,
        "spectral_edge/gap": 1,
        "image": {"_type": "image-file"},
        "s": "x",
    }
    double.put_run(ENTITY, project, "run", history=[row, {"train/lr": 0.1}])
    assert WandbTracker().metric_names(run_of(project)) == ("loss", "train/lr")


def put(double: Double, project: str, name: str, step: int, **more: Any) -> None:
    double.put_artifact(ENTITY, project, "run", name, {"model.pt": f"{name} {step}".encode()}, **more)


def test_versions_that_are_deleted_or_hold_no_model_are_left_out(double: Double, project: str) -> None:
    double.put_run(ENTITY, project, "run")
    for step in STEPS:
        put(double, project, "net", step, metadata={"step": step})
        put(double, project, "data", step, metadata={"step": step}, type="dataset")
    double.put_artifact(ENTITY, project, "run", "notes", {"readme.md": b"x"})
    owner = double.state.run(ENTITY, project, "run")
    owner.outputs[2].delete()
    listing = WandbTracker().checkpoints(run_of(project))
    assert [ref.step for ref in listing.checkpoints] == [100, 300]
    assert listing.warnings == ("artifact `notes:v0` left out: it holds no weights file.",)


def test_the_history_tells_steps_only_where_nothing_else_does(double: Double, project: str) -> None:
    rows = [{"trainer/step": 10 * number, "loss": 1.0} for number in range(50)]
    double.put_run(ENTITY, project, "run", history=rows, config=by("", axis="trainer/step"))
    for number in (9, 19, 29):  # the server's count is one more than the row's number
        put(double, project, "net", number, history_step=number + 1)
    tracker, run = WandbTracker(), run_of(project)
    listing = tracker.checkpoints(run)
    assert [(ref.step, ref.step_source) for ref in listing.checkpoints] == [
        (step, "history") for step in (90, 190, 290)
    ]
    assert "off by one logging interval" in listing.warnings[0]

    put(double, project, "net", 0, history_step=5)  # logged later, and trained earlier: then none can be believed
    assert not tracker.checkpoints(run).checkpoints
    for number in (1, 2, 3, 4, 5):
        put(double, project, "other", number, metadata={"step": number}, history_step=1)
    before = double.operations().count("SampledHistoryPage")
    assert [ref.step for ref in tracker.checkpoints(run, "artifact:other").checkpoints] == [1, 2, 3, 4, 5]
    assert double.operations().count("SampledHistoryPage") == before + 1  # for `net`

    owner = double.state.run(ENTITY, project, "run")
    for artifact in owner.outputs:
        if artifact.collection.name == "net":
            artifact.delete()
    before = double.operations().count("SampledHistoryPage")
    assert [ref.step for ref in tracker.checkpoints(run).checkpoints] == [1, 2, 3, 4, 5]
    assert double.operations().count("SampledHistoryPage") == before


def test_a_record_in_an_artifact_tells_the_step(double: Double, project: str) -> None:
    double.put_run(ENTITY, project, "run")
    for step in STEPS:
        files = {"model.safetensors": b"%d" % step, "trainer_state.json": b'{"global_step": %d}' % step}
        double.put_artifact(ENTITY, project, "run", "net", files)
    listing = WandbTracker().checkpoints(run_of(project))
    assert [(ref.step, ref.step_source) for ref in listing.checkpoints] == [(step, "metadata") for step in STEPS]


def test_the_series_can_be_chosen(double: Double, project: str) -> None:
    double.put_run(ENTITY, project, "run")
    for step in STEPS:
        put(double, project, "net", step, metadata={"step": step})
        double.put_file(ENTITY, project, "run", f"ck/step_{step}.pt", b"%d" % step)
    tracker, run = WandbTracker(), run_of(project)
    assert tracker.checkpoints(run).series == "artifact:net"  # artifacts win a tie
    assert tracker.checkpoints(run, "ck/*").series == "ck/step_#.pt"
    with pytest.raises(NotFoundError, match=r"artifact:net.* \(3\)"):
        tracker.checkpoints(run, "no such")


def test_one_manifest_is_asked_for_once(double: Double, project: str, tmp_path: Path) -> None:
    double.put_run(ENTITY, project, "run")
    for step in STEPS:
        put(double, project, "net", step, metadata={"step": step})
    tracker, run = WandbTracker(), run_of(project)
    double.calls.clear()
    first = tracker.checkpoints(run)
    assert double.operations().count("FetchArtifactManifest") == len(STEPS)
    double.calls.clear()
    assert tracker.checkpoints(run) == first
    tracker.fetch(run, first.checkpoints[0], tmp_path)
    asked = set(double.operations()) - {"ServerFeaturesQuery"}
    assert asked == {"ArtifactMembershipFiles", "Run", "RunFiles", "RunOutputArtifacts"}


def test_a_run_with_nothing(double: Double, project: str) -> None:
    double.put_run(ENTITY, project, "run")
    tracker, run = WandbTracker(), run_of(project)
    listing = tracker.checkpoints(run)
    assert (listing.checkpoints, listing.warnings, listing.series) == ((), (), None)
    assert tracker.metric_names(run) == ()
    double.put_file(ENTITY, project, "run", "best.pt", b"x")
    with pytest.raises(NoStepError, match=r"best\.pt"):
        tracker.checkpoints(run)


def test_wandbs_cache_is_left_alone(double: Double, project: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    double.put_run(ENTITY, project, "run", history=[{"loss": 1.0}])
    put(double, project, "net", 1, metadata={"step": 1})
    tracker, run = WandbTracker(), run_of(project)
    tracker.fetch(run, tracker.checkpoints(run).checkpoints[0], tmp_path / "spool")
    tracker.metric_series(run, "loss")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
