"""Which folders of a W&B directory are runs: `offline-run-TIME-ID`, and `run-TIME-ID` of runs that were online.

A run that was resumed without a network has several; they belong together by the id in their logs. Folders that hold
annotations of ours are told apart by what their logs begin with. The link `latest-run` leads to a folder that is there.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from integrations.file_errors import file_errors
from integrations.tracker import OUR_NAME
from integrations.wandb_log import UnreadableLogError
from integrations.wandb_run_log import first_words
from integrations.wandb_runs import AUDIT_JOB, AUDIT_OF
from spectral_edge.errors import NotFoundError

_DIRECTORIES: Final = ("wandb", ".wandb")
"""Where the SDK puts run folders, below the directory that WANDB_DIR names."""
_NAME: Final = re.compile(r"(offline-)?run-\d{8}_\d{6}-.+")
_BEGINNING: Final = datetime.min.replace(tzinfo=UTC)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """One folder with a transaction log: `audit_of` is the id of the run whose annotation it holds, if it holds one."""

    path: Path
    log: Path
    run_id: str
    project: str
    started_at: datetime | None
    audit_of: str | None

    @property
    def is_synced(self) -> bool:
        """Whether `wandb sync` has uploaded it, or has begun to."""
        return any(self.log.with_suffix(f".wandb.{mark}").exists() for mark in ("synced", "syncstate"))


def runs_in(root: Path) -> list[tuple[RunFolder, ...]]:
    """The folders of each run that `root` means, by the time the runs began; those of one run likewise.

    Args:
        root: A W&B directory, the directory that holds it, or the folder of one run.

    Raises:
        NotFoundError: No such folder, or no run in it.
        AccessDeniedError: The folder may not be read.
    """
    with file_errors(file=str(root)):
        root = root.resolve(strict=True)
        os.scandir(root).close()
    if _log_in(root) is not None:
        one = _read(root)
        runs = [] if one is None or one.audit_of else [folders_of(root)]
    else:
        places = [root, *(root / name for name in _DIRECTORIES if (root / name).is_dir())]
        by_run: dict[tuple[str, str], list[RunFolder]] = defaultdict(list)
        for folder in (folder for place in places for folder in _folders_below(place)):
            if folder.audit_of is None:
                by_run[folder.project, folder.run_id].append(folder)
        runs = [_in_time(folders) for folders in by_run.values()]
    if not runs:
        raise NotFoundError(
            "no run of W&B lies in this folder.",
            file=str(root),
            next_step="name a folder that holds offline-run-* or run-* folders with .wandb logs, or one of these.",
        )
    return sorted(runs, key=lambda folders: (folders[0].started_at or _BEGINNING, folders[0].run_id))


def folders_of(folder: Path, run: str | None = None) -> tuple[RunFolder, ...]:
    """All folders of the run that `folder` belongs to, in order of time; `run` is what messages call it.

    Raises:
        NotFoundError: The folder is gone, or its log.
    """
    own = _read(folder)
    if own is None:
        raise NotFoundError("the run's folder is gone, or its log cannot be read.", run=run, file=str(folder))
    others = (found for found in _beside(own, own.run_id) if found.audit_of is None)
    return _in_time([own, *(found for found in others if found.project == own.project and found.run_id == own.run_id)])


def annotations_beside(folders: Sequence[RunFolder], made_id: str) -> tuple[RunFolder, ...]:
    """The folders beside those of a run that hold annotations of it; their run ids begin with `made_id`."""
    first = folders[0]
    found = (found for found in _beside(first, made_id) if found.audit_of == first.run_id)
    return _in_time([each for each in found if each.project == first.project])


def _beside(folder: RunFolder, part: str) -> Iterator[RunFolder]:
    """Folders beside `folder` whose names, as the SDK makes them, hold `part`."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder.path.parent) if not entry.is_symlink())
    except OSError:
        return
    for name in names:
        if part in name and name != folder.path.name and not name.startswith("."):
            found = _read(folder.path.parent / name)
            if found is not None:
                yield found


def _folders_below(place: Path) -> Iterator[RunFolder]:
    """Each folder in `place` that holds a log, once; links are followed where they lead to another place."""
    with file_errors(file=str(place)):
        entries = sorted(os.scandir(place), key=lambda entry: (entry.is_symlink(), entry.name))
    seen: set[Path] = set()
    for entry in entries:
        path = Path(entry.path).resolve()
        if entry.name.startswith(".") or path in seen or not path.is_dir():
            continue
        seen.add(path)
        if _log_in(path) is None:
            if _NAME.fullmatch(path.name):
                _log.warning("%s was left out: it holds no .wandb log.", path)
            continue
        found = _read(path)
        if found is not None:
            yield found


def _log_in(folder: Path) -> Path | None:
    try:
        return min((path for path in folder.glob("run-*.wandb") if path.is_file()), default=None)
    except OSError:
        return None


def _read(path: Path) -> RunFolder | None:
    """The folder at `path`; None, and said, when it cannot be read as one."""
    log = _log_in(path)
    if log is None:
        return None
    try:
        first = first_words(log)
    except (OSError, UnreadableLogError) as error:
        _log.warning("%s was left out: %s", log, error)
        return None
    if not first.run_id:
        _log.warning("%s was left out: its log does not say whose it is.", path)
        return None
    ours = first.config.get(OUR_NAME) if first.job_type == AUDIT_JOB else None
    audit_of = ours.get(AUDIT_OF) if isinstance(ours, dict) else None
    return RunFolder(path, log, first.run_id, first.project, first.started_at, audit_of and str(audit_of))


def _in_time(folders: Iterable[RunFolder]) -> tuple[RunFolder, ...]:
    return tuple(sorted(folders, key=lambda folder: (folder.started_at or _BEGINNING, folder.path.name)))
