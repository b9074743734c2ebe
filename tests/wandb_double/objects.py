"""What the double holds: projects, runs, files and artifacts, as plain objects that tests may look into.

Field names follow the GraphQL schema (`schema.graphql`) in snake_case, so that most fields need no resolver.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime


def now() -> str:
    """This moment, as the server writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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


@dataclass(frozen=True)
class ArtifactType:
    """A type that some collections of a project have."""

    project: Project
    name: str
    description: None = None

    @property
    def id(self) -> str:
        """An id."""
        return f"type-{self.project.internal_id}-{self.name}"

    @property
    def created_at(self) -> str:
        """When the type was made: with the project."""
        return self.project.created_at

    def collections(self) -> list[Collection]:
        """Collections of this type."""
        return [found for found in self.project.collections.values() if found.type == self.name]


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
