"""Bringing a checkpoint of MLflow to disk: left in place where it lies on this machine, otherwise downloaded."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
    MLFLOW_HTTP_REQUEST_BACKOFF_JITTER,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
)
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

from integrations.contents import content_of
from integrations.download import Source, Wanted, download, new_folder, place
from integrations.download_digest import Digest
from integrations.download_parts import can_be_parts, fetched_part
from integrations.download_server import ServerFile, SignedFile, server_file
from integrations.download_streams import Streams
from integrations.mlflow_connection import ArtifactRoot, MlflowConnection
from integrations.tracker import CheckpointRef, Needed, PartFetched
from spectral_edge.errors import FetchInterruptedError, NotFoundError, TransientError

if TYPE_CHECKING:
    from integrations.download_s3 import S3File  # needs boto3, which not everybody has


def fetch_checkpoint(
    connection: MlflowConnection, run_name: str, checkpoint: CheckpointRef, folder: Path
) -> tuple[Path, ...]:
    """The checkpoint's files where they lie on this disk, or else copied below `folder`; see `Tracker.fetch`."""
    root = connection.artifacts(checkpoint.location)
    wanted = [Wanted(run_name, file.path, file.size) for file in checkpoint.files]
    if root.folder is not None:
        return tuple(_verified(root.folder / file.path, file) for file in wanted)
    with new_folder(connection, run_name, checkpoint, folder) as home, _streams() as streams:
        paths = [place(home, number, file) for number, file in enumerate(wanted)]
        _bring(connection, root, wanted, paths, streams)
        return tuple(paths)


def fetch_part(
    connection: MlflowConnection, run_name: str, checkpoint: CheckpointRef, folder: Path, needed: Needed
) -> PartFetched | None:
    """What is needed of the checkpoint's files, below `folder`; see `Tracker.fetch_part`."""
    root = connection.artifacts(checkpoint.location)
    find = None if root.folder is not None else _finder(connection, root)
    wanted = [Wanted(run_name, file.path, file.size) for file in checkpoint.files]
    if find is None or not can_be_parts(file.path for file in wanted):
        return None
    with new_folder(connection, run_name, checkpoint, folder) as home, _streams() as streams:
        sources = streams.run(lambda file: streams.persist(lambda: find(file)), wanted)
        paths = [place(home, number, file) for number, file in enumerate(wanted)]
        return fetched_part(home, sources, paths, streams, needed)


def contents_kept(
    connection: MlflowConnection, run_name: str, checkpoints: Sequence[CheckpointRef]
) -> tuple[str | None, ...]:
    """Digests of `checkpoints`, one request or two a file; see `Tracker.contents`."""
    files = [(ref.location, Wanted(run_name, file.path, file.size)) for ref in checkpoints for file in ref.files]
    ways = {place: _digester(connection, connection.artifacts(place)) for place in {place for place, _ in files}}

    def kept(file: tuple[str, Wanted]) -> str | None:
        way = ways[file[0]]
        digest = None if way is None else streams.persist(lambda: way(file[1]))
        return None if digest is None else digest.text

    with connection.errors(run=run_name), _streams() as streams:
        digests = iter(streams.run(kept, files))
    return tuple(content_of(ref, [next(digests) for _ in ref.files]) for ref in checkpoints)


def _digester(connection: MlflowConnection, root: ArtifactRoot) -> Callable[[Wanted], Digest | None] | None:
    """What asks the store below `root` for its digest of a file's bytes; None where it keeps none."""
    repository = root.repository
    if isinstance(repository, HttpArtifactRepository):
        return lambda file: _of_signed(server_file(connection, repository.artifact_uri, file))
    find = _in_s3(connection, root)
    return None if find is None else lambda file: find(file).content


def _of_signed(file: ServerFile) -> Digest | None:
    if isinstance(file, SignedFile):
        with file.open(0, 1, None):  # the answer's head tells it
            pass
    return file.digest


def _streams() -> Streams:
    return Streams(
        tries=MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() + 1,
        backoff=MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get(),
        jitter=MLFLOW_HTTP_REQUEST_BACKOFF_JITTER.get(),
    )


def _bring(
    connection: MlflowConnection, root: ArtifactRoot, wanted: Sequence[Wanted], paths: Sequence[Path], streams: Streams
) -> None:
    """By our own means from an MLflow server and from S3, by MLflow's from any other store."""
    find = _finder(connection, root)
    if find is None:
        streams.run(lambda pair: _bring_by_mlflow(connection, root, *pair), zip(wanted, paths, strict=True))
    else:
        sources = streams.run(lambda file: streams.persist(lambda: find(file)), wanted)
        download(sources, paths, streams)


def _finder(connection: MlflowConnection, root: ArtifactRoot) -> Callable[[Wanted], Source] | None:
    """What finds a file below `root`, where we read its store ourselves."""
    repository = root.repository
    if isinstance(repository, HttpArtifactRepository):
        return partial(server_file, connection, repository.artifact_uri)
    return _in_s3(connection, root)


def _in_s3(connection: MlflowConnection, root: ArtifactRoot) -> Callable[[Wanted], S3File] | None:
    repository = root.repository
    if type(repository) is S3ArtifactRepository:  # its subclasses find their credentials in other places
        from integrations.download_s3 import S3File  # noqa: PLC0415 - needs boto3, which not everybody has

        bucket, folder = repository.parse_s3_compliant_uri(root.uri)
        return lambda file: S3File.found(connection, bucket, posixpath.join(folder, file.path), file)
    return None


def _bring_by_mlflow(connection: MlflowConnection, root: ArtifactRoot, file: Wanted, path: Path) -> None:
    try:
        with connection.errors(run=file.run, file=file.path):
            landed = Path(root.repository.download_artifacts(file.path, str(path.parent)))
            _verified(landed, file).rename(path)
    except TransientError as error:
        details = error.details() | {"left_behind": "nothing"}
        raise FetchInterruptedError(error.what, **details) from None


def _verified(path: Path, file: Wanted) -> Path:
    if not path.is_file():
        raise NotFoundError("the file is gone.", run=file.run, file=file.path)
    file.check_size(path.stat().st_size)
    return path
