"""A run that is asked for by its id alone is looked for in its project only, and answers are the same as of a scan."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
import pytest
from audits import audit, key_of
from deltalake import write_deltalake

from spectral_edge import delta
from spectral_edge.query import query
from spectral_edge.store import Store

PROJECTS = ("p", "q", "r")
RUNS = ("a", "k", "z")  # alike in all projects, so that files' ranges tell nothing


def fill(root: Path) -> Store:
    store = Store.open(root)
    for project in PROJECTS:
        store.write_runs([audit(key_of(f"{run}-{project}", project=project)) for run in RUNS])
    store.write_run(audit(key_of("same", project="p")))
    store.write_run(audit(key_of("same", project="q"), rows=9))
    store.write_run(audit(key_of("failed", project="r"), rows=0, status="failed"))
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = fill(tmp_path_factory.mktemp("lookup") / "store")
    for orphan in (audit(key_of("k-q", project="q"), settings_hash="s22"), audit(key_of("k-q", project="p"))):
        write_deltalake(delta.open_table(store.location, "gaps"), orphan.gaps, mode="append")
    return store


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT * FROM gaps WHERE run_id = 'k-q'", 12),
        ("SELECT * FROM gaps WHERE run_id IN ('k-q', 'a-q')", 24),
        ("SELECT * FROM gaps AS g JOIN runs AS r USING (run_id) WHERE r.run_id = 'k-q'", 12),
        ("WITH one AS (FROM gaps WHERE run_id = 'k-q') SELECT * FROM one WHERE step = 0", 3),
    ],
)
def test_only_files_of_its_project_are_opened(tmp_path: Path, sql: str, rows: int) -> None:
    store = fill(tmp_path / "store")
    for file in (tmp_path / "store" / "gaps").rglob("*.parquet"):
        if "project_key=q-" not in str(file):
            file.unlink()
    assert query(store, sql).num_rows == rows


@pytest.mark.parametrize(
    "where",
    [
        "run_id = 'k-q'",
        "run_id = 'same'",
        "run_id = 'failed'",
        "run_id = 'nobody'",
        "run_id <> 'k-q'",
        "NOT (run_id = 'k-q')",
        "run_id = 'k-q' OR step = 0",
        "run_id = 'k-q' AND step = 0",
        "run_id IN ('k-q', 'same', 'nobody')",
        "run_id NOT IN ('k-q', 'same')",
        "run_id > 'k' AND run_id < 'same'",
        "run_id LIKE 'k%'",
        "run_id IS NULL",
        "run_id IS NOT NULL",
        "run_id = NULL",
        "run_id || project = 'k-qq'",
        "run_id = 'same' AND project = 'q'",
        "run_id = 'same' AND tracker <> 'mlflow'",
        "run_id = 'same' AND gap > 0.5",
        "regime = 'run_id'",
    ],
)
def test_answers_are_those_of_a_scan(store: Store, where: str) -> None:
    columns = 'SELECT tracker, project, run_id, "group", step, gap, regime'
    found = query(store, f"{columns} FROM gaps WHERE {where} ORDER BY ALL")
    # All rows are taken before the condition is known, so nothing can be left out for it.
    scanned = query(store, f"WITH every AS MATERIALIZED (FROM gaps) {columns} FROM every WHERE {where} ORDER BY ALL")
    assert found.equals(scanned)


def test_a_dataset_is_read_like_any_other(store: Store) -> None:
    gaps = store.datasets()["gaps"]
    plain = pds.dataset(gaps.to_table())
    assert gaps.count_rows() == plain.count_rows() == 12 * 10 + 9
    asked = pc.field("run_id") == "same"
    first = pc.field("step") == 0
    for read in (gaps, gaps.filter(asked), gaps.filter(asked).filter(first), gaps.filter(first)):
        assert isinstance(read, pds.Dataset)
    for expression in (asked, first, asked & first, ~asked):
        assert gaps.count_rows(filter=expression) == plain.count_rows(filter=expression)
        assert gaps.filter(expression).to_table(columns=["step"]).num_rows == plain.count_rows(filter=expression)
    assert gaps.filter(asked).filter(first).count_rows() == plain.count_rows(filter=asked & first) == 6
    assert gaps.scanner(["step"], filter=asked).to_table().schema == pa.schema([gaps.schema.field("step")])
    assert gaps.filter(asked).head(5).num_rows == 5


def test_a_table_without_a_file_has_no_row(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.write_run(audit(key_of("failed"), rows=0, status="failed"))
    assert query(store, "SELECT * FROM gaps WHERE run_id = 'failed'").num_rows == 0
    assert query(store, "SELECT * FROM runs WHERE run_id = 'failed'").num_rows == 1
