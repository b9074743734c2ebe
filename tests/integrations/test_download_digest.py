"""Which digest is taken from what a store tells, and that it is computed over the file as the store does."""

from __future__ import annotations

import base64
import hashlib
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integrations.download_digest import Digest, digest_of_object, md5_of_etag

WHOLE = '"9e107d9d372bb6826bd81d3542a419d6"'
IN_PARTS = '"9e107d9d372bb6826bd81d3542a419d6-3"'
CRC32 = base64.b64encode(b"abcd").decode()
SHA256 = base64.b64encode(bytes(32)).decode()
MD5 = bytes.fromhex("9e107d9d372bb6826bd81d3542a419d6")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(content=st.binary(max_size=200), part=st.integers(1, 60))
def test_digests_of_parts(content: bytes, part: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    parts = [content[start : start + part] for start in range(0, len(content), part)]
    md5 = hashlib.md5(b"".join(hashlib.md5(piece).digest() for piece in parts)).digest()
    assert Digest("md5", b"", part).of(path) == md5
    crc32 = zlib.crc32(b"".join(zlib.crc32(piece).to_bytes(4, "big") for piece in parts)).to_bytes(4, "big")
    assert Digest("crc32", b"", part).of(path) == crc32
    assert Digest("sha256", b"").of(path) == hashlib.sha256(content).digest()
    assert Digest("sha1", b"").of(path) == hashlib.sha1(content).digest()


def test_a_file_of_several_blocks_in_parts_that_are_no_multiple_of_them(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytes(range(251)) * 20_000
    path.write_bytes(content)
    part = (3 << 20) + 17
    expected = hashlib.md5(hashlib.md5(content[:part]).digest() + hashlib.md5(content[part:]).digest()).digest()
    assert Digest("md5", b"", part).of(path) == expected


@pytest.mark.parametrize(
    ("head", "part", "found"),
    [
        ({"ETag": WHOLE}, None, Digest("md5", MD5)),
        ({"ETag": WHOLE, "ServerSideEncryption": "AES256"}, None, Digest("md5", MD5)),
        ({"ETag": WHOLE, "ServerSideEncryption": "aws:kms"}, None, None),
        ({"ETag": WHOLE, "SSECustomerAlgorithm": "AES256"}, None, None),
        ({"ETag": '"0x8D4BCC2E4835CD0"'}, None, None),
        ({"ETag": WHOLE, "ChecksumCRC32": CRC32}, None, Digest("crc32", b"abcd")),
        ({"ETag": WHOLE, "ChecksumCRC32": CRC32, "ServerSideEncryption": "aws:kms"}, None, Digest("crc32", b"abcd")),
        ({"ETag": WHOLE, "ChecksumSHA256": SHA256, "ChecksumType": "FULL_OBJECT"}, None, Digest("sha256", bytes(32))),
        ({"ETag": WHOLE, "ChecksumCRC64NVME": "AAAAAAAAAAA="}, None, Digest("md5", MD5)),
        ({"ETag": WHOLE, "ChecksumCRC32": "not base64!"}, None, None),
        ({"ETag": IN_PARTS}, 8 << 20, Digest("md5", MD5, 8 << 20)),
        ({"ETag": IN_PARTS}, None, None),
        ({"ETag": IN_PARTS, "ChecksumCRC32": CRC32, "ChecksumType": "FULL_OBJECT"}, None, Digest("crc32", b"abcd")),
        (
            {"ETag": IN_PARTS, "ChecksumCRC32": f"{CRC32}-3", "ChecksumType": "COMPOSITE"},
            99,
            Digest("crc32", b"abcd", 99),
        ),
        ({"ETag": IN_PARTS, "ChecksumCRC32": f"{CRC32}-3", "ChecksumType": "COMPOSITE"}, None, None),
    ],
)
def test_what_is_taken_from_an_object(head: dict[str, object], part: int | None, found: Digest | None) -> None:
    assert digest_of_object(head, part) == found


def test_an_entity_tag_that_is_no_digest() -> None:
    assert md5_of_etag("") is None
    assert md5_of_etag('W/"abc"') is None
    assert md5_of_etag(IN_PARTS) is None
