"""From file names to a listing of checkpoints: what every tracker that keeps checkpoints as files does alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from integrations.tracker import CheckpointFile, CheckpointRef
from spectral_edge.checkpoints import FoundTrajectory, find_trajectory
from spectral_edge.errors import NoStepError


def checkpoint_refs(
    found: FoundTrajectory, file_of: Callable[[str], CheckpointFile], location: str
) -> tuple[CheckpointRef, ...]:
    """The found checkpoints as references, files described by `file_of`."""
    return tuple(
        CheckpointRef(
            name=checkpoint_name(checkpoint.paths),
            step=checkpoint.step,
            step_source=checkpoint.step_source,
            files=tuple(file_of(path) for path in checkpoint.paths),
            location=location,
        )
        for checkpoint in found.checkpoints
    )


def checkpoint_name(paths: Sequence[str]) -> str:
    """What messages call a checkpoint: its file, or the folder of its shards."""
    return paths[0] if len(paths) == 1 else str(PurePosixPath(paths[0]).parent)


def named_step(name: str) -> int | None:
    """The training step that the name of a folder or logged model tells; None when it tells none."""
    steps = steps_of([f"{name}/model.safetensors"])
    return steps[0] if steps else None


def steps_of(paths: Iterable[str]) -> tuple[int, ...]:
    """The steps of the trajectory among `paths`; empty when there is none, or none whose steps can be told."""
    try:
        return tuple(checkpoint.step for checkpoint in find_trajectory(paths).checkpoints)
    except NoStepError:
        return ()
