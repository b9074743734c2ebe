"""Several writers at once: none loses anything, in a folder and on S3."""

from __future__ import annotations

import os
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from audits import assert_same, audit, key_of, raw
from children import PROCESSES, aws_environment, finish, hold_lock, start, write_runs
from deltalake import DeltaTable

from spectral_edge import delta
from spectral_edge.errors import StoreLockedError
from spectral_edge.store import Store
from spectral_edge.store_location import StoreLocation
from spectral_edge.store_lock import HOLDER_FILE, LOCK_FILE
from spectral_edge.tables import RunTables


def environment() -> dict[str, str]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return aws_environment(endpoint) if endpoint else {}


def test_four_processes_write_different_runs(root: str) -> None:
    together = PROCESSES.Barrier(4)
    shares = [[f"{writer}-{number}" for number in range(2)] for writer in range(4)]
    # They start with no store: its creation is part of the race.
    children = [start(write_runs, root, "s1", share, environment(), together) for share in shares]
    assert [finish(child) for child in children] == [0, 0, 0, 0]
    store = Store.open(root, create=False)
    assert {key[2] for key in store.audits()} == {run for share in shares for run in share}
    for run in (run for share in shares for run in share):
        assert_same(store.read_run(key_of(run)), audit(key_of(run)))
    assert store.sweep() == 0


def test_writers_beside_compaction_and_beside_one_that_is_killed(root: str) -> None:
    Store.open(root)
    together = PROCESSES.Barrier(6)
    shares = [[f"{writer}-{number}" for number in range(3)] for writer in range(4)]
    children = [start(write_runs, root, "s1", share, environment(), together) for share in shares]
    killed = start(write_runs, root, "s1", [f"killed-{number}" for number in range(50)], environment(), together)
    compacting = start(compact_often, root, environment(), together)
    store = Store.open(root, create=False)
    while not any(key[2].startswith("killed") for key in store.audits()):
        time.sleep(0.05)
    killed.kill()
    assert finish(killed) == -9
    assert [finish(child) for child in children] == [0, 0, 0, 0]
    assert finish(compacting) == 0
    written = {key[2] for key in store.audits()}
    assert written >= {run for share in shares for run in share}
    for run in written:
        assert_same(store.read_run(key_of(run)), audit(key_of(run)))
    store.sweep()
    assert len(raw(store)["gaps"]) == 12 * len(written)


def compact_often(uri: str, environment: dict[str, str], together: Barrier) -> None:
    os.environ.update(environment)
    together.wait(60)
    for _ in range(4):
        Store.open(uri).compact()


def test_two_processes_audit_the_same_run_with_other_settings(root: str) -> None:
    Store.open(root)
    together = PROCESSES.Barrier(2)
    children = [start(write_runs, root, settings, ["a"], environment(), together) for settings in ("s1", "settings 2")]
    assert [finish(child) for child in children] == [0, 0]
    store = Store.open(root, create=False)
    (state,) = store.audits().values()
    assert_same(store.read_run(key_of("a")), audit(key_of("a"), settings_hash=state.settings_hash))
    assert store.sweep() == 0


def test_a_writer_whose_rows_another_deleted_writes_again(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = audit(key_of("a")), audit(key_of("a"), settings_hash="s22")
    store = Store.open(s3_root)
    delete = delta.delete
    intruded: list[str] = []

    def delete_after_the_other_commits(location: StoreLocation, table: str, predicate: str, told: str) -> set[str]:
        if not intruded:
            intruded.append(table)
            store.write_run(theirs)
        return delete(location, table, predicate, told)

    monkeypatch.setattr(delta, "delete", delete_after_the_other_commits)
    store.write_run(ours)
    assert intruded
    assert_same(store.read_run(key_of("a")), ours)
    assert store.sweep() == 0


def test_a_held_lock_is_named_with_its_holder(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", lock_timeout=0.2)
    held = PROCESSES.Event()
    holder = start(hold_lock, store.location.root, held)
    assert held.wait(60)
    try:
        with pytest.raises(StoreLockedError) as caught:
            store.write_run(audit(key_of("a")))
        assert str(tmp_path / "store" / LOCK_FILE) in str(caught.value)
        assert f"process {holder.pid} on {os.uname().nodename}" in str(caught.value)
        assert store.read_run(key_of("a")) is None  # reading needs no lock
    finally:
        holder.kill()
        holder.join()
    store.write_run(audit(key_of("a")))
    assert_same(store.read_run(key_of("a")), audit(key_of("a")))
    assert not (tmp_path / "store" / HOLDER_FILE).exists()


@pytest.mark.parametrize("table", ["runs", "gaps", "scorecard"])
def test_an_audit_that_is_replaced_and_written_again_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    store = Store.open(tmp_path / "store")
    store.write_run(audit(key_of("a")))
    open_table, opened = delta.open_table, list[str]()

    def open_between_two_writes(location: StoreLocation, name: str, *rest: Any) -> DeltaTable:
        opened.append(name)
        # `runs` is opened twice before the tables are read: to see whose rows count, and which tables there are.
        if name != table or opened.count(table) != (3 if table == "runs" else 1):
            return open_table(location, name, *rest)
        between.undo()
        store.write_run(audit(key_of("a"), settings_hash="s22"))
        found = open_table(location, name, *rest)
        store.write_run(audit(key_of("a")))
        return found

    for read in (store.read_run, lambda key: store.datasets()["gaps"].filter(pc.field("run_id") == key.run_id)):
        opened.clear()
        with monkeypatch.context() as between:
            between.setattr(delta, "open_table", open_between_two_writes)
            found = read(key_of("a"))
        if isinstance(found, RunTables):
            assert_same(found, audit(key_of("a")))
        else:
            assert found.count_rows() == 12


def test_readers_never_see_half_an_audit_while_it_is_replaced(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.write_run(audit(key_of("a")))
    writer = start(_replace_again_and_again, store.location.root)
    reads = 0
    while writer.is_alive() and reads < 200:
        try:
            found = store.read_run(key_of("a"))
            counts = {name: rows.count_rows() for name, rows in store.datasets().items()}
        except StoreLockedError:  # replaced faster than it could be read: that is told, and nothing is read
            continue
        assert found is not None
        assert_same(found, audit(key_of("a"), settings_hash=found.summary["settings_hash"]))
        assert counts == {"runs": 1, "inner_products": 24, "gaps": 12, "transitions": 2, "scorecard": 2, "metrics": 2}
        reads += 1
    assert finish(writer) == 0
    assert reads > 2


def _replace_again_and_again(uri: str) -> None:
    for settings in ("s22", "s333") * 8:
        write_runs(uri, settings, ["a"], {})
