"""A run's data as text in the page: what page.js unpacks when the run is opened.

Numbers keep 11 bits of their fraction (BitRound, Klöwer et al. 2021, Nature Computational Science 1, 713), a relative
error below 2.5e-4; then come differences along the windows, bytes by significance, deflate and base64. JSON of the same
numbers is four times as long and takes ten times as long to write.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from spectral_edge.report.drawn import Drawn

_DROPPED_BITS: Final = 12
"""Of float32's 32; page.js shifts by the same."""


def packed(groups: Mapping[str, Drawn], page: str) -> str:
    """The data of one run: JSON with all but the measured numbers, a line feed, those numbers; deflated, in base64.

    The run's own metrics come after all groups, their steps as differences.

    Groups and columns are pairs in lists: a group's name is tracker text, and never a key in the page.

    Args:
        groups: What is drawn of the run, by group.
        page: The run's own part of the page as markup, in which whatever came from a tracker is escaped.
    """
    drawn_of = [
        [
            name,
            {
                "steps": drawn.steps,
                "windows": drawn.counted,
                "measured": [[column, *values.shape[1:]] for column, values in drawn.measured.items()],
                "stretches": drawn.stretches,
                "transitions": drawn.transitions,
                "metric": drawn.metric,
            },
        ]
        for name, drawn in groups.items()
    ]
    series = [values.T.ravel() for drawn in groups.values() for values in drawn.measured.values()]
    lines = next(iter(groups.values())).lines if groups else ()
    told = [[line.series.name, line.beside, np.diff(line.series.steps, prepend=0).tolist()] for line in lines]
    series += [line.series.values for line in lines]
    text = json.dumps(
        {"page": page, "groups": drawn_of, "lines": told}, separators=(",", ":"), allow_nan=False
    ).encode()
    numbers = _rounded(np.concatenate(series)) if series else b""
    return base64.b64encode(zlib.compress(text + b"\n" + numbers)).decode()


def _rounded(values: npt.NDArray[np.float64]) -> bytes:
    with np.errstate(over="ignore"):
        single = values.astype("<f4")
    single[~np.isfinite(single)] = np.nan
    kept = (single.view("<u4") + (1 << (_DROPPED_BITS - 1))) >> _DROPPED_BITS
    steps = np.diff(kept.astype("<i4"), prepend=np.int32(0))
    zigzag = ((steps << 1) ^ (steps >> 31)).astype("<u4")  # small numbers for small steps, up or down
    return np.ascontiguousarray(zigzag.view(np.uint8).reshape(-1, 4)[:, :3].T).tobytes()
