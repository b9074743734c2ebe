"""What the last audit changed, by the history of a real store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from synthetic_runs import make_failed, make_run

from spectral_edge.report import render_page
from spectral_edge.report.last_audit import before_last_audit, last_audit_began
from spectral_edge.store import Store
from spectral_edge.tables import RunTables

NOW = datetime.now(UTC)


def done_at(run: RunTables, moment: datetime) -> RunTables:
    column = run.runs.schema.get_field_index("audited_at")
    field = run.runs.schema.field(column)
    return replace(run, runs=run.runs.set_column(column, field, pa.array([moment], field.type)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two runs yesterday; today one is audited again, and a third is new."""
    store = Store.open(tmp_path / "store")
    yesterday = NOW - timedelta(days=1)
    store.write_run(done_at(make_failed("mended", "Bad."), yesterday))
    store.write_run(done_at(make_run("left alone", checkpoints=14, change_at=None), yesterday))
    now = datetime.now(UTC)
    store.write_run(done_at(make_run("mended", run_id=make_failed("mended", "").key.run_id, checkpoints=16), now))
    store.write_run(done_at(make_run("added <b>", checkpoints=12, change_at=None), now + timedelta(seconds=5)))
    return store


def test_an_audit_begins_after_the_last_pause() -> None:
    times = [NOW - timedelta(minutes=minutes) for minutes in (300, 299, 90, 45, 0)]
    assert last_audit_began(times) == NOW - timedelta(minutes=90)
    assert last_audit_began(times[:1]) == times[0]


def test_what_changed_is_told_run_by_run(store: Store) -> None:
    tables = store.datasets()
    runs, gaps, transitions = (tables[name].to_table() for name in ("runs", "gaps", "transitions"))
    page = render_page(runs, gaps, transitions, before=before_last_audit(store, runs))
    news = page.split('<section class="news"')[1].split("</section>")[0]
    assert "2 runs changed, 1 did not" in news
    assert "failed before, now ok" in news
    assert "4 checkpoints more" in news
    assert "added &lt;b&gt;" in news
    assert "left alone" not in news


def test_a_first_audit_has_no_news(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "first")
    assert before_last_audit(store, store.runs_table()) is None
    store.write_run(done_at(make_run("one", checkpoints=12, change_at=None), datetime.now(UTC)))
    assert before_last_audit(store, store.runs_table()) is None


def test_a_run_that_is_gone_is_told_and_a_lost_history_too(store: Store) -> None:
    runs = store.runs_table()
    kept = runs.filter(pc.not_equal(runs.column("run_name"), "left alone"))
    tables = store.datasets()
    page = render_page(
        kept, tables["gaps"].to_table(), tables["transitions"].to_table(), before=before_last_audit(store, runs)
    )
    assert "left alone (modular addition) is no longer in the store" in page
    older = runs.set_column(
        runs.schema.get_field_index("audited_at"),
        runs.schema.field("audited_at"),
        pa.array([NOW - timedelta(days=days) for days in (400, 400, 500)], runs.schema.field("audited_at").type),
    )
    told = before_last_audit(store, older)
    assert told is not None
    assert "no longer in the store's history" in told[0]
