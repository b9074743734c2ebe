"""Digests that artifact stores keep of their files, and holding a file on disk to one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

_BLOCK: Final = 1 << 20

Algorithm = Literal["crc32", "sha256", "sha1", "md5", "xxh128"]

_CHECKSUMS: Final[dict[str, Algorithm]] = {
    "ChecksumCRC32": "crc32",
    "ChecksumSHA256": "sha256",
    "ChecksumSHA1": "sha1",
}
"""Checksums of S3 that Python computes, fastest first. CRC32C and CRC64NVME are not among them."""


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


@dataclass(frozen=True)
class Digest:
    """What a store says of a file's bytes.

    Attributes:
        algorithm: How `expected` was made.
        expected: The digest itself.
        part: None when it is of the whole file. Otherwise the file was uploaded in parts of so many bytes, and
            `expected` is the digest of their digests, one after another.
    """

    algorithm: Algorithm
    expected: bytes
    part: int | None = None

    @property
    def text(self) -> str:
        """`md5:` and the digits."""
        return f"{self.algorithm}:{self.expected.hex()}"

    def of(self, path: Path) -> bytes:
        """The digest of the file at `path`, made the same way."""
        hashed = _new(self.algorithm)
        with path.open("rb", buffering=0) as file:
            if self.part is None:
                while block := file.read(_BLOCK):
                    hashed.update(block)
                return hashed.digest()
            while part := self._of_part(file.read, self.part):
                hashed.update(part)
        return hashed.digest()

    def _of_part(self, read: _Read, size: int) -> bytes:
        """The digest of the next `size` bytes; empty at the end of the file."""
        hashed, left = _new(self.algorithm), size
        while left and (block := read(min(_BLOCK, left))):
            hashed.update(block)
            left -= len(block)
        return hashed.digest() if left < size else b""


class _Read(Protocol):
    def __call__(self, count: int, /) -> bytes: ...


def md5_of_etag(etag: str, part: int | None = None) -> Digest | None:
    """The MD5 that an S3 entity tag is, of the file or (`digest-3`) of its three parts of `part` bytes; None when none.

    Only for objects that are not encrypted, or with the store's own keys: the tags of others are no MD5. Source: S3
    API reference, type Object, field ETag.
    """
    found = re.fullmatch(r'"?([0-9a-f]{32})(-\d+)?"?', etag)
    if found is None or (found[2] is not None) != (part is not None):
        return None
    return Digest("md5", bytes.fromhex(found[1]), part)


def is_of_parts(etag: str) -> bool:
    """Whether an S3 entity tag tells of an upload in parts."""
    return re.search(r'-\d+"?$', etag) is not None


def digest_of_object(head: Mapping[str, object], part: int | None) -> Digest | None:
    """The digest in S3's answer `head` (HeadObject with ChecksumMode ENABLED) that is checked fastest; None when none.

    Args:
        head: The answer.
        part: Bytes of each part when the object was uploaded in parts of one size; None otherwise.
    """
    etag = str(head.get("ETag", ""))
    for field, algorithm in _CHECKSUMS.items():
        value, _, parts = str(head.get(field, "")).partition("-")
        whole = head.get("ChecksumType") == "FULL_OBJECT" or not is_of_parts(etag)
        if value and (whole or (parts and part is not None)):
            expected = _decoded(value)
            return None if expected is None else Digest(algorithm, expected, None if whole else part)
    return _md5_of(head, part)


def content_of_object(head: Mapping[str, object], part: int | None) -> Digest | None:
    """As :func:`digest_of_object`, but only a digest that no two contents share by chance, as a CRC of 32 bits may."""
    digest = digest_of_object(head, part)
    return digest if digest is not None and digest.algorithm != "crc32" else _md5_of(head, part)


def _md5_of(head: Mapping[str, object], part: int | None) -> Digest | None:
    encrypted = head.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in head
    return None if encrypted else md5_of_etag(str(head.get("ETag", "")), part)


def _decoded(value: str) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return None


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


def _new(algorithm: Algorithm) -> _Hash:
    if algorithm == "xxh128":
        import xxhash  # noqa: PLC0415 - only W&B has such digests, and not everybody has W&B

        return xxhash.xxh128()
    return _Crc32() if algorithm == "crc32" else hashlib.new(algorithm, usedforsecurity=False)
