"""When two findings are the same: hypothesis against what must hold whatever the audits find."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.findings import Finding, Ledger, OpenAlert, changes
from spectral_edge.tables import RunKey

STORE = UUID(int=7)


@st.composite
def _finding(draw: st.DrawFn) -> Finding:
    key = RunKey("dir", "toy", draw(st.sampled_from(["one", "two"])), draw(st.sampled_from(["a", "b"])))
    low, length, at = draw(st.integers(0, 40)), draw(st.integers(0, 20)), draw(st.integers(0, 20))
    return Finding(
        key,
        draw(st.sampled_from(["total", "mlp"])),
        draw(st.sampled_from(["rotation", "gap_opening"])),
        low + min(at, length),
        low,
        low + length,
    )


findings = st.lists(_finding(), max_size=8, unique_by=lambda it: it.id(STORE))


def told_of(found: list[Finding]) -> list[OpenAlert]:
    return [OpenAlert(finding.id(STORE), 1, finding) for finding in found]


@given(findings)
def test_what_was_told_is_not_told_again(found: list[Finding]) -> None:
    assert changes(found, told_of(found)) == ([], [])


@settings(max_examples=300)
@given(findings, findings)
def test_one_step_settles_it(before: list[Finding], now: list[Finding]) -> None:
    """After new ones are told and gone ones closed, nothing is left to tell, and nothing was both kept and closed."""
    told = told_of(before)
    new, gone = changes(now, told)
    kept = [alert for alert in told if alert not in gone]
    assert len(kept) + len(new) == len(now)
    assert changes(now, [*kept, *told_of(new)]) == ([], [])


@given(findings, findings)
def test_apart_is_new_and_gone(before: list[Finding], now: list[Finding]) -> None:
    """Findings that overlap with none of the same place are new; alerts likewise are gone."""

    def same(a: Finding, b: Finding) -> bool:
        place = (a.key.run_id, a.group, a.kind) == (b.key.run_id, b.group, b.kind)
        return place and max(a.low, b.low) <= min(a.high, b.high)

    new, gone = changes(now, told_of(before))
    assert all(finding in new for finding in now if not any(same(finding, other) for other in before))
    closed = [alert.finding for alert in gone]
    assert all(finding in closed for finding in before if not any(same(finding, other) for other in now))


def _row(event: str, opening: int, step: int = 5) -> dict[str, Any]:
    finding = Finding(RunKey("dir", "toy", "one", "one"), "total", "rotation", step, step - 1, step + 1)
    names = {"event": event, "finding_id": str(finding.id(STORE)), "opening": opening, "tracker": "dir"}
    place = {"project": "toy", "run_id": "one", "run_name": "one", "group": "total", "kind": "rotation"}
    return names | place | {"onset_step": step, "onset_low": step - 1, "onset_high": step + 1}


def test_the_log_counts_a_line_once_however_often_it_was_written() -> None:
    opened, closed, again = _row("alert_opened", 1), _row("alert_closed", 1), _row("alert_opened", 2)
    other = _row("alert_opened", 1, step=50)
    ledger = Ledger.of([opened, opened, other, closed, again, again])
    assert [(alert.opening, alert.finding.step) for alert in ledger.open] == [(1, 50), (2, 5)]
    assert set(ledger.openings.values()) == {1, 2}
    assert Ledger.of([opened, closed, closed]).open == ()


def test_a_renamed_run_is_the_same() -> None:
    found = Finding(RunKey("dir", "toy", "one", "new name"), "total", "rotation", 5, 4, 6)
    told = Finding(RunKey("dir", "toy", "one", "old name"), "total", "rotation", 5, 4, 6)
    assert changes([found], told_of([told])) == ([], [])
