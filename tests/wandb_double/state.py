"""What the double holds: projects, runs, files and artifacts, as plain objects that tests may look into.

Field names follow the GraphQL schema (`schema.graphql`) in snake_case, so that most fields need no resolver.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime


class Refusal(Exception):
    """An answer of the server that is an error: `status` is the HTTP status it is sent with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def now() -> str:
    """This moment, as the server writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def b64_md5(data: bytes) -> str:
    """MD5 in base64, as manifests hold it."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


@dataclass(eq=False)
class Entity:
    """A user or team."""

    id: str
    name: str
    organization: None = None
    xxhash_digests_enabled: bool = False


@dataclass(eq=False)
class Project:
    """A project and the runs in it; ids of deleted runs stay taken."""

    id: str
    internal_id: str
    name: str
    entity: Entity
    created_at: str
    runs: dict[str, Run] = field(default_factory=dict)
    deleted_runs: set[str] = field(default_factory=set)
    collections: dict[str, Collection] = field(default_factory=dict)
    description: str | None = None
    access: str = "PRIVATE"
    views: str | None = None
    is_benchmark: bool = False
    read_only: bool = False

    @property
    def entity_name(self) -> str:
        """Name of the entity."""
        return self.entity.name


@dataclass(eq=False)
class File:
    """A file of a run."""

    id: str
    name: str
    data: bytes
    updated_at: str


@dataclass(eq=False)
class Run:
    """A run; `id` is the storage id, `name` the id that users know."""

    id: str
    name: str
    project: Project
    created_at: str
    heartbeat_at: str
    state: str = "running"
    display_name: str | None = None
    description: str | None = None
    notes: str | None = None
    tags: list[str] = field(default_factory=list)
    group: str | None = None
    job_type: str | None = None
    sweep_name: str | None = None
    commit: str | None = None
    read_only: bool = False
    stopped: bool = False
    config: dict[str, object] = field(default_factory=dict)  # as the server holds it: {key: {"value": value}}
    summary: dict[str, object] = field(default_factory=dict)
    history: list[dict[str, object]] = field(default_factory=list)
    events: list[dict[str, object]] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    inputs: list[Artifact] = field(default_factory=list)
    outputs: list[Artifact] = field(default_factory=list)
    alerts: list[dict[str, object]] = field(default_factory=list)
    exit_code: int | None = None

    @property
    def last_step(self) -> int:
        """Highest step in the history, -1 without one."""
        return max((int(str(row["_step"])) for row in self.history if "_step" in row), default=-1)


@dataclass(eq=False)
class Collection:
    """A sequence of artifact versions; those that wait for their commit have no number yet."""

    id: str
    name: str
    type: str
    project: Project
    created_at: str
    versions: list[Artifact] = field(default_factory=list)  # committed ones, deleted ones too: numbers stay taken
    description: str | None = None
    state: str = "READY"

    def living(self) -> list[Artifact]:
        """Committed versions, oldest first."""
        return [artifact for artifact in self.versions if artifact.state == "COMMITTED"]

    def latest(self) -> Artifact | None:
        """The newest committed version."""
        return self.living()[-1] if self.living() else None

    def find(self, alias: str) -> Artifact | None:
        """The version that `v3` or an alias names."""
        named = (a for a in self.living() if alias == f"v{a.version_index}" or alias in a.aliases)
        return next(named, None)


@dataclass(eq=False)
class Artifact:
    """A version of an artifact."""

    id: str
    collection: Collection
    created_at: str
    digest: str
    run: Run | None
    metadata: dict[str, object] = field(default_factory=dict)
    description: str | None = None
    aliases: list[str] = field(default_factory=list)
    state: str = "PENDING"
    version_index: int | None = None
    history_step: int | None = None
    client_id: str | None = None
    digest_algorithm: str = "MANIFEST_MD5"
    tags: list[str] = field(default_factory=list)
    manifest: dict[str, object] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    updated_at: str | None = None

    @property
    def contents(self) -> dict[str, dict[str, object]]:
        """The manifest's entries by path."""
        entries = self.manifest.get("contents", {})
        assert isinstance(entries, dict)
        return entries

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(int(str(entry.get("size") or 0)) for entry in self.contents.values())

    def commit(self) -> None:
        """Give the version its number and its aliases, which other versions then lose."""
        if self.state != "COMMITTED":
            self.state, self.version_index = "COMMITTED", len(self.collection.versions)
            self.collection.versions.append(self)
            self.give_aliases([*self.aliases, "latest"])

    def give_aliases(self, aliases: list[str]) -> None:
        """Move `aliases` to this version from whichever had them."""
        for other in self.collection.versions:
            if other is not self:
                other.aliases = [alias for alias in other.aliases if alias not in aliases]
        self.aliases = list(dict.fromkeys([*self.aliases, *aliases]))

    def delete(self) -> None:
        """Delete the version; its number stays taken, and `latest` goes to the newest that is left."""
        self.state, was_latest, self.aliases = "DELETED", "latest" in self.aliases, []
        newest = self.collection.latest()
        if was_latest and newest is not None:
            newest.give_aliases(["latest"])


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
            Refusal: there is none.
        """
        if name not in self.entities:
            if not create:
                raise Refusal(404, f"entity {name} not found")
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
            Refusal: there is none.
        """
        home = self.project(entity, project)
        if home is None or name not in home.runs:
            raise Refusal(404, f"run {entity}/{project}/{name} not found")
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
            Refusal: a run of this id was deleted (409), as W&B words it.
        """
        home = self.make_project(entity, project)
        if name in home.deleted_runs:
            raise Refusal(409, f"run {entity}/{project}/{name} was previously created and deleted; try a new run name")
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
            raise Refusal(400, f"artifact collection {name} has type {found.type}, not {type_}")
        return found

    def collections(self) -> Iterator[Collection]:
        """All collections."""
        for project in self.projects.values():
            yield from project.collections.values()

    def artifact(self, id_: str) -> Artifact:
        """The artifact with this id.

        Raises:
            Refusal: there is none, or it was deleted.
        """
        found = self.artifacts.get(id_)
        if found is None or found.state == "DELETED":
            raise Refusal(404, "artifact not found")
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


def manifest_of(contents: dict[str, dict[str, object]]) -> tuple[dict[str, object], str]:
    """A manifest of these entries and its digest, as the SDK computes it."""
    policy = {"storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {"storageLayout": "V2"}}
    digest = hashlib.md5(b"wandb-artifact-manifest-v1\n", usedforsecurity=False)
    for path in sorted(contents):
        digest.update(f"{path}:{contents[path]['digest']}\n".encode())
    return {"version": 1, **policy, "contents": contents}, digest.hexdigest()


def as_json(value: object) -> str:
    """JSON as the server writes it."""
    return json.dumps(value)
