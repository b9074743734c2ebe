"""The one pass over the checkpoints: the banded Gram of parameter updates (theory 2).

Checkpoints are read in blocks of parameters. For each block all checkpoints of a segment are read side by side, their
differences are formed and multiplied, and the products are added to the band of the block's cell. The blocks' size
follows from the memory allowed, so memory depends neither on the number of checkpoints nor on the size of one.

Several threads work on different blocks, so that one reads while another computes. Their sums are added in the order
of the blocks: the result is the same for every number of threads, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import torch

from spectral_edge.band import Band, Matrix, total
from spectral_edge.block_sums import Rows, Sums, Workspace, row_bytes, threads_given
from spectral_edge.blocks import WHOLE, Block, Piece, Shard, blocks
from spectral_edge.checkpoints import CheckpointReader, TensorInfo, open_checkpoint
from spectral_edge.errors import (
    CheckpointError,
    CheckpointFormatError,
    ShapeChangeError,
    TooFewCheckpointsError,
    TrajectoryError,
)
from spectral_edge.groups import Cell, cells, groups
from spectral_edge.open_files import allow_open_files
from spectral_edge.settings import Settings
from spectral_edge.threads import map_in_order
from spectral_edge.trajectory import Trajectory, checked

MAX_CHECKPOINTS: Final = 512
"""Checkpoints read side by side: with more, blocks would become too short to be read well from the memory allowed."""

_CHUNK: Final = 8
"""Blocks that one thread sums before it hands the result over."""


@dataclass(frozen=True)
class LocalCheckpoint:
    """A checkpoint on this machine's disk.

    Attributes:
        step: Its training step.
        name: What messages call it.
        files: Its files.
        pieces: What of its parameters is in the files, where that is not all; what is missing would read as zeros.
    """

    step: int
    name: str
    files: tuple[Path, ...]
    pieces: frozenset[Piece] | None = None


@dataclass
class _Sums:
    """What a cell consists of, and its running sums; row t belongs to update t."""

    pieces: list[Piece] = field(default_factory=list)
    values: list[Matrix] = field(default_factory=list)
    rounding: list[Matrix] = field(default_factory=list)
    n_parameters: int = 0
    end: int | None = None
    """Index of the first checkpoint that no longer fits, None while all do."""


class TrajectoryPass:
    """Sums the bands of a run, segment after segment of its checkpoints.

    Args:
        settings: Uses `lags` and `include`.
        device: Where products are formed: `cpu`, `cuda`, `cuda:1`.
        scratch: Folder for formats that cannot be read in place; the system's temporary folder when None.
        threads: Threads that read and compute; as many as this process has cores when None.
        shard: The part of the parameters that is summed. See spectral_edge.trajectory.add_up.
    """

    def __init__(
        self,
        settings: Settings,
        device: str = "cpu",
        scratch: Path | None = None,
        *,
        threads: int | None = None,
        shard: Shard = WHOLE,
    ) -> None:
        self._lags = settings.lags
        self._include = frozenset(settings.include)
        self._device = torch.device(device)
        self._scratch = scratch
        self._threads = threads or threads_given()
        self._shard = shard
        self._checkpoints: list[LocalCheckpoint] = []
        self._layout: dict[str, TensorInfo] = {}
        self._cells: dict[str, Cell] = {}
        self._sums: dict[Cell, _Sums] = {}
        self._endings: list[str] = []
        self._newcomers: dict[Cell, str] = {}

    def extend(
        self,
        old: Sequence[LocalCheckpoint],
        new: Sequence[LocalCheckpoint],
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """Add the updates that end at the checkpoints `new`.

        Args:
            old: The last up to L + 1 checkpoints of earlier calls, still on disk; empty at the start.
            new: The checkpoints that follow, by increasing step.
            on_bytes: Called with the number of bytes read, now and then.

        Raises:
            CheckpointError: A file is damaged, asks for code to be run, or holds NaN or Inf.
            TrajectoryError: Steps that do not increase.
        """
        known = self._checkpoints[len(self._checkpoints) - len(old) :]
        if [c.step for c in known] != [c.step for c in old] or len(old) < min(len(self._checkpoints), self._lags + 1):
            raise TrajectoryError("`old` must be the last `lags` + 1 checkpoints of the calls before.")
        report = on_bytes or (lambda _: None)
        remaining = list(new)
        before = list(old)
        while remaining:
            allowed = allow_open_files(sum(len(c.files) for c in (*before, *remaining)))
            files_each = max(len(c.files) for c in (*before, *remaining))
            room = max(1, min(MAX_CHECKPOINTS, allowed // files_each) - len(before))
            segment, remaining = remaining[:room], remaining[room:]
            self._add_segment(before, segment, report)
            before = (before + segment)[-(self._lags + 1) :]

    def result(self) -> Trajectory:
        """The bands of all groups.

        Raises:
            TooFewCheckpointsError: Fewer than three checkpoints.
            ShapeChangeError: No group has three checkpoints of one shape.
            ZeroUpdatesError: All checkpoints are identical.
        """
        self._require_three()
        bands: dict[str, Band] = {}
        for group, members in groups(self._sums).items():
            updates = min(self._updates_of(cell) for cell in members)
            if updates >= 2:
                bands[group] = total(self._band(cell).first(updates) for cell in sorted(members))
        if not bands:
            raise ShapeChangeError(
                self._endings[0] if self._endings else "no tensor stays the same for three checkpoints."
            )
        steps = tuple(checkpoint.step for checkpoint in self._checkpoints)
        summed = Trajectory(steps, bands, tuple(self._endings), tuple(self._newcomers.values()))
        return checked(summed, self._names()) if self._shard == WHOLE else summed

    def _require_three(self) -> None:
        names = self._names()
        if len(names) < 3:
            raise TooFewCheckpointsError(
                f"got {len(names)} checkpoint(s) ({', '.join(names) or 'none'}), need at least 3: "
                "two updates make the shortest window.",
                next_step="keep more checkpoints of the run, or leave it out of the audit.",
            )

    def _names(self) -> list[str]:
        return [checkpoint.name for checkpoint in self._checkpoints]

    def _updates_of(self, cell: Cell) -> int:
        end = self._sums[cell].end
        return (len(self._checkpoints) if end is None else end) - 1

    def _band(self, cell: Cell) -> Band:
        sums = self._sums[cell]
        rounding = np.concatenate(sums.rounding)
        return Band(np.concatenate(sums.values), sums.n_parameters, rounding[1:] + rounding[:-1])

    def _add_segment(
        self, old: Sequence[LocalCheckpoint], new: Sequence[LocalCheckpoint], report: Callable[[int], None]
    ) -> None:
        self._check_steps(new)
        with ExitStack() as stack:
            readers = [self._open(checkpoint, stack) for checkpoint in (*old, *new)]
            self._compare_layouts(readers[len(old) :], new)
            first_new = len(self._checkpoints)
            self._checkpoints.extend(new)
            names = tuple(checkpoint.name for checkpoint in (*old, *new))
            rows: dict[Cell, Rows] = {}
            for cell, sums in self._sums.items():
                alive = len(new) if sums.end is None else min(len(new), max(0, sums.end - first_new))
                if alive:
                    _require_pieces((*old, *new[:alive]), sums.pieces)
                    rows[cell] = Rows(tuple(readers[: len(old) + alive]), names, len(old), self._lags)
            if rows:
                self._add_cells(rows, report)

    def _add_cells(self, rows: Mapping[Cell, Rows], report: Callable[[int], None]) -> None:
        checkpoints = max(len(of_cell.readers) for of_cell in rows.values())
        width = row_bytes(checkpoints)
        is_cpu = self._device.type == "cpu"
        workspaces = [Workspace(checkpoints, width, self._device, compiled=is_cpu) for _ in range(self._threads)]
        chunks = [(cell, chunk) for cell in rows for chunk in self._chunks(cell, width)]
        parts: dict[Cell, Sums] = {}

        def sums(workspace: Workspace, cell_chunk: tuple[Cell, tuple[Block, ...]]) -> Sums:
            cell, chunk = cell_chunk
            return workspace.sums(rows[cell], chunk)

        with closing(map_in_order(sums, workspaces, chunks)) as results:
            for (cell, chunk), part in zip(chunks, results, strict=True):
                parts[cell] = parts[cell] + part if cell in parts else part
                report(sum(block.n_bytes for block in chunk) * len(rows[cell].readers))
        for cell, of_cell in rows.items():
            part = parts.get(cell) or of_cell.nothing()
            self._sums[cell].values.append(part.values)
            self._sums[cell].rounding.append(part.rounding)

    def _chunks(self, cell: Cell, width: int) -> Iterator[tuple[Block, ...]]:
        remaining = blocks(self._sums[cell].pieces, self._layout, width)
        while chunk := tuple(islice(remaining, _CHUNK)):
            yield chunk

    def _check_steps(self, new: Sequence[LocalCheckpoint]) -> None:
        last = self._checkpoints[-1] if self._checkpoints else None
        for checkpoint in new:
            if last is not None and checkpoint.step <= last.step:
                raise TrajectoryError(
                    f"step {checkpoint.step} of {checkpoint.name} does not come after step {last.step} of {last.name}.",
                    file=checkpoint.name,
                )
            last = checkpoint

    def _open(self, checkpoint: LocalCheckpoint, stack: ExitStack) -> CheckpointReader:
        try:
            return stack.enter_context(open_checkpoint(checkpoint.files, scratch=self._scratch, include=self._include))
        except CheckpointError as error:
            error.file = checkpoint.name
            raise

    def _compare_layouts(self, readers: Sequence[CheckpointReader], new: Sequence[LocalCheckpoint]) -> None:
        """Fix the layout at the first checkpoint; end the groups of tensors that later differ from it (theory 8)."""
        if not self._layout:
            self._layout = dict(readers[0].tensors)
            if not self._layout:
                raise CheckpointFormatError("holds no floating-point parameter.", file=new[0].name)
            self._cells = cells(self._layout)
            self._sums = {cell: _Sums() for cell in sorted(set(self._cells.values()))}
            for piece in self._shard.pieces(self._layout):
                sums = self._sums[self._cells[piece.name]]
                sums.pieces.append(piece)
                sums.n_parameters += piece.n_parameters
        for index, (reader, checkpoint) in enumerate(zip(readers, new, strict=True), start=len(self._checkpoints)):
            changes = dict(_changes(self._layout, reader.tensors))
            of_change = cells([*self._layout, *(name for name in changes if name not in self._layout)])
            ended = {of_change[name] for name in changes} & set(self._sums)
            self._note_newcomers(
                {name: of_change[name] for name in changes if of_change[name] not in ended}, checkpoint
            )
            fresh = [cell for cell in ended if self._sums[cell].end is None]
            for cell in fresh:
                self._sums[cell].end = index
            if fresh:
                name, change = next(iter(changes.items()))
                more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
                self._endings.append(
                    f"{checkpoint.name} (step {checkpoint.step}): tensor {name}{more} {change}; "
                    "the groups it belongs to end at the checkpoint before."
                )

    def _note_newcomers(self, new: Mapping[str, Cell], checkpoint: LocalCheckpoint) -> None:
        """Tell of tensors in a layer that the first checkpoint has not: they are in no group, not even in the total."""
        for name, cell in new.items():
            self._newcomers.setdefault(
                cell,
                f"{checkpoint.name} (step {checkpoint.step}): tensor {name} is new, in a part of the model that the "
                "first checkpoint does not have; that part is not analysed.",
            )


def _require_pieces(checkpoints: Sequence[LocalCheckpoint], wanted: Sequence[Piece]) -> None:
    """Raise where parameters are to be read that were not brought here."""
    for checkpoint in checkpoints:
        if checkpoint.pieces is not None and not checkpoint.pieces.issuperset(wanted):
            raise CheckpointFormatError(
                "only a part of its parameters was fetched, and another is to be read.",
                file=checkpoint.name,
                next_step="this is a defect of spectral-edge: please report it.",
            )


def _changes(expected: Mapping[str, TensorInfo], got: Mapping[str, TensorInfo]) -> Iterator[tuple[str, str]]:
    for name, info in expected.items():
        found = got.get(name)
        if found is None:
            yield name, "is missing"
        elif found.shape != info.shape:
            yield name, f"changed shape from {info.shape} to {found.shape}"
        elif found.dtype != info.dtype:
            yield name, f"changed dtype from {info.dtype} to {found.dtype}"
    for name in got:
        if name not in expected:
            yield name, "is new"
