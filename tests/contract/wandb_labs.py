"""A laboratory on Weights & Biases: runs lie in a server in memory, as wandb's SDK leaves them on one."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from labs import NOTE_TAG, Lab, Logged, save
from wandb_double import Double
from wandb_double.objects import Run

from integrations.tracker import Selection, Tracker
from integrations.wandb_tracker import WandbTracker

ENTITY: Final = "team"
OURS: Final = "spectral_edge/"
STEP: Final = "spectral_edge/step"
JOB: Final = "spectral-audit"
_NOT_IN_PROJECT_NAMES: Final = str.maketrans(dict.fromkeys("/\\#?%:", "_"))
_LONGEST_NAME: Final = 128
_LONGEST_TAG: Final = 64


class WandbLab(Lab):
    """`wandb:ENTITY/PROJECT`; a handle is a run's path, ENTITY/PROJECT/ID."""

    doubles_points = False
    keeps_files_apart = True

    _numbers = itertools.count(1)

    def __init__(self, scratch: Path, double: Double) -> None:
        super().__init__(scratch)
        self.double = double

    @property
    def tracker(self) -> Tracker:
        return WandbTracker()

    def spelled(self, name: str) -> str:
        return name.translate(_NOT_IN_PROJECT_NAMES)

    def project(self, name: str = "project") -> Selection:
        unique = f"{time.monotonic_ns()}-{self.spelled(name)}"[:_LONGEST_NAME]
        self.double.put_project(ENTITY, unique)
        return Selection(f"{ENTITY}/{unique}")

    def log(self, project: Selection, logged: Logged) -> str:
        entity, _, name = project.container.partition("/")
        run_id = f"r{next(self._numbers):07d}"
        labels = [f"{key}:{text}"[:_LONGEST_TAG] for key, text in logged.tags.items() if key != NOTE_TAG]
        self.double.put_run(
            entity,
            name,
            run_id,
            config=logged.params,
            summary={name: points[-1][1] for name, points in logged.metrics.items()},
            history=_rows(logged),
            display_name=logged.name,
            notes=logged.tags.get(NOTE_TAG),
            tags=labels,
        )
        for step, model in logged.checkpoints.items():
            path = self.scratch / f"step_{step:06d}{logged.suffix}"
            save(model, path)
            self.saved[step] = path.read_bytes()
            self.double.put_artifact(entity, name, run_id, f"model-{run_id}", {path.name: self.saved[step]})
            path.unlink()
        return f"{project.container}/{run_id}"

    def put_file(self, handle: str, name: str, content: bytes) -> None:
        self.double.put_file(*handle.split("/"), name, content)

    def delete(self, handle: str) -> None:
        self.double.delete_run(*handle.split("/"))

    def theirs(self, handle: str) -> Any:
        run = self._run(handle)
        return (
            (run.state, run.display_name, run.group, run.job_type, run.exit_code, run.created_at, run.heartbeat_at),
            _not_ours(run.config),
            _not_ours(run.summary),
            [kept for row in run.history if (kept := _not_ours(row)).keys() - {"_step"}],
            [tag for tag in run.tags if not tag.startswith("spectral_edge.")],
            {name: file.data for name, file in run.files.items()},
            [(logged.collection.name, logged.version_index, logged.digest) for logged in run.outputs],
        )

    def points(self, handle: str) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        for run in (self._run(handle), *self.audit_runs(handle)):
            for row in run.history:
                for key in row.keys() - {STEP}:
                    if key.startswith(OURS) and isinstance(row[key], int | float):
                        found.setdefault(key, []).append((row[STEP], row[key]))
        return found

    def files(self, handle: str) -> dict[str, bytes]:
        collection = self._run(handle).project.collections.get(f"spectral-edge-{handle.rpartition('/')[2]}")
        living = collection.living() if collection else []
        return {name: self._anew(handle, data) for version in living[-1:] for name, data in version.blobs.items()}

    def tags(self, handle: str) -> dict[str, str]:
        run = self._run(handle)
        told = {f"spectral_edge.{key.removeprefix(OURS)}": str(run.summary[key]) for key in _ours(run.summary)}
        told = {key: self._anew(handle, text.encode()).decode() for key, text in told.items()}
        return told | {tag: "true" for tag in run.tags if tag.startswith("spectral_edge.")}

    def note(self, handle: str) -> str:
        return self._run(handle).notes or ""

    def has_a_place_for_files(self, handle: str) -> bool:
        return bool(self.audit_runs(handle) or self.files(handle))

    def audit_runs(self, handle: str) -> list[Run]:
        """The runs that hold audits of the run."""
        audited = handle.rpartition("/")[2]
        runs = self._run(handle).project.runs.values()
        return [run for run in runs if run.job_type == JOB and run.group == audited]

    def _anew(self, handle: str, text: bytes) -> bytes:
        """`text` without the id of the audit run: W&B gives none twice, also when the run has been deleted."""
        for made in self.audit_runs(handle):
            text = text.replace(made.name.encode(), b"audit-run")
        return text

    def _run(self, handle: str) -> Run:
        return self.double.state.run(*handle.split("/"))


def _rows(logged: Logged) -> Iterator[dict[str, object]]:
    """A row for each step, as a server tells it: JSON has no words for what is not finite."""
    by_step: dict[int, dict[str, object]] = {}
    for name, points in logged.metrics.items():
        for step, value in points:
            by_step.setdefault(step, {})[name] = value if math.isfinite(value) else str(value).replace("nan", "NaN")
    return ({"_step": step, **by_step[step]} for step in sorted(by_step))


def _ours(values: Mapping[str, Any]) -> list[str]:
    return [key for key in values if key.startswith(OURS)]


def _not_ours(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.startswith(OURS)}
