"""SQL over the store: what it answers, and what it says when it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from spectral_edge.errors import StoreError, UsageError
from spectral_edge.query import query
from spectral_edge.questions import QUESTIONS
from spectral_edge.store import Store
from spectral_edge.tables import SCHEMAS, RunKey, RunTables, build

SCORES = {
    "ok": [
        {"prediction": "davis_kahan", "outcome": "holds", "value": 0.0, "numbers": [("share_below_1", 0.25)]},
        {"prediction": "three_phases", "outcome": "fails", "numbers": []},
    ],
    "failed": [
        {"prediction": name, "outcome": "not_testable", "lacks": "an audit that succeeded", "numbers": []}
        for name in ("davis_kahan", "three_phases")
    ],
}
ROWS = {"runs": 3, "inner_products": 3, "gaps": 12, "transitions": 3, "scorecard": 6, "metrics": 6}
REGIMES = {"one": ["plateau", "plateau", "transition"], "two": ["unstable", "plateau", "plateau"]}


def run_tables(run_id: str, regimes: list[str], status: str = "ok") -> RunTables:
    key = RunKey("dir", "toy", run_id, f"run {run_id}")
    common = key.columns() | {"audit_id": f"audit-{run_id}"}
    gaps = [
        common
        | {
            "group": group,
            "step": 100 * (i + 1),
            "short": i == 0,
            "regime": regime,
            "gap_ratio": float(ratio),
            "singular_values": [3.0, 2.0, 1.0],
        }
        for group, ratio in (("total", 2 + len(run_id)), ("mlp", 1))
        for i, regime in enumerate(regimes)
    ]
    changes = [common | {"group": "total", "kind": "rotation", "onset_step": 200, "q_value": len(run_id) / 100}]
    error = None if status == "ok" else "file a.pt: truncated"
    return RunTables(
        key,
        build("runs", [common | {"status": status, "error": error, "regime": regimes[-1] if regimes else None}]),
        build("inner_products", [common | {"group": "total", "step": 100, "lag": 0, "value": 2.0}]),
        build("gaps", gaps),
        build("transitions", changes),
        build("scorecard", [common | one for one in SCORES[status]]),
        build("metrics", [common | {"name": "loss", "role": "other", "step": step, "value": 0.5} for step in (0, 100)]),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(tmp_path_factory.mktemp("query") / "store")
    for run_id, regimes in REGIMES.items():
        store.write_run(run_tables(run_id, regimes))
    store.write_run(run_tables("three", [], status="failed"))
    return store


def answer(store: Store, sql: str) -> list[dict[str, Any]]:
    return list(query(store, sql).to_pylist())


def test_the_query_everyone_starts_with(store: Store) -> None:
    rows = answer(store, "select project, run_name, regime, count(*) from gaps group by all order by all")
    assert [tuple(row.values()) for row in rows] == [
        ("toy", "run one", "plateau", 4),
        ("toy", "run one", "transition", 2),
        ("toy", "run two", "plateau", 4),
        ("toy", "run two", "unstable", 2),
    ]


def test_outcomes_are_counted_by_prediction_and_project(store: Store) -> None:
    assert [tuple(row.values()) for row in answer(store, "scorecard")] == [
        ("davis_kahan", "toy", 2, 0, 1, "an audit that succeeded"),
        ("three_phases", "toy", 0, 2, 1, "an audit that succeeded"),
    ]
    beside = answer(store, "select numbers['share_below_1'] as x from scorecard where value = 0 order by run_id")
    assert beside == [{"x": 0.25}, {"x": 0.25}]


def test_views_have_the_columns_of_the_tables(store: Store) -> None:
    for name, schema in SCHEMAS.items():
        found = query(store, f"SELECT * FROM {name}")
        assert found.schema.names == schema.names
        assert found.num_rows == ROWS[name]


def test_an_empty_store_answers(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert answer(store, "SELECT count(*) AS n FROM gaps") == [{"n": 0}]
    for name in QUESTIONS:
        assert answer(store, name) == []


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT singular_values[1] AS s FROM gaps LIMIT 1", [{"s": 3.0}]),
        ("FROM gaps SELECT max(step) AS step", [{"step": 300}]),
        ("WITH last AS (SELECT max(step) AS step FROM gaps) SELECT step FROM last", [{"step": 300}]),
        ("VALUES (1)", [{"col0": 1}]),
        ("SELECT count(*) AS n FROM gaps JOIN runs USING (run_id) JOIN gaps AS other USING (run_id)", [{"n": 72}]),
        (
            "SELECT run_id FROM gaps WHERE tracker = 'dir' AND step = 300 AND regime = 'transition' LIMIT 1;",
            [{"run_id": "one"}],
        ),
        ("SELECT current_setting('TimeZone') AS zone", [{"zone": "UTC"}]),
    ],
)
def test_sql(store: Store, sql: str, rows: list[dict[str, Any]]) -> None:
    assert answer(store, sql) == rows


def test_summaries_and_descriptions(store: Store) -> None:
    assert "regime" in query(store, "DESCRIBE gaps")["column_name"].to_pylist()
    assert query(store, "SUMMARIZE gaps").num_rows == len(SCHEMAS["gaps"])
    assert {*SCHEMAS, "audit_log"} == set(query(store, "SHOW TABLES")["name"].to_pylist())


def test_named_questions(store: Store) -> None:
    assert {row["run_id"]: (row["step"], row["regime"]) for row in answer(store, "last_regimes")} == {
        "one": (300, "transition"),
        "two": (300, "plateau"),
    }
    assert [row["run_name"] for row in answer(store, "transitions")] == ["run one", "run two", "run three"]
    assert [(row["run_id"], row["error"]) for row in answer(store, "failures")] == [("three", "file a.pt: truncated")]
    assert {row["run_id"]: (row["step"], row["gap_ratio"]) for row in answer(store, "widest_gaps")} == {
        "one": (200, 5.0),
        "two": (200, 5.0),
    }
    counts = {(row["run_name"], row["regime"]): row["windows"] for row in answer(store, "regime_counts")}
    assert counts == {("run one", "plateau"): 1, ("run one", "transition"): 1, ("run two", "plateau"): 2}
    assert {row["run_name"] for row in answer(store, "audits")} == {"run one", "run two", "run three"}


def test_every_question_says_what_it_answers(store: Store) -> None:
    for name, question in QUESTIONS.items():
        assert question.meaning[0].islower()
        assert "\n" not in question.meaning
        assert query(store, name).equals(query(store, question.sql))


def test_an_unknown_table_tells_which_there_are(store: Store) -> None:
    with pytest.raises(UsageError) as caught:
        query(store, "SELECT * FROM gap")
    assert "Table with name gap does not exist" in str(caught.value)
    assert "Tables: runs, inner_products, gaps, transitions, scorecard, metrics, audit_log." in str(caught.value)


def test_an_unknown_column_tells_which_there_are(store: Store) -> None:
    with pytest.raises(UsageError) as caught:
        query(store, "SELECT kstar FROM gaps")
    assert 'Referenced column "kstar" not found' in str(caught.value)
    assert "Columns of gaps: tracker, " in str(caught.value)
    assert "Columns of runs" not in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT FROM WHERE", "syntax error"),
        ("SELECT step + FROM gaps", "syntax error"),
        ("SELECT 'x'::INT", "Could not convert"),
        ("SELECT nope(1)", "nope"),
        ("SELECT $1", "parameter"),
        ("", "got 0"),
        ("-- nothing", "got 0"),
        (";", "got 0"),
        ("SELECT 1; SELECT 2", "got 2"),
    ],
)
def test_wrong_sql_is_a_usage_error(store: Store, sql: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        query(store, sql)


def test_a_damaged_file_is_not_blamed_on_the_sql(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.write_run(run_tables("one", REGIMES["one"]))
    (file,) = (tmp_path / "gaps").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(StoreError, match=file.name):
        query(store, "SELECT max(step) FROM gaps")
    assert answer(store, "SELECT count(*) AS n FROM runs") == [{"n": 1}]


def test_integer_sums_are_exact(store: Store) -> None:
    found = query(store, "SELECT sum(step * 90000000000000) AS total FROM gaps")
    assert found.schema.field("total").type == pa.decimal128(38, 0)
    assert int(found["total"][0].as_py()) == 2400 * 90000000000000
