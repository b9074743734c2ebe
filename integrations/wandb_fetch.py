"""Bringing a checkpoint of W&B to disk, by our own means: wandb's would fill the user's cache and know no resuming."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from wandb.apis.public import File

from integrations.download import Source, Wanted, download, new_folder, place
from integrations.download_digest import Digest
from integrations.download_parts import can_be_parts, fetched_part
from integrations.download_streams import Streams
from integrations.tracker import CheckpointFile, CheckpointRef, Needed, PartFetched
from integrations.wandb_connection import WandbConnection
from integrations.wandb_download import WandbFile
from integrations.wandb_manifest import Entry, Manifest, Manifests, decoded
from integrations.wandb_references import linked, reference_source
from spectral_edge.errors import NotFoundError

SAVED: Final = "saved:"
"""What the location of files that a run saved begins with, before ENTITY/PROJECT/RUN."""
TRIES: Final = 6
BACKOFF: Final = 1.0
JITTER: Final = 1.0

_Ask = Callable[[Sequence[str]], Mapping[str, str]]


def patient_streams() -> Streams:
    """Threads that read for one run, and their patience."""
    return Streams(tries=TRIES, backoff=BACKOFF, jitter=JITTER)


def fetch_checkpoint(
    connection: WandbConnection, manifests: Manifests, run_name: str, checkpoint: CheckpointRef, folder: Path
) -> tuple[Path, ...]:
    """The checkpoint's files below `folder`; see `Tracker.fetch`. Files of this machine that it refers to become links.

    Raises:
        UsageError: It refers to a place that nothing here reads.
    """
    with new_folder(connection, run_name, checkpoint, folder) as home, patient_streams() as streams:
        paths = _places(home, run_name, checkpoint)
        files = _files(connection, manifests, checkpoint, paths, streams, ranged=False)
        sources = streams.run(streams.persist, files)
        download(sources, [paths[source.wanted] for source in sources], streams)
        return tuple(paths.values())


def fetch_part(
    connection: WandbConnection,
    manifests: Manifests,
    run_name: str,
    checkpoint: CheckpointRef,
    folder: Path,
    needed: Needed,
) -> PartFetched | None:
    """What is needed of the checkpoint's files, below `folder`; see `Tracker.fetch_part`.

    Raises:
        UsageError: As :func:`fetch_checkpoint`.
    """
    if not can_be_parts(file.path for file in checkpoint.files):
        return None
    with new_folder(connection, run_name, checkpoint, folder) as home, patient_streams() as streams:
        paths = _places(home, run_name, checkpoint)
        files = _files(connection, manifests, checkpoint, paths, streams, ranged=True)
        if len(files) < len(paths):  # some lie on this machine
            shutil.rmtree(home)
            return None
        sources = {source.wanted: source for source in streams.run(streams.persist, files)}
        return fetched_part(home, [sources[file] for file in paths], list(paths.values()), streams, needed)


def _places(home: Path, run_name: str, checkpoint: CheckpointRef) -> dict[Wanted, Path]:
    wanted = [Wanted(run_name, file.path, file.size) for file in checkpoint.files]
    return {file: place(home, number, file) for number, file in enumerate(wanted)}


def _files(
    connection: WandbConnection,
    manifests: Manifests,
    checkpoint: CheckpointRef,
    paths: Mapping[Wanted, Path],
    streams: Streams,
    *,
    ranged: bool,
) -> list[Callable[[], Source]]:
    """What opens each of the files that have to come; `ranged` asks of all whether their store gives ranges."""
    if checkpoint.location.startswith(SAVED):
        location = checkpoint.location.removeprefix(SAVED)
        return _saved(connection, location, checkpoint.files, list(paths), ranged=ranged)
    run_name = next(iter(paths)).run
    manifest = manifests.at(connection, checkpoint.location, run_name, streams)
    return _logged(connection, manifest, paths, ranged=ranged)


def digest_of_saved(file: File) -> Digest | None:
    """The MD5 of a file that a run saved; None where W&B does not tell it."""
    expected = decoded(str(file.md5 or ""))
    return None if expected is None else Digest("md5", expected)


def _logged(
    connection: WandbConnection, manifest: Manifest, paths: Mapping[Wanted, Path], *, ranged: bool
) -> list[Callable[[], Source]]:
    """What opens each of the files that have to come; those on this machine are linked to at once."""
    entries = {file: _entry(manifest, file) for file in paths}
    own = [file for file, entry in entries.items() if entry.reference is None]
    ask = partial(_ask_artifact, manifest)
    told = _told(connection, own, ask)
    found: list[Callable[[], Source]] = [
        partial(
            WandbFile(connection, file, told[file.path], _renewer(ask, file.path), entries[file].of_bytes).ready,
            ranged=ranged,
        )
        for file in own
    ]
    for file, entry in entries.items():
        if entry.reference is not None and not linked(entry, file, paths[file]):
            found.append(partial(reference_source, connection, entry, file))
    return found


def _entry(manifest: Manifest, file: Wanted) -> Entry:
    entry = manifest.entries.get(file.path)
    if entry is None:
        raise NotFoundError("the file is gone.", run=file.run, file=file.path)
    if entry.reference is None or entry.file.size:
        file.check_size(entry.file.size)
    return entry


def _ask_artifact(manifest: Manifest, names: Sequence[str]) -> dict[str, str]:
    found = manifest.artifact.files(names=list(names), per_page=len(names))
    return {file.name: str(file.direct_url or file.url) for file in found}


def _saved(
    connection: WandbConnection,
    location: str,
    listed: Sequence[CheckpointFile],
    wanted: Sequence[Wanted],
    *,
    ranged: bool,
) -> list[Callable[[], Source]]:
    """What opens each of the files that the run saved, provided that it is still the one that was listed."""
    project, _, run_id = location.rpartition("/")
    run = connection.run(project, run_id, wanted[0].run)
    files: dict[str, File] = {}

    def ask(names: Sequence[str]) -> dict[str, str]:
        files.update({file.name: file for file in run.files(names=list(names), per_page=len(names))})
        return {name: str(file.direct_url or file.url) for name, file in files.items()}

    told = _told(connection, wanted, ask)
    found: list[Callable[[], Source]] = []
    for was, file in zip(listed, wanted, strict=True):
        file.check_size(files[file.path].size)
        digest = digest_of_saved(files[file.path])
        if was.digest is not None and digest is not None and was.digest != digest.text:
            raise file.replaced()
        source = WandbFile(connection, file, told[file.path], _renewer(ask, file.path), digest)
        found.append(partial(source.ready, ranged=ranged))
    return found


def _told(connection: WandbConnection, files: Iterable[Wanted], ask: _Ask) -> Mapping[str, str]:
    """The addresses of `files`.

    Raises:
        NotFoundError: One of them is gone.
    """
    wanted = list(files)
    if not wanted:
        return {}
    try:
        with connection.errors(run=wanted[0].run):
            told = ask([file.path for file in wanted])
    except (AttributeError, TypeError):  # wandb's classes take it for granted that the version, or the run, is there
        told = {}
    for file in wanted:
        if file.path not in told:
            raise NotFoundError("the file is gone.", run=file.run, file=file.path)
    return told


def _renewer(ask: _Ask, path: str) -> Callable[[], str | None]:
    return lambda: ask([path]).get(path)
