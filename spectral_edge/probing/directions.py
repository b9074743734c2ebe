"""The directions v_j = X'u_j / sigma_j of one window, from its checkpoints on disk (theory 1 and 7).

They are never held together. Projections <v_j, vector> are summed block by block from the updates, so they take one
block of memory; what needs v_j itself gets one direction at a time, of as many entries as the model has parameters.
Each direction reads the window's checkpoints again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from spectral_edge.adiabatic import gram_change_operator
from spectral_edge.band import Matrix
from spectral_edge.blocks import in_memory
from spectral_edge.checkpoints import CheckpointReader, TensorInfo, open_checkpoint
from spectral_edge.errors import CheckpointError, ShapeChangeError, UsageError
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.groups import cells, group_of_names
from spectral_edge.kinds import Kind
from spectral_edge.settings import Settings
from spectral_edge.spectrum import k_star, resolved, rotation_bound, spectrum, stability

Tensors = dict[str, torch.Tensor]

_BLOCK: Final = 1 << 16
"""Entries of a tensor that are read side by side from all checkpoints of the window."""


@dataclass(frozen=True)
class WindowSpectrum:
    """The spectrum of a window and of the one that ends one update earlier.

    Attributes:
        sigma: Singular values, shape (W,), parameter units.
        left: u_j as columns, shape (W, W), with the sign for which v_j points the way the window went.
        sigma_before: Those of the window before, shape (W,); None where it does not exist.
        stability: Shape (W,) (theory 4); NaN where there is no window before.
        k_star: Capped at W // 2, 1-indexed; 0 where undefined.
        resolved: Directions above the numerical floor.
    """

    sigma: Matrix
    left: Matrix
    sigma_before: Matrix | None
    stability: Matrix
    k_star: int
    resolved: int

    @property
    def displacement(self) -> Matrix:
        """<theta_end - theta_start, v_j> = sigma_j sum(u_j), not negative: how far the window went along v_j; (W,)."""
        return np.asarray(self.sigma * self.left.sum(axis=0))


class Window:
    """One window's checkpoints, open: the W + 1 between which its updates lie. Use as a context manager.

    Args:
        checkpoints: W + 1 or, for what compares with the window before, W + 2 checkpoints by increasing step.
        settings: Uses `window`, `numerical_floor` and `include`.
        group: The parameter group that is followed; v_j is zero on all other tensors.

    Raises:
        CheckpointError: A file is damaged, asks for code to be run, or holds NaN or Inf.
        TrajectoryError: Tensors change within the window, or nothing moves.
        UsageError: No such group, or another number of checkpoints.
    """

    def __init__(self, checkpoints: Sequence[LocalCheckpoint], settings: Settings, group: str) -> None:
        width = settings.window
        if len(checkpoints) not in {width + 1, width + 2}:
            raise UsageError(f"a window of {width} updates has {width + 1} checkpoints, and one more before it.")
        self.checkpoints = tuple(checkpoints[-width - 1 :])
        with ExitStack() as opened:
            include = frozenset(settings.include)
            readers = [_open(checkpoint, include, opened) for checkpoint in checkpoints]
            self.layout: Mapping[str, TensorInfo] = dict(readers[0].tensors)
            _require_same(readers, checkpoints)
            self._readers = readers[-width - 1 :]
            self.spectrum = _spectrum(checkpoints, settings, group)
            self.names = group_of_names(cells(self.layout), group)
            self._opened = opened.pop_all()

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def parameters(self) -> Tensors:
        """All parameters at the window's last checkpoint, by name: float64 where the file has that, else float32."""
        return {name: _whole(self._readers[-1], name, info) for name, info in self.layout.items()}

    def projections(self, vector: Mapping[str, torch.Tensor]) -> Matrix:
        """<v_j, vector> for all j, shape (W,), float64; NaN for directions below the numerical floor."""
        products = np.zeros(len(self.checkpoints) - 1)
        for name, start, updates in self._updates():
            piece = vector[name].detach().reshape(-1)[start : start + updates.shape[1]]
            products += updates @ piece.to("cpu", torch.float64).numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            found = self.spectrum.left.T @ products / self.spectrum.sigma
        return np.where(np.arange(len(found)) < self.spectrum.resolved, found, np.nan)

    def direction(self, j: int) -> Tensors:
        """v_j, 0-indexed, as a tensor for each parameter of the group, in the dtype of :meth:`parameters`."""
        weights = self.spectrum.left[:, j] / self.spectrum.sigma[j]
        of_group = {name: self.layout[name] for name in self.names}
        found = {name: torch.empty(info.shape, dtype=in_memory(info.dtype)) for name, info in of_group.items()}
        for name, start, updates in self._updates():
            found[name].view(-1)[start : start + updates.shape[1]] = torch.from_numpy(weights @ updates)
        return found

    def _updates(self) -> Iterator[tuple[str, int, Matrix]]:
        """Name, first entry, and the block's updates in float64, shape (W, entries)."""
        for name in self.names:
            count = self.layout[name].n_parameters
            for start in range(0, count, _BLOCK):
                stop = min(count, start + _BLOCK)
                rows = [reader.read_block(name, start, stop).double().numpy() for reader in self._readers]
                yield name, start, np.diff(np.array(rows), axis=0)


def _spectrum(checkpoints: Sequence[LocalCheckpoint], settings: Settings, group: str) -> WindowSpectrum:
    width = settings.window
    the_pass = TrajectoryPass(Settings(window=width, lags=width, include=settings.include), threads=1)
    the_pass.extend([], checkpoints)
    trajectory = the_pass.result()
    if group not in trajectory.bands:
        raise UsageError(f"the model has no group `{group}`; it has {', '.join(trajectory.bands)}.")
    band = trajectory.bands[group]
    end = np.array([band.updates - 1])
    now = spectrum(band, end, width)
    before = spectrum(band, end - 1, width) if band.updates > width else None
    bound = np.full((1, width), np.nan)
    if before is not None:
        bound = rotation_bound(before.sigma, now.sigma, gram_change_operator(band, end, width))
    floor = settings.numerical_floor
    return WindowSpectrum(
        sigma=now.sigma[0],
        left=now.left[0] * np.where(now.left[0].sum(axis=0) < 0, -1.0, 1.0),
        sigma_before=None if before is None else before.sigma[0],
        stability=stability(bound)[0],
        k_star=int(k_star(now.sigma[:, : width // 2 + 1], floor)[0]),
        resolved=int(resolved(now.sigma, floor)[0]),
    )


def _open(checkpoint: LocalCheckpoint, include: frozenset[Kind], opened: ExitStack) -> CheckpointReader:
    try:
        return opened.enter_context(open_checkpoint(checkpoint.files, include=include))
    except CheckpointError as error:
        error.file = checkpoint.name
        raise


def _require_same(readers: Sequence[CheckpointReader], checkpoints: Sequence[LocalCheckpoint]) -> None:
    expected = readers[0].tensors
    for reader, checkpoint in zip(readers, checkpoints, strict=True):
        if dict(reader.tensors) != dict(expected):
            changed = sorted(dict(reader.tensors).items() ^ dict(expected).items(), key=lambda item: item[0])
            raise ShapeChangeError(
                f"shape, dtype or name differ from {checkpoints[0].name}: a window's updates need them to stay.",
                file=checkpoint.name,
                tensor=changed[0][0],
            )


def _whole(reader: CheckpointReader, name: str, info: TensorInfo) -> torch.Tensor:
    return reader.read_block(name, 0, info.n_parameters).to(in_memory(info.dtype)).reshape(info.shape).clone()
