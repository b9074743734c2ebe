"""Compaction changes no row, and afterwards a run is found without a scan; vacuum leaves what may be in use."""

from __future__ import annotations

import datetime as dt
import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
import pytest
from audits import assert_same, audit, canonical, key_of, raw
from children import finish, start
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import given
from hypothesis import strategies as st

from spectral_edge import delta, store_rewrite, store_upkeep
from spectral_edge.errors import UsageError
from spectral_edge.query import query
from spectral_edge.store import Store
from spectral_edge.store_upkeep import delete_old_files

# Alike in their first 16 bytes, which is as far as deltalake's z-order looks; "" and a long one are ends of the range.
RUNS = ["", *(f"a long common beginning, then {number}" for number in (3, 1, 2)), "\U0001f642" * 250]


def fill(store: Store) -> None:
    for run in RUNS:
        store.write_run(audit(key_of(run), rows=30))
    store.write_run(audit(key_of("x", project="small"), rows=30))


def files_of(store: Store, name: str) -> list[delta.DataFile]:
    return delta.files(delta.open_table(store.location, name))


def test_compacting_sorts_and_keeps_every_row(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_rewrite, "_ROWS_AT_ONCE", 70)  # so that several stretches of runs are sorted
    store = Store.open(root)
    fill(store)
    before = raw(store)
    planned = {it.table: it for it in store.compact(dry_run=True)}
    assert len(files_of(store, "gaps")) == 6
    done = {it.table: it for it in store.compact()}
    assert raw(store) == before
    gaps = done["gaps"]
    assert (gaps.projects, gaps.busy, gaps.files_before, gaps.files_after) == (1, 0, 6, 2)
    assert planned["gaps"].files_after == 2
    assert gaps.bytes_after == sum(file.size for file in files_of(store, "gaps"))
    (large,) = (file for file in files_of(store, "gaps") if "toy" in file.project_key)
    filesystem = store.location.filesystem()
    fragment = delta.pds.ParquetFileFormat().make_fragment(f"gaps/{large.path}", filesystem)
    order = [tuple(row.values()) for row in fragment.to_table(columns=["run_id", "group", "step"]).to_pylist()]
    assert order == sorted(order)
    assert (large.first_run, large.last_run) == (min(RUNS), max(RUNS))
    assert all(it.projects == 0 for it in store.compact())
    for run in RUNS:
        assert_same(store.read_run(key_of(run)), audit(key_of(run), rows=30))


def test_a_run_is_found_without_opening_the_files_of_others(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    fill(store)
    gaps = store.datasets()["gaps"]
    wanted = delta.dataset(store.location, delta.open_table(store.location, "gaps"), "gaps")
    for run in RUNS:
        assert len(list(wanted.get_fragments(filter=pc.field("run_id") == run))) == 1
        assert gaps.to_table(filter=pc.field("run_id") == run).num_rows == 30
    # The others' files are not even there: neither way of reading may miss them.
    for file in files_of(store, "gaps"):
        if file.first_run != RUNS[1]:
            (tmp_path / "store" / "gaps" / file.path).unlink()
    assert_same(store.read_run(key_of(RUNS[1])), audit(key_of(RUNS[1]), rows=30))
    assert query(store, f"SELECT * FROM gaps WHERE run_id = '{RUNS[1]}'").num_rows == 30


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=8))
def test_depth_is_the_most_files_that_one_run_may_lie_in(ranges: list[tuple[str, str]]) -> None:
    files = [delta.DataFile("p", "p", "t", "k", 1, min(pair), max(pair)) for pair in ranges]
    points = {end for pair in ranges for end in pair}
    brute = max((sum(low <= at <= high for low, high in map(sorted, ranges)) for at in points), default=0)
    assert store_upkeep._depth(files) == brute


def test_old_files_go_and_those_in_use_stay(root: str) -> None:
    store = Store.open(root)
    fill(store)
    store.compact()
    in_use = {file.path for file in files_of(store, "gaps")}
    reader = store.datasets()["gaps"]
    latest = delta.open_table(store.location, "gaps")
    week, nothing = dt.timedelta(days=7), dt.timedelta(0)
    assert delete_old_files(store.location, latest, "gaps", week, dry_run=False) == (0, 0)
    planned = delete_old_files(store.location, latest, "gaps", nothing, dry_run=True)
    assert planned[0] >= 5
    assert planned[1] > 1000
    assert delete_old_files(store.location, latest, "gaps", nothing, dry_run=False) == planned
    assert {file.path for file in files_of(store, "gaps")} == in_use
    assert reader.count_rows() == 180
    assert delete_old_files(store.location, latest, "gaps", nothing, dry_run=True) == (0, 0)


def test_less_than_a_day_is_refused(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    with pytest.raises(UsageError, match="at least a day"):
        store.compact(keep=dt.timedelta(hours=23))
    assert store.compact(keep=dt.timedelta(days=1))


def test_a_reader_that_began_before_compaction_ends_as_it_began(root: str) -> None:
    store = Store.open(root)
    fill(store)
    before = store.datasets()
    store.compact()
    store.write_run(audit(key_of(RUNS[1]), settings_hash="s22", rows=9))
    assert before["gaps"].count_rows() == 180
    assert store.datasets()["gaps"].count_rows() == 159


def test_a_project_that_others_keep_writing_to_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "store")
    fill(store)
    before = raw(store)
    monkeypatch.setattr(delta, "_COMMIT_TRIES", 2)
    sorted_batches, others = store_rewrite.sorted_batches, 0

    def while_others_write(rows: pds.Dataset, table: str) -> Iterator[pa.RecordBatch]:
        nonlocal others
        yield from sorted_batches(rows, table)
        if table == "gaps":  # as on S3, where no lock keeps them out
            others += 1
            delta.open_table(store.location, table).update(predicate="run_id = ''", updates={"uneven": "uneven"})

    with monkeypatch.context() as busy:
        busy.setattr(store_rewrite, "sorted_batches", while_others_write)
        told = {it.table: it for it in store.compact()}
    assert others == 2
    assert (told["gaps"].busy, told["gaps"].projects, told["gaps"].files_after) == (1, 0, 6)
    assert (told["transitions"].busy, told["transitions"].projects) == (0, 1)
    assert raw(store) == before
    assert {it.busy for it in store.compact()} == {0}
    assert len(files_of(store, "gaps")) == 2
    assert raw(store) == before


def test_two_compactions_at_once_keep_every_row_once(root: str) -> None:
    store = Store.open(root)
    for number in range(3):
        store.write_run(audit(key_of(f"r{number}")))
    first, second = (delta.open_table(store.location, "gaps") for _ in range(2))
    (of, *_) = delta.files(first)
    store_rewrite.rewrite(store.location, "gaps", of, first)
    with pytest.raises(CommitFailedError):
        store_rewrite.rewrite(store.location, "gaps", of, second)
    assert len(raw(store)["gaps"]) == 36


def compact_again_and_again(uri: str) -> None:
    store = Store.open(uri)
    while True:
        store.compact()


def test_killed_while_compacting(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    fill(store)
    before = raw(store)
    for _ in range(3):
        child = start(compact_again_and_again, store.location.root)
        time.sleep(random.uniform(0.05, 0.5))
        child.kill()
        assert finish(child) == -9
        assert raw(store) == before
        store.write_run(audit(key_of("again")))
        assert_same(store.read_run(key_of("again")), audit(key_of("again")))
        store.forget_run(key_of("again"))
    store.compact()
    assert raw(store) == before


def test_the_store_as_it_was(root: str) -> None:
    store = Store.open(root)
    started = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    store.write_run(audit(key_of("a")))
    time.sleep(1.1)  # S3 tells whole seconds
    then = dt.datetime.now(dt.UTC)
    time.sleep(1.1)
    store.write_run(audit(key_of("a"), settings_hash="s22", rows=9))
    store.write_run(audit(key_of("b")))
    store.compact()
    earlier = store.at(then)
    assert_same(earlier.read_run(key_of("a")), audit(key_of("a")))
    assert earlier.read_run(key_of("b")) is None
    assert list(earlier.audits()) == [("mlflow", "toy", "a")]
    for name, rows in earlier.datasets().items():
        assert canonical(rows.to_table()).equals(canonical(getattr(audit(key_of("a")), name))), name
    assert query(earlier, "SELECT count(*) AS n FROM gaps").to_pylist() == [{"n": 12}]
    assert query(store, "SELECT count(*) AS n FROM gaps").to_pylist() == [{"n": 21}]
    for change in (lambda: earlier.write_run(audit(key_of("c"))), earlier.compact, earlier.sweep):
        with pytest.raises(UsageError, match="cannot be changed"):
            change()
    with pytest.raises(UsageError, match="begins at"):
        store.at(started)
    with pytest.raises(UsageError, match="time zone"):
        store.at(then.replace(tzinfo=None))


def test_files_outside_of_the_table_are_refused(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.write_run(audit(key_of("a")))
    log = max((tmp_path / "store" / "gaps" / "_delta_log").glob("*.json"))
    path = DeltaTable(store.location.table_uri("gaps")).get_add_actions()
    name = delta.pa.table(path)["path"][0].as_py()
    assert os.fspath(name) in log.read_text()
    log.write_text(log.read_text().replace(name, f"../../{name}"))
    with pytest.raises(delta.StoreError, match="not in its folder"):
        replace(store).datasets()
