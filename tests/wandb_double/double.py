"""The double as tests use it: the server, and helpers to put state into it and to look at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

from .digests import ALGORITHMS, entries_of, manifest_digest, manifest_of
from .objects import Artifact, Project, Run
from .routes import put_run_file
from .server import Server

Row = Mapping[str, object]
LOGGED_BY_SDK: Row = {"t": {"1": []}}  # telemetry; the core takes a run without it for one that does not exist


class Double(Server):
    """A W&B server in memory, for the real SDK: `with Double() as double: ...`."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def put_project(self, entity: str, project: str) -> Project:
        """A project, and its entity."""
        with self.lock:
            self.state.entity(entity, create=True)
            return self.state.make_project(entity, project)

    def put_run(
        self,
        entity: str,
        project: str,
        name: str,
        *,
        state: str = "finished",
        config: Mapping[str, object] | None = None,
        summary: Mapping[str, object] | None = None,
        history: Iterable[Row] = (),
        **fields: object,
    ) -> Run:
        """A run.

        Args:
            entity: who owns the project.
            project: the project, made where there is none.
            name: the run's id.
            state: the run's state.
            config: plain values; the SDK keeps what is its own under the key `_wandb`.
            summary: the summary.
            history: rows; those without `_step` get their position.
            fields: further fields of `objects.Run`: tags, notes, group, job_type, display_name, created_at...
        """
        with self.lock:
            self.put_project(entity, project)
            run = self.state.make_run(entity, project, name)
            run.state = state
            held = {"_wandb": LOGGED_BY_SDK, **(config or {})}
            run.config = {key: {"value": value, "desc": None} for key, value in held.items()}
            run.summary = dict(summary or {})
            for field, value in fields.items():
                assert hasattr(run, field), f"a run has no field {field}"
                setattr(run, field, value)
            self.put_history(entity, project, name, history)
            return run

    def put_history(self, entity: str, project: str, name: str, rows: Iterable[Row]) -> None:
        """More rows of a run's history; those without `_step` get their position."""
        with self.lock:
            run = self.state.run(entity, project, name)
            for row in rows:
                run.history.append({"_step": len(run.history), **row})

    def put_file(self, entity: str, project: str, name: str, path: str, data: bytes) -> None:
        """A file of a run, as `run.save` leaves it."""
        with self.lock:
            put_run_file(self.context, self.state.run(entity, project, name), path, data)

    def put_artifact(
        self,
        entity: str,
        project: str,
        run: str,
        name: str,
        files: Mapping[str, bytes],
        *,
        refs: Mapping[str, tuple[str, str, int]] | None = None,
        type: str = "model",  # noqa: A002  (wandb's word)
        metadata: Mapping[str, object] | None = None,
        aliases: Sequence[str] = (),
        history_step: int | None = None,
        created_at: str | None = None,
        algorithm: Literal["MD5", "XXH128"] = "MD5",
    ) -> Artifact:
        """A committed version of an artifact that a run logged.

        Args:
            entity: who owns the project.
            project: the project.
            run: id of the run.
            name: name of the collection.
            files: bytes by path.
            refs: (address, digest, size in bytes) by path, for references.
            type: type of the collection.
            metadata: the metadata.
            aliases: aliases besides `latest`.
            history_step: the server's historyStep (one more than the SDK then tells).
            created_at: when it was made, now without it.
            algorithm: of the digests.
        """
        with self.lock:
            owner = self.state.run(entity, project, run)
            artifact = self.state.new_artifact(self.state.collection(owner.project, name, type), owner, "")
            entries = entries_of(files, refs or {}, algorithm, artifact.id)
            artifact.digest, artifact.digest_algorithm = manifest_digest(entries, algorithm), ALGORITHMS[algorithm]
            artifact.manifest, artifact.blobs = manifest_of(entries), dict(files)
            artifact.metadata, artifact.history_step = dict(metadata or {}), history_step
            artifact.aliases, artifact.created_at = list(aliases), created_at or artifact.created_at
            artifact.commit()
            owner.outputs.append(artifact)
            return artifact

    def delete_run(self, entity: str, project: str, name: str) -> None:
        """Delete a run, as a user would; its id stays taken."""
        with self.lock:
            self.state.delete_run(self.state.run(entity, project, name))

    def has_run(self, entity: str, project: str, name: str) -> bool:
        """Whether the run is there."""
        home = self.state.project(entity, project)
        return home is not None and name in home.runs

    def run(self, entity: str, project: str, name: str) -> dict[str, object]:
        """What the server holds of a run, as plain data that later requests do not change."""
        with self.lock:
            run = self.state.run(entity, project, name)
            fields = ("state", "display_name", "notes", "group", "job_type", "created_at", "heartbeat_at", "exit_code")
            return {
                **{field: getattr(run, field) for field in fields},
                "tags": list(run.tags),
                "config": {key: _plain(value) for key, value in run.config.items()},
                "summary": dict(run.summary),
                "history": [dict(row) for row in run.history],
                "files": {path: file.data for path, file in run.files.items()},
                "logged": [_described(artifact) for artifact in run.outputs],
                "used": [_described(artifact) for artifact in run.inputs],
            }


def _plain(value: object) -> object:
    return value["value"] if isinstance(value, Mapping) and "value" in value else value


def _described(artifact: Artifact) -> dict[str, object]:
    return {
        "name": artifact.collection.name,
        "type": artifact.collection.type,
        "version": f"v{artifact.version_index}" if artifact.version_index is not None else None,
        "state": artifact.state,
        "digest": artifact.digest,
        "aliases": list(artifact.aliases),
        "metadata": dict(artifact.metadata),
        "files": dict(artifact.blobs),
    }
