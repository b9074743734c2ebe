"""An offline run that holds an annotation, written by the W&B SDK into one folder: nothing of it lies elsewhere."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path
from typing import Final

import wandb
from wandb.sdk.mailbox.mailbox_handle import ServerResponseError

from integrations.tracker import OUR_NAME, Annotation
from integrations.wandb_audit_run import ended
from integrations.wandb_errors import FOREIGN
from integrations.wandb_log import UnreadableLogError
from integrations.wandb_results import (
    FINISHED,
    PREFIX,
    STARTED,
    STEP,
    media_of,
    quiet_settings,
    refuse_others_context,
    rows_of,
    silence,
    summary_of,
    table_of,
)
from integrations.wandb_run_log import RunLog, read_run
from integrations.wandb_runs import AUDIT_JOB, AUDIT_OF
from spectral_edge.errors import RunBusyError, TrackerUnavailableError

MADE: Final = "spectral-"
"""How the ids of runs that hold annotations begin."""
PATIENCE: Final = 60.0
"""Seconds that the SDK's process is given to write what it was sent."""
_PAUSE: Final = 0.01
_MOST_ATTEMPTS: Final = 100


def written_run(scratch: Path, log: RunLog, annotation: Annotation, run: str) -> Path:
    """The folder of an offline run below `scratch` that holds all of `annotation`.

    Args:
        scratch: An empty folder, which the caller removes.
        log: What the logs of the audited run say.
        annotation: What to log.
        run: The audited run's name.

    Raises:
        TrackerUnavailableError: The SDK, or its process, could not write it.
        RunBusyError: Its process takes all ids for busy.
    """
    silence()
    refuse_others_context()
    try:
        opened = _opened(scratch, log, annotation, run)
        folder = Path(opened.dir).parent
        with ended(opened):
            _log(opened, annotation, scratch / "media")
    except FOREIGN as error:
        if isinstance(error, ValueError | OSError):
            raise
        raise TrackerUnavailableError(f"wandb could not write the annotation: {error}.", run=run) from error
    _verify(folder / f"run-{opened.id}.wandb", annotation, run)
    for name in ("logs", "tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


def _opened(scratch: Path, log: RunLog, annotation: Annotation, run: str) -> wandb.Run:
    """A new offline run below `scratch`."""
    name = hashlib.sha256(f"{log.run_id} {annotation.mark}".encode()).hexdigest()[:16]
    ours = {AUDIT_OF: log.run_id, "fingerprint": annotation.fingerprint, "settings_hash": annotation.settings_hash}
    for attempt in range(1, _MOST_ATTEMPTS):
        settings = quiet_settings(
            scratch,
            mode="offline",
            entity=log.entity or None,
            project=log.project or None,
            run_id=f"{MADE}{name}" if attempt == 1 else f"{MADE}{name}-{attempt}",
            run_name=f"spectral-edge {run}"[:128],
            run_group=log.run_id,
            run_job_type=AUDIT_JOB,
            run_tags=("spectral-edge",),
            run_notes=annotation.note,
        )
        try:
            return wandb.init(config={OUR_NAME: ours}, settings=settings)
        except ServerResponseError as error:
            # A process that shared the SDK's service with this one was killed while it wrote a run of this id.
            if "in use" not in str(error):
                raise TrackerUnavailableError(f"wandb could not write the annotation: {error}.", run=run) from error
    raise RunBusyError("its annotations are being written all the time.", run=run)


def _verify(log: Path, annotation: Annotation, run: str) -> None:
    """Wait until the log holds all of it: `finish` returns before, and the SDK tells of no write that failed."""
    deadline = time.monotonic() + PATIENCE
    while not _is_whole(log, annotation):
        if time.monotonic() > deadline:
            raise TrackerUnavailableError(
                "wandb has not written all of the annotation.",
                run=run,
                file=str(log),
                left_behind="nothing",
                next_step="look for room on the disk, and run the same command again.",
            )
        time.sleep(_PAUSE)


def _is_whole(log: Path, annotation: Annotation) -> bool:
    try:
        written = read_run([log])
    except (FileNotFoundError, UnreadableLogError):
        return False
    marks = (written.summary.get(STARTED), written.summary.get(FINISHED))
    steps, _ = written.history.columns.get(STEP, ((), ()))
    is_all = marks == (annotation.mark, annotation.mark) and len(steps) == len(rows_of(annotation))
    return is_all and written.exit_code == 0 and not written.damage


def _log(opened: wandb.Run, annotation: Annotation, media: Path) -> None:
    """Log `annotation` to an open offline run: all that it holds lies in the run's own folder."""
    opened.summary[STARTED] = annotation.mark
    opened.define_metric(STEP, hidden=True)
    opened.define_metric(f"{PREFIX}*", step_metric=STEP, step_sync=False)
    for step, row in rows_of(annotation).items():
        opened.log({STEP: step, **row})
    home = Path(opened.dir, OUR_NAME)
    media.mkdir()
    for name, content in annotation.files.items():
        home.mkdir(exist_ok=True)
        (home / name).write_bytes(content)
        (media / name).write_bytes(content)
        opened.save(str(home / name), base_path=opened.dir, policy="end")
    shown = {**media_of(annotation, media), **table_of(opened, annotation)}
    if shown:
        opened.log(shown)
    opened.summary.update(summary_of(annotation))
    opened.summary[FINISHED] = annotation.mark
