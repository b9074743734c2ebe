"""What manifests of W&B's artifacts say of their files."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from integrations.wandb_manifest import Entry, decoded


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@given(st.binary(min_size=16, max_size=16))
def test_digests_are_read_in_both_spellings(digest: bytes) -> None:
    assert decoded(b64(digest)) == decoded(digest.hex()) == digest


@pytest.mark.parametrize(
    "text", ["", "an etag", "s3://bucket/key", "d41d8cd98f00b204e9800998ecf8427e-3", "MTIz", "ä" * 24]
)
def test_what_is_no_digest_of_sixteen_bytes_is_none(text: str) -> None:
    assert decoded(text) is None


@given(st.binary(max_size=3000))
def test_a_file_is_held_to_the_digest_that_its_entry_names(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path: Path = tmp_path_factory.mktemp("digest") / "file"
    md5, xxh128 = hashlib.md5(content).digest(), xxhash.xxh128_digest(content)
    for expected, extra in ((md5, None), (md5, {"alg": "MD5"}), (xxh128, {"alg": "XXH128"})):
        entry = Entry.of_manifest("f", {"digest": b64(expected), "size": len(content), "extra": extra})
        digest = entry.of_bytes
        assert digest is not None
        path.write_bytes(content)
        assert digest.of(path) == expected
        path.write_bytes(content + b"x")
        assert digest.of(path) != expected
        assert entry.file.digest == f"{'xxh128' if expected == xxh128 else 'md5'}:{expected.hex()}"
        assert entry.file.size == len(content)


def test_a_reference_keeps_what_its_store_said() -> None:
    told = {"digest": "0123456789abcdef0123456789abcdef", "ref": "s3://b/k", "size": 5, "extra": {"versionID": "v"}}
    entry = Entry.of_manifest("f", told)
    assert (entry.reference, entry.version, entry.file.size) == ("s3://b/k", "v", 5)
    assert entry.file.digest == "ref:0123456789abcdef0123456789abcdef"


def test_an_entry_that_says_next_to_nothing() -> None:
    entry = Entry.of_manifest("f", {"digest": "s3://b/k", "ref": "s3://b/k"})
    assert (entry.file.size, entry.version, entry.of_bytes) == (0, None, None)
