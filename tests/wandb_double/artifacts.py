"""Resolvers that read artifacts: types, collections, versions, memberships, files, lineage."""

from __future__ import annotations

import json
from urllib.parse import quote

from .graph import Context, page, resolves
from .objects import Artifact, ArtifactType, Collection, Project, Run
from .state import RefusedError

NO_EXPIRY = -2  # W&B's word for "inherited" in ttlDurationSeconds


@resolves("Query", "artifact")
def artifact_(_: object, context: Context, id: str) -> Artifact | None:  # noqa: A002  (the schema's name)
    """An artifact by id."""
    return context.state.artifacts.get(id)


@resolves("Query", "artifactCollection")
def collection_of_id(_: object, context: Context, id: str) -> Collection | None:  # noqa: A002
    """A collection by id."""
    return next((found for found in context.state.collections() if found.id == id), None)


@resolves("Query", "clientIDMapping")
def client_id_mapping(_: object, context: Context, client_id: str) -> dict[str, str] | None:
    """The artifact that a client made under an id of its own."""
    made = (artifact for artifact in context.state.artifacts.values() if artifact.client_id == client_id)
    found = next(made, None)
    return {"serverID": found.id} if found else None


@resolves("Project", "artifact")
def artifact_of_name(project: Project, context: Context, name: str) -> Artifact | None:
    """A version by `COLLECTION:ALIAS`."""
    return context.state.find_artifact(project, name)


@resolves("Project", "artifactCollectionMembership")
def membership_of_name(project: Project, context: Context, name: str) -> dict[str, object] | None:
    """A version in its collection, by `COLLECTION:ALIAS`."""
    found = context.state.find_artifact(project, name)
    return membership(found) if found else None


def membership(artifact: Artifact) -> dict[str, object]:
    """A version in its collection."""
    return {
        "id": f"membership-{artifact.id}",
        "versionIndex": artifact.version_index,
        "createdAt": artifact.created_at,
        "aliases": aliases(artifact, None),
        "artifactCollection": artifact.collection,
        "artifact": artifact,
    }


# Types and collections


def _types(project: Project) -> list[ArtifactType]:
    return [ArtifactType(project, name) for name in dict.fromkeys(c.type for c in project.collections.values())]


@resolves("Project", "artifactTypes")
def artifact_types(
    project: Project, context: Context, after: str | None = None, first: int | None = None
) -> dict[str, object]:
    """Types of artifacts that the project has."""
    return page(_types(project), context, after, first)


@resolves("Project", "artifactType")
def artifact_type(project: Project, _: Context, name: str) -> ArtifactType | None:
    """A type that the project has."""
    return next((found for found in _types(project) if found.name == name), None)


@resolves("ArtifactType", "artifactCollection")
def collection_of_type(type_: ArtifactType, _: Context, name: str) -> Collection | None:
    """A collection of this type."""
    return next((found for found in type_.collections() if found.name == name), None)


@resolves("ArtifactType", "artifactCollections")
def collections_of_type(
    type_: ArtifactType, context: Context, after: str | None = None, first: int | None = None, **_: object
) -> dict[str, object]:
    """Collections of this type."""
    return page(type_.collections(), context, after, first)


@resolves("Project", "artifactCollection")
def collection_of_name(project: Project, _: Context, name: str) -> Collection | None:
    """A collection by name."""
    return project.collections.get(name)


@resolves("Project", "artifactCollections")
def collections_of_project(
    project: Project, context: Context, after: str | None = None, first: int | None = None, **_: object
) -> dict[str, object]:
    """All collections."""
    return page(list(project.collections.values()), context, after, first)


@resolves("ArtifactSequence", "defaultArtifactType")
def default_artifact_type(collection: Collection, _: Context) -> ArtifactType:
    """The collection's type."""
    return ArtifactType(collection.project, collection.type)


@resolves("ArtifactSequence", "updatedAt")
def collection_updated_at(collection: Collection, _: Context) -> str:
    """When the last version came."""
    return collection.versions[-1].created_at if collection.versions else collection.created_at


@resolves("ArtifactSequence", "tags")
def collection_tags(_: Collection, _context: Context) -> dict[str, object]:
    """Collections have no tags here."""
    return {"edges": []}


@resolves("ArtifactSequence", "latestArtifact")
def latest_artifact(collection: Collection, _: Context) -> Artifact | None:
    """The newest version."""
    return collection.latest()


@resolves("ArtifactSequence", "digestAlgorithm")
def sequence_digest_algorithm(collection: Collection, _: Context) -> str:
    """How the digests of its manifests are computed."""
    newest = collection.latest()
    return newest.digest_algorithm if newest else "MANIFEST_MD5"


@resolves("ArtifactSequence", "aliases")
def collection_aliases(
    collection: Collection, context: Context, after: str | None = None, first: int | None = None
) -> dict[str, object]:
    """Aliases of all versions."""
    return page([alias for a in collection.living() for alias in aliases(a, context)], context, after, first)


@resolves("ArtifactSequence", "artifacts")
def versions(
    collection: Collection,
    context: Context,
    after: str | None = None,
    first: int | None = None,
    order: str | None = None,
    filters: str | None = None,
) -> dict[str, object]:
    """Versions, the newest first unless asked otherwise.

    Raises:
        RefusedError: another filter or order than the SDK sends.
    """
    if json.loads(filters or "{}") not in ({}, {"state": "COMMITTED"}) or order not in (None, "", "+created_at"):
        raise RefusedError(400, f"the double knows no such filter or order of versions: {filters} {order}")
    found = collection.living()
    found = found if order else found[::-1]
    return page(found, context, after, first, version=lambda artifact: f"v{artifact.version_index}")


@resolves("ArtifactSequence", "artifactMembership")
def membership_of_alias(collection: Collection, _: Context, alias_name: str) -> dict[str, object] | None:
    """The version that an alias or number names."""
    found = collection.find(alias_name)
    return membership(found) if found else None


# Versions


@resolves("Artifact", "artifactSequence")
def artifact_sequence(artifact: Artifact, _: Context) -> Collection:
    """The version's collection."""
    return artifact.collection


@resolves("Artifact", "artifactType")
def artifact_type_of(artifact: Artifact, _: Context) -> ArtifactType:
    """The version's type."""
    return ArtifactType(artifact.collection.project, artifact.collection.type)


@resolves("Artifact", "metadata")
def metadata(artifact: Artifact, _: Context) -> str:
    """The metadata, as JSON."""
    return json.dumps(artifact.metadata)


@resolves("Artifact", "ttlDurationSeconds")
def ttl(_: Artifact, _context: Context) -> int:
    """Versions here never expire."""
    return NO_EXPIRY


@resolves("Artifact", "ttlIsInherited")
def ttl_is_inherited(_: Artifact, _context: Context) -> bool:
    """Whether the collection's expiry holds."""
    return True


@resolves("Artifact", "tags")
def artifact_tags(artifact: Artifact, _: Context) -> list[dict[str, str]]:
    """The version's tags."""
    return [{"id": f"tag-{tag}", "name": tag} for tag in artifact.tags]


@resolves("Artifact", "commitHash")
def commit_hash(artifact: Artifact, _: Context) -> str:
    """A hash that tells versions apart."""
    return f"{artifact.digest[:19]}{artifact.version_index}"


@resolves("Artifact", "fileCount")
def file_count(artifact: Artifact, _: Context) -> int:
    """How many files the manifest names."""
    return len(artifact.contents)


@resolves("Artifact", "aliases")
def aliases(artifact: Artifact, _: Context | None) -> list[dict[str, object]]:
    """The version's aliases."""
    home = artifact.collection
    return [{"id": f"alias-{home.id}-{a}", "alias": a, "artifactCollection": home} for a in artifact.aliases]


@resolves("Artifact", "currentManifest")
def current_manifest(artifact: Artifact, context: Context) -> dict[str, object] | None:
    """Where the manifest is, once it was uploaded."""
    if not artifact.manifest:
        return None
    file = {"directUrl": f"{context.url}/manifest/{quote(artifact.id)}"}
    return {"id": f"manifest-{artifact.id}", "digest": artifact.digest, "file": file}


@resolves("Artifact", "createdBy")
def created_by(artifact: Artifact, _: Context) -> Run | None:
    """The run that logged the version, unless it was deleted."""
    return artifact.run


@resolves("Artifact", "usedBy")
def used_by(artifact: Artifact, context: Context) -> dict[str, object]:
    """Runs that have the version as an input."""
    return {"edges": [{"node": run} for run in context.state.runs() if artifact in run.inputs]}


@resolves("Artifact", "artifactMemberships")
def memberships(artifact: Artifact, _: Context) -> dict[str, object]:
    """Collections that hold the version: its own."""
    return {"edges": [{"node": membership(artifact)}]}
