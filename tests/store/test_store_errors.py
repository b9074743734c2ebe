"""Everything that deltalake and the system say becomes one of our errors."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import deltalake.exceptions
import pytest
from audits import assert_same, audit, key_of
from children import PROCESSES, finish, start, write_with_file_limit

from spectral_edge.errors import (
    AccessDeniedError,
    DiskFullError,
    NotFoundError,
    SpectralEdgeError,
    StoreError,
    StoreLockedError,
    StoreUnavailableError,
    StoreVersionError,
)
from spectral_edge.store import Store
from spectral_edge.store_errors import store_errors, translated


def test_every_exception_of_deltalake_is_mapped() -> None:
    expected = {
        "CommitFailedError": StoreLockedError,
        "DeltaError": StoreError,
        "DeltaProtocolError": StoreVersionError,
        "SchemaMismatchError": StoreError,
        "TableNotFoundError": StoreError,
    }
    assert set(expected) == set(deltalake.exceptions.__all__), "deltalake has a new exception: map it"
    for name, kind in expected.items():
        assert type(translated(getattr(deltalake.exceptions, name)("what it said"), "gaps")) is kind


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            "Generic LocalFileSystem error: Unable to copy data to file: No space left on device (os error 28)",
            DiskFullError,
        ),
        ("Disk quota exceeded (os error 122)", DiskFullError),
        ("Permission denied (os error 13)", AccessDeniedError),
        ("Read-only file system (os error 30)", AccessDeniedError),
        ("When listing objects: AWS Error ACCESS_DENIED during ListObjectsV2", AccessDeniedError),
        (
            "Generic S3 error: Client error with status 403 Forbidden: <Code>InvalidAccessKeyId</Code>",
            AccessDeniedError,
        ),
        ("<Error><Code>NoSuchBucket</Code>", NotFoundError),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2", NotFoundError),
        ("HTTP error: error sending request for url (http://x)", StoreUnavailableError),
        (
            "AWS Error NETWORK_CONNECTION during HeadObject: curlCode: 7, Couldn't connect to server",
            StoreUnavailableError,
        ),
        ("anything else", StoreError),
    ],
)
@pytest.mark.parametrize("source", [deltalake.exceptions.DeltaError, deltalake.exceptions.CommitFailedError, OSError])
def test_what_the_system_said_decides(said: str, kind: type[SpectralEdgeError], source: type[Exception]) -> None:
    if source is deltalake.exceptions.CommitFailedError and kind is StoreError:
        kind = StoreLockedError
    assert type(translated(source(said), "gaps")) is kind


def test_the_stack_trace_of_deltalake_is_left_out() -> None:
    said = "Kernel error: \x1b[31mbroken\x1b[0m\nstack backtrace:\n   0: <unknown>\n   1: start_thread\n      at x.c:1"
    assert "broken" in translated(deltalake.exceptions.DeltaError(said), "gaps").what
    assert "unknown" not in translated(deltalake.exceptions.DeltaError(said), "gaps").what
    assert "\x1b" not in translated(deltalake.exceptions.DeltaError(said), "gaps").what


def test_our_own_errors_pass_unchanged() -> None:
    ours = DiskFullError("full", file="x")
    with pytest.raises(DiskFullError) as caught, store_errors("gaps"):
        raise ours
    assert caught.value is ours


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.write_run(audit(key_of("a")))
    answer = PROCESSES.Queue()
    child = start(write_with_file_limit, store.location.root, 12_000, answer)
    assert "free some space" in answer.get(timeout=60)
    assert finish(child) == 0
    _assert_only_a(store)
    store.write_run(audit(key_of("big"), rows=900))
    assert_same(store.read_run(key_of("big")), audit(key_of("big"), rows=900))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a disk of 400 kB needs the right to mount (uid {os.getuid()}): {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    store = Store.open(small_disk / "store")
    store.write_run(audit(key_of("a")))
    with pytest.raises(DiskFullError, match="free some space"):
        store.write_run(audit(key_of("big"), rows=6000))
    _assert_only_a(store)
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    store.write_run(audit(key_of("big"), rows=6000))
    assert_same(store.read_run(key_of("big")), audit(key_of("big"), rows=6000))


def test_a_read_only_disk_can_be_read(small_disk: Path) -> None:
    store = Store.open(small_disk / "store")
    store.write_run(audit(key_of("a")))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    _assert_only_a(Store.open(small_disk / "store", create=False))
    with pytest.raises(AccessDeniedError, match="permissions"):
        store.write_run(audit(key_of("b")))
    with pytest.raises(AccessDeniedError):
        Store.open(small_disk / "another")


def _assert_only_a(store: Store) -> None:
    assert set(store.audits()) == {("mlflow", "toy", "a")}
    assert_same(store.read_run(key_of("a")), audit(key_of("a")))
