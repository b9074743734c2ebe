"""Checkpoints: which files of a run are its trajectory, and how to read any of them without trusting or loading it.

:func:`find_trajectory` sorts a run's file names into checkpoints by step, :func:`find_series` tells of all series that
there are; :func:`open_checkpoint` opens the files of one checkpoint, in any of the formats, behind
:class:`CheckpointReader`.
"""

from spectral_edge.checkpoints.layouts import FoundCheckpoint
from spectral_edge.checkpoints.naming import FoundFiles, FoundSeries, FoundTrajectory, find_series, find_trajectory
from spectral_edge.checkpoints.opening import open_checkpoint
from spectral_edge.checkpoints.protocol import CheckpointReader, Location, Span, TensorInfo
from spectral_edge.checkpoints.weight_files import DCP_METADATA, is_checkpoint_file, shown

__all__ = [
    "DCP_METADATA",
    "CheckpointReader",
    "FoundCheckpoint",
    "FoundFiles",
    "FoundSeries",
    "FoundTrajectory",
    "Location",
    "Span",
    "TensorInfo",
    "find_series",
    "find_trajectory",
    "is_checkpoint_file",
    "open_checkpoint",
    "shown",
]
