"""Taking annotations back from a run's folder: our files in `spectral_edge/`, and that folder when empty.

`tags.json` goes first: without it the folder says that it carries no annotation, so an audit writes all files again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from integrations.file_errors import file_errors
from integrations.folder_annotations import METRICS, NOTE, TAGS, TEMPORARY, annotations_of, keep_names
from integrations.tracker import OUR_FILES, RetractReceipt

_OURS: Final = OUR_FILES | {TAGS, NOTE, METRICS}


def retract_folder(folder: Path, *, run: str, dry_run: bool) -> RetractReceipt:
    """Delete our files that belong to the run at `folder`, or only tell which there are.

    Raises:
        AccessDeniedError: The folder may not be read or written.
        NotFoundError: The run's folder is gone.
    """
    target = annotations_of(folder)
    with file_errors(run=run, file=str(folder)):
        folder.stat()
    with file_errors(run=run, file=str(target)):
        paths = sorted(target.iterdir()) if target.is_dir() else []
        ours = sorted((path for path in paths if _is_ours(path)), key=lambda path: path.name != TAGS)
        if not dry_run and target.is_dir():
            _delete(target, ours, empty=len(ours) == len(paths))
    foreign = tuple(path.name for path in paths if path not in ours)
    return RetractReceipt(files=tuple(path.name for path in ours), foreign_files=foreign)


def _is_ours(path: Path) -> bool:
    prefix, suffix = TEMPORARY
    named = path.name in _OURS or (path.name.startswith(prefix) and path.name.endswith(suffix))
    return named and (path.is_symlink() or path.is_file())


def _delete(target: Path, ours: list[Path], *, empty: bool) -> None:
    for paths in (ours[:1], ours[1:]):  # the first is the mark, and is to be gone before the others even on disk
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            keep_names(target)
    if empty and not target.is_symlink():
        target.rmdir()
