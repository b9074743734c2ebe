"""Laboratories: places where runs can be logged as a user logs them, and looked at without spectral-edge."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient
from mlflow.entities import Metric
from safetensors.torch import save_file

from integrations.folder_tracker import FolderTracker
from integrations.mlflow_tracker import MlflowTracker
from integrations.tracker import Selection, TrackedRun, Tracker

Points = Sequence[tuple[int, float]]
NOTE_TAG = "mlflow.note.content"

NASTY_NAMES = (
    "../../x",
    'it\'s "quoted" & <b onclick=alert(1)>bold</b>',
    "ελληνικά 漢字 🎲",
    "x" * 250,
    "${jndi:ldap://x} %s {0} \\n",
)


@dataclass(frozen=True)
class Logged:
    """What a training loop logs. Checkpoints are state dicts by step."""

    name: str = "run"
    checkpoints: Mapping[int, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    metrics: Mapping[str, Points] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ".safetensors"


def small_model(seed: int) -> dict[str, torch.Tensor]:
    """The state dict of a small model."""
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    return {name: value.clone() for name, value in layers.state_dict().items()}


def trained(*steps: int) -> dict[int, dict[str, torch.Tensor]]:
    """A small model at each of `steps`."""
    return {step: small_model(step) for step in steps}


def save(model: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a checkpoint as people do."""
    if path.suffix == ".safetensors":
        save_file(dict(model), path)
    else:
        torch.save({"model": dict(model), "step": 1}, path)


class Lab(ABC):
    """One kind of tracker, with hands to log runs and eyes to look at them that are not the tracker's own."""

    doubles_points: bool
    """Whether the tracker keeps two points of one metric at one step."""
    keeps_files_apart = False
    """Whether our files lie where none of the user's can."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.saved: dict[int, bytes] = {}
        """The bytes of the checkpoints that were logged, by step."""

    def spelled(self, name: str) -> str:
        """`name` as near to itself as this kind of tracker takes it."""
        return name

    @property
    @abstractmethod
    def tracker(self) -> Tracker:
        """A fresh tracker, with nothing remembered."""

    @abstractmethod
    def project(self, name: str = "project") -> Selection:
        """A new project (experiment, folder) named like `name`."""

    def name_of(self, project: Selection) -> str:
        """What keys of runs call the project."""
        return project.container

    @abstractmethod
    def log(self, project: Selection, logged: Logged) -> str:
        """Log a run; gives what `delete` and the eyes take."""

    @abstractmethod
    def put_file(self, handle: str, name: str, content: bytes) -> None:
        """Give the run a file; `name` may have folders."""

    @abstractmethod
    def delete(self, handle: str) -> None:
        """Delete a run as a user does."""

    @abstractmethod
    def theirs(self, handle: str) -> Any:
        """All of the run that is not ours, comparable."""

    @abstractmethod
    def points(self, handle: str) -> dict[str, list[tuple[int, float]]]:
        """Our metric points by key, as they are kept, doubles included."""

    @abstractmethod
    def files(self, handle: str) -> dict[str, bytes]:
        """Our files by name."""

    @abstractmethod
    def tags(self, handle: str) -> dict[str, str]:
        """Our tags."""

    @abstractmethod
    def note(self, handle: str) -> str:
        """The run's note, whole."""

    def unusual(self, warnings: Sequence[str]) -> list[str]:
        """Those of a receipt's warnings that not every annotation brings with it."""
        return list(warnings)

    @abstractmethod
    def has_a_place_for_files(self, handle: str) -> bool:
        """Whether the place is there that our files lie in."""

    def run(self, project: Selection, name: str = "run") -> TrackedRun:
        """The run called `name`, through a fresh tracker."""
        return next(run for run in self.tracker.runs(project) if run.key.run_name == name)


class FolderLab(Lab):
    """`dir:PATH`."""

    doubles_points = False

    @property
    def tracker(self) -> Tracker:
        return FolderTracker()

    def spelled(self, name: str) -> str:
        return name.replace("/", "_").lstrip(".")

    def project(self, name: str = "project") -> Selection:
        folder = self.scratch / f"{self.spelled(name)[:200]}-{time.monotonic_ns()}"
        folder.mkdir()
        return Selection(str(folder))

    def name_of(self, project: Selection) -> str:
        return Path(project.container).name

    def log(self, project: Selection, logged: Logged) -> str:
        folder = Path(project.container) / logged.name
        folder.mkdir()
        for step, model in logged.checkpoints.items():
            path = folder / f"step_{step:06d}{logged.suffix}"
            save(model, path)
            self.saved[step] = path.read_bytes()
        if logged.params:
            (folder / "params.json").write_text(json.dumps(dict(logged.params)))
        rows = sorted((step, name, value) for name, points in logged.metrics.items() for step, value in points)
        with (folder / "metrics.jsonl").open("w") as file:
            file.writelines(json.dumps({"step": step, name: value}) + "\n" for step, name, value in rows)
        return str(folder)

    def put_file(self, handle: str, name: str, content: bytes) -> None:
        path = Path(handle, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def delete(self, handle: str) -> None:
        shutil.rmtree(handle)

    def theirs(self, handle: str) -> Any:
        folder = Path(handle)
        files = (path for path in folder.rglob("*") if path.is_file() and "spectral_edge" not in path.parts)
        return sorted((str(path), path.stat().st_mtime_ns, _digest(path.read_bytes())) for path in files)

    def points(self, handle: str) -> dict[str, list[tuple[int, float]]]:
        text = self.files(handle).get("metrics.csv", b"").decode()
        found: dict[str, list[tuple[int, float]]] = {}
        for row in csv.DictReader(io.StringIO(text)):
            found.setdefault(row["key"], []).append((int(row["step"]), float(row["value"])))
        return found

    def files(self, handle: str) -> dict[str, bytes]:
        folder = Path(handle, "spectral_edge")
        return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}

    def tags(self, handle: str) -> dict[str, str]:
        content = self.files(handle).get("tags.json")
        return json.loads(content)["tags"] if content else {}

    def note(self, handle: str) -> str:
        return self.files(handle).get("note.md", b"").decode()

    def has_a_place_for_files(self, handle: str) -> bool:
        return Path(handle, "spectral_edge").exists()


class MlflowLab(Lab):
    """`mlflow:EXPERIMENT` at one tracking URI, with artifacts kept where that store keeps them."""

    doubles_points = True

    def __init__(self, scratch: Path, uri: str, artifacts: str | None = None) -> None:
        super().__init__(scratch)
        self.uri = uri
        self.client = MlflowClient(uri)
        self._artifacts = artifacts

    @property
    def tracker(self) -> Tracker:
        return MlflowTracker(self.uri)

    def spelled(self, name: str) -> str:
        # MLflow's folder store cannot find an experiment with quotes in its name again.
        return name.replace('"', "").replace("'", "") if self.uri.startswith("file:") else name

    def project(self, name: str = "project") -> Selection:
        unique = f"{time.monotonic_ns()}-{self.spelled(name)}"[:256]  # the length of the column
        place = f"{self._artifacts}/{time.monotonic_ns()}" if self._artifacts else None
        self.client.create_experiment(unique, artifact_location=place)
        return Selection(unique)

    def log(self, project: Selection, logged: Logged) -> str:
        experiment = self.client.get_experiment_by_name(project.container)
        assert experiment is not None
        run_id = self.client.create_run(
            experiment.experiment_id, run_name=logged.name, tags=dict(logged.tags)
        ).info.run_id
        for name, value in logged.params.items():
            self.client.log_param(run_id, name, value)
        now = int(time.time() * 1000)
        points = [(name, value, step) for name, series in logged.metrics.items() for step, value in series]
        self.client.log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value, step in points])
        for step, model in logged.checkpoints.items():
            path = self.scratch / f"step_{step:06d}{logged.suffix}"
            save(model, path)
            self.saved[step] = path.read_bytes()
            self.client.log_artifact(run_id, str(path), "checkpoints")
            path.unlink()
        self.client.set_terminated(run_id)
        return run_id

    def put_file(self, handle: str, name: str, content: bytes) -> None:
        path = self.scratch / Path(name).name
        path.write_bytes(content)
        self.client.log_artifact(handle, str(path), str(Path(name).parent) if "/" in name else None)
        path.unlink()

    def delete(self, handle: str) -> None:
        self.client.delete_run(handle)

    def theirs(self, handle: str) -> Any:
        run = self.client.get_run(handle)
        names = sorted(name for name in run.data.metrics if not name.startswith("spectral_edge/"))
        histories = {name: sorted(map(str, self.client.get_metric_history(handle, name))) for name in names}
        tags = {
            key: value
            for key, value in run.data.tags.items()
            if not key.startswith("spectral_edge.") and key != NOTE_TAG
        }
        return str(dict(run.info)), dict(run.data.params), tags, histories, self._theirs_below(handle, None)

    def points(self, handle: str) -> dict[str, list[tuple[int, float]]]:
        names = [name for name in self.client.get_run(handle).data.metrics if name.startswith("spectral_edge/")]
        histories = {name: self.client.get_metric_history(handle, name) for name in names}
        return {name: sorted((point.step, point.value) for point in points) for name, points in histories.items()}

    def files(self, handle: str) -> dict[str, bytes]:
        entries = self.client.list_artifacts(handle, "spectral_edge")
        home = self.scratch / f"files-{time.monotonic_ns()}"
        home.mkdir()
        paths = (Path(self.client.download_artifacts(handle, entry.path, str(home))) for entry in entries)
        # A writer killed inside MLflow's own copy leaves MLflow's temporary file, which no client API can remove.
        return {path.name: path.read_bytes() for path in paths if not path.name.startswith(".artifact.uploading.")}

    def tags(self, handle: str) -> dict[str, str]:
        tags = self.client.get_run(handle).data.tags
        return {key: value for key, value in tags.items() if key.startswith("spectral_edge.")}

    def note(self, handle: str) -> str:
        return self.client.get_run(handle).data.tags.get(NOTE_TAG, "")

    def has_a_place_for_files(self, handle: str) -> bool:
        return "spectral_edge" in [entry.path for entry in self.client.list_artifacts(handle)]

    def _theirs_below(self, handle: str, path: str | None) -> list[tuple[str, int | None]]:
        found: list[tuple[str, int | None]] = []
        for entry in self.client.list_artifacts(handle, path):
            if entry.path != "spectral_edge":
                found += self._theirs_below(handle, entry.path) if entry.is_dir else [(entry.path, entry.file_size)]
        return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
