"""What the reader says of a file that may be damaged."""

from __future__ import annotations

from pathlib import Path

from spectral_edge.checkpoints import open_checkpoint
from spectral_edge.errors import CheckpointError


def verdict(path: Path) -> CheckpointError | None:
    """Reads the whole file; what is raised beside our own errors goes through and fails the test."""
    try:
        with open_checkpoint([path]) as reader:
            for name, info in reader.tensors.items():
                assert reader.read_block(name, 0, info.n_parameters).numel() == info.n_parameters
    except CheckpointError as error:
        return error
    return None
