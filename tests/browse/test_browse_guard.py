"""What the server refuses, and that a question reads the tables and nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest
from pyarrow import csv, parquet

from spectral_edge.query import query
from spectral_edge.report.view import anchor
from spectral_edge.store import Store
from tests.browse.conftest import FEW, HOSTILE
from tests.browse.serving import Served
from tests.e2e.command_line import tree
from tests.report.synthetic_runs import make_run

PATHS = ("/", "/query", "/query?sql=failures", "/query?sql=wrong", "/api/runs", "/api/query", "/run/none", "/nowhere")


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_the_headers(served: Served, path: str) -> None:
    headers = served.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert not {"set-cookie", "access-control-allow-origin", "server"} & set(headers)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "evil.example:80@localhost"])
def test_who_asks_for_another_host_gets_nothing(served: Served, host: str) -> None:
    answer = served.get("/api/runs", {"Host": host})
    assert (answer.status_code, answer.text) == (400, "Invalid host header")
    assert served.get("/api/runs", {"Host": "localhost:1"}).status_code == 200


def test_other_sites_may_link_but_not_embed(served: Served) -> None:
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    frame = link | {"Sec-Fetch-Dest": "iframe"}
    neighbour = elsewhere | {"Sec-Fetch-Site": "same-site"}
    asked = [
        served.get("/query", headers, sql="failures").status_code for headers in (elsewhere, frame, neighbour, link)
    ]
    assert asked == [403, 403, 403, 200]


def test_nothing_can_be_sent(served: Served) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = httpx.request(method, served.to("/query", sql="failures"), timeout=120)
        assert answer.status_code == 405


FORBIDDEN = (
    "copy (select 1) to '{out}'",
    "copy runs to '{out}' (format parquet)",
    "create table t as select 1",
    "delete from runs",
    "attach '{out}' as other",
    "export database '{out}'",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "pragma database_list",
    "select * from read_text('{secret}')",
    "select * from read_csv('{secret}')",
    "select * from '{secret}'",
    "select * from glob('/*')",
    "select getenv('HOME')",
    "select 1; select 2",
    "call duckdb_settings()",
)


@pytest.mark.parametrize("sql", FORBIDDEN)
def test_sql_can_neither_write_nor_read_files(served: Served, tmp_path: Path, sql: str) -> None:
    secret, out = tmp_path / "secret.txt", tmp_path / "out"
    secret.write_text("password\n1\n")
    before = tree(served.folder)
    for path in ("/query", "/query.csv", "/api/query"):
        answer = served.get(path, sql=sql.format(secret=secret, out=out))
        assert answer.status_code == 400, answer.text
        assert "password" not in answer.text
    assert not out.exists()
    assert tree(served.folder) == before


def test_json_has_a_stable_shape(served: Served) -> None:
    found = served.get("/api/runs", project="digits").json()
    assert {name: found[name] for name in ("total", "page", "pages")} == {"total": 3, "page": 1, "pages": 1}
    by_name = {row["run_name"]: row for row in found["runs"]}
    assert {name: row["result"] for name, row in by_name.items()} == {
        "digits-control": "none",
        "digits-truncated": "failed",
        "just started": "short",
    }
    assert by_name["digits-control"]["id"] == anchor(by_name["digits-control"])
    asked = served.get("/api/query", sql="select 1::int as a, 'x' as b from range(9)", rows=2).json()
    columns = [{"name": "a", "type": "int32"}, {"name": "b", "type": "string"}]
    assert asked == {"columns": columns, "rows": [{"a": 1, "b": "x"}] * 2, "more": True}
    wrong = served.get("/api/query", sql="select nothing from runs")
    assert wrong.status_code == 400
    assert set(wrong.json()["error"]) == {"kind", "message", "file", "next"}
    assert wrong.json()["error"]["kind"] == "UsageError"
    assert served.get("/run/000000000000").status_code == 404
    for told in ({"rows": "0"}, {"rows": "x"}, {"rows": "99999999"}):
        assert served.get("/api/query", sql="failures", **told).status_code == 400
    for told in ({"page": "-1"}, {"order": "run_id; drop"}, {"result": "x"}):
        assert served.get("/api/runs", **told).status_code == 400
    assert served.get("/api/runs", page=7).json()["page"] == 1


def test_all_of_an_answer_can_be_downloaded(served: Served) -> None:
    sql = "select project, run_name, transitions, audited_at, warnings from runs order by all"
    table = query(Store.open(served.folder), sql)
    answer = served.get("/query.parquet", sql=sql)
    assert parquet.read_table(io.BytesIO(answer.content)).to_pylist() == table.to_pylist()
    assert answer.headers["content-disposition"] == 'attachment; filename="answer.parquet"'
    text = served.get("/query.csv", sql=sql).content
    assert csv.read_csv(io.BytesIO(text))["run_name"].to_pylist() == table["run_name"].to_pylist()
    assert served.get("/query.csv", sql="select ' '").headers["content-type"] == "text/csv; charset=utf-8"
    assert table.num_rows == 8 + FEW + len(HOSTILE)


def test_a_large_answer_is_cut_and_a_larger_one_refused(served: Served) -> None:
    page = served.get("/query", sql="select range as n from range(100000)", rows=20).text
    assert page.count("<tr>") == 21
    assert "the first of more" in page
    assert len(served.get("/query", sql="select repeat('x', 5000) as long").text) < 30_000
    large = served.get("/query.csv", sql="select range, repeat('x', 1000) from range(1000000)")
    assert large.status_code == 400
    assert "larger than" in large.text


def test_what_is_audited_meanwhile_is_there(served: Served) -> None:
    assert served.get("/api/runs", search="just-now").json()["total"] == 0
    run = make_run("just-now", project="later", checkpoints=3, groups=(), change_at=None)
    store = Store.open(served.folder)
    store.write_run(run)
    (row,) = served.get("/api/runs", search="just-now").json()["runs"]
    assert served.get(f"/run/{row['id']}").status_code == 200
    assert store.forget_run(run.key)
    assert served.get(f"/run/{row['id']}").status_code == 404
