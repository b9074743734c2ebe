"""What an audit leaves in the log: a line before it writes to a run, one after, and what people were told."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from killed_audits import PROCESSES
from one_folder import audit, tables, tracked, weights, write

from integrations.folder_tracker import FolderTracker
from pipelines.alerts import AlertEvent, Send, alerts_of
from pipelines.retract import Request, Retractor
from pipelines.settings import load_settings
from pipelines.sources import lists_all, not_listed
from spectral_edge.errors import AccessDeniedError, TransientError
from spectral_edge.query import query
from spectral_edge.store import Store
from spectral_edge.tables import RunKey, RunTables, build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    for index, row in enumerate(weights(8)):
        write(run, index, row)
    return run


def log(columns: str = "event") -> list[tuple[Any, ...]]:
    found = query(Store.open("spectral-edge-store"), f"select {columns} from audit_log order by written_at")
    return [tuple(row.values()) for row in found.to_pylist()]


def test_each_writing_has_two_lines_and_nothing_new_has_none(folder: Path) -> None:
    audit(folder, annotate="full")
    [planned, done] = log("event, run_id, level, metric_points, files, bytes_written > 0, error")
    run_id = tracked(folder).key.run_id
    assert planned[:3] == ("will_write", run_id, "full")
    assert done[:3] == ("written", run_id, "full")
    assert planned[3] == done[3] > 0
    assert planned[4] == 4 <= done[4]  # the folder keeps tags and note in files of their own
    assert (planned[5], done[5]) == (None, True)
    audit(folder, annotate="full")
    assert len(log()) == 2


def test_what_is_not_written_to_a_run_is_not_logged(folder: Path) -> None:
    audit(folder)
    assert not (Path("spectral-edge-store") / "audit_log").exists()


class Refusing(FolderTracker):
    """Takes no annotation."""

    def annotate(self, *_: object, **__: object) -> None:  # type: ignore[override]
        raise AccessDeniedError("read only")


def test_a_refusal_is_logged(folder: Path) -> None:
    with pytest.raises(AccessDeniedError):
        audit(folder, annotate="summary", tracker=Refusing())
    assert log("event, error") == [("will_write", None), ("failed", "AccessDeniedError")]


class Deadly(FolderTracker):
    """Dies while it writes."""

    def annotate(self, *_: object, **__: object) -> None:  # type: ignore[override]
        os.kill(os.getpid(), signal.SIGKILL)


def _audit_and_die(folder: Path) -> None:
    audit(folder, annotate="summary", tracker=Deadly())


def test_a_kill_leaves_the_line_that_says_what_may_be_there(folder: Path) -> None:
    child = PROCESSES.Process(target=_audit_and_die, args=(folder,))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert log() == [("will_write",)]
    audit(folder, annotate="summary")
    assert log() == [("will_write",), ("will_write",), ("written",)]


@pytest.mark.parametrize("keep_rows", [False, True])
def test_retracting_is_logged_once(folder: Path, keep_rows: bool) -> None:
    audit(folder, annotate="full")
    for dry_run in (True, False, False):
        work = Retractor.of(Request(f"dir:{folder}", store="spectral-edge-store", keep_rows=keep_rows))
        for run in work.runs:
            work.retract(run, dry_run=dry_run)
    assert [event for (event,) in log()] == ["will_write", "written", "retracted"]
    assert bool(query(Store.open("spectral-edge-store"), "select 1 from runs").num_rows) is keep_rows


def _with_finding(tables: RunTables, step: int) -> RunTables:
    found = {"group": "total", "kind": "rotation", "onset_step": step, "onset_low": step - 1, "onset_high": step + 1}
    row = {**tables.key.columns(), "audit_id": tables.audit_id, "q_value": 0.01, **found}
    return replace(tables, transitions=build("transitions", [row]))


def test_findings_wait_for_a_server_that_does_not_answer(folder: Path) -> None:
    audit(folder)
    store, nothing_found = Store.open("spectral-edge-store"), tables(folder)
    sent: list[AlertEvent] = []

    def refuse(_: Sequence[AlertEvent]) -> None:
        raise TransientError("no answer")

    def catch_up(send: Send = sent.extend) -> str | None:
        return alerts_of(store, send).catch_up("dir", [nothing_found.key.project_key])

    assert catch_up() is None
    store.write_run(_with_finding(nothing_found, 50))
    assert "1 alerts are left" in str(catch_up(refuse))
    assert query(store, "alerts").num_rows == 0
    for _ in range(2):
        assert catch_up() is None
        assert [(event.name, event.payload["step"]) for event in sent] == [("spectral_edge.transition", 50)]
    store.write_run(_with_finding(nothing_found, 51))  # the same, within its interval
    assert catch_up() is None
    store.write_run(_with_finding(nothing_found, 90))
    assert catch_up() is None
    assert [event.name for event in sent[1:]] == ["spectral_edge.transition.closed", "spectral_edge.transition"]
    assert sent[1].payload["reason"] == "superseded"
    assert sent[1].resource == sent[0].resource
    store.forget_run(nothing_found.key)
    assert catch_up() is None
    assert (sent[3].name, sent[3].payload["reason"]) == ("spectral_edge.transition.closed", "retracted")
    store.write_run(_with_finding(nothing_found, 50))
    assert catch_up() is None
    assert sent[4].resource == sent[0].resource
    assert len({event.id for event in sent}) == len(sent) == 5


def test_nobody_is_told_of_what_an_older_store_holds(folder: Path) -> None:
    audit(folder)
    store = Store.open("spectral-edge-store")
    store.write_run(_with_finding(tables(folder), 50))
    sent: list[AlertEvent] = []
    watching = alerts_of(store, sent.extend)
    assert watching.catch_up("dir", [tables(folder).key.project_key]) is None
    assert sent == []
    assert log("event, told") == [("alert_opened", False)]


def test_an_event_holds_no_password_and_no_odd_letters(folder: Path) -> None:
    audit(folder)
    store, found = Store.open("spectral-edge-store"), _with_finding(tables(folder), 50)
    sent: list[AlertEvent] = []
    watching = alerts_of(store, sent.extend)
    url = pa.array(["https://someone:secret@host:5000/#/runs/1"])
    runs = found.runs.set_column(found.runs.column_names.index("url"), "url", url)
    key = replace(found.key, run_name="a\nb\x1b" + "c" * 400)
    named = {name: getattr(found, name) for name in ("gaps", "inner_products", "transitions")}
    named = {name: _renamed(table, key.run_name) for name, table in {**named, "runs": runs}.items()}
    assert watching.settle(key, RunTables(key, **named)) is None
    [event] = sent
    assert event.payload["run_url"] == "https://host:5000/#/runs/1"
    told = [*event.resource.values(), *event.related.values()]
    assert all(text.isprintable() and 0 < len(text) <= 250 for text in told)


def _renamed(table: pa.Table, name: str) -> pa.Table:
    column = pa.array([name] * table.num_rows, pa.string())
    return table.set_column(table.column_names.index("run_name"), "run_name", column)


def test_alerts_of_a_run_that_was_deleted_are_closed_until_it_is_there_again(folder: Path) -> None:
    audit(folder)
    store, found, run = Store.open("spectral-edge-store"), _with_finding(tables(folder), 50), tracked(folder)
    sent: list[AlertEvent] = []
    alerts = alerts_of(store, sent.extend)
    store.write_run(found)
    other = replace(run, key=replace(run.key, run_id="another"), url=f"{run.url.rpartition(os.sep)[0]}/other")
    elsewhere = replace(other, url="/elsewhere/other")
    assert not_listed(store, [run, other]) == not_listed(store, [elsewhere]) == not_listed(store, []) == []
    assert not_listed(store, [other]) == [found.key]

    def catch_up(*listed: RunKey) -> list[tuple[str, str | None]]:
        sent.clear()
        assert alerts.catch_up("dir", [found.key.project_key], listed) is None
        return [(event.name.rpartition(".")[2], event.payload.get("reason")) for event in sent]

    assert catch_up() == [("transition", None)]
    for _ in range(2):
        assert alerts.close_deleted([found.key]) is None
    assert [event.payload.get("reason") for event in sent] == [None, "deleted"]
    assert query(store, "alerts").num_rows == 0
    assert catch_up() == catch_up(other.key) == []
    assert catch_up(run.key) == [("transition", None)]
    assert catch_up() == []


@pytest.mark.parametrize(
    ("source", "flags", "whole"),
    [
        ("mlflow:toy", {}, True),
        ("mlflow:toy/" + "0" * 32, {}, False),
        ("mlflow:toy", {"state": "running"}, False),
        ("dir:runs", {"since": "2h"}, False),
    ],
)
def test_a_selection_misses_no_run_that_it_does_not_ask_for(source: str, flags: dict[str, str], whole: bool) -> None:
    assert lists_all(source, load_settings(**flags)) is whole
