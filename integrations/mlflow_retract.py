"""Taking an annotation back from an MLflow run, so that it can be cut off anywhere and repeated.

Order: the mark that the annotation is finished, files, the section in the note, tags, and last the mark that it was
begun. From the first write on, an audit finds the annotation incomplete and writes it again. Metric points stay: MLflow
has no call that deletes them. They are recognised by key and step when an audit comes again (mlflow_annotations.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mlflow.entities import Run
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from integrations.annotation_section import NOTE_BEGIN, NOTE_END, note_without_section
from integrations.http_errors import without_secrets
from integrations.mlflow_annotations import METRIC_PREFIX
from integrations.mlflow_connection import MlflowConnection
from integrations.mlflow_lease import Lease, leased
from integrations.mlflow_tags import FINISHED, STARTED, delete_tags, leases, our_tags, require_active
from integrations.tracker import OUR_FILES, OUR_NAME, Leftover, RetractReceipt
from spectral_edge.errors import TerminalError, TransientError

ADVICE: Final = (
    "MLflow has no call that deletes metric points. A later audit with the same settings writes none of them twice. To "
    "be rid of them, delete the run; to only hide them, hide the sections spectral_edge/ among the run's charts."
)
_CANNOT: Final = "this kind of artifact store cannot delete; delete it there by other means."
_SILENT: Final = "the artifact store still has it, though it reported no error; delete it there."
_UNFINISHED_UPLOAD: Final = ".artifact.uploading."
"""How the names of files begin that MLflow leaves in a local folder when an upload is killed."""


def retract_run(connection: MlflowConnection, run: Run, *, dry_run: bool) -> RetractReceipt:
    """Take our annotations from `run`, which was read just now, or only tell what would be taken.

    Raises:
        NotFoundError: The run has been deleted; MLflow takes no change of its tags.
        RunBusyError: Another process writes to the run.
    """
    require_active(run)
    found = _Found.of(connection, run)
    if dry_run or not (found.is_anything or leases(run)):
        return found.receipt(connection)
    with leased(connection.client, run) as lease:
        return _Found.of(connection, lease.run).take_back(connection, lease)


@dataclass(frozen=True)
class _Found:
    """What there is of ours on a run."""

    run: Run
    tags: tuple[str, ...]
    note: str
    files: _Files

    @classmethod
    def of(cls, connection: MlflowConnection, run: Run) -> _Found:
        tags = our_tags(run)
        note = run.data.tags.get(MLFLOW_RUN_NOTE, "")
        return cls(run, tags, note, _Files.of(connection, run, expected=bool(tags)))

    @property
    def is_anything(self) -> bool:
        return bool(self.tags or self.files.ours or note_without_section(self.note) != self.note)

    def take_back(self, connection: MlflowConnection, lease: Lease) -> RetractReceipt:
        client, run_id = connection.client, self.run.info.run_id
        delete_tags(client, run_id, [key for key in self.tags if key == FINISHED])
        lease.check()
        files = self.files.delete()
        lease.check()
        if note_without_section(self.note) != self.note:
            _clean_note(connection, self.run)
        delete_tags(client, run_id, [key for key in self.tags if key not in {FINISHED, STARTED}])
        delete_tags(client, run_id, [key for key in self.tags if key == STARTED])
        return replace(self, files=files).receipt(connection)

    def receipt(self, connection: MlflowConnection) -> RetractReceipt:
        metrics, cleaned = _points(connection, self.run), note_without_section(self.note)
        return RetractReceipt(
            tags=self.tags,
            files=self.files.ours,
            note=cleaned != self.note,
            kept_metrics=metrics,
            advice=ADVICE if metrics else "",
            leftovers=(*self.files.leftovers, *_half_a_section(cleaned)),
            foreign_files=self.files.foreign,
        )


def _points(connection: MlflowConnection, run: Run) -> Mapping[str, int]:
    """How many points each of our metrics has, doubles included."""
    keys = sorted(key for key in run.data.metrics if key.startswith(METRIC_PREFIX))
    return {key: len(connection.client.get_metric_history(run.info.run_id, key)) for key in keys}


def _clean_note(connection: MlflowConnection, run: Run) -> None:
    """Read the note again, as its owner may have written meanwhile, and take our section out."""
    note = connection.client.get_run(run.info.run_id).data.tags.get(MLFLOW_RUN_NOTE, "")
    cleaned = note_without_section(note)
    if not cleaned:
        delete_tags(connection.client, run.info.run_id, [MLFLOW_RUN_NOTE])
    elif cleaned != note:
        connection.client.set_tag(run.info.run_id, MLFLOW_RUN_NOTE, cleaned)


def _half_a_section(note: str) -> Iterator[Leftover]:
    if NOTE_BEGIN in note or NOTE_END in note:
        why = "one of the two marks around it is missing, so nothing tells where it ends; edit the note by hand."
        yield Leftover("a part of our section in the run's note", why)


@dataclass(frozen=True)
class _Files:
    """What lies in `spectral_edge/` among the artifacts of a run."""

    connection: MlflowConnection
    run: Run
    expected: bool
    ours: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    leftovers: tuple[Leftover, ...] = ()

    @classmethod
    def of(cls, connection: MlflowConnection, run: Run, *, expected: bool) -> _Files:
        """Look, changing nothing. Whether files are `expected` matters where there are none, or none can be seen."""
        files = cls(connection, run, expected)
        folder = connection.artifacts(str(run.info.artifact_uri)).folder
        if folder is not None and connection.is_server and not folder.exists():
            why = "this machine does not have that folder; run the same command where it is."
            return replace(files, leftovers=files._leftovers({"": why} if expected else {}))
        try:
            with connection.errors():
                names = files._names()
        except TerminalError as error:
            return replace(files, leftovers=files._leftovers({"": str(error)}))
        return cls(connection, run, expected, *_sorted_out(names))

    def delete(self) -> _Files:
        """Delete what is ours; tells what is gone, and what is not and why.

        Raises:
            TransientError: The artifact store did not answer.
        """
        if self.leftovers or not (self.ours or self.expected):
            return self
        refused = {name: self._refusal(f"{OUR_NAME}/{name}") for name in self.ours}
        there = self._names()  # not every store says so when it deletes nothing
        left = {name: refused[name] or _SILENT for name in self.ours if name in there}
        if not there and self._has_empty_folder():
            refusal = self._refusal(OUR_NAME)
            left |= {"": refusal} if refusal else {}
        gone = tuple(name for name in self.ours if name not in there)
        return replace(self, ours=gone, leftovers=self._leftovers(left))

    def _refusal(self, path: str) -> str | None:
        """Delete what is at `path`; what the store says when it refuses."""
        try:
            with self.connection.errors():
                self._repository.delete_artifacts(path)
        except NotImplementedError:
            return _CANNOT
        except TerminalError as error:
            return str(error)
        except TransientError as error:
            if "not implemented" in str(error).lower():  # as the stores for FTP and DBFS say it
                return _CANNOT
            raise
        return None

    def _has_empty_folder(self) -> bool:
        """Whether the store has folders, and ours is left. Some stores delete whatever begins with a path: none may."""
        similar = [entry for entry in self._repository.list_artifacts() if entry.path.startswith(OUR_NAME)]
        return [(entry.path, entry.is_dir) for entry in similar] == [(OUR_NAME, True)]

    def _names(self) -> list[str]:
        return [entry.path.rpartition("/")[2] for entry in self._repository.list_artifacts(OUR_NAME)]

    def _leftovers(self, reasons: Mapping[str, str]) -> tuple[Leftover, ...]:
        place = without_secrets(str(self.run.info.artifact_uri))
        return tuple(Leftover(f"{OUR_NAME}/{name} in {place}", why) for name, why in reasons.items())

    @property
    def _repository(self) -> ArtifactRepository:
        return self.connection.artifacts(str(self.run.info.artifact_uri)).repository


def _sorted_out(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    ours = [name for name in names if name in OUR_FILES or name.startswith(_UNFINISHED_UPLOAD)]
    return tuple(sorted(ours)), tuple(sorted(set(names) - set(ours)))
