"""What deltalake, Arrow and the file system raise, in the words of errors.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa
from deltalake.exceptions import (
    CommitFailedError,
    DeltaError,
    DeltaProtocolError,
    SchemaMismatchError,
    TableNotFoundError,
)

from spectral_edge.errors import (
    AccessDeniedError,
    DiskFullError,
    NotFoundError,
    SpectralEdgeError,
    StoreError,
    StoreLockedError,
    StoreUnavailableError,
    StoreVersionError,
    TransientError,
)

# deltalake reports what the system or S3 said as text only, so the text is all there is to go by.
_BY_TEXT: Final[tuple[tuple[re.Pattern[str], type[SpectralEdgeError], str, str], ...]] = (
    (
        re.compile(r"no space left|quota exceeded|file too large|os error (28|122|27)\b", re.IGNORECASE),
        DiskFullError,
        "no room left for the tables",
        "free some space, then run the same command again",
    ),
    (
        re.compile(
            r"permission denied|read-only file system|os error (13|30)\b|access.?denied|403 forbidden|401 unauthorized"
            r"|invalidaccesskeyid|signaturedoesnotmatch|expiredtoken",
            re.IGNORECASE,
        ),
        AccessDeniedError,
        "access was refused",
        "check the folder's permissions, or the AWS credentials in the environment",
    ),
    (
        re.compile(r"no.?such.?bucket", re.IGNORECASE),
        NotFoundError,
        "there is no such bucket",
        "create the bucket, or name another with --store",
    ),
    (
        re.compile(
            r"error sending request|connection refused|network.?connection|timed out|dns error"
            r"|could ?n.t resolve host|could not connect|50[0234] ",
            re.IGNORECASE,
        ),
        StoreUnavailableError,
        "the object storage did not answer",
        "check AWS_ENDPOINT_URL and the network, then run the same command again",
    ),
)

_BY_TYPE: Final[tuple[tuple[type[Exception], type[SpectralEdgeError], str, str], ...]] = (
    (
        CommitFailedError,
        StoreLockedError,
        "other writers changed the table again and again while this one tried to",
        "run the same command again",
    ),
    (
        DeltaProtocolError,
        StoreVersionError,
        "the Delta table uses features that the installed deltalake does not know",
        "pip install --upgrade deltalake spectral-edge",
    ),
    (
        SchemaMismatchError,
        StoreError,
        "the table's columns are not those of this version of spectral-edge",
        "audit into a new store, with --store",
    ),
    (
        TableNotFoundError,
        StoreError,
        "the table is missing, so the store is damaged",
        "restore the folder from a copy, or audit into a new store with --store",
    ),
    (
        Exception,
        StoreError,
        "the table cannot be read or written",
        "restore the folder from a copy, or audit into a new store with --store",
    ),
)


@contextmanager
def store_errors(file: str) -> Iterator[None]:
    """Raise what goes wrong inside as one of our errors, naming `file`, a table or a store."""
    try:
        yield
    except (DeltaError, OSError, pa.ArrowException) as error:
        if isinstance(error, SpectralEdgeError):  # some of ours are OSErrors too
            raise
        raise translated(error, file) from error


def translated(error: Exception, file: str) -> SpectralEdgeError:
    """The error of errors.py that says the same as `error`."""
    said = _first_lines(str(error))
    by_text = (row[1:] for row in _BY_TEXT if row[0].search(said))
    by_type = (row[1:] for row in _BY_TYPE if isinstance(error, row[0]))
    kind, what, next_step = next(by_text, None) or next(by_type)
    unharmed = issubclass(kind, DiskFullError | TransientError)
    left_behind = "the committed audits, as they were" if unharmed else None
    return kind(f"{what}: {said}", file=file, left_behind=left_behind, next_step=next_step)


def _first_lines(text: str) -> str:
    """`text` on one line, without colour codes and without the stack trace that deltalake appends."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = (line.strip(" \t↳") for line in plain.splitlines())
    return " ".join(line for line in lines if line and not re.match(r"\d+: |at ", line))
