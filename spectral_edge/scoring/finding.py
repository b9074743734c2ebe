"""What a test answers, with the numbers that decided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Outcome = Literal["holds", "fails", "not_testable"]


@dataclass(frozen=True)
class Finding:
    """One test on one run.

    Attributes:
        outcome: `not_testable` where something lacks or the data leave it open.
        why: What was measured, or what lacks, in one sentence.
        lacks: What lacks, in a few words that are the same for all runs that lack it; empty otherwise.
        group: Parameter group looked at; None where it is all of them.
        value: The number that is held against `threshold`; None where there is none.
        threshold: What `value` is held against; the criterion of the test says how.
        n: Windows, transitions or pairs that `value` is of.
        numbers: All other numbers that decided or that a reader wants beside.
        side: Of a contrast between runs: on which side this run is; None where on neither.
        event: Whether what the contrast counts happened in this run.
    """

    outcome: Outcome
    why: str
    lacks: str = ""
    group: str | None = None
    value: float | None = None
    threshold: float | None = None
    n: int = 0
    numbers: Mapping[str, float] = field(default_factory=dict)
    side: str | None = None
    event: bool | None = None

    def on(self, side: str | None, event: bool | None) -> Finding:
        """The same with its part in a contrast."""
        return replace(self, side=side, event=event)


def lacking(lacks: str, why: str, *, group: str | None = None, numbers: Mapping[str, float] | None = None) -> Finding:
    """Not testable: `lacks` names it in a few words, `why` says it in a sentence."""
    return Finding("not_testable", why, lacks, group, numbers=dict(numbers or {}))


def decided(
    holds: bool,
    why: str,
    *,
    value: float,
    threshold: float,
    n: int,
    group: str | None = None,
    numbers: Mapping[str, float] | None = None,
) -> Finding:
    """Holds or fails. A value that is no number decides nothing, whatever `holds` says."""
    told = dict(numbers or {})
    if not math.isfinite(value) or not all(map(math.isfinite, told.values())):
        return lacking("finite values", "a number that would decide is not finite", group=group)
    return Finding("holds" if holds else "fails", why, "", group, float(value), float(threshold), n, told)
