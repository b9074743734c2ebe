"""What an audit would write for one run, and how much: for `--dry-run`. Names are exact, numbers are estimates.

How many parameter groups a model has is known only once a checkpoint was read: of a run that the store holds from its
last audit, of others it is assumed. Sizes were measured on random walks of 14, 60 and 200 checkpoints with nine groups;
tests hold them against what an audit writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from integrations.annotations import METRIC_QUANTITIES, TAG_COLUMNS
from integrations.tracker import OUR_NAME, Capabilities
from pipelines.wording import count_text, size_text
from spectral_edge.scorecard import PREDICTIONS

ASSUMED_GROUPS: Final = 8
"""Groups of a model that was not read yet: the total, five categories of tensors, two layers."""
BYTES_PER_ROW: Final[Mapping[str, float]] = MappingProxyType({"runs": 65_000.0, "inner_products": 9.6, "gaps": 310.0})
"""In the store before it is compacted. That of `runs` has the files around the few rows of the other tables in it."""
_GAP_TABLE_BYTES_PER_ROW: Final = 310.0
_PICTURE_BYTES: Final = 300_000
_PICTURE_BYTES_PER_CHECKPOINT: Final = 1_200
_DRAWING_BYTES: Final = 107_000
_DRAWING_BYTES_PER_CHECKPOINT: Final = 620
_PAGE_BYTES: Final = 965_000
_PAGE_BYTES_PER_ROW: Final = 27.0
_POINT_BYTES: Final = 60
_TAGS_BYTES: Final = 800
_NOTE_BYTES: Final = 450

Level = Literal["none", "summary", "full"]
"""The setting `annotate`."""
Place = Literal["nowhere", "run", "apart"]
"""To the run; or apart from it, in a run or folder of its own, so that the run gets less or nothing."""


@dataclass(frozen=True)
class Writes:
    """What would be written for one run.

    Attributes:
        place: Where results go on the tracker.
        tags: Names.
        note: Whether a section of the run's note is written.
        metrics: The metrics of each group, as `spectral_edge/<group>/<name>` by training step.
        metric_points: At most so many, where all of them are defined.
        files: Bytes by name.
        bytes: Of all that goes to the tracker.
        groups: Parameter groups that the numbers are for.
        groups_are_known: Whether those are the groups of the run's last audit, and not an assumption.
        store_rows: New or replaced rows by table; those of `transitions` and `metrics` are known after the audit only.
        store_bytes: What the store grows by.
    """

    place: Place = "nowhere"
    tags: tuple[str, ...] = ()
    note: bool = False
    metrics: tuple[str, ...] = ()
    metric_points: int = 0
    files: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0
    groups: int = 0
    groups_are_known: bool = False
    store_rows: Mapping[str, int] = field(default_factory=dict)
    store_bytes: int = 0


NOTHING: Final = Writes()


@dataclass(frozen=True)
class Work:
    """What the numbers depend on.

    Attributes:
        checkpoints: Of the run.
        new: Those that the store does not know.
        window: Updates in a full window.
        lags: Largest lag kept.
        groups: Parameter groups; None where they are not known.
        capabilities: What the tracker can do.
    """

    checkpoints: int
    new: int
    window: int
    lags: int
    groups: int | None
    capabilities: Capabilities


def writes_of(work: Work, level: Level) -> Writes:
    """What an audit writes that measures something.

    Args:
        work: What was looked up.
        level: The setting `annotate`.
    """
    groups = work.groups or ASSUMED_GROUPS
    updates = max(0, work.checkpoints - 1)
    windows = max(0, updates - 1)  # those at the start, with fewer updates, are in the table too
    rows = {
        "runs": 1,
        "inner_products": groups * _pairs(updates, work.lags),
        "gaps": groups * windows,
        "transitions": 0,
        "scorecard": len(PREDICTIONS),
    }
    store_bytes = round(sum(BYTES_PER_ROW.get(table, 0) * number for table, number in rows.items()))
    if level == "none":
        return Writes(groups=groups, groups_are_known=work.groups is not None, store_rows=rows, store_bytes=store_bytes)
    full = level == "full" and updates >= work.window
    points = groups * len(METRIC_QUANTITIES) * min(work.new, max(0, updates - work.window + 1)) if full else 0
    files = _files(work.checkpoints, groups * windows) if level == "full" and windows else {}
    return Writes(
        place="apart" if work.capabilities.results_apart else "run",
        tags=tuple(f"{OUR_NAME}.{name}" for name in TAG_COLUMNS),
        note=True,
        metrics=tuple(name.replace("/", "_") for name in METRIC_QUANTITIES) if full else (),
        metric_points=points,
        files=files,
        bytes=_TAGS_BYTES + _NOTE_BYTES + points * _POINT_BYTES + sum(files.values()),
        groups=groups,
        groups_are_known=work.groups is not None,
        store_rows=rows,
        store_bytes=store_bytes,
    )


def update_of(capabilities: Capabilities, level: Level) -> Writes:
    """What is written where only the run's state or its annotations have to be brought up to date."""
    if level == "none":
        return Writes(store_rows={"runs": 1}, store_bytes=round(BYTES_PER_ROW["runs"]))
    return Writes(
        place="apart" if capabilities.results_apart else "run",
        tags=tuple(f"{OUR_NAME}.{name}" for name in TAG_COLUMNS),
        note=True,
        bytes=_TAGS_BYTES + _NOTE_BYTES,
        store_rows={"runs": 1},
        store_bytes=round(BYTES_PER_ROW["runs"]),
    )


def in_words(runs: Sequence[Writes]) -> list[str]:
    """Sentences on what would be written to these runs, and how much in all."""
    full = max(runs, key=lambda one: (len(one.files), len(one.metrics), len(one.tags), one.bytes), default=NOTHING)
    parts = [
        full.tags and f"up to {len(full.tags)} tags ({OUR_NAME}.{{{_listed(full.tags)}}})",
        full.note and "a section in its note",
        full.metrics
        and f"{len(full.metrics)} metrics of each parameter group by training step ({OUR_NAME}/<group>/"
        f"{{{', '.join(full.metrics)}}})",
        full.files and f"files ({', '.join(f'{OUR_NAME}/{name} {_about(size)}' for name, size in full.files.items())})",
    ]
    where = "To each run, or beside it in a run of its own" if full.place == "apart" else "To each run"
    told = [f"{where}: {'; '.join(part for part in parts if part)}."] if any(parts) else []
    if not any(writes.store_bytes for writes in runs):
        return told
    points = sum(writes.metric_points for writes in runs)
    groups = sorted({writes.groups for writes in runs if writes.groups_are_known})
    guessed = [writes for writes in runs if writes.groups and not writes.groups_are_known]
    assumed = f"; {count_text(len(guessed), 'run')} counted with {ASSUMED_GROUPS} parameter groups" if guessed else ""
    known = f"; {' or '.join(map(str, groups))} parameter groups, as in the store" if groups else ""
    sent, stored = size_text(sum(one.bytes for one in runs)), size_text(sum(one.store_bytes for one in runs))
    estimate = f"up to {count_text(points, 'metric point')} and {sent} to the tracker; the store grows by {stored}"
    return [*told, f"Estimated: {estimate}{known}{assumed}."]


def _listed(tags: Sequence[str]) -> str:
    return ", ".join(tag.removeprefix(f"{OUR_NAME}.") for tag in tags)


def _about(size: int) -> str:
    return f"up to about {size_text(size)}"


def _files(checkpoints: int, rows: int) -> dict[str, int]:
    return {
        "gaps.parquet": round(_GAP_TABLE_BYTES_PER_ROW * rows),
        "spectrum.png": _PICTURE_BYTES + _PICTURE_BYTES_PER_CHECKPOINT * checkpoints,
        "spectrum.svg": _DRAWING_BYTES + _DRAWING_BYTES_PER_CHECKPOINT * checkpoints,
        "spectrum.html": round(_PAGE_BYTES + _PAGE_BYTES_PER_ROW * rows),
    }


def _pairs(updates: int, lags: int) -> int:
    """Pairs of updates at most `lags` apart, each with itself too."""
    kept = min(lags, max(0, updates - 1))
    return (kept + 1) * updates - kept * (kept + 1) // 2
