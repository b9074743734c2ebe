"""What a researcher needs of a folder of checkpoints, without trackers, flows or a store."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import torch

from spectral_edge.analysis import Provenance, analyse_run
from spectral_edge.checkpoints import find_trajectory, open_checkpoint
from spectral_edge.errors import NotFoundError, TooFewCheckpointsError
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.series import TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.tables import RunKey, RunTables


def analyse(
    folder: str | Path,
    *,
    settings: Settings | None = None,
    record: TrainingRecord | None = None,
    device: str = "cpu",
) -> RunTables:
    """Spectra, regimes and transitions of the run whose checkpoints lie in `folder`.

    The steps come from file and folder names. Nothing is written.

    Args:
        folder: Searched with its subfolders.
        settings: Window, lags and error rate; the defaults when None.
        record: Learning rate and held-out metric of the run. Without a learning rate regimes stay `undetermined`.
        device: Where products are formed: `cpu`, `cuda`.

    Returns:
        Five Arrow tables; `.gaps.to_pandas()` is the one most people want.

    Raises:
        NotFoundError: No such folder.
        TooFewCheckpointsError: Fewer than three checkpoints.
        CheckpointError: A file is damaged, unsafe, or holds NaN or Inf.
        TrajectoryError: No step can be told, nothing moved, or the model changes from the start.
    """
    root = Path(folder)
    if not root.is_dir():
        raise NotFoundError(f"there is no folder `{folder}`.", next_step="give the folder that holds the checkpoints.")
    chosen = settings or Settings()
    found = find_trajectory(sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()))
    if not found.checkpoints:
        raise TooFewCheckpointsError(f"no checkpoint file lies in `{folder}` or below.")
    checkpoints = [
        LocalCheckpoint(one.step, one.paths[0], tuple(root / path for path in one.paths)) for one in found.checkpoints
    ]
    started = time.perf_counter()
    read: list[int] = []
    run = TrajectoryPass(chosen, device)
    run.extend([], checkpoints, read.append)
    provenance = Provenance(
        fingerprint=_fingerprint(checkpoints),
        state="unknown",
        url=root.resolve().as_uri(),
        series=found.series,
        step_source=", ".join(sorted({checkpoint.step_source for checkpoint in found.checkpoints})),
        warnings=found.warnings,
        bytes_read=sum(read),
        seconds_gram=time.perf_counter() - started,
    )
    name = root.resolve().name
    key = RunKey(tracker="dir", project=root.resolve().parent.name, run_id=name, run_name=name)
    return analyse_run(key, run.result(), record or TrainingRecord(), chosen, provenance)


def read_checkpoint(*files: str | Path) -> dict[str, torch.Tensor]:
    """The trainable parameters of one checkpoint by name, loaded into memory; several files are its shards.

    Nothing in the files is executed. Optimizer state, buffers and integer tensors are left out, prefixes of wrappers
    (`module.`, `_orig_mod.`) stripped.

    Raises:
        CheckpointError: A file is damaged or asks for code to be run.
        NotFoundError: A file does not exist.
    """
    with open_checkpoint([Path(file) for file in files]) as reader:
        return {
            name: reader.read_block(name, 0, info.n_parameters).reshape(info.shape).clone()
            for name, info in reader.tensors.items()
        }


def _fingerprint(checkpoints: list[LocalCheckpoint]) -> str:
    stats = [
        (
            checkpoint.name,
            checkpoint.step,
            [(file.stat().st_size, file.stat().st_mtime_ns) for file in checkpoint.files],
        )
        for checkpoint in checkpoints
    ]
    return hashlib.sha256(repr(stats).encode()).hexdigest()
