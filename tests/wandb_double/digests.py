"""Digests of files and manifests, as the SDK computes them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Protocol

import xxhash

ALGORITHMS = {"MD5": "MANIFEST_MD5", "XXH128": "MANIFEST_XXH128"}  # an entry's word: the artifact's word
Entries = dict[str, dict[str, object]]


class _Hash(Protocol):
    def update(self, data: bytes, /) -> object: ...

    def digest(self) -> bytes: ...

    def hexdigest(self) -> str: ...


def _md5(data: bytes) -> _Hash:
    return hashlib.md5(data, usedforsecurity=False)


HASHES: dict[str, Callable[[bytes], _Hash]] = {"MD5": _md5, "XXH128": xxhash.xxh128}


def b64_digest(data: bytes, algorithm: str = "MD5") -> str:
    """A file's digest in base64, as manifests hold it."""
    return base64.b64encode(HASHES[algorithm](data).digest()).decode()


def hex_of(digest: str) -> str:
    """A manifest's digest in hexadecimal, "" where it is none: a reference's digest may be any text."""
    try:
        return base64.b64decode(digest, validate=True).hex()
    except ValueError:
        return ""


def entries_of(
    files: Mapping[str, bytes], references: Mapping[str, tuple[str, str, int]], algorithm: str, birth: str
) -> Entries:
    """A manifest's entries for files and for references (address, digest, size), all first seen in artifact `birth`."""
    mark = {} if algorithm == "MD5" else {"extra": {"alg": algorithm}}
    entries: Entries = {
        path: {"digest": b64_digest(data, algorithm), "size": len(data), "birthArtifactID": birth, **mark}
        for path, data in files.items()
    }
    for path, (address, digest, size) in references.items():
        entries[path] = {"digest": digest, "ref": address, "size": size}
    return entries


def manifest_of(entries: Entries) -> dict[str, object]:
    """The manifest of these entries."""
    policy = {"storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {"storageLayout": "V2"}}
    return {"version": 1, **policy, "contents": entries}


def manifest_digest(entries: Entries, algorithm: str) -> str:
    """The digest of a manifest, by which versions of equal contents are one version."""
    digest = HASHES[algorithm](b"wandb-artifact-manifest-v1\n")
    for path in sorted(entries):
        digest.update(f"{path}:{entries[path]['digest']}\n".encode())
    return digest.hexdigest()
