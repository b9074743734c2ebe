"""What a look at a tracker, the store or the machine came to: for `spectral-edge doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, Literal

Level = Literal["ok", "unknown", "warning", "problem"]
"""`unknown`: what cannot be told without writing."""

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far two clocks may differ: signed addresses of object storage are refused by clocks 15 minutes apart."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether an audit can do with it, what was seen, and what to do if not."""

    name: str
    level: Level
    seen: str
    advice: str = ""


def clock_finding(name: str, headers: Mapping[str, str], now: datetime | None = None) -> Finding:
    """This machine's clock against the time that a server sent in `headers`; `now` is for tests."""
    told, here = headers.get("Date"), now or datetime.now(UTC)
    try:
        there = parsedate_to_datetime(told or "")
    except ValueError:
        return Finding(name, "unknown", "the server sends no time to compare this clock with.")
    apart = here - (there if there.tzinfo else there.replace(tzinfo=UTC))
    if abs(apart) <= CLOCK_TOLERANCE:
        return Finding(name, "ok", "this clock and the server's agree.")
    minutes = round(abs(apart).total_seconds() / 60)
    side = "ahead of" if apart > timedelta(0) else "behind"
    return Finding(
        name, "problem", f"this clock is {minutes} minutes {side} the server's.", "set the clock that is wrong (NTP)."
    )
