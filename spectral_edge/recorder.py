"""Records sketches of a model while it trains, so that a run can be audited without keeping checkpoints.

    with Recorder("run.sketch", model, every=50) as recorder:
        for step in range(1, steps + 1):
            ...
            recorder.step(step, learning_rate=rate, val_loss=loss)

A recorder keeps no copy of the parameters: the sketch of a state is a few numbers for each part of the model, and the
sketch of an update is the difference of two of them, formed when the file is read. docs/recorder.md has cost and error.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, SupportsFloat

import torch
from torch import distributed, nn
from torch.distributed.tensor import DTensor, Replicate, Shard

from spectral_edge.band import Matrix
from spectral_edge.checkpoints.state_dict import plain_names
from spectral_edge.errors import AccessDeniedError, DiskFullError, NotFoundError, UsageError
from spectral_edge.sketching import DEFAULT_SIZE, Piece, Sketcher
from spectral_edge.sketching.record_file import Header, read_file, record_bytes

DEFAULT_EVERY: Final = 50

_log = logging.getLogger(__name__)


class Recorder:
    """Appends a sketch of `model` to a file every so many steps.

    With torch.distributed every process makes a recorder, once the model is wrapped or sharded, and calls :meth:`step`;
    the first one writes. Where parameters are sharded (FSDP2: DTensor), each process sketches its shard and the
    sketches are added up: one all-reduce a record.

    A file that is there already is continued when it belongs to the same model and sketch: a run that resumes from a
    checkpoint at an earlier step supersedes what was recorded after that step.

    Args:
        path: The file; its folder must exist.
        model: Its parameters are followed, frozen ones too; buffers are not.
        every: Steps between two records.
        size: Numbers kept of each part of the model (category and layer).
        sizes: Other sizes for some categories: attention, mlp, embedding, norm, other.
        by_layer: Whether layers are kept apart. Without, records are smaller and there are no groups `layer.N`.
        seed: Of the sketch.

    Raises:
        UsageError: A value out of range, a model without parameters, a way of sharding that is not known, or a file of
            another model or sketch.
        NotFoundError: No such folder.
        AccessDeniedError: The file may not be written.
        DiskFullError: There is no room for it.
        CheckpointFormatError: The file is there and is none of recorded sketches.
    """

    def __init__(
        self,
        path: str | Path,
        model: nn.Module,
        *,
        every: int = DEFAULT_EVERY,
        size: int = DEFAULT_SIZE,
        sizes: Mapping[str, int] | None = None,
        by_layer: bool = True,
        seed: int = 0,
    ) -> None:
        if every < 1:
            raise UsageError(f"`every` must be at least 1 step, got {every}.")
        self.path = Path(path)
        self._every = every
        self._ended = False
        self._model = model
        self._held = list(model.parameters())
        self._parameters = _parameters(model)
        self._sketcher = Sketcher(
            {name: value.numel() for name, value in self._parameters.items()},
            size,
            sizes=sizes,
            by_layer=by_layer,
            seed=seed,
            dtypes={name: value.dtype for name, value in self._parameters.items()},
        )
        self._sharded = any(isinstance(value, DTensor) for value in self._parameters.values())
        # Compiles the loop, and refuses what cannot be sketched now rather than in the middle of the training.
        self._sketch()
        self._file = _open_to_append(self.path, Header.of(self._sketcher)) if _rank() == 0 else None

    def __enter__(self) -> Recorder:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file, whatever happened."""
        self.close()

    def step(self, step: int, /, *, learning_rate: SupportsFloat | None = None, **metrics: SupportsFloat) -> bool:
        """Record the model at `step`, if it is a multiple of `every`; call it after the optimizer's step.

        A file that can no longer be written ends the recording with an error in the log, and not the training.

        Args:
            step: Number of optimizer steps taken.
            learning_rate: Of this step; without it regimes stay undetermined.
            metrics: Numbers to keep beside the sketch. They are asked for only where a record is made.

        Returns:
            Whether this process sketched its part of the model.
        """
        # Where shards are added up every process must take part, though only one writes.
        if step % self._every or self._ended or (self._file is None and not self._sharded):
            return False
        if self._has_other_parameters():
            _log.error("%s: the model has other parameters than when the recording began, so it ends.", self.path)
            self._ended = True
            return False
        sketch = self._sketch()
        if self._file is not None:
            rate = None if learning_rate is None else _number(learning_rate)
            told = {name: _number(value) for name, value in metrics.items()}
            self._append(self._file, record_bytes(step, sketch, rate, told))
        return True

    def close(self) -> None:
        """Close the file. What is recorded is there already; a second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, file: int, record: bytes) -> None:
        try:
            written = os.write(file, record)
        except OSError as error:
            _log.error("%s cannot be written any more, so the recording ends: %s", self.path, error)
            self.close()
            return
        if written < len(record):
            _log.error("%s: there is no room for another record, so the recording ends.", self.path)
            self.close()

    def _has_other_parameters(self) -> bool:
        """Whether the model's tensors changed; those of the same names and shapes in place of others are followed."""
        now = list(self._model.parameters())
        if len(now) == len(self._held) and all(a is b for a, b in zip(now, self._held, strict=True)):
            return False
        self._held, found = now, _parameters(self._model)
        if _layout(found) != _layout(self._parameters):
            return True
        self._parameters = found
        return False

    def _sketch(self) -> Matrix:
        sketch = self._sketcher.sketch(self._pieces())
        if not self._sharded:
            return sketch
        device = next(iter(self._parameters.values())).device
        summed = torch.from_numpy(sketch).to(device)
        distributed.all_reduce(summed)
        return summed.cpu().numpy()

    def _pieces(self) -> Iterator[Piece]:
        for name, value in self._parameters.items():
            if isinstance(value, DTensor):
                yield from _shard(name, value)
            elif not self._sharded or _rank() == 0:
                yield Piece(name, 0, value)


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The floating-point parameters by plain name, as a checkpoint of the model would have them.

    Of a parameter with several names the first by name counts, as for checkpoints.
    """
    named = [(name, value) for name, value in model.named_parameters(remove_duplicate=False) if value.numel()]
    # With its original parameters FSDP1 shows slices of them under their own names: only its modules tell.
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()) or any(
        "_flat_param" in name or hasattr(value, "ds_status") for name, value in named
    ):
        raise UsageError(
            "the model's parameters are flattened or partitioned (FSDP1, DeepSpeed ZeRO-3), which is not understood.",
            next_step="use FSDP2 (fully_shard), or keep checkpoints of this run.",
        )
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    plain = plain_names(name for name, _ in named)
    for name, value in sorted(zip(plain, (value for _, value in named), strict=True), key=lambda item: item[0]):
        if value.is_floating_point() and id(value) not in seen:
            found[name] = value
        seen.add(id(value))
    return found


def _number(value: SupportsFloat) -> float:
    # A loss may be given as it is: torch warns of a conversion that would lose its gradient.
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def _layout(parameters: Mapping[str, nn.Parameter]) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, value.shape, value.dtype) for name, value in parameters.items()]


def _shard(name: str, value: DTensor) -> Iterator[Piece]:
    """What this process adds of a sharded tensor: its rows, where no process before it holds the same ones."""
    at = value.device_mesh.get_coordinate()
    sharded = [dim for dim, placement in enumerate(value.placements) if placement == Shard(0)]
    known = all(placement in {Shard(0), Replicate()} for placement in value.placements)
    if at is None or not known or len(sharded) > 1:
        raise UsageError(
            f"parameter {name} is laid out as {value.placements}; known are whole copies and shards of rows (FSDP2).",
            next_step="keep checkpoints of this run instead.",
        )
    if any(index for dim, index in enumerate(at) if dim not in sharded):
        return
    local = value.to_local()
    rows = -(-value.shape[0] // value.device_mesh.size(sharded[0])) if sharded else 0
    first = at[sharded[0]] * rows if sharded else 0
    if local.numel():
        yield Piece(name, first * (value.numel() // value.shape[0]), local)


def _rank() -> int:
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _open_to_append(path: Path, header: Header) -> int:
    """An open file that ends with a whole record, or with the header alone."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    try:
        file = os.open(path, flags, 0o644)
    except PermissionError as error:
        raise AccessDeniedError("may not be written.", file=str(path)) from error
    except OSError as error:
        raise NotFoundError(f"cannot be written: {error.strerror}.", file=str(path)) from error
    try:
        _prepare(file, path, header)
    except BaseException:
        os.close(file)
        raise
    return file


def _prepare(file: int, path: Path, header: Header) -> None:
    content = header.to_bytes()
    held = os.fstat(file).st_size
    # A process killed before its first record may leave half of a header.
    if held < len(content) and content.startswith(os.read(file, held)):
        os.ftruncate(file, 0)
        try:
            written = os.write(file, content)
        except OSError as error:
            raise DiskFullError(f"the header was not written: {error.strerror}.", file=str(path)) from error
        if written < len(content):
            raise DiskFullError("there is no room for the header of a recording.", file=str(path))
        return
    found = read_file(path)
    if found.header != header:
        raise UsageError(
            "is there already, and records another model or sketch (tensors, sizes or seed differ).",
            file=str(path),
            next_step="name another file, or delete this one.",
        )
    os.ftruncate(file, found.end)
