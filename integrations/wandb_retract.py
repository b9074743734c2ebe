"""Taking an annotation back from a W&B run, so that it can be cut off anywhere and repeated.

Order: all that is ours on the run's page, with the marks, in one request; then the audit runs with their artifacts, and
the artifacts that the run itself was given by `--into run`. From the first request on, an audit finds the annotation
incomplete and writes it again. Rows of the run's own history stay: W&B has no call that deletes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import wandb
from wandb.apis.public import File, Run

from integrations.annotation_section import NOTE_BEGIN, NOTE_END, note_without_section
from integrations.tracker import OUR_NAME, Leftover, RetractReceipt, TrackedRun
from integrations.wandb_audit_run import audit_runs, delete_audit_run, settled_audit_runs
from integrations.wandb_connection import WandbConnection
from integrations.wandb_into_run import our_rows, points_by_key
from integrations.wandb_page import NOTHING, RunPage, put_on_page, read_page
from integrations.wandb_results import ARTIFACT_TYPE, PREFIX, artifact_name
from spectral_edge.errors import NotFoundError, RunBusyError

ADVICE: Final = (
    "W&B has no call that deletes rows of a run's history. A later audit with --into run and the same settings writes "
    "none of them twice. To be rid of them, delete the run; to only hide them, remove the section spectral_edge from "
    "the workspace."
)
_MEDIA: Final = re.compile(rf"media/\w+/{OUR_NAME}/")


def retract_run(connection: WandbConnection, run: TrackedRun, *, dry_run: bool) -> RetractReceipt:
    """Take our annotations from `run` and delete its audit runs, or only tell what would be taken.

    Raises:
        AccessDeniedError: We may read but not write.
        NotFoundError: The run has been deleted.
        RunBusyError: An audit of the run is being written, or the run is running and what is on its page would come
            back.
    """
    found = _Found.of(connection, run)
    receipt = found.receipt()
    if dry_run or not receipt.took_back:
        return receipt
    settled = settled_audit_runs(connection, run)
    if not put_on_page(connection, run, NOTHING):
        raise RunBusyError(
            "the run is running, and its own process would write our part of its summary again.",
            run=run.key.run_name,
            left_behind="nothing was taken back",
            next_step="run the same command again when the run has ended.",
        )
    for made in settled:
        delete_audit_run(connection, run, made)
    for artifact in found.artifacts:
        with suppress(NotFoundError), connection.errors(run=run.key.run_name):
            artifact.delete(delete_aliases=True)
    for file in found.media:
        with suppress(NotFoundError), connection.errors(run=run.key.run_name):
            file.delete()
    return receipt


@dataclass(frozen=True)
class _Found:
    """What there is of ours on a run and beside it.

    Attributes:
        page: The run's page.
        audits: The audit runs.
        files: Names of the files in their artifacts and in `artifacts`.
        artifacts: Those that the run itself was given.
        media: Charts and tables among the files of the run itself, which rows of its history show.
        points: How many points each of our metrics has in the run's own history.
    """

    page: RunPage
    audits: tuple[Run, ...]
    files: tuple[str, ...]
    artifacts: tuple[wandb.Artifact, ...]
    media: tuple[File, ...]
    points: dict[str, int]

    @classmethod
    def of(cls, connection: WandbConnection, run: TrackedRun) -> _Found:
        page, audits = read_page(connection, run), tuple(audit_runs(connection, run))
        read = connection.run(run.key.project, run.key.run_id, run.key.run_name)
        with connection.errors(run=run.key.run_name):
            own = tuple(artifact for artifact in read.logged_artifacts() if _is_ours(artifact, run))
            theirs = [artifact for made in audits for artifact in made.logged_artifacts() if _is_ours(artifact, run)]
            files = {str(file.name) for artifact in (*own, *theirs) for file in artifact.files()}
            media = tuple(file for file in read.files() if _MEDIA.match(file.name)) if own else ()
        points = points_by_key(our_rows(connection, run))
        return cls(page, audits, tuple(sorted(files)), own, media, points)

    def receipt(self) -> RetractReceipt:
        keys = (f"{OUR_NAME}.{key.removeprefix(PREFIX)}" for key in self.page.ours)
        return RetractReceipt(
            tags=tuple(sorted({*keys, *self.page.our_tags})),
            files=self.files,
            note=self.page.has_section,
            kept_metrics=self.points,
            advice=ADVICE if self.points else "",
            leftovers=tuple(_half_a_section(self.page.notes)),
            child_runs=tuple(made.id for made in self.audits),
        )


def _is_ours(artifact: wandb.Artifact, run: TrackedRun) -> bool:
    """Whether this holds files of an audit of `run`."""
    return artifact.type == ARTIFACT_TYPE and artifact.name.partition(":")[0] == artifact_name(run.key.run_id)


def _half_a_section(notes: str) -> Iterator[Leftover]:
    cleaned = note_without_section(notes)
    if NOTE_BEGIN in cleaned or NOTE_END in cleaned:
        why = "one of the two marks around it is missing, so nothing tells where it ends; edit the notes by hand."
        yield Leftover("a part of our section in the run's notes", why)
