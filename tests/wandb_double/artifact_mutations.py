"""Resolvers that write artifacts."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from .artifact_files import blob_path
from .graph import Context, resolves
from .objects import Artifact, now
from .state import RefusedError

Input = dict[str, Any]
DONE = {"success": True}


@resolves("Mutation", "createArtifact")
def create_artifact(_: object, context: Context, input: Input) -> dict[str, Artifact]:  # noqa: A002
    """A version that waits for its files, or the one of the same digest that is there already."""
    state = context.state
    project = state.make_project(input["entityName"], input["projectName"])
    run = state.run(input["entityName"], input["projectName"], input["runName"]) if input.get("runName") else None
    name = input.get("artifactCollectionName") or (input.get("artifactCollectionNames") or [None])[0]
    if name is None:
        raise RefusedError(400, "an artifact needs a collection")
    collection = state.collection(project, name, input["artifactTypeName"])
    aliases = [alias["alias"] for alias in input.get("aliases") or []]
    same = (
        [a for a in collection.living() if a.digest == input["digest"]]
        if input.get("enableDigestDeduplication")
        else []
    )
    if same:
        artifact = same[-1]
        artifact.give_aliases([*aliases, "latest"])
    else:
        artifact = state.new_artifact(collection, run, input["digest"])
        artifact.aliases = aliases
        artifact.metadata = json.loads(input.get("metadata") or "{}")
        artifact.description = input.get("description")
        artifact.client_id, artifact.history_step = input.get("clientID"), input.get("historyStep")
        artifact.digest_algorithm = input.get("digestAlgorithm") or "MANIFEST_MD5"
        artifact.tags = [tag["tagName"] for tag in input.get("tags") or []]
    if run is not None and artifact not in run.outputs:
        run.outputs.append(artifact)
    return {"artifact": artifact}


@resolves("Mutation", "createArtifactManifest")
def create_artifact_manifest(_: object, context: Context, input: Input) -> dict[str, object]:  # noqa: A002
    """Where the manifest goes."""
    return _manifest(context, context.state.artifact(input["artifactID"]))


@resolves("Mutation", "updateArtifactManifest")
def update_artifact_manifest(_: object, context: Context, input: Input) -> dict[str, object]:  # noqa: A002
    """Where the manifest goes that was announced before."""
    return _manifest(context, context.state.artifact(input["artifactManifestID"].removeprefix("manifest-")))


def _manifest(context: Context, artifact: Artifact) -> dict[str, object]:
    file = {
        "id": f"manifest-file-{artifact.id}",
        "uploadUrl": f"{context.url}/upload/manifest/{quote(artifact.id)}",
        "uploadHeaders": [],
    }
    return {"artifactManifest": {"id": f"manifest-{artifact.id}", "digest": artifact.digest, "file": file}}


@resolves("Mutation", "createArtifactFiles")
def create_artifact_files(_: object, context: Context, input: Input) -> dict[str, object]:  # noqa: A002
    """Addresses to put the files of a version to."""
    edges = []
    for file in input["artifactFiles"]:
        artifact = context.state.artifact(file["artifactID"])
        node: dict[str, object] = {
            "storagePath": f"wandb_artifacts/{artifact.id}/{file['name']}",
            "uploadUrl": f"{context.url}{blob_path(artifact, file['name'])}",
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": artifact,
        }
        edges.append({"node": node})
    return {"files": {"edges": edges}}


@resolves("Mutation", "commitArtifact")
def commit_artifact(_: object, context: Context, input: Input) -> dict[str, Artifact]:  # noqa: A002
    """The version is whole.

    Raises:
        RefusedError: the manifest, or a file that it names, was not uploaded.
    """
    artifact = context.state.artifact(input["artifactID"])
    if not artifact.manifest:
        raise RefusedError(400, f"artifact {artifact.collection.name} has no manifest")
    own = [
        p for p, e in artifact.contents.items() if "ref" not in e and e.get("birthArtifactID") in (None, artifact.id)
    ]
    missing = [path for path in own if path not in artifact.blobs]
    if missing:
        raise RefusedError(400, f"files were not uploaded: {', '.join(missing)}")
    artifact.commit()
    return {"artifact": artifact}


@resolves("Mutation", "useArtifact")
def use_artifact(_: object, context: Context, input: Input) -> dict[str, Artifact]:  # noqa: A002
    """A run has the version as an input."""
    artifact = context.state.artifact(input["artifactID"])
    run = context.state.run(input["entityName"], input["projectName"], input["runName"])
    if artifact not in run.inputs:
        run.inputs.append(artifact)
    return {"artifact": artifact}


@resolves("Mutation", "updateArtifact")
def update_artifact(_: object, context: Context, input: Input) -> dict[str, Artifact]:  # noqa: A002
    """Change what is told about a version."""
    artifact = context.state.artifact(input["artifactID"])
    if input.get("metadata") is not None:
        artifact.metadata = json.loads(input["metadata"])
    if input.get("description") is not None:
        artifact.description = input["description"]
    gone = {tag["tagName"] for tag in input.get("tagsToDelete") or []}
    come = [tag["tagName"] for tag in input.get("tagsToAdd") or []]
    artifact.tags = list(dict.fromkeys([*(tag for tag in artifact.tags if tag not in gone), *come]))
    artifact.updated_at = now()
    return {"artifact": artifact}


@resolves("Mutation", "deleteArtifact")
def delete_artifact(_: object, context: Context, input: Input) -> dict[str, Artifact]:  # noqa: A002
    """Delete a version.

    Raises:
        RefusedError: it has aliases, and those were not to be deleted.
    """
    artifact = context.state.artifact(input["artifactID"])
    if artifact.aliases and not input.get("deleteAliases"):
        raise RefusedError(400, "cannot delete an artifact that has aliases")
    artifact.delete()
    return {"artifact": artifact}


@resolves("Mutation", "deleteArtifactSequence")
def delete_artifact_sequence(_: object, context: Context, input: Input) -> dict[str, object]:  # noqa: A002
    """Delete a collection and all its versions."""
    found = next((c for c in context.state.collections() if c.id == input["artifactSequenceID"]), None)
    if found is None:
        raise RefusedError(404, "artifact collection not found")
    for artifact in found.living():
        artifact.delete()
    found.state = "DELETED"
    del found.project.collections[found.name]
    return {"artifactCollection": found}


@resolves("Mutation", "addAliases")
def add_aliases(_: object, context: Context, input: Input) -> dict[str, bool]:  # noqa: A002
    """Give aliases to a version."""
    context.state.artifact(input["artifactID"]).give_aliases([one["alias"] for one in input["aliases"]])
    return DONE


@resolves("Mutation", "deleteAliases")
def delete_aliases(_: object, context: Context, input: Input) -> dict[str, bool]:  # noqa: A002
    """Take aliases from a version."""
    artifact = context.state.artifact(input["artifactID"])
    gone = {one["alias"] for one in input["aliases"]}
    artifact.aliases = [alias for alias in artifact.aliases if alias not in gone]
    return DONE
