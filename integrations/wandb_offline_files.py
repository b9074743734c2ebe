"""Checkpoint files of W&B runs on this machine's disk: what artifacts hold, and what `run.save` was given.

The files of an artifact do not lie in the run's folder. The SDK stages copies under made-up names in the data directory
of the machine that logged them, and moves them to its cache when they have been uploaded. All paths in a log are
untrusted: only regular files are read, and only when they have the digest that was logged.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote

from wandb import env

from integrations.download_digest import Algorithm, Digest
from integrations.file_errors import file_errors
from integrations.tracker import CheckpointFile
from integrations.wandb_offline_manifest import ArtifactEntry, is_regular, listed_entries
from integrations.wandb_run_log import ArtifactRecord
from spectral_edge.checkpoints import is_checkpoint_file, shown
from spectral_edge.errors import CheckpointFormatError, NotFoundError

SAVED: Final = "files"
"""The location of files that `run.save` was given; that of an artifact is its number in the run's logs."""

_SDK_FILES: Final = frozenset(
    {
        "conda-environment.yaml",
        "config.yaml",
        "output.log",
        "requirements.txt",
        "wandb-metadata.json",
        "wandb-summary.json",
    }
)
_SDK_FOLDERS: Final = frozenset({"media", "code"})
_ALGORITHMS: Final[Mapping[str, Algorithm]] = {"MD5": "md5", "XXH128": "xxh128"}
"""As manifests call them."""


@dataclass(frozen=True)
class SavedFiles:
    """The files below `files/` in the folders of a run, without those that the SDK writes there itself."""

    folders: tuple[Path, ...]
    location: str = SAVED

    @property
    def paths(self) -> frozenset[str]:
        """Their names."""
        return frozenset(self._homes)

    def described(self, path: str) -> CheckpointFile:
        """Size, and the time of the last change."""
        status = self.place(path).stat()
        return CheckpointFile(path, status.st_size, f"mtime:{status.st_mtime_ns}")

    def brought(self, paths: Sequence[str]) -> AbstractContextManager[Sequence[Path]]:
        """Where they lie."""
        return nullcontext([self.place(path) for path in paths])

    def place(self, path: str) -> Path:
        """Where one lies: of a file that was saved again after the run was resumed, the later one.

        Raises:
            FileNotFoundError: The run has saved no such file, or it is gone.
        """
        home = self._homes.get(path)
        if home is None:
            raise FileNotFoundError(2, "No such file was saved with the run", path)
        return home / path

    @cached_property
    def _homes(self) -> dict[str, Path]:
        return {path: home for home in (folder / "files" for folder in self.folders) for path in _users_files(home)}


@dataclass(frozen=True)
class StagedFiles:
    """The files of artifact number `number` of the run called `run`."""

    record: ArtifactRecord
    number: int
    run: str

    @property
    def location(self) -> str:
        """What finds the artifact again."""
        return str(self.number)

    @cached_property
    def paths(self) -> frozenset[str]:
        """Their names, without those that lead out of a folder."""
        return frozenset(self._entries)

    def described(self, path: str) -> CheckpointFile:
        """As the artifact's manifest does; a reference whose file was not read when it was logged, as it lies there."""
        entry = self._entries[path]
        place = self._lies_at(entry) if entry.ref else None
        digest = _digest(entry)
        if place is not None and digest is None:
            status = place.stat()
            return CheckpointFile(path, status.st_size, f"mtime:{status.st_mtime_ns}")
        return CheckpointFile(path, entry.size, digest.text if digest else f"ref:{entry.digest}")

    def brought(self, paths: Sequence[str]) -> AbstractContextManager[Sequence[Path]]:
        """Where they lie, under other names."""
        return nullcontext([self.place(path) for path in paths])

    def place(self, path: str) -> Path:
        """Where one lies, under another name.

        Raises:
            NotFoundError: It is not on this machine, or it is a reference to another place.
        """
        entry = self._entries.get(path)
        if entry is None:
            raise NotFoundError("the artifact holds no such file.", run=self.run, file=path)
        place = self._lies_at(entry)
        if place is not None:
            return place
        if entry.ref and not entry.ref.startswith("file:"):
            raise NotFoundError(
                f"it is a reference to {entry.ref}, which is not on this machine.",
                run=self.run,
                file=path,
                next_step="upload the run with `wandb sync` and audit it there: wandb:ENTITY/PROJECT.",
            )
        raise NotFoundError(
            f"{entry.ref or entry.local_path or 'where it was staged'} is gone. Artifacts' files do not lie in the "
            "run's folder, but in the data directory of the machine that logged them.",
            run=self.run,
            file=path,
            next_step="audit on that machine; or copy its data directory (~/.local/share/wandb, or what WANDB_DATA_DIR "
            "named) and set WANDB_DATA_DIR to the copy; or upload the run from there with `wandb sync`.",
        )

    def verified(self, path: str) -> Path:
        """Where one lies, after its bytes were held to the digest that was logged.

        Raises:
            NotFoundError: As in `place`.
            CheckpointFormatError: They are other bytes.
        """
        place = self.place(path)
        entry = self._entries[path]
        digest = _digest(entry)
        if digest is not None and place.stat().st_size == entry.size and digest.of(place) != digest.expected:
            raise CheckpointFormatError(
                f"its bytes at {place} are not those that were logged ({entry.algorithm} differs).",
                run=self.run,
                file=path,
            )
        return place

    @cached_property
    def _entries(self) -> dict[str, ArtifactEntry]:
        entries = iter(self.record.entries)
        if self.record.manifest_file:
            with file_errors(run=self.run, file=self.record.manifest_file):
                entries = listed_entries(Path(self.record.manifest_file), self.run)
        return {entry.path: entry for entry in entries if _stays_inside(entry.path)}

    def _lies_at(self, entry: ArtifactEntry) -> Path | None:
        return next(filter(is_regular, _candidates(entry)), None)


def missing_files(files: SavedFiles, saved: Iterable[str]) -> Iterator[str]:
    """A sentence on checkpoints that `run.save` was given and that are not in the run's folders."""
    missing = sorted(path for path in saved if is_checkpoint_file(path) and path not in files.paths)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        yield (
            f"{shown(missing[0])}{more}: saved with the run, and not in its folder: it holds links to the files, "
            "which lead nowhere when these are deleted or the folder is copied to another machine."
        )


def _candidates(entry: ArtifactEntry) -> Iterator[Path]:
    """Places where the file may lie; the first in which one is."""
    if entry.ref:
        if entry.ref.startswith("file:"):
            yield _referred(entry)
        return
    if entry.local_path:
        yield Path(entry.local_path)
        yield Path(env.get_data_dir(), "artifacts", "staging", Path(entry.local_path).name)
    digest = _digest(entry)
    if digest:
        digits = digest.expected.hex()
        yield env.get_cache_dir() / "artifacts" / "obj" / digest.algorithm / digits[:2] / digits[2:]


def _digest(entry: ArtifactEntry) -> Digest | None:
    """None where it is no digest of bytes: of a reference logged with `checksum=False` it is of its address."""
    try:
        expected = base64.b64decode(entry.digest, validate=True)
    except ValueError:
        return None
    algorithm = _ALGORITHMS.get(entry.algorithm)
    if algorithm is None or len(expected) != 16 or (entry.ref and expected == _of_address(entry)):
        return None
    return Digest(algorithm, expected)


def _of_address(entry: ArtifactEntry) -> bytes:
    return hashlib.md5(_referred(entry).resolve().as_uri().encode(), usedforsecurity=False).digest()


def _referred(entry: ArtifactEntry) -> Path:
    """Where a reference to a file leads."""
    return Path(unquote(entry.ref.removeprefix("file:").removeprefix("//")).replace("\0", ""))


def _stays_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and "\0" not in path


def _users_files(home: Path) -> Iterator[str]:
    """Names of the files below `home`; links to files are followed, as `run.save` makes them, those to folders not."""
    for folder, folders, names in os.walk(home):
        is_top = Path(folder) == home
        folders[:] = sorted(name for name in folders if not (is_top and name in _SDK_FOLDERS))
        for name in names:
            path = Path(folder, name)
            if not (is_top and name in _SDK_FILES) and is_regular(path):
                yield path.relative_to(home).as_posix()
