"""Resolvers of the artifacts of a run, and of the files in a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from .graph import Context, page, resolves
from .objects import Artifact, Run


@resolves("Run", "outputArtifacts")
def output_artifacts(
    run: Run, context: Context, after: str | None = None, first: int | None = None
) -> dict[str, object]:
    """Versions that the run logged."""
    return page(_committed(run.outputs), context, after, first)


@resolves("Run", "inputArtifacts")
def input_artifacts(
    run: Run, context: Context, after: str | None = None, first: int | None = None
) -> dict[str, object]:
    """Versions that the run used."""
    return page(_committed(run.inputs), context, after, first)


def _committed(artifacts: Sequence[Artifact]) -> list[Artifact]:
    return [artifact for artifact in artifacts if artifact.state == "COMMITTED"]


@resolves("Artifact", "files")
def artifact_files(
    artifact: Artifact,
    context: Context,
    names: Sequence[str] | None = None,
    after: str | None = None,
    first: int | None = None,
) -> dict[str, object]:
    """Files of a version, with the addresses of their bytes."""
    found = [_file(artifact, path, context) for path in artifact.contents if names is None or path in names]
    return page(found, context, after, first)


@resolves("ArtifactCollectionMembership", "files")
def membership_files(
    membership: Mapping[str, Artifact],
    context: Context,
    names: Sequence[str] | None = None,
    after: str | None = None,
    first: int | None = None,
) -> dict[str, object]:
    """Files of a version, by way of its collection."""
    return artifact_files(membership["artifact"], context, names, after, first)


@resolves("Artifact", "filesByManifestEntries")
def files_by_manifest_entries(
    artifact: Artifact, context: Context, entries: Sequence[Mapping[str, str]] = (), **_: object
) -> dict[str, object]:
    """Files of a version by the entries of its manifest."""
    return artifact_files(artifact, context, [entry["name"] for entry in entries], None, len(entries))


def blob_path(artifact: Artifact, path: str) -> str:
    """Path of a file's bytes on the server."""
    return f"/store/{quote(artifact.id)}/{quote(path)}"


def _file(artifact: Artifact, path: str, context: Context) -> dict[str, object]:
    entry = artifact.contents[path]
    url = entry.get("ref") or f"{context.url}{blob_path(artifact, path)}"
    return {
        "id": f"file-{artifact.id}-{path}",
        "name": path,
        "displayName": path,
        "url": url,
        "directUrl": url,
        "sizeBytes": entry.get("size") or 0,
        "storagePath": None,
        "mimetype": None,
        "updatedAt": artifact.created_at,
        "digest": entry["digest"],
        "md5": entry["digest"],
    }
