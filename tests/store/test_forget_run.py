"""A run that is forgotten is gone for readers at once, wholly after a kill, and its neighbours stay."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from audits import assert_same, audit, key_of, raw
from children import finish, start

from spectral_edge import delta
from spectral_edge.store import Store
from spectral_edge.store_location import StoreLocation
from spectral_edge.tables import SCHEMAS


def rows_of(store: Store, run_id: str) -> int:
    """Rows of the run in all tables, those that readers do not see included."""
    predicate = delta.equals(run_id=run_id)
    return sum(delta.scan(delta.open_table(store.location, name), name, predicate).num_rows for name in SCHEMAS)


def test_all_rows_of_the_run_and_of_no_other_are_deleted(root: str) -> None:
    store = Store.open(root)
    others = [key_of("b"), key_of("a", project="other project"), key_of("a", tracker="dir")]
    for key in others:
        store.write_run(audit(key))
    before = raw(store)
    store.write_run(audit(key_of("a")))
    assert store.forget_run(key_of("a"))
    assert raw(store) == before
    assert store.read_run(key_of("a")) is None
    for key in others:
        assert_same(store.read_run(key), audit(key))
    assert not store.forget_run(key_of("a"))
    store.write_run(audit(key_of("a")))
    assert_same(store.read_run(key_of("a")), audit(key_of("a")))


def test_killed_anywhere_and_finished_by_the_next(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.write_run(audit(key_of("b")))
    seen = set()
    for line in range(1, 2000, 61):
        store.write_run(audit(key_of("a")))
        child = start(_forget_killed_at, store.location.root, line)
        code = finish(child)
        found = store.read_run(key_of("a"))
        seen.add((code, found is None))
        if found is not None:
            assert_same(found, audit(key_of("a")))
        store.forget_run(key_of("a"))
        assert rows_of(store, "a") == 0
        if code == 0:
            break
    assert {(-9, False), (-9, True), (0, True)} == seen
    assert_same(store.read_run(key_of("b")), audit(key_of("b")))


def _forget_killed_at(uri: str, line: int) -> None:
    seen = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen
        if "spectral_edge" not in frame.f_code.co_filename:
            return None
        seen += event == "line"
        if seen == line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    store = Store.open(uri)
    sys.settrace(trace)
    store.forget_run(key_of("a"))
    sys.settrace(None)


def test_an_audit_that_is_written_meanwhile_is_whole_or_gone(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(s3_root)
    store.write_run(audit(key_of("a")))
    delete = delta.delete
    written: list[str] = []

    def delete_after_the_other_commits(location: StoreLocation, table: str, predicate: str, told: str) -> set[str]:
        if table == "gaps" and not written:
            written.append(table)
            store.write_run(audit(key_of("a"), settings_hash="s22"))
        return delete(location, table, predicate, told)

    monkeypatch.setattr(delta, "delete", delete_after_the_other_commits)
    assert store.forget_run(key_of("a"))
    assert written
    assert store.read_run(key_of("a")) is None
    assert rows_of(store, "a") == 0
