"""Annotations in a run's folder: plain files below `spectral_edge/`, each written whole or not at all.

Those of a file of recorded sketches lie beside it, in `NAME.sketch.spectral_edge/`: a folder may hold several of these.

`tags.json` is written last and holds the mark: where it is missing or names another audit, the rest may be of any age.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from integrations.file_errors import file_errors
from integrations.folder_runs import is_recording
from integrations.tracker import OUR_NAME, Annotation, AnnotationState, MetricPoint, WriteReceipt
from spectral_edge.errors import TrackerUnavailableError

TAGS: Final = "tags.json"
NOTE: Final = "note.md"
METRICS: Final = "metrics.csv"
TEMPORARY: Final = (".spectral_edge-", ".tmp")
"""How names of files begin and end that are being written."""
_MARK: Final = "annotated"


def annotations_of(place: Path) -> Path:
    """The folder for annotations of the run at `place`, a folder or a recording; it need not exist."""
    return place.with_name(f"{place.name}.{OUR_NAME}") if is_recording(place) else place / OUR_NAME


def state_of_folder(folder: Path) -> AnnotationState | None:
    """What the mark in the run's folder says of an earlier annotation; None when there is none, or no readable one."""
    mark = _mark(annotations_of(folder))
    return AnnotationState.of_marks(mark, mark)


def write_to_folder(folder: Path, annotation: Annotation, *, run: str) -> WriteReceipt:
    """Write `annotation` to the run at `folder` (see annotations_of), replacing an earlier one.

    Raises:
        AccessDeniedError: The folder may not be written.
        DiskFullError: No room; files that were written before stay whole.
        TrackerUnavailableError: Another audit of the same run is writing at this moment.
    """
    target = annotations_of(folder)
    files = _files(annotation)
    if _mark(target) == annotation.mark and all((target / name).is_file() for name in files):
        return WriteReceipt(0, 0, 0)
    with file_errors(run=run, file=str(target)):
        target.mkdir(exist_ok=True)
        (target / TAGS).unlink(missing_ok=True)  # from here on the folder says that its annotation is unfinished
        _sweep(target)
        for name, content in files.items():
            _write_whole(target / name, content, run)
        keep_names(target)
    return WriteReceipt(len(annotation.metrics), len(files), sum(map(len, files.values())))


def _files(annotation: Annotation) -> Mapping[str, bytes]:
    """All files of the annotation in the order of writing, the one with the mark last."""
    tags = {_MARK: annotation.mark, "tags": dict(annotation.tags)}
    files = dict(annotation.files)
    if annotation.metrics:
        files[METRICS] = _as_csv(annotation.metrics)
    files[NOTE] = (annotation.note + "\n").encode()
    files[TAGS] = (json.dumps(tags, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    return files


def _as_csv(metrics: Sequence[MetricPoint]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("step", "key", "value"))
    writer.writerows((point.step, point.key, repr(point.value)) for point in metrics)
    return text.getvalue().encode()


def _mark(target: Path) -> str | None:
    try:
        content = json.loads((target / TAGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return None  # unreadable counts as missing: it is written again, and a folder that refuses says so then
    mark = content.get(_MARK) if isinstance(content, dict) else None
    return mark if isinstance(mark, str) else None


def _write_whole(path: Path, content: bytes, run: str) -> None:
    prefix, suffix = TEMPORARY
    handle, temporary = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _with_usual_mode(temporary)
        Path(temporary).replace(path)
    except FileNotFoundError as error:
        raise TrackerUnavailableError(
            "another audit of this run is writing its annotations at this moment.", run=run, file=str(path)
        ) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _with_usual_mode(path: str) -> None:
    """A temporary file is readable by its owner alone; annotations are for everyone who may read the run."""
    mask = os.umask(0)
    os.umask(mask)
    Path(path).chmod(0o666 & ~mask)


def _sweep(target: Path) -> None:
    """Remove what a killed writer left."""
    prefix, suffix = TEMPORARY
    for path in target.glob(f"{prefix}*{suffix}"):
        path.unlink(missing_ok=True)


def keep_names(target: Path) -> None:
    """Make what was renamed or deleted in folder `target` outlive a power cut."""
    handle = os.open(target, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
