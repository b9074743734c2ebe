"""Killed at any moment and started again, the tables are those of an undisturbed audit."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest
from audits import assert_same, audit, canonical, key_of, raw
from children import PROCESSES, count_lines, finish, start, write_killed_at, write_runs

from spectral_edge.store import Store

KILLED = -9
RUNS = ("again", "new")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs; the tests audit `again` with other settings, and `new` for the first time."""
    folder = tmp_path_factory.mktemp("before") / "store"
    write_runs(str(folder), "s1", ("again", "other"), {})
    return folder


@pytest.fixture(scope="module")
def undisturbed(before: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[str]]:
    """The rows that an audit makes of that store when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    shutil.copytree(before, folder)
    write_runs(str(folder), "s22", RUNS, {})
    return raw(Store.open(folder))


def lines_of_an_audit(before: Path, scratch: Path, runs: Sequence[str] = RUNS) -> int:
    folder = scratch / "counted"
    shutil.copytree(before, folder)
    answer = PROCESSES.Queue()
    child = start(count_lines, str(folder), "s22", runs, answer)
    lines = int(answer.get(timeout=120))
    assert finish(child) == 0
    return lines


def assert_whole(store: Store, written: Collection[str] = ("s22",)) -> None:
    """Readers see each run as it was, or as one of the audits with the settings `written` makes it."""
    hashes = {key[2]: state.settings_hash for key, state in store.audits().items()}
    assert hashes["other"] == "s1"
    assert hashes["again"] in {"s1", *written}
    assert hashes.get("new") in {None, *written}
    for run in ("other", "again", "new"):
        if run in hashes:
            assert_same(store.read_run(key_of(run)), audit(key_of(run), settings_hash=hashes[run]))
        else:
            assert store.read_run(key_of(run)) is None
    gaps = store.datasets()["gaps"].to_table().group_by("run_id").aggregate([("step", "count")])
    assert {row["run_id"]: row["step_count"] for row in gaps.to_pylist()} == dict.fromkeys(hashes, 12)


def test_killed_at_each_step(before: Path, undisturbed: Mapping[str, list[str]], tmp_path: Path) -> None:
    lines = lines_of_an_audit(before, tmp_path)
    assert lines > 200
    seen = set()
    # The stride is odd, so that over the two runs different lines of the same loops are met.
    for line in range(1, lines + 1, max(1, lines // 20) | 1):
        folder = tmp_path / f"killed-{line}"
        shutil.copytree(before, folder)
        assert finish(start(write_killed_at, str(folder), "s22", RUNS, line)) == KILLED
        store = Store.open(folder)
        assert_whole(store)
        seen.add(tuple(sorted((key[2], state.settings_hash) for key, state in store.audits().items())))
        write_runs(str(folder), "s22", RUNS, {})
        assert raw(store) == undisturbed
        shutil.rmtree(folder)
    assert len(seen) == 3  # kills before the first commit, between the two, and after the second


def test_killed_at_random_moments(before: Path, undisturbed: Mapping[str, list[str]], tmp_path: Path) -> None:
    folder = tmp_path / "store"
    shutil.copytree(before, folder)
    store = Store.open(folder)
    started = time.monotonic()
    write_runs(str(folder), "s22", RUNS, {})
    duration = time.monotonic() - started
    hashes = ("s333", "s22")
    for kill in range(15):
        together = PROCESSES.Barrier(2)
        child = start(write_runs, str(folder), hashes[kill % 2], RUNS, {}, together)
        together.wait(60)
        time.sleep(random.uniform(0.0, duration))
        child.kill()
        child.join()
        assert_whole(store, hashes)
    write_runs(str(folder), "s22", RUNS, {})
    assert raw(store) == undisturbed


def test_killed_while_creating(before: Path, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    lines = lines_of_an_audit(nothing, tmp_path, runs=())
    for line in range(2, lines, max(1, lines // 12)):
        folder = tmp_path / f"killed-{line}"
        assert finish(start(write_killed_at, str(folder), "s1", (), line)) == KILLED
        write_runs(str(folder), "s1", ("again", "other"), {})
        assert raw(Store.open(folder)) == raw(Store.open(before))


def test_a_killed_audit_leaves_nothing_behind_after_a_sweep(before: Path, tmp_path: Path) -> None:
    lines = lines_of_an_audit(before, tmp_path)
    for line in range(lines // 8, lines, lines // 6):
        folder = tmp_path / f"killed-{line}"
        shutil.copytree(before, folder)
        assert finish(start(write_killed_at, str(folder), "s22", RUNS, line)) == KILLED
        store = Store.open(folder)
        store.sweep()
        visible = {name: canonical(rows.to_table()).to_pylist() for name, rows in store.datasets().items()}
        assert {name: sorted(map(repr, rows)) for name, rows in visible.items()} == raw(store)
