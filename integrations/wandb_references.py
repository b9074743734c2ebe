"""References in W&B's artifacts: files that W&B has not itself, on this machine or on S3."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import url2pathname

from integrations.download import Source, Wanted
from integrations.file_errors import file_errors
from integrations.wandb_connection import WandbConnection
from integrations.wandb_manifest import Entry
from spectral_edge.errors import NotFoundError, UsageError


def linked(entry: Entry, file: Wanted, path: Path) -> bool:
    """Whether `entry` refers to a file of this machine; it is then verified, and `path` made a link to it.

    Raises:
        NotFoundError: This machine does not have it, or has other bytes there than were logged.
    """
    address = _split(entry)
    if address.scheme != "file":
        return False
    source = Path(url2pathname(address.path)).resolve()
    with file_errors(run=file.run, file=file.path):
        if not source.is_file():
            raise _elsewhere(entry, file)
        file.check_size(source.stat().st_size)
        if not _is_as_logged(entry, source):
            raise NotFoundError(
                f"{entry.reference} holds other bytes than when it was logged.", run=file.run, file=file.path
            )
        path.symlink_to(source)
    return True


def reference_source(connection: WandbConnection, entry: Entry, file: Wanted) -> Source:
    """The file that `entry` refers to, where it is neither W&B's nor on this machine.

    Raises:
        UsageError: Nothing here reads such addresses.
        FetchInterruptedError: The object is not the one that was logged.
    """
    address = _split(entry)
    if address.scheme == "s3":
        from integrations.download_s3 import S3File  # noqa: PLC0415 - needs boto3, which not everybody has

        found = S3File.found(connection, address.netloc, address.path.removeprefix("/"), file, entry.version)
        _require_tag(entry, file, found.etag)
        return found
    # Not http and https: whoever logs an artifact could else make the auditor ask any server that it reaches.
    raise UsageError(
        f"the artifact refers to {address.scheme}://, which is not read here (file and s3 are).",
        run=file.run,
        file=file.path,
        next_step="log the files themselves, or name another series with --series.",
    )


def size_of(connection: WandbConnection, entry: Entry, run: str) -> int:
    """Bytes of a file that was referred to without looking at it; 0 where its store does not tell."""
    address, file = _split(entry), Wanted(run, entry.file.path, 0)
    if address.scheme == "file":
        source = Path(url2pathname(address.path))
        return source.stat().st_size if source.is_file() else 0
    if address.scheme == "s3":
        from integrations.download_s3 import size_on_s3  # noqa: PLC0415 - as above

        return size_on_s3(connection, address.netloc, address.path.removeprefix("/"), file, entry.version)
    return 0


def _require_tag(entry: Entry, file: Wanted, tag: str) -> None:
    """Raise when the store's tag is another than the one that was logged; some references were logged without."""
    if entry.digest != entry.reference and entry.digest.strip('"') != tag.strip('"'):
        raise file.replaced()


def _split(entry: Entry) -> SplitResult:
    return urlsplit(entry.reference or "")


def _is_as_logged(entry: Entry, source: Path) -> bool:
    digest = entry.of_bytes
    if digest is None or digest.of(source) == digest.expected:
        return True
    # Logged with `checksum=False`: what looks like a digest of the bytes is one of the address.
    of_address = hashlib.md5(source.as_uri().encode(), usedforsecurity=False).digest()
    return base64.b64encode(of_address).decode() == entry.digest


def _elsewhere(entry: Entry, file: Wanted) -> NotFoundError:
    return NotFoundError(
        f"the artifact refers to {entry.reference}, which this machine does not have.",
        run=file.run,
        file=file.path,
        next_step="start the audit on a machine that has the file at that place.",
    )
