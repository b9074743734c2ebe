"""A laboratory of W&B's folders on this machine: runs are logged offline by the real SDK."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import wandb
from labs import NOTE_TAG, Lab, Logged, save
from wandb.proto import wandb_internal_pb2
from wandb_labs import JOB, OURS, STEP

from integrations.tracker import Selection, Tracker
from integrations.wandb_offline import WandbOfflineTracker

_NOT_IN_PROJECT_NAMES = str.maketrans(dict.fromkeys("/\\#?%:", "_"))
_LONGEST_NAME = 100
_OURS = re.compile(r"-spectral-|^\.spectral_edge-")
_NO_TAGS = {"started", "finished", "step"}


class WandbOfflineLab(Lab):
    """`wandb-offline:PATH`; a handle is the path of a run's folder. Checkpoints are given to `run.save`."""

    doubles_points = False
    keeps_files_apart = True

    _numbers = itertools.count(1)

    @property
    def tracker(self) -> Tracker:
        return WandbOfflineTracker()

    def spelled(self, name: str) -> str:
        return name.translate(_NOT_IN_PROJECT_NAMES)

    def project(self, name: str = "project") -> Selection:
        folder = self.scratch / f"{time.monotonic_ns()}-{self.spelled(name)}"[:_LONGEST_NAME]
        (folder / "wandb").mkdir(parents=True)
        return Selection(str(folder))

    def name_of(self, project: Selection) -> str:
        return Path(project.container).name

    def log(self, project: Selection, logged: Logged) -> str:
        run = wandb.init(
            dir=project.container,
            project=self.name_of(project),
            id=f"r{next(self._numbers):07d}",
            name=logged.name,
            notes=logged.tags.get(NOTE_TAG),
            tags=[key for key in logged.tags if key != NOTE_TAG],
            config=dict(logged.params),
            mode="offline",
            reinit="create_new",
            settings=wandb.Settings(
                console="off", silent=True, x_disable_meta=True, x_disable_stats=True, x_save_requirements=False
            ),
        )
        rows: dict[int, dict[str, float]] = {}
        for name, points in logged.metrics.items():
            for step, value in points:
                rows.setdefault(step, {})[name] = value
        for step in sorted(rows):
            run.log(rows[step], step=step)
        kept = self.scratch / f"saved-{run.id}"
        kept.mkdir()
        for step, model in logged.checkpoints.items():
            path = kept / f"step_{step:06d}{logged.suffix}"
            save(model, path)
            self.saved[step] = path.read_bytes()
            run.save(str(path), base_path=str(kept))
        folder = Path(run.dir).parent
        run.finish()
        while not any(record.HasField("exit") for record in records(folder)):
            pass  # the SDK's process writes what is left after `finish` has returned
        return str(folder)

    def put_file(self, handle: str, name: str, content: bytes) -> None:
        path = Path(handle, "files", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def delete(self, handle: str) -> None:
        shutil.rmtree(handle)

    def has_a_place_for_files(self, handle: str) -> bool:
        return bool(annotation_folders(handle))

    def unusual(self, warnings: Sequence[str]) -> list[str]:
        return [warning for warning in warnings if "wandb sync" not in warning]

    def theirs(self, handle: str) -> Any:
        folder = Path(handle)
        # The logger of the SDK in the process that logged the run, which is this one, writes on in `logs`.
        files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "logs")
        return (
            sorted((str(path), path.stat().st_mtime_ns, _digest(path)) for path in files),
            folder.stat().st_mtime_ns,
            (folder.parent / "latest-run").readlink(),
            sorted(
                path.name
                for path in folder.parent.iterdir()
                if not re.search(r"-spectral-|^\.spectral_edge-", path.name)
            ),
        )

    def points(self, handle: str) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        for record in self._annotations(handle):
            row = {_name(item): json.loads(item.value_json) for item in record.history.item}
            for key, value in row.items():
                if key.startswith(OURS) and key != STEP and isinstance(value, int | float) and STEP in row:
                    found.setdefault(key, []).append((row[STEP], value))
        return found

    def files(self, handle: str) -> dict[str, bytes]:
        places = (folder / "files" / "spectral_edge" for folder in annotation_folders(handle))
        hidden = Path(handle).parent.glob(".spectral_edge-*")
        left = {f"{path}.tmp": path.read_bytes() for place in hidden for path in place.rglob("*") if path.is_file()}
        return {path.name: path.read_bytes() for place in places for path in place.glob("*")} | left

    def tags(self, handle: str) -> dict[str, str]:
        told: dict[str, Any] = {}
        for record in self._annotations(handle):
            told |= {_name(item): json.loads(item.value_json) for item in record.summary.update}
        columns = set(self.points(handle))
        ours = {key.removeprefix(OURS): value for key, value in told.items() if key.startswith(OURS)}
        return {
            f"spectral_edge.{name}": str(value)
            for name, value in ours.items()
            if name not in _NO_TAGS and f"{OURS}{name}" not in columns and "." not in name
        }

    def note(self, handle: str) -> str:
        folders = (Path(handle), *annotation_folders(handle))
        return "".join(record.run.notes for folder in folders for record in records(folder))

    def _annotations(self, handle: str) -> Iterator[Any]:
        return (record for folder in annotation_folders(handle) for record in records(folder))


def annotation_folders(handle: str) -> list[Path]:
    """The folders beside a run's that hold annotations of it."""
    audited = next(iter(Path(handle).glob("run-*.wandb"))).stem.removeprefix("run-") if Path(handle).is_dir() else ""
    beside = (path for path in sorted(Path(handle).parent.glob("offline-run-*-spectral-*")))
    begun = ((path, next(record.run for record in records(path) if record.run.run_id)) for path in beside)
    return [path for path, run in begun if run.job_type == JOB and run.run_group == audited]


def records(folder: Path) -> Iterator[Any]:
    """The records of a whole log, read as LevelDB's authors describe the format."""
    content = b"".join(path.read_bytes() for path in folder.glob("run-*.wandb"))
    at, whole = 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        at += 7 + length
        if at > len(content):
            return
        whole += content[at - length : at]
        if kind in (1, 4):
            record: Any = wandb_internal_pb2.Record()  # type: ignore[attr-defined]  # built when imported
            record.ParseFromString(whole)
            yield record
            whole = b""


def _name(item: Any) -> str:
    return ".".join(item.nested_key) or item.key


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
