"""Everything the double knows, and how it is found and made."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator

from .objects import Artifact, Collection, Entity, Project, Run, now


class RefusedError(Exception):
    """An answer of the server that is an error: `status` is the HTTP status it is sent with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class State:
    """Everything the double knows."""

    def __init__(self, entity: str) -> None:
        self.entities: dict[str, Entity] = {}
        self.projects: dict[tuple[str, str], Project] = {}
        self.artifacts: dict[str, Artifact] = {}
        self._numbers = itertools.count(1)
        self.viewer = self.entity(entity, create=True)

    def new_id(self, kind: str) -> str:
        """An opaque id that names its kind, as W&B's are."""
        return base64.b64encode(f"{kind}:v1:{next(self._numbers)}".encode()).decode()

    def entity(self, name: str, *, create: bool = False) -> Entity:
        """The entity.

        Raises:
            RefusedError: there is none.
        """
        if name not in self.entities:
            if not create:
                raise RefusedError(404, f"entity {name} not found")
            self.entities[name] = Entity(self.new_id("Entity"), name)
        return self.entities[name]

    def project(self, entity: str, name: str) -> Project | None:
        """The project, or None."""
        return self.projects.get((entity, name))

    def make_project(self, entity: str, name: str) -> Project:
        """The project, new where there was none; its entity has to exist."""
        found = self.project(entity, name)
        if found is None:
            owner, number = self.entity(entity), str(next(self._numbers))
            found = Project(self.new_id("Project"), number, name, owner, now())
            self.projects[entity, name] = found
        return found

    def run(self, entity: str, project: str, name: str) -> Run:
        """The run.

        Raises:
            RefusedError: there is none.
        """
        home = self.project(entity, project)
        if home is None or name not in home.runs:
            raise RefusedError(404, f"run {entity}/{project}/{name} not found")
        return home.runs[name]

    def runs(self) -> Iterator[Run]:
        """All runs."""
        for project in self.projects.values():
            yield from project.runs.values()

    def run_of_storage_id(self, storage_id: str) -> Run | None:
        """The run with this storage id."""
        return next((run for run in self.runs() if run.id == storage_id), None)

    def make_run(self, entity: str, project: str, name: str) -> Run:
        """A new run.

        Raises:
            RefusedError: a run of this id was deleted (409), as W&B words it.
        """
        home = self.make_project(entity, project)
        if name in home.deleted_runs:
            raise RefusedError(
                409, f"run {entity}/{project}/{name} was previously created and deleted; try a new run name"
            )
        home.runs[name] = Run(self.new_id("Run"), name, home, now(), now(), display_name=name)
        return home.runs[name]

    def delete_run(self, run: Run, *, artifacts: bool = False) -> None:
        """Delete the run; its id stays taken."""
        del run.project.runs[run.name]
        run.project.deleted_runs.add(run.name)
        for artifact in run.outputs:
            artifact.run = None
            if artifacts:
                artifact.delete()

    def collection(self, project: Project, name: str, type_: str) -> Collection:
        """The collection, new where there was none."""
        if name not in project.collections:
            project.collections[name] = Collection(self.new_id("ArtifactCollection"), name, type_, project, now())
        found = project.collections[name]
        if found.type != type_:
            raise RefusedError(400, f"artifact collection {name} has type {found.type}, not {type_}")
        return found

    def collections(self) -> Iterator[Collection]:
        """All collections."""
        for project in self.projects.values():
            yield from project.collections.values()

    def artifact(self, id_: str) -> Artifact:
        """The artifact with this id.

        Raises:
            RefusedError: there is none, or it was deleted.
        """
        found = self.artifacts.get(id_)
        if found is None or found.state == "DELETED":
            raise RefusedError(404, "artifact not found")
        return found

    def find_artifact(self, project: Project, name: str) -> Artifact | None:
        """The version that `COLLECTION:ALIAS` names."""
        collection, _, alias = name.partition(":")
        found = project.collections.get(collection)
        return found.find(alias or "latest") if found else None

    def new_artifact(self, collection: Collection, run: Run | None, digest: str) -> Artifact:
        """A version that waits for its files."""
        artifact = Artifact(self.new_id("Artifact"), collection, now(), digest, run)
        self.artifacts[artifact.id] = artifact
        return artifact
