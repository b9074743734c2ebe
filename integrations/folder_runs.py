"""Which folders are runs, and which of their files belong to the run.

A folder is a run when it holds checkpoints: as files, in subfolders named by step (`checkpoint-100/`), or in a plain
container (`checkpoints/`, `checkpoint/`, `ckpts/`, `ckpt/`). With a container the run is the folder around it, because
that is where training loops put the run's metrics and configuration, and because otherwise every run would be called
"checkpoints". A file of recorded sketches (`NAME.sketch`, spectral_edge.recorded) is a run by itself.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from integrations.file_errors import file_errors
from integrations.listing import named_step, steps_of
from integrations.tracker import OUR_NAME
from spectral_edge.checkpoints import DCP_METADATA, is_checkpoint_file
from spectral_edge.errors import NotFoundError

CONTAINERS: Final = frozenset({"checkpoints", "checkpoint", "ckpts", "ckpt"})
CONFIG_FILES: Final = ("params.json", "hparams.json", "config.json")
"""Files that may hold a run's parameters; the first that is there counts."""
_MAX_CONFIG_BYTES: Final = 1 << 20
RECORDING_SUFFIX: Final = ".sketch"
_MAX_SHARD_DEPTH: Final = 3
"""Folders below a checkpoint's own that may hold its shards."""

_log = logging.getLogger(__name__)


def run_places(root: Path) -> list[Path]:
    """The runs in or below `root`, by path: folders of checkpoints, and files of recorded sketches.

    Where a folder is a run, none below it is. One whose checkpoint files tell no step is a run only where no folder
    below it is one. Hidden folders, our own and stores of spectral-edge are not entered; a folder reached twice through
    links is entered once.

    Raises:
        NotFoundError: No such folder, or neither checkpoint nor recording in or below it.
        AccessDeniedError: The folder may not be read.
    """
    with file_errors(file=str(root)):
        root = root.resolve(strict=True)
        if is_recording(root):
            return [root]
        os.scandir(root).close()
    found = list(dict.fromkeys(_runs(root, set())))
    if not found:
        raise NotFoundError(
            "no checkpoint and no recording lies in this folder or below it.",
            file=str(root),
            next_step="name a folder with .safetensors, .pt, .pth, .ckpt, .bin, .npz, .npy, .h5 or .keras files, or "
            "folders of torch.distributed.checkpoint, whose names tell their step, or .sketch files of a recorder.",
        )
    return found


def is_recording(place: Path) -> bool:
    """Whether the run at `place` is a file of recorded sketches."""
    return place.suffix == RECORDING_SUFFIX and not place.is_dir()


def run_files(folder: Path) -> tuple[str, ...]:
    """Paths, relative to `folder`, of all files that may belong to a checkpoint of the run in it; sorted."""
    return tuple(sorted(_own_files(folder, "", contained=False)))


def run_params(folder: Path) -> dict[str, str]:
    """The parameters in the run's configuration file, nested keys joined with `/`; empty when there is none."""
    path = next((folder / name for name in CONFIG_FILES if (folder / name).is_file()), None)
    if path is None or path.stat().st_size > _MAX_CONFIG_BYTES:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("%s could not be read, so the run has no parameters: %s", path, error)
        return {}
    return dict(_flat(content, "")) if isinstance(content, dict) else {}


def _runs(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in seen or _is_store(folder):
        return
    seen.add(identity)
    files = run_files(folder)
    recordings = [folder / path for path in files if Path(path).suffix == RECORDING_SUFFIX]
    if steps_of(files):
        yield folder
        yield from recordings
        return
    below = [run for name in _names(folder, folders=True) for run in _runs(folder / name, seen)]
    if not any(map(Path.is_dir, below)) and any(is_checkpoint_file(path) for path in files):
        yield folder
    yield from recordings
    yield from below


def _own_files(folder: Path, prefix: str, *, contained: bool) -> Iterator[str]:
    for name in _names(folder, folders=False):
        yield prefix + name
    for name in _names(folder, folders=True):
        if name in CONTAINERS and not contained:
            yield from _own_files(folder / name, f"{prefix}{name}/", contained=True)
        elif named_step(name) is not None:
            yield from _checkpoint_folder(folder / name, f"{prefix}{name}/")


def _checkpoint_folder(folder: Path, prefix: str) -> Iterator[str]:
    """The files in a folder named by step, unless it holds several steps itself: then it is a run of its own."""
    if len(steps_of(_all_files(folder, "", _MAX_SHARD_DEPTH))) < 2:
        yield from _all_files(folder, prefix, _MAX_SHARD_DEPTH)


def _all_files(folder: Path, prefix: str, depth: int) -> Iterator[str]:
    for name in _names(folder, folders=False):
        yield prefix + name
    if depth > 0:
        for name in _names(folder, folders=True):
            yield from _all_files(folder / name, f"{prefix}{name}/", depth - 1)


def _names(folder: Path, *, folders: bool) -> list[str]:
    """Names of the files or folders in `folder` that are not hidden, or hold a checkpoint's metadata; sorted.

    A folder that may not be read counts as empty.
    """
    try:
        with os.scandir(folder) as entries:
            kept = [entry.name for entry in entries if entry.is_dir() == folders and (folders or entry.is_file())]
    except OSError as error:
        _log.warning("%s was not looked into: %s", folder, error)
        return []
    return sorted(name for name in kept if _is_looked_at(name, folder=folders) and _is_text(name))


def _is_looked_at(name: str, *, folder: bool) -> bool:
    if name.startswith("."):
        return name == DCP_METADATA and not folder
    return name != OUR_NAME and not name.endswith(f".{OUR_NAME}")


def _is_text(name: str) -> bool:
    """File names are bytes on Linux; those that are no text cannot stand in a table, and no loop makes them."""
    try:
        name.encode()
    except UnicodeEncodeError:
        _log.warning("file name %r is not UTF-8; left out", name)
        return False
    return True


def _is_store(folder: Path) -> bool:
    return (folder / "_delta_log").is_dir() or (folder / "gaps" / "_delta_log").is_dir()


def _flat(content: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        elif isinstance(value, (str, int, float)):
            yield f"{prefix}{key}", str(value)
