"""One small file a run, its segment, and what the detector makes of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.negatives.kinds import (
    FIRST_SEED,
    HELD_OUT_RANGE,
    KINDS,
    LOSS_RANGE,
    SEGMENT,
    Kind,
    Process,
)
from benchmarks.negatives.training import METRICS, train
from benchmarks.replication.recipes import queue
from benchmarks.replication.runs import Run, finished
from benchmarks.synthetic_updates import band_of_gram
from spectral_edge.calibration import strongest
from spectral_edge.settings import Settings

MEMORISING = "arithmetic by heart (replication)"
_FITTED = 0.99


@dataclass(frozen=True)
class Negative:
    """A run without an event in its metric: the segment that is looked at.

    Attributes:
        part: `calibration` or `test`.
        eligible: Index of the segment's first checkpoint in the run.
        grams: Gram matrices of the segment's 59 updates, by group.
        norm_ratio: Mean norm of the last third of the updates over that of the first.
    """

    kind: str
    process: Process
    part: str
    seed: int
    eligible: int
    grams: Mapping[str, np.ndarray]

    @property
    def norm_ratio(self) -> float:
        norms = np.sqrt(np.diagonal(self.grams["total"]))
        third = len(norms) // 3
        return float(norms[-third:].mean() / norms[:third].mean())

    def shuffled(self) -> Negative:
        """The same updates in random order."""
        order = np.random.default_rng([self.seed, self.eligible]).permutation(SEGMENT - 1)
        grams = {group: gram[np.ix_(order, order)] for group, gram in self.grams.items()}
        return Negative(self.kind, self.process, self.part, self.seed, self.eligible, grams)


@dataclass(frozen=True)
class Statistic:
    """The smallest q-value of a segment; where its change lies, in updates from the eligible checkpoint."""

    q_value: float
    tests: int
    update: int | None
    low: int | None
    high: int | None
    change: str | None


def negatives(work: Path, counts: Mapping[str, int]) -> Iterator[Negative | tuple[str, str]]:
    """Every segment, `counts` runs a kind for each part, trained now where its file is not there.

    A run without a segment is (kind, part) alone.
    """
    for kind in KINDS:
        for part, count in counts.items():
            for seed in range(FIRST_SEED[part], FIRST_SEED[part] + count):
                metrics, grams = stored(kind, seed, work)
                start = eligible(metrics, kind.fitted)
                yield (kind.name, part) if start is None else _segment(kind, part, seed, start, grams)


def memorising(folder: Path) -> Iterator[Negative | tuple[str, str]]:
    """The memorising runs of the replication: by the same rule, but that loss and metrics are its own."""
    for run in finished(folder, [recipe for recipe in queue(6) if recipe.kind == "memorising"]):
        if run.recipe.task == "commands":
            continue  # no arithmetic
        columns = ("train_accuracy", "held_out_accuracy", "train_loss")
        start = eligible(np.stack([run.metric(name) for name in columns], axis=1), _FITTED)
        if start is None:
            yield MEMORISING, "test"
            continue
        grams = {group: _cut(gram, start) for group, gram in run.grams.items()}
        seed = int(run.recipe.hash, 16) % 10**9
        yield Negative(MEMORISING, "settling", "test", seed, start, grams)


def eligible(metrics: np.ndarray, fitted: float) -> int | None:
    """Index of the first checkpoint of the first segment without an event (kinds.py); None where there is none."""
    train_metric, held_out, loss = (metrics[:, METRICS.index(name)] for name in METRICS)
    for start in np.flatnonzero(train_metric >= fitted).tolist():
        inside = slice(start, start + SEGMENT)
        if start + SEGMENT > len(metrics):
            return None
        if np.ptp(held_out[inside]) <= HELD_OUT_RANGE and np.ptp(loss[inside]) <= LOSS_RANGE:
            return int(start)
    return None


def stored(kind: Kind, seed: int, work: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Metrics and Gram matrices of one run, from its file; trained now where there is none."""
    file = work / f"{_slug(kind.name)}-s{seed}-{kind.hash}.npz"
    if not file.exists():
        metrics, grams = train(kind, seed)
        part = file.with_suffix(".part")
        with part.open("wb") as stream:
            np.savez(stream, metrics=metrics, **{f"gram_{group}": gram for group, gram in grams.items()})
        part.replace(file)
    with np.load(file, allow_pickle=False) as kept:
        grams = {name.removeprefix("gram_"): kept[name] for name in kept.files if name.startswith("gram_")}
        return kept["metrics"], grams


def statistic(run: Negative, settings: Settings, work: Path) -> Statistic:
    """What the detector makes of a segment; remembered in `work`, as permutations take a while."""
    return _remembered(run.grams, settings, work)


def strongest_of(run: Run, settings: Settings, work: Path) -> Statistic:
    """The same of all updates of a retrained run."""
    return _remembered(run.grams, settings, work)


def _remembered(grams: Mapping[str, np.ndarray], settings: Settings, work: Path) -> Statistic:
    digest = hashlib.sha256(grams["total"].tobytes()).hexdigest()[:16]
    file = work / f"q-{digest}-{settings.hash}.json"
    if not file.exists():
        found = strongest({g: band_of_gram(gram, settings.lags) for g, gram in grams.items()}, settings)
        change = found.change
        where = (change.update, change.low, change.high) if change else (None, None, None)
        told = Statistic(found.q_value, found.tests, *where, f"{change.group} {change.kind}" if change else None)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(vars(told)))
        part.replace(file)
    return Statistic(**json.loads(file.read_text()))


def of_part(runs: Sequence[Negative], part: str, kind: str | None = None) -> list[Negative]:
    """Those of one part, and of one kind where it is named."""
    return [run for run in runs if run.part == part and kind in {None, run.kind}]


def _segment(kind: Kind, part: str, seed: int, start: int, grams: Mapping[str, np.ndarray]) -> Negative:
    return Negative(kind.name, kind.process, part, seed, start, {g: _cut(gram, start) for g, gram in grams.items()})


def _cut(gram: np.ndarray, start: int) -> np.ndarray:
    inside = slice(start, start + SEGMENT - 1)
    return np.asarray(gram[inside, inside])


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())
