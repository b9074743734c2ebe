"""A store that an earlier version wrote, without tables that came later and the columns that came with them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from audits import as_older, assert_same, audit, key_of, raw
from children import PROCESSES, count_lines, finish, start, write_killed_at, write_runs
from pyarrow import parquet

from spectral_edge import delta, store, store_place
from spectral_edge.errors import StoreError
from spectral_edge.export import Format, export_runs
from spectral_edge.importing import import_runs
from spectral_edge.query import query
from spectral_edge.store import Store
from spectral_edge.tables import ADDED_COLUMNS, ADDED_TABLES, SCHEMAS

KEY = key_of("old")
LATER = {"scorecard": frozenset({"scorecard", "metrics"}), "metrics": frozenset({"metrics"})}
"""By the first table that a version did not know, all of them."""


def make_older(root: str, runs: tuple[str, ...] = ("old",), before: str = "scorecard") -> None:
    """A store of the layout before a table was added, with one audit of each of `runs`.

    Before `scorecard` is before all that was ever added.
    """
    written = [audit(key_of(run)) for run in runs]
    added = ADDED_COLUMNS["runs"] if before == "scorecard" else frozenset({"record_hash"})
    with pytest.MonkeyPatch.context() as earlier:
        fields = [field for field in SCHEMAS["runs"] if field.name not in added]
        earlier.setitem(SCHEMAS, "runs", pa.schema(fields))  # type: ignore[arg-type]
        for name in LATER[before]:
            earlier.delitem(SCHEMAS, name)  # type: ignore[arg-type]
            earlier.delitem(ADDED_TABLES, name)  # type: ignore[arg-type]
        earlier.setitem(ADDED_COLUMNS, "runs", ADDED_COLUMNS["runs"] - added)  # type: ignore[arg-type]
        for module in (store, store_place):
            earlier.setattr(module, "DETAILS", tuple(it for it in store_place.DETAILS if it not in LATER[before]))
        opened = Store.open(root)
        for tables in written:
            opened.write_run(replace(tables, runs=tables.runs.drop_columns(sorted(added))))


def entries(root: str) -> frozenset[str]:
    return Store.open(root, create=False).location.entries()


def test_it_is_read_as_it_is_and_nothing_is_added(root: str) -> None:
    make_older(root)
    before = entries(root)
    assert before.isdisjoint(LATER["scorecard"])
    opened = Store.open(root)
    assert_same(opened.read_run(KEY), as_older(audit(KEY)))
    assert {name: rows.count_rows() for name, rows in opened.datasets().items()}["scorecard"] == 0
    assert query(opened, "scorecard").num_rows == 0
    assert query(opened, "select metric_onset, metric_p_value from runs").to_pylist() == [
        {"metric_onset": None, "metric_p_value": None}
    ]
    assert opened.sweep() == 0
    opened.compact()
    assert entries(root) == before


def test_the_first_write_adds_the_table_and_the_columns(root: str) -> None:
    make_older(root)
    opened = Store.open(root, create=False)
    opened.write_run(audit(key_of("new")))
    assert "scorecard" in entries(root)
    assert_same(opened.read_run(KEY), as_older(audit(KEY)))
    assert_same(opened.read_run(key_of("new")), audit(key_of("new")))
    opened.write_run(audit(KEY, settings_hash="s22"))
    assert_same(opened.read_run(KEY), audit(KEY, settings_hash="s22"))
    undisturbed = Store.open(f"{root}-undisturbed")
    undisturbed.write_run(audit(key_of("new")))
    undisturbed.write_run(audit(KEY, settings_hash="s22"))
    assert {name: len(rows) for name, rows in raw(opened).items()} == {
        name: len(rows) for name, rows in raw(undisturbed).items()
    }


def test_a_store_before_the_metrics_is_read_and_gets_them_with_its_first_write(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    make_older(root, before="metrics")
    before = entries(root)
    assert {"scorecard"} == before & LATER["scorecard"]
    opened = Store.open(root)
    bare = replace(audit(KEY), metrics=SCHEMAS["metrics"].empty_table())
    assert_same(opened.read_run(KEY), bare)
    assert query(opened, "select * from metrics").num_rows == 0
    assert query(opened, "select record_hash from runs").to_pylist() == [{"record_hash": None}]
    assert entries(root) == before
    opened.write_run(audit(key_of("new")))
    assert entries(root) - before == {"metrics"}
    assert_same(opened.read_run(KEY), bare)
    assert_same(opened.read_run(key_of("new")), audit(key_of("new")))
    shutil.rmtree(tmp_path / "store" / "metrics")
    with pytest.raises(StoreError, match="`metrics` is missing"):
        Store.open(root)


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_what_an_earlier_version_exported_is_imported(tmp_path: Path, form: Format) -> None:
    source = Store.open(tmp_path / "source")
    source.write_run(audit(KEY))
    export_runs(source, tmp_path / "out", form)
    runs, metrics = tmp_path / "out" / f"runs.{form}", tmp_path / "out" / f"metrics.{form}"
    metrics.unlink()
    with pytest.raises(StoreError, match="is missing"):
        import_runs(Store.open(tmp_path / "refused"), tmp_path / "out")
    if form == "csv":  # the cells of settings, record_hash and error are empty
        runs.write_text(runs.read_text().replace(',"record_hash"', "").replace('"s1",,,,', '"s1",,,'))
    else:
        parquet.write_table(parquet.read_table(runs).drop_columns("record_hash"), runs)
    here = Store.open(tmp_path / "here")
    assert import_runs(here, tmp_path / "out").added == ["toy / name of old"]
    assert_same(here.read_run(KEY), replace(audit(KEY), metrics=SCHEMAS["metrics"].empty_table()))


def test_a_run_of_it_can_be_forgotten(root: str) -> None:
    make_older(root, ("old", "other"))
    opened = Store.open(root)
    assert opened.forget_run(KEY)
    assert opened.read_run(KEY) is None
    assert_same(opened.read_run(key_of("other")), as_older(audit(key_of("other"))))
    assert entries(root).isdisjoint(LATER["scorecard"])


def test_a_table_that_was_added_and_lost_is_damage(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    make_older(str(folder))
    opened = Store.open(folder)
    opened.write_run(audit(key_of("new")))
    shutil.rmtree(folder / "scorecard")
    with pytest.raises(StoreError, match="`scorecard` is missing"):
        Store.open(folder)
    for use in (lambda: opened.read_run(KEY), opened.datasets, lambda: opened.write_run(audit(KEY))):
        with pytest.raises(StoreError, match="missing"):
            use()
    assert not (folder / "scorecard").exists()


@pytest.mark.parametrize("lost", ["inner_products", "gaps", "transitions"])
def test_a_table_that_it_always_had_and_lost_is_damage(tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "store"
    make_older(str(folder))
    shutil.rmtree(folder / lost)
    with pytest.raises(StoreError, match=f"`{lost}` is missing"):
        Store.open(folder)


def test_killed_at_any_step_of_its_first_write(tmp_path: Path) -> None:
    older, undisturbed = tmp_path / "older", tmp_path / "undisturbed"
    make_older(str(older), ("again", "other"))
    shutil.copytree(older, undisturbed)
    write_runs(str(undisturbed), "s22", ("again",), {})
    shutil.copytree(older, tmp_path / "counted")
    answer = PROCESSES.Queue()
    child = start(count_lines, str(tmp_path / "counted"), "s22", ("again",), answer)
    lines = int(answer.get(timeout=120))
    assert finish(child) == 0
    seen = set()
    for line in range(lines // 24, lines, lines // 12):
        folder = tmp_path / f"killed-{line}"
        shutil.copytree(older, folder)
        assert finish(start(write_killed_at, str(folder), "s22", ("again",), line)) == -9
        opened = Store.open(folder)
        found = opened.read_run(key_of("again"))
        assert found is not None
        if found.summary["settings_hash"] == "s1":
            assert_same(found, as_older(audit(key_of("again"))))
        else:
            assert_same(found, audit(key_of("again"), settings_hash="s22"))
        assert_same(opened.read_run(key_of("other")), as_older(audit(key_of("other"))))
        seen.add((delta.table_exists(opened.location, "scorecard"), found.summary["settings_hash"]))
        write_runs(str(folder), "s22", ("again",), {})
        assert raw(opened) == raw(Store.open(undisturbed))
    assert seen == {(False, "s1"), (True, "s1"), (True, "s22")}
