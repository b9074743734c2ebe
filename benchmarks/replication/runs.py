"""One small file a run: the Gram matrix of all updates of each group, metrics, recipe, versions.

From these files everything is computed again without training. `trajectory` gives what the product's pass over the
checkpoints gave; a test holds the tables that follow from it against `spectral_edge.analyse` on the checkpoints.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.replication.recipes import Recipe
from benchmarks.replication.training import METRICS, train
from spectral_edge.analysis import Provenance, analyse_run
from spectral_edge.band import Band
from spectral_edge.checkpoints import find_trajectory
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.series import MetricSeries, TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.tables import RunKey, RunTables
from spectral_edge.trajectory import Trajectory
from spectral_edge.versions import versions


@dataclass(frozen=True)
class Run:
    """What is kept of a run.

    Attributes:
        recipe: How it was trained.
        metrics: Columns METRICS, one row a checkpoint; shape (T + 1, 6).
        grams: Inner products of all updates of each group, shape (T, T), parameter units squared.
        n_parameters: Of each group.
        about: Versions, seconds of training and of the pass.
    """

    recipe: Recipe
    metrics: np.ndarray
    grams: dict[str, np.ndarray]
    n_parameters: dict[str, int]
    about: dict[str, object]

    @cached_property
    def steps(self) -> np.ndarray:
        """Optimizer step of each checkpoint, shape (T + 1,)."""
        return self.metric("step").astype(np.int64)

    def metric(self, name: str) -> np.ndarray:
        """One of METRICS at each checkpoint."""
        return np.asarray(self.metrics[:, METRICS.index(name)])

    def coarser(self, factor: int) -> Run:
        """The same run as if only every `factor`-th checkpoint had been kept: sums of updates, exactly."""
        if factor == 1:
            return self
        count = (len(self.metrics) - 1) // factor
        grams = {
            group: gram[: count * factor, : count * factor].reshape(count, factor, count, factor).sum(axis=(1, 3))
            for group, gram in self.grams.items()
        }
        return replace(self, metrics=self.metrics[: count * factor + 1 : factor], grams=grams)

    def until(self, step: int) -> Run:
        """The run as it was known at `step`."""
        count = int((self.steps <= step).sum()) - 1
        grams = {group: gram[:count, :count] for group, gram in self.grams.items()}
        return replace(self, metrics=self.metrics[: count + 1], grams=grams)

    def bands(self, settings: Settings) -> dict[str, Band]:
        """What the product's pass sums under `settings`. Rounding of float32 weights is left out: it is nothing."""
        return {
            group: Band(_band(gram, settings.lags), self.n_parameters[group], np.zeros(len(gram)))
            for group, gram in self.grams.items()
        }

    def record(self) -> TrainingRecord:
        """Learning rate and held-out accuracy, as a tracker would have them."""
        rate, held_out = (
            MetricSeries.from_points(name, self.steps, self.metric(name))
            for name in ("learning_rate", "held_out_accuracy")
        )
        return TrainingRecord(
            learning_rate=rate,
            metric=held_out,
            optimizer=self.recipe.optimizer,
            weight_decay=self.recipe.weight_decay,
        )

    def audit(self, settings: Settings) -> RunTables:
        """The product's tables of this run."""
        trajectory = Trajectory(tuple(self.steps.tolist()), self.bands(settings))
        key = RunKey("dir", "replication", self.recipe.name, self.recipe.name)
        return analyse_run(key, trajectory, self.record(), settings, Provenance(self.recipe.hash, "finished", ""))


def _band(gram: np.ndarray, lags: int) -> np.ndarray:
    values = np.zeros((len(gram), lags + 1))
    for lag in range(min(lags, len(gram) - 1) + 1):
        values[lag:, lag] = np.diagonal(gram, -lag)
    return values


def trained(recipe: Recipe, work: Path) -> Run:
    """The run of `recipe` from its file in `work`; trained now, and the file written, when it is not there."""
    file = work / f"{recipe.name}-{recipe.hash}.npz"
    if not file.exists():
        checkpoints = work / f"training-{file.stem}"
        shutil.rmtree(checkpoints, ignore_errors=True)  # of an earlier try that was killed
        checkpoints.mkdir()
        _write(_train(recipe, checkpoints), file)
        shutil.rmtree(checkpoints)
    return read(file)


def _train(recipe: Recipe, folder: Path) -> Run:
    started = time.process_time()
    metrics = train(recipe, folder)
    trained_at = time.process_time()
    settings = Settings(lags=max(len(metrics), Settings().lags))
    summed = pass_over(folder, settings)
    # Layers are left out: with one or two layers they repeat the categories.
    bands = {group: band for group, band in summed.bands.items() if "layer" not in group}
    about: dict[str, object] = {
        "versions": versions(),
        "seconds_train": round(trained_at - started, 1),
        "seconds_pass": round(time.process_time() - trained_at, 1),
    }
    grams = {group: _square(band.values) for group, band in bands.items()}
    return Run(recipe, metrics, grams, {group: band.n_parameters for group, band in bands.items()}, about)


def pass_over(folder: Path, settings: Settings) -> Trajectory:
    """The product's pass over the checkpoints in `folder`."""
    found = find_trajectory(sorted(path.name for path in folder.iterdir()))
    summed = TrajectoryPass(settings, threads=1)
    summed.extend([], [LocalCheckpoint(c.step, c.paths[0], (folder / c.paths[0],)) for c in found.checkpoints])
    return summed.result()


def _square(values: np.ndarray) -> np.ndarray:
    gram = np.zeros((len(values), len(values)))
    for lag in range(len(values)):
        row = np.arange(lag, len(values))
        gram[row, row - lag] = gram[row - lag, row] = values[lag:, lag]
    return gram


def _write(run: Run, file: Path) -> None:
    """Whole or not at all: a run that is killed leaves no file."""
    told = {"recipe": asdict(run.recipe), "n_parameters": run.n_parameters, "about": run.about}
    temporary = file.with_suffix(".part")
    with temporary.open("wb") as stream:
        arrays: dict[str, Any] = {f"gram_{group}": gram for group, gram in run.grams.items()}
        np.savez_compressed(stream, told=json.dumps(told), metrics=run.metrics, **arrays)
    temporary.replace(file)


def read(file: Path) -> Run:
    """The run in `file`."""
    with np.load(file, allow_pickle=False) as stored:
        told = json.loads(str(stored["told"]))
        grams = {name.removeprefix("gram_"): stored[name] for name in stored.files if name.startswith("gram_")}
        return Run(Recipe(**told["recipe"]), stored["metrics"], grams, told["n_parameters"], told["about"])


def finished(work: Path, recipes: Sequence[Recipe]) -> Iterator[Run]:
    """Those of `recipes` whose files lie in `work`."""
    for recipe in recipes:
        file = work / f"{recipe.name}-{recipe.hash}.npz"
        if file.exists():
            yield read(file)
