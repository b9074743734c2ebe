"""Writing an annotation to a W&B run so that it can be cut off anywhere and repeated.

Order: the audit run, then, once the server has told that it is complete, what points to it from the audited run, and
last the audit runs of earlier annotations are deleted. Nothing points to less than all of it at any time. To a run that
is running nothing is written: the SDK of its own process sends its whole summary again and again.
"""

from __future__ import annotations

from integrations.tracker import Annotation, AnnotationState, Into, TrackedRun, WriteReceipt
from integrations.wandb_audit_run import audit_runs, delete_audit_run, finished_mark, write_audit_run
from integrations.wandb_connection import WandbConnection
from integrations.wandb_into_run import write_into_run
from integrations.wandb_page import AUDIT_RUN, LIVE, RunPage, full_content, put_on_page, read_page, summary_content
from integrations.wandb_results import FINISHED, STARTED


def state_of_run(connection: WandbConnection, run: TrackedRun, into: Into) -> AnnotationState | None:
    """What an earlier audit wrote to the run (`into` run) or beside it (`into` child), read fresh; None when nothing.

    Raises:
        NotFoundError: The run has been deleted.
    """
    page = read_page(connection, run)
    where = page.mark(AUDIT_RUN)
    told = AnnotationState.of_marks(page.mark(STARTED), page.mark(FINISHED))
    if into == "run":
        return told if where in (None, run.key.run_id) else None
    if told is not None and where is None:
        return told  # written on level `summary`
    return _state_beside(connection, run, page)


def _state_beside(connection: WandbConnection, run: TrackedRun, page: RunPage) -> AnnotationState | None:
    made, pointed_to = audit_runs(connection, run), page.mark(AUDIT_RUN)
    if len(made) == 1:  # more than one: an earlier one is still to be deleted, or one was left half written
        mark = finished_mark(made[0])
        if mark is not None and (page.is_live or (made[0].id == pointed_to and page.finished == mark)):
            return AnnotationState.of_marks(mark, mark)
    begun = [mark for run_ in made if isinstance(mark := (run_.summary_metrics or {}).get(STARTED), str)]
    on_page = page.mark(STARTED) if pointed_to != run.key.run_id else None
    return AnnotationState.of_marks(begun[-1] if begun else on_page, None)


def write_annotation(
    connection: WandbConnection, run: TrackedRun, annotation: Annotation, *, into: Into, replace: bool
) -> WriteReceipt:
    """Write `annotation` beside the run, into the audit run of a child, or to the run itself; see `Tracker.annotate`.

    Raises:
        AccessDeniedError: We may read but not write.
        NotFoundError: The run has been deleted.
        RunBusyError: Another process writes an annotation of the run, or over it.
        UsageError: `into` is run, and the run is running.
        AnnotationConflictError: `into` is run, and it carries other values at the same steps.
        TrackerUnavailableError: The server did not answer, or does not have what was sent.
    """
    if into == "run" and annotation.level == "full":
        return write_into_run(connection, run, annotation, replace=replace)
    if annotation.level == "summary":
        is_there = put_on_page(connection, run, summary_content(annotation))
    elif not (annotation.metrics or annotation.files):  # an audit that failed: all that it says fits on the page
        is_there = put_on_page(connection, run, full_content(annotation, None))
    else:
        return _write_beside(connection, run, annotation)
    return WriteReceipt(0, 0, 0, () if is_there else (_live("nothing was"),))


def _write_beside(connection: WandbConnection, run: TrackedRun, annotation: Annotation) -> WriteReceipt:
    read_page(connection, run)  # a run that has been deleted gets no audit run
    audit = write_audit_run(connection, run, annotation)
    is_there = put_on_page(connection, run, full_content(annotation, (audit.id, audit.url)))
    _delete_superseded(connection, run, audit.id)
    warnings = () if is_there else (_live(f"only the audit run {audit.url} was"),)
    if not audit.is_new:
        return WriteReceipt(0, 0, 0, warnings)
    size = sum(map(len, annotation.files.values()))
    return WriteReceipt(len(annotation.metrics), len(annotation.files), size, warnings)


def _delete_superseded(connection: WandbConnection, run: TrackedRun, kept: str) -> None:
    for made in audit_runs(connection, run):
        if made.id != kept and made.state not in LIVE:
            delete_audit_run(connection, run, made)


def _live(written: str) -> str:
    return (
        f"the run is running, and its own process would write over its summary, tags and notes: {written} written; "
        "the first audit after its end writes the rest."
    )
