"""`spectral-edge query`, `compact`, `export` and `import`, as they are typed."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from audits import assert_same, audit, key_of
from pyarrow import csv, parquet
from typer.testing import CliRunner

from pipelines.cli import app
from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.store import Store
from spectral_edge.tables import SCHEMAS
from tests.json_documents import require_schema

MOMENT: list[dt.datetime] = []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five runs; at `MOMENT`, there was one."""
    folder = tmp_path_factory.mktemp("commands") / "store"
    opened = Store.open(folder)
    opened.write_run(audit(key_of("first")))
    time.sleep(0.01)
    MOMENT[:] = [dt.datetime.now(dt.UTC)]
    time.sleep(0.01)
    for number in range(3):
        opened.write_run(audit(key_of(str(number)), rows=9))
    opened.write_run(audit(key_of("elsewhere", project="other")))
    return str(folder)


def typed(*words: str) -> str:
    """What a command prints that succeeds."""
    ended = CliRunner().invoke(app, words, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def as_json(*words: str) -> Any:
    told = json.loads(typed(*words, "--json"))
    require_schema(words[0], told)
    return told


def test_a_query_about_the_store_as_it_was(store: str) -> None:
    sql = "select count(*) as n from gaps"
    assert as_json("query", sql, "--store", store) == [{"n": 51}]
    assert as_json("query", sql, "--store", store, "--at", MOMENT[0].isoformat()) == [{"n": 12}]
    with pytest.raises(UsageError, match="history begins at"):
        typed("query", sql, "--store", store, "--at", "3d")
    with pytest.raises(UsageError, match="`--at` must be an age or a date, got 'yore'"):
        typed("query", sql, "--store", store, "--at", "yore")


def test_a_query_that_takes_too_long_is_given_up(store: str) -> None:
    sql = "select count(*) from range(100000000000)"
    with pytest.raises(UsageError, match=r"longer than 0\.2 s"):
        typed("query", sql, "--store", store, "--timeout", "0.2")


def test_compacting_tells_before_and_after(store: str, tmp_path: Path) -> None:
    planned = {row["table"]: row for row in as_json("compact", "--store", store, "--dry-run")["tables"]}
    assert set(planned) == set(SCHEMAS)
    assert "Nothing was changed." in typed("compact", "--store", store, "--dry-run")
    assert (planned["gaps"]["files_before"], planned["gaps"]["files_after"]) == (5, 2)
    done = as_json("compact", "--store", store, "--keep", "2d")
    assert done["dry_run"] is False
    assert [row["files_after"] for row in done["tables"]] == [2] * 6
    assert "gaps" in typed("compact", "--store", store)
    with pytest.raises(UsageError, match="at least a day"):
        typed("compact", "--store", store, "--keep", "1h")
    with pytest.raises(UsageError, match="`--keep` must be an age"):
        typed("compact", "--store", store, "--keep", "soon")
    with pytest.raises(NotFoundError):
        typed("compact", "--store", str(tmp_path / "nothing"))


def test_what_is_exported_can_be_imported(store: str, tmp_path: Path) -> None:
    out, other = str(tmp_path / "out"), str(tmp_path / "other")
    rows = as_json("export", out, "--store", store, "--project", "toy", "--run", "first", "--run", "1")["rows"]
    assert rows == {"runs": 2, "inner_products": 42, "gaps": 21, "transitions": 4, "scorecard": 4, "metrics": 4}
    planned = as_json("import", out, "--store", str(Store.open(other).location.root), "--dry-run")
    assert (planned["dry_run"], planned["added"]) == (True, ["toy / name of 1", "toy / name of first"])
    assert Store.open(other).audits() == {}
    assert "Added: 2, replaced: 0, here already: 0" in typed("import", out, "--store", other)
    assert "Added: 0, replaced: 0, here already: 2" in typed("import", out, "--store", other)
    assert_same(Store.open(other).read_run(key_of("1")), audit(key_of("1"), rows=9))


def test_a_refused_run_is_named_and_the_code_is_1(store: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    typed("export", str(out), "--store", store)
    gaps = parquet.read_table(out / "gaps.parquet")
    parquet.write_table(pa.concat_tables([gaps.slice(0, 1), gaps]), out / "gaps.parquet")
    ended = CliRunner().invoke(app, ["import", str(out), "--store", str(tmp_path / "other")])
    assert ended.exit_code == 1
    assert "refused, two rows of table gaps have the same group, step" in ended.stderr
    assert "Added: 4," in ended.stdout
    assert "refused: 1." in ended.stdout


def test_one_table_or_one_answer_goes_to_one_file(store: str, tmp_path: Path) -> None:
    typed("export", str(tmp_path / "gaps.csv"), "--store", store, "--table", "gaps", "--run", "1")
    assert csv.read_csv(tmp_path / "gaps.csv").num_rows == 9
    said = typed("export", str(tmp_path / "x.parquet"), "--store", store, "--sql", "select 1 as one")
    assert said.replace("\n", "") == f"{tmp_path / 'x.parquet'}: 1 of rows"
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist() == [{"one": 1}]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--sql", "select 1", "--table", "gaps"), "not both"),
        (("--table", "gap"), "no table 'gap'"),
        (("--sql", "select 1", "--run", "x"), "do not go with --sql"),
        (("--sql", "drop table gaps"), "read-only"),
    ],
)
def test_contradictions_are_told_and_nothing_is_written(
    store: str, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        typed("export", str(tmp_path / "x.csv"), "--store", store, *flags)
    assert list(tmp_path.iterdir()) == []
