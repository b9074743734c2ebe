"""Files on S3 that this machine reads with its own credentials. Needs boto3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from botocore.exceptions import ClientError

from integrations.download import Answer, Wanted
from integrations.download_digest import Digest, content_of_object, digest_of_object, is_of_parts
from integrations.download_http import REPLACED, broken_connections
from integrations.download_streams import BLOCK
from integrations.http_errors import kind_of_status
from integrations.s3_client import owner_options
from spectral_edge.errors import AccessDeniedError, SpectralEdgeError

_REFUSED: Final = frozenset({"ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"})


class S3Connection(Protocol):
    """A tracker's connection that has a client for S3."""

    @property
    def s3(self) -> Any:
        """The client, of boto3."""
        ...

    def errors(self, *, run: str | None = None, file: str | None = None) -> AbstractContextManager[None]:
        """Turn what is raised inside the block into our errors."""
        ...


@dataclass(frozen=True)
class S3File:
    """One version of an object; a `Source`."""

    connection: S3Connection
    wanted: Wanted
    place: dict[str, str]
    """Bucket, key and owner, as boto3 takes them."""
    etag: str
    digest: Digest | None
    content: Digest | None
    """One that no two contents share; `digest` may be a checksum that is only good for telling damage."""
    in_ranges: bool = True

    @classmethod
    def found(
        cls, connection: S3Connection, bucket: str, key: str, wanted: Wanted, version: str | None = None
    ) -> S3File:
        """The object as it is now, or that version of it.

        Raises:
            FetchInterruptedError: It has another size than announced.
            NotFoundError, AccessDeniedError, TrackerUnavailableError: As they say.
        """
        place = _place(bucket, key, version)
        with connection.errors(run=wanted.run, file=wanted.path), _s3_errors(wanted, place):
            head = connection.s3.head_object(**place, ChecksumMode="ENABLED")
            wanted.check_size(head["ContentLength"])
            part = _bytes_of_a_part(connection.s3, place, head) if is_of_parts(head["ETag"]) else None
        # Buckets of the class Express One Zone have tags that are no digests.
        is_told = not bucket.endswith("--x-s3")
        digest, content = (digest_of_object(head, part), content_of_object(head, part)) if is_told else (None, None)
        return cls(connection, wanted, place, head["ETag"], digest, content)

    @contextmanager
    def open(self, start: int, stop: int, _etag: str | None) -> Iterator[Answer]:
        """See `Source.open`; always the version that was found."""
        asked = {"Range": f"bytes={start}-{stop - 1}"} if stop > start else {}
        with (
            self.connection.errors(run=self.wanted.run, file=self.wanted.path),
            broken_connections(self.wanted),
            _s3_errors(self.wanted, self.place),
        ):
            answer = self.connection.s3.get_object(**self.place, **asked, IfMatch=self.etag)
            with closing(answer["Body"]) as body:
                starts = start if "ContentRange" in answer else 0
                yield Answer(starts, answer["ETag"], iter(lambda: body.read(BLOCK), b""))


def size_on_s3(connection: S3Connection, bucket: str, key: str, wanted: Wanted, version: str | None) -> int:
    """Bytes of the object as it is now, or of that version of it.

    Raises:
        NotFoundError, AccessDeniedError, TrackerUnavailableError: As they say.
    """
    place = _place(bucket, key, version)
    with connection.errors(run=wanted.run, file=wanted.path), _s3_errors(wanted, place):
        return int(connection.s3.head_object(**place)["ContentLength"])


def _place(bucket: str, key: str, version: str | None) -> dict[str, str]:
    return {"Bucket": bucket, "Key": key, **owner_options(), **({"VersionId": version} if version else {})}


def _bytes_of_a_part(client: Any, place: dict[str, str], head: dict[str, Any]) -> int | None:
    """Bytes of each part of an object that was uploaded in parts; None when they differ or the store does not tell."""
    try:
        first = client.head_object(**place, PartNumber=1)
    except ClientError:
        return None
    size, count = first["ContentLength"], first.get("PartsCount", 0)
    return int(size) if size and -(-head["ContentLength"] // size) == count else None


@contextmanager
def _s3_errors(wanted: Wanted, place: dict[str, str]) -> Iterator[None]:
    """Turn refusals of S3 inside the block into our errors."""
    try:
        yield
    except ClientError as error:
        raise _in_our_words(error, wanted, place) from None


def _in_our_words(error: ClientError, wanted: Wanted, place: dict[str, str]) -> SpectralEdgeError:
    status, code = error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]
    if status in REPLACED:
        return wanted.replaced()
    where = f"s3://{place['Bucket']}/{place['Key']}"
    kind = AccessDeniedError if code in _REFUSED else kind_of_status(status)
    next_step = None
    if kind is AccessDeniedError:
        next_step = f"check the AWS credentials (environment, AWS_PROFILE) and that they may read {where}."
    return kind(f"S3 answered {status} {code} for {where}.", run=wanted.run, file=wanted.path, next_step=next_step)
