"""Which runs are meant: what people can ask for, and whether a run is among them.

A tracker asks its server for as little as that can tell apart; :meth:`Criteria.admit` has the last word, so that the
answer is the same whatever the server can do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args

RunState = Literal["running", "finished", "failed", "killed", "unknown"]
STATES: Final[tuple[RunState, ...]] = get_args(RunState)

_AGE: Final = re.compile(r"(?P<number>\d{1,4})(?P<unit>[mhdw])")
_UNITS: Final = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


@dataclass(frozen=True)
class Criteria:
    """What a run must be like to be selected; with nothing set, every run is.

    Attributes:
        filter: In the tracker's own language, which only the tracker can apply.
        states: The run is in one of these; empty means any.
        since: The run started or ended then or later.
    """

    filter: str | None = None
    states: tuple[RunState, ...] = ()
    since: datetime | None = None

    def admit(self, state: RunState, started_at: datetime | None, ended_at: datetime | None) -> bool:
        """Whether a run like this is selected, as far as it can be told without `filter`."""
        if self.states and state not in self.states:
            return False
        since = self.since
        return since is None or any(time is not None and time >= since for time in (started_at, ended_at))


@dataclass(frozen=True)
class Selection:
    """Which runs: `container` is the experiment (by name, id or pattern), project or folder; the rest narrows it down.

    Where `run_ids` are given, only these runs are looked at, and each must be there.
    """

    container: str
    run_ids: tuple[str, ...] = ()
    criteria: Criteria = Criteria()


def moment(text: str, now: datetime) -> datetime:
    """The time that `text` names: an age before `now` (`90m`, `24h`, `7d`, `2w`), or an ISO date, with a time or not.

    A date without a time is its first moment, one without a zone is UTC.

    Raises:
        ValueError: It is neither.
    """
    age = _AGE.fullmatch(text)
    if age:
        return now - int(age["number"]) * _UNITS[age["unit"]]
    named = datetime.fromisoformat(text)
    return named if named.tzinfo else named.replace(tzinfo=UTC)
