"""Files of recorded sketches as runs: each record is a checkpoint, and tells the training's own metrics.

A listing reads the frame of each record and passes over the sketches: what it costs does not grow with their size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from integrations.file_errors import file_errors
from integrations.listing import Series, choose
from integrations.tracker import CheckpointFile, CheckpointListing, CheckpointRef
from spectral_edge.errors import FetchInterruptedError
from spectral_edge.recorded import SERIES, Recorded, read_run
from spectral_edge.series import MetricSeries


def recording(path: Path) -> Recorded:
    """What lies in the file at `path`; its sketches are checked when they are read.

    Raises:
        CheckpointFormatError: It is no file of recorded sketches, or damaged.
        NotFoundError: It is gone.
        AccessDeniedError: It may not be read.
    """
    with file_errors(file=str(path)):
        status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)  # asked for once a metric; the file's time and size are part of the key
def _read(path: Path, _mtime_ns: int, _size: int) -> Recorded:
    return read_run(path, check=False)


def recorded_listing(path: Path, wanted: str | None, run: str) -> CheckpointListing:
    """The records in the file at `path` as checkpoints of `run`, by increasing step.

    Raises:
        CheckpointFormatError: It is no file of recorded sketches, or damaged.
        NotFoundError: It is gone, or no series has a name like `wanted`.
    """
    found = recording(path)
    refs = tuple(
        CheckpointRef(
            name=f"{path.name}, step {record.step}",
            step=record.step,
            step_source="record",
            files=(CheckpointFile(path.name, record.size, found.digest(record)),),
            location=str(path.parent),
        )
        for record in found.records
    )
    kinds = [[Series(SERIES, refs)]] if refs else []
    listing = choose(kinds, wanted, run, found.left_out)
    return replace(listing, is_recorded=True, sketch_size=found.sketch_size)


def recorded_series(path: Path) -> Mapping[str, MetricSeries]:
    """The metrics in the file at `path` by name, the learning rate that was told beside them among them."""
    found = recording(path)
    rate = found.learning_rate
    return found.metrics | ({rate.name: rate} if len(rate.steps) else {})


def records_as_listed(path: Path, refs: Sequence[CheckpointRef], run: str) -> Recorded:
    """The file at `path` as far as `refs` tell of it: records that came since are left out.

    Raises:
        FetchInterruptedError: It no longer holds a record that was listed.
    """
    found = recording(path)
    listed = {(ref.step, file.digest) for ref in refs for file in ref.files}
    kept = tuple(record for record in found.records if (record.step, found.digest(record)) in listed)
    if len(kept) < len(refs):
        raise FetchInterruptedError(
            f"holds {len(kept)} of the {len(refs)} records that were listed: it has been written over meanwhile.",
            run=run,
            file=str(path),
        )
    return replace(found, records=kept)
