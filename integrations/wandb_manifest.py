"""What a version of a W&B artifact holds: its manifest, fetched once and kept, since no version ever changes."""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import wandb

from integrations.download import Wanted
from integrations.download_digest import Algorithm, Digest
from integrations.download_http import broken_connections, raise_for_status
from integrations.download_streams import Streams
from integrations.tracker import CheckpointFile
from integrations.wandb_connection import WandbConnection
from integrations.wandb_http import get
from spectral_edge.errors import FetchInterruptedError, NotFoundError, TrackerUnavailableError

_ALGORITHMS: Final[Mapping[str, Algorithm]] = {"MD5": "md5", "XXH128": "xxh128"}
"""As manifests call them; an entry without says MD5."""
_KEPT: Final = 4096
"""Manifests that a connection keeps: those of the runs that are being audited."""


@dataclass(frozen=True)
class Entry:
    """One file of a version. For a reference, `reference` is its address, and `digest` what its store says of it.

    Attributes:
        file: What listings tell of it; the size of a reference may be 0, which means unknown.
        digest: As the manifest has it: MD5 or XXH128 in base64 for W&B's own files.
        algorithm: How `digest` was made.
        reference: Where the bytes are; None when W&B has them.
        version: The version of the object that a reference means, where its store has versions.
    """

    file: CheckpointFile
    digest: str
    algorithm: Algorithm
    reference: str | None = None
    version: str | None = None

    @classmethod
    def of_manifest(cls, path: str, told: Mapping[str, Any]) -> Entry:
        """From the manifest's entry of `path`."""
        extra = told.get("extra") or {}
        algorithm = _ALGORITHMS.get(str(extra.get("alg", "MD5")), "md5")
        digest, reference = str(told.get("digest") or ""), told.get("ref")
        of_bytes = None if reference else decoded(digest)
        name = f"ref:{digest}" if of_bytes is None else Digest(algorithm, of_bytes).text
        version = extra.get("versionID")
        file = CheckpointFile(path, int(told.get("size") or 0), name)
        return cls(file, digest, algorithm, reference and str(reference), version and str(version))

    @property
    def of_bytes(self) -> Digest | None:
        """The digest of the file's bytes; None when the manifest has no such."""
        expected = decoded(self.digest)
        return None if expected is None else Digest(self.algorithm, expected)


@dataclass(frozen=True)
class Manifest:
    """The files of one version, by path."""

    artifact: wandb.Artifact
    entries: Mapping[str, Entry]

    @property
    def location(self) -> str:
        """What names the version; see `location_of`."""
        return location_of(self.artifact)


@dataclass
class Manifests:
    """The manifests that were fetched, by location; safe to share by threads."""

    _kept: dict[str, Manifest] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of_artifacts(
        self, connection: WandbConnection, artifacts: Iterable[wandb.Artifact], run: str, streams: Streams
    ) -> list[Manifest]:
        """The manifests of `artifacts`, in their order; several are fetched at once."""
        return streams.run(lambda artifact: self._of(connection, artifact, run, streams), artifacts)

    def at(self, connection: WandbConnection, location: str, run: str, streams: Streams) -> Manifest:
        """The manifest of the version that `location` names.

        Raises:
            NotFoundError: It has been deleted.
        """
        kept = self._kept.get(location)
        if kept is not None:
            return kept
        with connection.errors(run=run, file=location):
            artifact = connection.api.artifact(location)
        return self._of(connection, artifact, run, streams)

    def _of(self, connection: WandbConnection, artifact: wandb.Artifact, run: str, streams: Streams) -> Manifest:
        location = location_of(artifact)
        if location not in self._kept:
            manifest = Manifest(artifact, _entries(connection, artifact, run, streams))
            with self._lock:
                self._kept[location] = manifest
                while len(self._kept) > _KEPT:
                    self._kept.pop(next(iter(self._kept)))
            return manifest
        return self._kept[location]


def location_of(artifact: wandb.Artifact) -> str:
    """ENTITY/PROJECT/COLLECTION:VERSION, which names the version for good."""
    return f"{artifact.entity}/{artifact.project}/{artifact.name}"


def decoded(digest: str) -> bytes | None:
    """The sixteen bytes of an MD5 or XXH128 in base64 or hexadecimal digits; None for anything else."""
    try:
        found = bytes.fromhex(digest) if len(digest) == 32 else base64.b64decode(digest, validate=True)
    except (ValueError, binascii.Error):
        return None
    return found if len(found) == 16 else None


def _entries(connection: WandbConnection, artifact: wandb.Artifact, run: str, streams: Streams) -> dict[str, Entry]:
    wanted = Wanted(run, artifact.name, 0)
    with connection.errors(run=run, file=artifact.name):
        address = connection.manifest_address(artifact)
    try:
        told = streams.persist(lambda: _read(connection, address, wanted))
    except FetchInterruptedError as error:
        raise TrackerUnavailableError(error.what, run=run, file=artifact.name) from None
    contents = told.get("contents") if isinstance(told, dict) else None
    if not isinstance(contents, dict):
        raise NotFoundError(
            "its manifest is not one that this version of spectral-edge reads.", run=run, file=wanted.path
        )
    return {path: Entry.of_manifest(path, entry) for path, entry in contents.items()}


def _read(connection: WandbConnection, address: str, wanted: Wanted) -> Any:
    with (
        connection.errors(run=wanted.run, file=wanted.path),
        broken_connections(wanted),
        get(connection, address, {}) as response,
    ):
        raise_for_status(response, wanted)
        return json.loads(response.content)
