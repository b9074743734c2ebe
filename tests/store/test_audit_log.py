"""Table `audit_log`: only ever added to, by many writers at once, and whole after a kill."""

from __future__ import annotations

import datetime as dt
import threading
from uuid import UUID

import pyarrow as pa
import pytest
from audits import audit, key_of
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from spectral_edge import audit_log
from spectral_edge.audit_log import SCHEMA, AuditLog, Entry
from spectral_edge.query import query
from spectral_edge.store import Store

KEY = key_of("one", project="a b/ü")


@pytest.fixture
def store(root: str) -> Store:
    return Store.open(root)


def events(store: Store) -> list[str]:
    return sorted(AuditLog(store.location).dataset().to_table()["event"].to_pylist())


def test_a_store_without_a_log_answers_and_gets_one_with_the_first_line(store: Store) -> None:
    log = AuditLog(store.location)
    assert not log.exists()
    assert query(store, "log").num_rows == 0
    log.append([Entry(KEY, "will_write", level="full", metric_points=3)])
    [row] = query(store, "select * from audit_log").to_pylist()
    assert (row["project"], row["event"], row["metric_points"], row["files"]) == (KEY.project, "will_write", 3, None)
    assert row["written_at"] <= dt.datetime.now(dt.UTC)
    assert row["version"]
    assert list(row) == SCHEMA.names


def test_a_log_whose_columns_another_version_describes_in_other_words_is_added_to(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(store.location)
    with monkeypatch.context() as then:
        fields = [field.with_metadata({"meaning": f"what {field.name} was called"}) for field in SCHEMA]
        then.setattr(audit_log, "SCHEMA", pa.schema(fields))
        log.append([Entry(KEY, "written")])
    log.append([Entry(KEY, "failed")])
    assert events(store) == ["failed", "written"]


def test_delta_refuses_a_change_of_its_rows(store: Store) -> None:
    log = AuditLog(store.location)
    log.append([Entry(KEY, "written")])
    table = DeltaTable(store.location.table_uri("audit_log"), storage_options=store.location.storage_options())
    for change in (table.delete, lambda: write_deltalake(table, log.dataset().to_table(), mode="overwrite")):
        with pytest.raises(DeltaError, match="append-only"):
            change()
    assert events(store) == ["written"]


def test_writers_at_once_lose_no_line_nor_the_table(store: Store) -> None:
    def write() -> None:
        for _ in range(4):
            AuditLog(store.location).append([Entry(KEY, "written"), Entry(KEY, "failed")])

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert events(store) == ["failed"] * 16 + ["written"] * 16


def test_compaction_merges_its_files_and_keeps_its_rows(store: Store) -> None:
    store.write_run(audit(KEY))
    log = AuditLog(store.location)
    for _ in range(5):
        log.append([Entry(KEY, "written"), Entry(key_of("other", project="other"), "failed")])
    order = [(name, "ascending") for name in ("written_at", "project")]
    before = log.dataset().to_table().sort_by(order)
    [planned] = [done for done in store.compact(dry_run=True) if done.table == "audit_log"]
    assert (planned.files_before, planned.files_after) == (10, 2)
    [done] = [done for done in store.compact() if done.table == "audit_log"]
    assert (done.projects, done.files_before, done.files_after) == (2, 10, 2)
    assert log.dataset().to_table().sort_by(order).equals(before)


def test_a_log_of_many_files_is_merged_on_the_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "_MANY_FILES", 4)
    log = AuditLog(store.location)
    table = DeltaTable(store.location.table_uri("runs"), storage_options=store.location.storage_options())
    for count in range(1, 6):
        log.append([Entry(KEY, "written")])
        log.tidy()
        assert len(log.dataset().files) == (count if count < 5 else 1)
    assert len(events(store)) == 5
    assert log.store_id() == UUID(table.metadata().id)


def test_the_log_as_it_was(store: Store) -> None:
    store.write_run(audit(KEY))
    log = AuditLog(store.location)
    log.append([Entry(KEY, "written")])
    moment = dt.datetime.now(dt.UTC)
    log.append([Entry(KEY, "retracted")])
    assert query(store.at(moment), "log")["event"].to_pylist() == ["written"]
    assert query(store, "log")["event"].to_pylist() == ["retracted", "written"]


def test_names_are_data(store: Store) -> None:
    odd = key_of("'; drop table runs; --", project="../../x\n" + "y" * 300)
    log = AuditLog(store.location)
    log.append([Entry(odd, "alert_opened", finding_id="f", opening=1)])
    assert [row["run_id"] for row in log.alerts(odd.tracker, [odd.project_key], odd.run_id)] == [odd.run_id]
    assert log.alerts(odd.tracker, [odd.project_key], "another") == []
