"""What is written to a run, what an earlier audit left there, and what writing and taking back come to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["summary", "full"]
"""How much is written: what can be said in a few words, or all of it."""


@dataclass(frozen=True)
class MetricPoint:
    """One value of one metric at one training step; never NaN or infinite."""

    key: str
    step: int
    value: float


@dataclass(frozen=True)
class AnnotationState:
    """What an earlier audit left on the run. `complete` is False when it was interrupted while writing.

    `audit_id` is None where a version wrote it that did not put the audit's id into the mark.
    """

    fingerprint: str
    settings_hash: str
    complete: bool
    audit_id: str | None = None

    @classmethod
    def of_marks(cls, started: str | None, finished: str | None) -> AnnotationState | None:
        """From the marks (`Annotation.mark`) that a tracker keeps of the annotation begun and of the one finished."""
        mark = started or finished
        if not mark or mark.count("/") != 2:
            return None
        fingerprint, settings_hash, rest = mark.split("/")
        audit_id, named, _ = rest.partition("-")
        return cls(fingerprint, settings_hash, complete=mark == finished, audit_id=audit_id if named else None)


@dataclass(frozen=True)
class Annotation:
    """One analysis in the words of annotations.py, the same for every tracker.

    `tags` keys start with `spectral_edge.`; `metrics` keys with `spectral_edge/`; `files` are named relative to the
    tracker's `spectral_edge/` folder; `note` is Markdown. `level` is what was asked for: on level `summary` there are
    no metrics and no files. `audit_id` names the audit in the store; empty where it has none.
    """

    fingerprint: str
    settings_hash: str
    tags: Mapping[str, str]
    note: str
    metrics: Sequence[MetricPoint] = field(default_factory=tuple)
    files: Mapping[str, bytes] = field(default_factory=dict)
    level: Level = "full"
    audit_id: str = ""

    @property
    def mark(self) -> str:
        """`fingerprint/settings_hash/audit_id-digest of what is written`: equal marks, equal annotations."""
        contents = json.dumps([sorted(self.tags.items()), self.note, len(self.metrics), sorted(self.files)])
        digest = hashlib.sha256(contents.encode()).hexdigest()[:16]
        return f"{self.fingerprint}/{self.settings_hash}/{'-'.join(filter(None, [self.audit_id, digest]))}"


@dataclass(frozen=True)
class WriteReceipt:
    """What `annotate` wrote, and what it could not write as asked (`warnings`, one sentence each)."""

    metric_points: int
    files: int
    bytes_written: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leftover:
    """Something that should have been taken back and stays: what and where, and why with what to do about it."""

    what: str
    why: str


@dataclass(frozen=True)
class RetractReceipt:
    """What `retract` took back, and what stays; on a dry run, what it would.

    Attributes:
        tags: Tags taken back.
        files: Files taken back, named relative to `spectral_edge/`.
        note: Whether our section was taken out of the run's note.
        kept_metrics: Points by metric, of which the tracker can delete none.
        advice: What a person can do about what the tracker keeps.
        leftovers: What stays although trackers of this kind can delete it.
        foreign_files: Files in `spectral_edge/` that we did not write; they were left alone.
        child_runs: Ids of the runs made for results that were deleted.
    """

    tags: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    note: bool = False
    kept_metrics: Mapping[str, int] = field(default_factory=dict)
    advice: str = ""
    leftovers: tuple[Leftover, ...] = ()
    foreign_files: tuple[str, ...] = ()
    child_runs: tuple[str, ...] = ()

    @property
    def took_back(self) -> bool:
        """Whether there was anything to take back."""
        return bool(self.tags or self.files or self.note or self.child_runs)
