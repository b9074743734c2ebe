"""Writing an annotation to an MLflow run so that it can be cut off anywhere and repeated.

Order: a mark that names what is begun, metrics, files, the note, tags, and last the mark that it is finished. MLflow
keeps every metric point for ever and a second point at a step is drawn beside the first, so a point is written only
where the run has none; its timestamp is computed (start of the run + step), never the clock's. All of it is written
under a lease (mlflow_lease.py): one process at a time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE
from mlflow.utils.validation import MAX_TAG_VAL_LENGTH

from integrations.annotation_section import note_with_section
from integrations.mlflow_lease import Lease, leased
from integrations.mlflow_tags import FINISHED, STARTED, delete_tags, leases, our_tags, require_active
from integrations.scratch import scratch_folder
from integrations.tracker import OUR_NAME, Annotation, AnnotationState, WriteReceipt
from spectral_edge.errors import AnnotationConflictError

METRIC_PREFIX: Final = f"{OUR_NAME}/"
MAX_KEY: Final = 250
_BATCH: Final = 1000  # what MLflow takes in one request
SAME: Final = 0.01
"""Values closer than this, relatively, are the same number computed on another machine or device."""


def state_of(run: Run) -> AnnotationState | None:
    """What the tags of `run` say of an earlier annotation: not complete while somebody writes, or was killed then."""
    state = AnnotationState.of_marks(run.data.tags.get(STARTED), run.data.tags.get(FINISHED))
    return replace_fields(state, complete=False) if state is not None and leases(run) else state


def write_annotation(
    client: MlflowClient,
    run: Run,
    annotation: Annotation,
    *,
    replace: bool,
    begin: int | None = None,
    token: str | None = None,
) -> WriteReceipt:
    """Write `annotation` to `run`, which was read just now.

    Args:
        client: Of the store that the run is in.
        run: The run to write to.
        annotation: What to write.
        replace: See `Tracker.annotate`.
        begin: When step 0 was, in milliseconds; None is the start of `run`.
        token: Of a lease that `run` was created with.

    Raises:
        NotFoundError: The run has been deleted.
        AnnotationConflictError: See `Tracker.annotate`.
        RunBusyError: Another process writes to the run.
    """
    require_active(run)
    if _is_written(run, annotation) and not leases(run):
        return WriteReceipt(0, 0, 0)
    with leased(client, run, token) as lease:
        if _is_written(lease.run, annotation):
            return WriteReceipt(0, 0, 0)
        return _write(client, lease, annotation, replace=replace, begin=begin or lease.run.info.start_time or 0)


def _is_written(run: Run, annotation: Annotation) -> bool:
    return run.data.tags.get(FINISHED) == run.data.tags.get(STARTED) == annotation.mark


def _write(client: MlflowClient, lease: Lease, annotation: Annotation, *, replace: bool, begin: int) -> WriteReceipt:
    run = lease.run
    points = _points_to_write(client, run, annotation, replace=replace, begin=begin)
    lease.check()
    _tag(client, run, {STARTED: annotation.mark})
    for first in range(0, len(points.metrics), _BATCH):
        lease.check()
        client.log_batch(run.info.run_id, metrics=points.metrics[first : first + _BATCH], synchronous=True)
    written = _write_files(client, lease, annotation.files)
    lease.check()
    warnings = points.warnings + _write_note(client, run, annotation.note)
    lease.check()
    _tag(client, run, annotation.tags)
    delete_tags(client, run.info.run_id, _stale_tags(run, annotation))
    lease.check()
    _tag(client, run, {FINISHED: annotation.mark})
    return WriteReceipt(len(points.metrics), len(annotation.files), written, warnings)


@dataclass(frozen=True)
class _Points:
    """Points to write, and what to say of those that were not."""

    metrics: Sequence[Metric]
    warnings: tuple[str, ...] = ()


def _points_to_write(client: MlflowClient, run: Run, annotation: Annotation, *, replace: bool, begin: int) -> _Points:
    """The points that the run lacks; with `replace` also those it has with another value."""
    new: list[Metric] = []
    other: list[Metric] = []
    keys = {key: _latest(client, run, key) for key in {safe_key(point.key) for point in annotation.metrics}}
    for point in annotation.metrics:
        key = safe_key(point.key)
        old = keys[key].get(point.step)
        if old is None:
            new.append(Metric(key, point.value, begin + point.step, point.step))
        elif abs(old.value - point.value) > SAME * max(abs(old.value), abs(point.value)):
            other.append(Metric(key, point.value, old.timestamp + 1, point.step))
    if replace:
        return _Points(new + other)
    _refuse_to_mix(run, annotation, shared=len(annotation.metrics) - len(new), differing=len(other))
    return _Points(new, _kept(len(other)))


def _latest(client: MlflowClient, run: Run, key: str) -> Mapping[int, Metric]:
    """The valid point of metric `key` at each step: the one with the latest timestamp."""
    if key not in run.data.metrics:
        return {}
    history = client.get_metric_history(run.info.run_id, key)
    return {point.step: point for point in sorted(history, key=lambda point: point.timestamp)}


def _refuse_to_mix(run: Run, annotation: Annotation, *, shared: int, differing: int) -> None:
    """Stop before points of two analyses stand side by side under one name.

    Settings that change no point (the evaluation metric) are no reason. Under the same settings a few points may
    differ, those that depend on the whole run; most of them do when the checkpoints were replaced.
    """
    earlier = state_of(run)
    if differing and earlier is not None and earlier.settings_hash != annotation.settings_hash:
        why = f"an audit with other settings (settings_hash {earlier.settings_hash}, now {annotation.settings_hash})"
    elif 2 * differing > shared:
        of = "an audit that was taken back" if earlier is None else "other checkpoints"
        why = f"{of}: {differing} of {shared} points have another value now"
    else:
        return
    raise AnnotationConflictError(
        f"the run already carries metrics of {why}. MLflow cannot delete or replace a metric point.",
        run=run.info.run_name,
        left_behind="nothing was written",
        next_step="keep the settings of that audit, or pass --force to add the new points beside the old ones.",
    )


def _kept(differing: int) -> tuple[str, ...]:
    if not differing:
        return ()
    kept = f"{differing} metric points already on the run have another value now and were left as they are"
    return (f"{kept}, because MLflow cannot replace a point; the gap table has the new values.",)


def safe_key(key: str) -> str:
    """`key` as MLflow accepts it: letters, digits, `_ - . space` and `/`, a plain relative path, at most 250 long.

    A key that had to be changed ends in a hash of the original, so that two of them never meet.
    """
    parts = [re.sub(r"[^\w.\- ]", "_", part) for part in key.split("/")]
    safe = "/".join(part.replace(".", "_") if set(part) <= {"."} else part for part in parts if part)
    if safe == key and len(safe) <= MAX_KEY:
        return key
    return f"{safe[: MAX_KEY - 9]}-{hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()[:8]}"


def _write_files(client: MlflowClient, lease: Lease, files: Mapping[str, bytes]) -> int:
    with scratch_folder("files") as folder:
        for name, content in files.items():
            path = folder / name
            path.write_bytes(content)
            lease.check()
            client.log_artifact(lease.run.info.run_id, str(path), OUR_NAME)
    return sum(map(len, files.values()))


def _write_note(client: MlflowClient, run: Run, section: str) -> tuple[str, ...]:
    """Put `section` into the run's note; returns a warning when there is no room for it."""
    # Read again, as its owner may have written meanwhile.
    note = client.get_run(run.info.run_id).data.tags.get(MLFLOW_RUN_NOTE, "")
    merged = note_with_section(note, section)
    if len(merged) > MAX_TAG_VAL_LENGTH:
        limit = f"{len(merged)} characters long with our section, and MLflow cuts it after {MAX_TAG_VAL_LENGTH}"
        return (f"the run's note was left alone: it would be {limit}.",)
    if merged != note:
        client.set_tag(run.info.run_id, MLFLOW_RUN_NOTE, merged)
    return ()


def _tag(client: MlflowClient, run: Run, tags: Mapping[str, str]) -> None:
    changed = [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
    client.log_batch(run.info.run_id, tags=changed, synchronous=True)


def _stale_tags(run: Run, annotation: Annotation) -> Iterable[str]:
    """Tags of an earlier annotation that this one does not have, such as the error of a failed audit."""
    kept = {*annotation.tags, STARTED, FINISHED}
    return [key for key in our_tags(run) if key not in kept]
