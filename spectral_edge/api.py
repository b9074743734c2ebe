"""What a researcher needs of a folder of checkpoints, without trackers, flows or a store."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from spectral_edge.analysis import Provenance, analyse_run
from spectral_edge.audited_run import AuditedRun
from spectral_edge.checkpoints import find_trajectory, open_checkpoint
from spectral_edge.errors import NotFoundError, TooFewCheckpointsError, UsageError
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.series import TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.tables import RunKey
from spectral_edge.training_log import LearningRate, Log, Metric, record_of, require_same_axis


def analyse(
    folder: str | Path,
    *,
    metric: Metric | None = None,
    learning_rate: LearningRate | None = None,
    log: Log | None = None,
    settings: Settings | None = None,
    record: TrainingRecord | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> AuditedRun:
    """Spectra, regimes and transitions of the run whose checkpoints lie in `folder`.

    The steps come from file and folder names. Nothing is written.

    Args:
        folder: Searched with its subfolders.
        metric: The held-out metric: the name of its column in `log`, or its values by step, as a mapping or a series of
            pandas. Without one, nothing is said of what moved first.
        learning_rate: The same of the rate, or one number when it was constant. Without one, regimes stay
            `undetermined`.
        log: What the training loop logged: a CSV, JSON lines or Parquet file, a data frame, or a mapping of names to
            columns. It has a column `step`, `global_step`, `_step` or `iteration`. When None, the `metrics.csv` or
            `metrics.jsonl` in `folder`.
        settings: Window, lags and error rate; the defaults when None.
        record: Metric and learning rate in the form that trackers give, instead of the three above.
        device: Where products are formed: `cpu`, `cuda`.
        progress: Called now and then with the bytes read so far and the bytes of all files.

    Returns:
        The run: its picture in a notebook, `.verdict`, `.plot()`, `.to_pandas()`, and its Arrow tables.

    Raises:
        NotFoundError: No such folder, or no such log.
        UsageError: A column that is not there, a metric that counts other steps than the checkpoints.
        TooFewCheckpointsError: Fewer than three checkpoints.
        CheckpointError: A file is damaged, unsafe, or holds NaN or Inf.
        TrajectoryError: No step can be told, nothing moved, or the model changes from the start.

    Examples:
        >>> run = analyse("example-runs/short", metric="val_accuracy", learning_rate="lr")
        >>> run.verdict.split(":")[0]
        'No change of the spectrum is established. Changes were not tested'
        >>> run = analyse("example-runs/short", metric={0: 0.1, 200: 0.2, 400: 0.9}, learning_rate=1e-3)
        >>> run.to_pandas()["learning_rate"].unique().tolist()
        [0.001]
    """
    root = Path(folder)
    if not root.is_dir():
        raise NotFoundError(f"there is no folder `{folder}`.", next_step="give the folder that holds the checkpoints.")
    chosen = settings or Settings()
    if record is not None and not (metric is None and learning_rate is None and log is None):
        raise UsageError("use `record`, or `metric`, `learning_rate` and `log`, not both.")
    told = record or record_of(metric, learning_rate, log, folder=root, settings=chosen)
    found = find_trajectory(sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()))
    if not found.checkpoints:
        raise TooFewCheckpointsError(f"no checkpoint file lies in `{folder}` or below.")
    checkpoints = [
        LocalCheckpoint(one.step, one.paths[0], tuple(root / path for path in one.paths)) for one in found.checkpoints
    ]
    if record is None:
        require_same_axis(told, np.asarray([one.step for one in checkpoints]))
    started = time.perf_counter()
    read = _Read(sum(file.stat().st_size for one in checkpoints for file in one.files), progress)
    run = TrajectoryPass(chosen, device)
    run.extend([], checkpoints, read.more)
    trajectory = run.result()
    read.end()
    provenance = Provenance(
        fingerprint=_fingerprint(checkpoints),
        state="unknown",
        url=root.resolve().as_uri(),
        series=found.series,
        step_source=", ".join(sorted({checkpoint.step_source for checkpoint in found.checkpoints})),
        warnings=found.warnings,
        bytes_read=read.bytes,
        seconds_gram=time.perf_counter() - started,
    )
    name = root.resolve().name
    key = RunKey(tracker="dir", project=root.resolve().parent.name, run_id=name, run_name=name)
    return AuditedRun.of(analyse_run(key, trajectory, told, chosen, provenance))


class _Read:
    """Counts the bytes read, and tells of them."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.bytes = 0
        self._total = total
        self._tell = progress or (lambda _done, _total: None)

    def more(self, n_bytes: int) -> None:
        self.bytes += n_bytes
        # Optimizer states are not read, and what follows a segment reads its last checkpoints again.
        self._tell(min(self.bytes, self._total), self._total)

    def end(self) -> None:
        self._tell(self._total, self._total)


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
