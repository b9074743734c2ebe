"""What one part of a run needs of each checkpoint, so that no more than that is downloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from integrations.tracker import CheckpointRef, TrackedRun, Tracker
from spectral_edge.blocks import Piece, Shard
from spectral_edge.checkpoints import TensorInfo, open_checkpoint
from spectral_edge.errors import CheckpointError, FetchInterruptedError
from spectral_edge.kinds import Kind


class Share:
    """A shard's parameters in all checkpoints of a run.

    The first checkpoint that is looked at decides which they are, as in the pass that reads them.

    Args:
        shard: The part.
        include: Kinds of tensors that the pass reads.
    """

    def __init__(self, shard: Shard, include: frozenset[Kind]) -> None:
        self._shard, self._include = shard, include
        self._layout: Mapping[str, TensorInfo] = {}
        self._pieces: tuple[Piece, ...] = ()

    def of_next(self) -> ShareOfCheckpoint:
        """Of a checkpoint; the first must have been looked into before others are."""
        return ShareOfCheckpoint(self)

    def look_into(self, files: Sequence[Path]) -> tuple[frozenset[Piece], Mapping[Path, Sequence[range]]] | None:
        """The pieces that a checkpoint has of this share, and their bytes; None when that cannot be told by bytes.

        Raises:
            CheckpointError: A head is damaged.
        """
        with open_checkpoint(files, include=self._include) as reader:
            if not self._layout:
                self._layout = dict(reader.tensors)
                self._pieces = tuple(self._shard.pieces(self._layout))
            # Where a tensor is missing or another, its groups end at the checkpoint before: nothing of it is read.
            here = [piece for piece in self._pieces if reader.tensors.get(piece.name) == self._layout[piece.name]]
            needed: dict[Path, list[range]] = {}
            for piece in here:
                spans = reader.spans(piece.name, piece.start, piece.stop)
                if spans is None:
                    return None
                for span in spans:
                    needed.setdefault(Path(span.file), []).append(range(span.begin, span.end))
        return frozenset(here), needed


def comes_in_shares(tracker: Tracker, run: TrackedRun, checkpoint: CheckpointRef, share: Share, folder: Path) -> bool:
    """Whether `tracker` can fetch a share of `checkpoint`; asks for the heads of its files, into `folder`.

    Raises:
        FetchInterruptedError, AccessDeniedError, NotFoundError: As `Tracker.fetch_part`.
    """

    def nothing(files: Sequence[Path]) -> Mapping[Path, Sequence[range]] | None:
        return None if share.look_into(files) is None else {}

    try:
        return tracker.fetch_part(run, checkpoint, folder, nothing) is not None
    except CheckpointError:
        return False  # whoever reads it will say what is wrong with it


def require_same_versions(found: Mapping[str, str], others: Mapping[str, str], run_name: str) -> None:
    """See that two parts have not read different files under one name.

    Args:
        found: `Costs.versions` of a part.
        others: Those of the parts before.
        run_name: For the error.

    Raises:
        FetchInterruptedError: They have.
    """
    for name, version in found.items():
        if others.get(name, version) != version:
            raise FetchInterruptedError(
                "its files were replaced by others while parts of them were fetched.",
                run=run_name,
                file=name,
                left_behind="nothing",
                next_step="start the same audit again; it asks the tracker anew what the run holds.",
            )


class ShareOfCheckpoint:
    """A `Needed` that remembers which `pieces` it asked for."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self.pieces: frozenset[Piece] = frozenset()

    def __call__(self, files: Sequence[Path]) -> Mapping[Path, Sequence[range]] | None:
        """See `integrations.tracker.Needed`."""
        found = self._share.look_into(files)
        if found is None:
            return None
        self.pieces, needed = found
        return needed
