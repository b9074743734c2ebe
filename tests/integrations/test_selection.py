"""What makes a run be among those that are meant, as far as no tracker is asked."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from integrations.folder_tracker import FolderTracker
from integrations.locate import locate
from integrations.selection import Criteria, Selection, moment
from integrations.tracker import OUR_NAME
from spectral_edge.errors import NotFoundError, UsageError

NOW = datetime(2026, 3, 10, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("24h", NOW - timedelta(days=1)),
        ("7d", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(days=14)),
        ("0d", NOW),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T08:15", datetime(2026, 1, 31, 8, 15, tzinfo=UTC)),
        ("2026-01-31 08:15:00+02:00", datetime(2026, 1, 31, 8, 15, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_ages_and_dates(text: str, named: datetime) -> None:
    assert moment(text, NOW) == named


@pytest.mark.parametrize(
    "text", ["", "7", "d", "-7d", "7 days", "7D", "99999w", "yesterday", "2026-13-01", "31.01.2026"]
)
def test_what_is_neither_age_nor_date(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        moment(text, NOW)


def test_a_run_counts_by_its_start_or_its_end() -> None:
    criteria = Criteria(since=NOW)
    before, after = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)
    assert criteria.admit("finished", before, NOW)
    assert criteria.admit("running", after, None)
    assert not criteria.admit("running", before, None)
    assert not criteria.admit("finished", before, before)
    assert not criteria.admit("unknown", None, None)
    assert Criteria().admit("unknown", None, None)


@pytest.mark.parametrize(
    ("criteria", "named"),
    [
        (Criteria(filter="metrics.loss < 1"), "`filter` cannot"),
        (Criteria(states=("finished",)), "`state` cannot"),
        (Criteria("metrics.loss < 1", ("failed",)), "`filter` and `state` cannot"),
    ],
)
def test_folders_refuse_what_they_cannot_tell(tmp_path: Path, criteria: Criteria, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        locate(f"dir:{tmp_path}", criteria=criteria)
    with pytest.raises(UsageError, match=named):
        FolderTracker().runs(Selection(str(tmp_path), criteria=criteria))


def test_a_folder_is_as_new_as_the_newest_of_its_runs_files(tmp_path: Path) -> None:
    for name, age in (("old", 20), ("grown", 3)):
        for step in (1, 2):
            path = tmp_path / name / f"step_{step}.pt"
            path.parent.mkdir(exist_ok=True)
            path.touch()
            os.utime(path, (NOW.timestamp() - (age if step == 2 else 20) * 86400,) * 2)
    (tmp_path / "old" / OUR_NAME).mkdir()
    (tmp_path / "old" / OUR_NAME / "note.md").touch()  # ours, and new
    tracker, selection = locate(f"dir:{tmp_path}", criteria=Criteria(since=moment("7d", NOW)))
    assert [run.key.run_name for run in tracker.runs(selection)] == ["grown"]

    everything = {run.key.run_name: run.key.run_id for run in tracker.runs(Selection(str(tmp_path)))}
    assert list(tracker.runs(Selection(str(tmp_path), (everything["old"],), selection.criteria))) == []
    with pytest.raises(NotFoundError):
        tracker.runs(Selection(str(tmp_path), ("no-such-run",), selection.criteria))
