"""Checkpoints whose paths differ only in the numbers that count for the step: one layout of a run's files.

Which numbers count, and in what order they are asked, is rule 2 in :mod:`naming`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

from spectral_edge.checkpoints.step_names import Wording, numbers_told, without_numbers
from spectral_edge.checkpoints.weight_files import CheckpointFiles, serves_for_anything, split_suffix

Source = Literal["metadata", "file_name", "folder_name"]

_TIERS: Final = ((Wording.STEP, Wording.CHECKPOINT), (Wording.NUMBER,), (Wording.EPOCH,), (Wording.SERIES,))
_SERIES_LENGTH: Final = 3
_FOLDER_SUFFIX: Final = ".ckpt"
"""Lightning gives it to folders too."""


@dataclass(frozen=True)
class FoundCheckpoint:
    """One checkpoint of a run: `paths` has one entry unless it is sharded; an index or `.metadata` comes last."""

    step: int
    step_source: Source
    paths: tuple[str, ...]


_Teller = tuple[Wording, int]
"""How and where a path tells a number: 0 is the file's name, 1 the nearest folder's."""


@dataclass(frozen=True)
class Candidate:
    """One checkpoint before its step is settled: the numbers its path tells, the preferred first, and its layout."""

    paths: tuple[str, ...]
    told: dict[_Teller, int]
    layout: str


@dataclass(frozen=True)
class Layout:
    """The checkpoints of one layout by step, repeated steps included, and by what word the step is told.

    `wording` is None where no name tells the step, but metadata.
    """

    name: str
    wording: Wording | None
    checkpoints: tuple[FoundCheckpoint, ...]

    @property
    def is_sure(self) -> bool:
        """Whether the step is recorded, or told by a word for step or checkpoint, and no epoch or other number."""
        return self.wording in (None, Wording.STEP, Wording.CHECKPOINT)

    @property
    def preference(self) -> tuple[bool, int, bool, str]:
        """Sorts the layout to be taken to the front."""
        _, suffix = split_suffix(self.name)
        steps = {found.step for found in self.checkpoints}
        return serves_for_anything(suffix), -len(steps), suffix != ".safetensors", self.name


def candidate_of(files: CheckpointFiles) -> Candidate:
    """The checkpoint with what its path tells."""
    told, layout = _told(files.whole)
    return Candidate(files.paths, told, layout)


def settled(name: str, members: Sequence[Candidate], recorded: Mapping[str, int]) -> Layout | None:
    """The layout's steps: by metadata, else by the first teller whose number is not the same in all; None without.

    Args:
        name: What the layout is called.
        members: Its checkpoints.
        recorded: The step that metadata tells of a checkpoint, by its first path. It counts where all members have
            one and no two the same: metadata that several share is not about one of them.
    """
    steps = [recorded[member.paths[0]] for member in members if member.paths[0] in recorded]
    if len(set(steps)) == len(members):
        return _by_step(name, None, "metadata", zip(steps, members, strict=True))
    shared = [teller for teller in members[0].told if all(teller in member.told for member in members)]
    values = {teller: {member.told[teller] for member in members} for teller in shared}
    usable = [teller for teller in shared if teller[0] is not Wording.SERIES or len(values[teller]) >= _SERIES_LENGTH]
    if not usable:
        return None
    teller = next((teller for teller in usable if len(values[teller]) > 1), usable[0])
    source: Source = "file_name" if teller[1] == 0 else "folder_name"
    return _by_step(name, teller[0], source, ((member.told[teller], member) for member in members))


def _by_step(name: str, wording: Wording | None, source: Source, members: Iterable[tuple[int, Candidate]]) -> Layout:
    found = (FoundCheckpoint(step, source, member.paths) for step, member in members)
    return Layout(name, wording, tuple(sorted(found, key=lambda each: each.step)))


def _told(path: PurePosixPath) -> tuple[dict[_Teller, int], str]:
    """The numbers that count for `path`, in order of preference, and the path with those parts' numbers taken out."""
    stem, suffix = split_suffix(path.name)
    parts = [stem, *(folder.removesuffix(_FOLDER_SUFFIX) for folder in reversed(path.parts[:-1]))]
    told = [numbers_told(part) for part in parts]
    counting = _counting({wording for numbers in told for wording in numbers})
    kept = [
        {
            wording: number
            for wording, number in numbers.items()
            if wording in counting or (place == 0 and wording is Wording.NUMBER)
        }
        for place, numbers in enumerate(told)
    ]
    layout = [without_numbers(part) if numbers else part for part, numbers in zip(parts, kept, strict=True)]
    preferred: dict[_Teller, int] = {
        (wording, place): numbers[wording]
        for tier in _TIERS
        for place, numbers in enumerate(kept)
        for wording in tier
        if wording in numbers
    }
    return preferred, "/".join(reversed(layout)) + suffix


def _counting(wordings: set[Wording]) -> set[Wording]:
    """Which wordings may tell the step of a path that has these; a folder's bare number not beside a word for step."""
    if wordings & {Wording.STEP, Wording.CHECKPOINT}:
        return {Wording.STEP, Wording.CHECKPOINT, Wording.EPOCH}
    if wordings & {Wording.NUMBER, Wording.EPOCH}:
        return {Wording.NUMBER, Wording.EPOCH}
    return {Wording.SERIES}
