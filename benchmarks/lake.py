"""How long the questions people ask of a large store take: one run's rows, and the last week's transitions.

    python -m benchmarks.lake [--runs 5000] [--projects 50] [--windows 250] [--keep FOLDER]

Makes a store of RUNS runs with 8 groups of WINDOWS rows each in table `gaps` (10 million by default; 4 GB of disk),
written in commits of 20 runs; compacts it; and asks. The same rows lie in a plain folder of Parquet files beside it,
partitioned by project, which DuckDB reads with nothing between. The numbers in the rows are random, so they compress no
better than measured ones.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from pyarrow import parquet

from spectral_edge import delta
from spectral_edge.query import query
from spectral_edge.store import Store
from spectral_edge.tables import SCHEMAS, RunKey, audit_id

GROUPS = ("total", "attention", "mlp", "embedding", "norm", "other", "layer.0", "layer.1")
RUNS_A_COMMIT = 20
ROWS_A_RUN = {"inner_products": 400, "transitions": 20}
"""Rows of a run in the other tables. Real runs have more inner products: see docs/lake.md."""

WEEK = """\
SELECT project, kind, count(*) AS transitions, count(DISTINCT run_id) AS runs
FROM transitions JOIN runs USING (tracker, project_key, project, run_id)
WHERE audited_at >= TIMESTAMPTZ '{since}'
GROUP BY ALL ORDER BY ALL"""


def keys_of(projects: int, runs: int) -> list[list[RunKey]]:
    """Runs by project; ids as MLflow makes them."""
    random = np.random.default_rng(0)
    return [
        [RunKey("mlflow", f"team-{p}/sweep", random.bytes(16).hex(), f"run-{p}-{i}") for i in range(runs // projects)]
        for p in range(projects)
    ]


def numbers(table: str, rows: int, runs: int) -> dict[str, pa.Array]:
    """The columns that say nothing of which run a row is of: `rows` rows for each of `runs` runs."""
    random = np.random.default_rng(1)
    total = rows * runs
    made: dict[str, pa.Array] = {}
    for field in SCHEMAS[table]:
        if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type):
            offsets = pa.array(np.arange(0, 10 * total + 1, 10, dtype=np.int32))
            made[field.name] = pa.ListArray.from_arrays(offsets, pa.array(random.random(10 * total)))
        elif pa.types.is_floating(field.type):
            made[field.name] = pa.array(random.random(total))
        elif pa.types.is_integer(field.type):
            made[field.name] = pa.array(random.integers(1, 5, total)).cast(field.type)
        elif pa.types.is_boolean(field.type):
            made[field.name] = pa.array(random.random(total) < 0.05)
    per_group = np.arange(total) % rows
    made["group"] = pa.array(GROUPS).take(pa.array(per_group % len(GROUPS)))
    step = pa.array(100 * (per_group // len(GROUPS)))
    made["onset_step" if table == "transitions" else "step"] = step
    made["kind"] = pa.array(["rotation", "gap_opening", "level_crossing"]).take(pa.array(per_group % 3))
    made["regime"] = pa.array(["plateau", "transition", "unstable"]).take(pa.array(random.integers(0, 3, total)))
    return made


def rows_of(table: str, keys: list[RunKey], columns: Mapping[str, pa.Array], rows: int) -> pa.Table:
    """`rows` rows of `table` for each of `keys`."""
    total = rows * len(keys)
    which = pa.array(np.repeat(np.arange(len(keys)), rows))
    told = [key.columns() | {"audit_id": audit_id(key.run_id, "s")} for key in keys]
    known = {name: pa.array([it[name] for it in told]).take(which) for name in told[0]}
    constant = {"settings_hash": pa.array(["s"] * total), "schema_version": pa.array([1] * total, pa.int32())}
    found = {name: array.slice(0, total) for name, array in columns.items()} | known | constant
    schema = SCHEMAS[table]
    return pa.table([found.get(f.name, pa.nulls(total, f.type)).cast(f.type) for f in schema], schema=schema)


def runs_of(keys: list[RunKey], now: dt.datetime) -> pa.Table:
    """Their rows of table `runs`: one audited every hour and a half, the last of them now."""
    rows = [
        key.columns()
        | {
            "audit_id": audit_id(key.run_id, "s"),
            "status": "ok",
            "state": "finished",
            "fingerprint": key.run_id,
            "settings_hash": "s",
            "checkpoints": 260,
            "schema_version": 1,
            "audited_at": now - dt.timedelta(hours=1.5 * 50 * (len(keys) - i)),
        }
        for i, key in enumerate(keys)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["runs"])


def fill(store: Store, plain: Path, projects: list[list[RunKey]], windows: int, now: dt.datetime) -> None:
    """Write everything, through Delta but past `write_run`, which would take a quarter of an hour for 5,000 runs."""
    per_run = ROWS_A_RUN | {"gaps": windows * len(GROUPS)}
    columns = {name: numbers(name, rows, RUNS_A_COMMIT) for name, rows in per_run.items()}
    for keys in projects:
        for start in range(0, len(keys), RUNS_A_COMMIT):
            some = keys[start : start + RUNS_A_COMMIT]
            for name, rows in per_run.items():
                append(store, plain, name, rows_of(name, some, columns[name], rows))
        append(store, plain, "runs", runs_of(keys, now))


def append(store: Store, plain: Path, name: str, rows: pa.Table) -> None:
    write_deltalake(delta.open_table(store.location, name), rows, mode="append", writer_properties=delta.WRITER)
    folder = plain / name / f"project_key={rows['project_key'][0]}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{len(list(folder.iterdir()))}.parquet"
    parquet.write_table(rows.drop_columns(["project_key"]), file, compression="zstd")


def seconds(work: Callable[[], Any], times: int = 7) -> str:
    """The first call, the median of some more, and the processor time of these, as cells of a table."""
    took, busy = [], []
    for _ in range(1 + times):
        started, cpu = time.perf_counter(), time.process_time()
        work()
        took.append(time.perf_counter() - started)
        busy.append(time.process_time() - cpu)
    return f"{took[0]:.3f} | {statistics.median(took[1:]):.3f} | {statistics.median(busy[1:]):.3f}"


def plain_query(plain: Path, sql: str) -> pa.Table:
    """`sql` by DuckDB alone over the folder of Parquet files."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in SCHEMAS:
            connection.execute(f"CREATE VIEW {name} AS FROM read_parquet('{plain}/{name}/*/*.parquet')")
        return connection.sql(sql).to_arrow_table()


def questions(key: RunKey, since: dt.datetime) -> Iterator[tuple[str, str]]:
    one = f"FROM gaps WHERE tracker = 'mlflow' AND project_key = '{key.project_key}' AND run_id = '{key.run_id}'"
    yield "one run's rows of gaps, project named", f"SELECT * {one}"
    yield "one run's rows of gaps, run id only", f"SELECT * FROM gaps WHERE run_id = '{key.run_id}'"
    yield "transitions of the last week by project", WEEK.format(since=since.isoformat())
    yield "windows by regime, over all rows of gaps", "SELECT regime, count(*) AS n FROM gaps GROUP BY ALL ORDER BY ALL"


def files_and_bytes(folder: Path) -> tuple[int, int]:
    sizes = [file.stat().st_size for file in folder.rglob("*.parquet")]
    return len(sizes), sum(sizes)


def ask(store: Store, plain: Path, projects: list[list[RunKey]], now: dt.datetime) -> None:
    key = projects[len(projects) // 2][7]
    print(
        "| question | rows | first, s | median, s | processor, s | plain Parquet: first, s | median, s | processor, s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    found = store.read_run(key)
    assert found is not None
    print(f"| `Store.read_run`, all tables | {found.gaps.num_rows:,} | {seconds(lambda: store.read_run(key))} | | | |")
    for name, sql in questions(key, now - dt.timedelta(days=7)):
        ours, theirs = query(store, sql), plain_query(plain, sql)
        assert ours.num_rows == theirs.num_rows, name
        mine = seconds(partial(query, store, sql))
        print(f"| {name} | {ours.num_rows:,} | {mine} | {seconds(partial(plain_query, plain, sql))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--projects", type=int, default=50)
    parser.add_argument("--windows", type=int, default=250)
    parser.add_argument("--keep", type=Path, help="make it in this folder and leave it there; ask it when it is there")
    given = parser.parse_args()
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    projects = keys_of(given.projects, given.runs)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        made = (folder / "plain").exists()
        store, plain = Store.open(folder / "store"), folder / "plain"
        if not made:
            started = time.perf_counter()
            fill(store, plain, projects, given.windows, now)
            print(f"written in {time.perf_counter() - started:.0f} s")
            started = time.perf_counter()
            store.compact()
            print(f"compacted in {time.perf_counter() - started:.0f} s\n")
        print("| table | rows | files | bytes |\n|---|---|---|---|")
        for name in SCHEMAS:
            actions = pa.table(delta.open_table(store.location, name).get_add_actions())
            sizes = actions["size_bytes"].to_pylist()
            print(f"| {name} | {sum(actions['num_records'].to_pylist()):,} | {len(sizes)} | {sum(sizes):,} |")
        print()
        ask(store, plain, projects, now)


if __name__ == "__main__":
    main()
