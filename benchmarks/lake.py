"""How long the questions people ask of a large store take: one run's rows, and the last week's transitions.

    python -m benchmarks.lake [--runs 5000] [--projects 50] [--windows 250] [--keep FOLDER]

Makes a store of RUNS runs with 8 groups of WINDOWS rows each in table `gaps` (10 million by default; 4 GB of disk).
Each project is written in one commit, in sorted files of the size that `compact` makes; but one is written in commits
of 5 runs and then compacted. Then it asks about a run of that project. Only there has table `inner_products` as many
rows as an audit with the default settings writes: in all runs they would be half a billion. Beside it, DuckDB asks
the same files with nothing between. The numbers in the rows are random, so they compress no better than measured
ones.
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

from spectral_edge import delta
from spectral_edge.query import query
from spectral_edge.store import Store
from spectral_edge.store_rewrite import FILE_BYTES, sort_rows
from spectral_edge.tables import SCHEMAS, RunKey, audit_id

GROUPS = ("total", "attention", "mlp", "embedding", "norm", "other", "layer.0", "layer.1")
RUNS_A_COMMIT = 5
ROWS_A_RUN = {"inner_products": 40, "transitions": 20}
LAGS = 60
"""Lags of an update in table `inner_products`, by default."""

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


def fill(store: Store, projects: list[list[RunKey]], windows: int, now: dt.datetime) -> None:
    """Write everything, through Delta but past `write_run`, which would take a quarter of an hour for 5,000 runs."""
    per_run = ROWS_A_RUN | {"gaps": windows * len(GROUPS)}
    asked = asked_of(projects)
    columns = {name: numbers(name, rows, len(projects[0])) for name, rows in per_run.items()}
    for keys in (it for it in projects if it is not asked):
        for name, rows in per_run.items():
            append(store, name, rows_of(name, keys, columns[name], rows))
        append(store, "runs", runs_of(keys, now))
    per_run["inner_products"] = windows * (LAGS + 1) * len(GROUPS)
    columns = {name: numbers(name, rows, RUNS_A_COMMIT) for name, rows in per_run.items()}
    for start in range(0, len(asked), RUNS_A_COMMIT):
        some = asked[start : start + RUNS_A_COMMIT]
        for name, rows in per_run.items():
            append(store, name, rows_of(name, some, columns[name], rows))
    append(store, "runs", runs_of(asked, now))


def asked_of(projects: list[list[RunKey]]) -> list[RunKey]:
    """The project that is asked about."""
    return projects[len(projects) // 2]


def append(store: Store, name: str, rows: pa.Table) -> None:
    rows = delta.undescribed(sort_rows(rows, name))
    write_deltalake(
        delta.open_table(store.location, name),
        rows,
        mode="append",
        target_file_size=FILE_BYTES,
        writer_properties=delta.WRITER,
    )


def seconds(work: Callable[[], Any], times: int = 7) -> str:
    """The first call, the median of some more, and the processor time of these, as cells of a table."""
    took, busy = [], []
    for _ in range(1 + times):
        started, cpu = time.perf_counter(), time.process_time()
        work()
        took.append(time.perf_counter() - started)
        busy.append(time.process_time() - cpu)
    return f"{took[0]:.3f} | {statistics.median(took[1:]):.3f} | {statistics.median(busy[1:]):.3f}"


def plain_query(store: Store, sql: str) -> pa.Table:
    """`sql` by DuckDB alone over the Parquet files of the store."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in SCHEMAS:
            uris = delta.open_table(store.location, name).file_uris()
            if uris:
                files = ", ".join(delta.quoted(uri) for uri in uris)
                connection.execute(f"CREATE VIEW {name} AS FROM read_parquet([{files}], hive_partitioning = true)")
        return connection.sql(sql).to_arrow_table()


def questions(key: RunKey, since: dt.datetime) -> Iterator[tuple[str, str]]:
    one = f"FROM gaps WHERE tracker = 'mlflow' AND project_key = '{key.project_key}' AND run_id = '{key.run_id}'"
    yield "one run's rows of gaps, project named", f"SELECT * {one}"
    yield "one run's rows of gaps, run id only", f"SELECT * FROM gaps WHERE run_id = '{key.run_id}'"
    yield "transitions of the last week by project", WEEK.format(since=since.isoformat())
    yield "windows by regime, over all rows of gaps", "SELECT regime, count(*) AS n FROM gaps GROUP BY ALL ORDER BY ALL"


def ask(store: Store, projects: list[list[RunKey]], now: dt.datetime) -> None:
    key = asked_of(projects)[7]
    print(
        "| question | rows | first, s | median, s | processor, s | files alone: first, s | median, s | processor, s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    found = store.read_run(key)
    assert found is not None
    rows = sum(getattr(found, name).num_rows for name in SCHEMAS)
    print(f"| `Store.read_run`, all tables | {rows:,} | {seconds(lambda: store.read_run(key))} | | | |")
    for name, sql in questions(key, now - dt.timedelta(days=7)):
        ours, theirs = query(store, sql), plain_query(store, sql)
        assert ours.num_rows == theirs.num_rows, name
        mine = seconds(partial(query, store, sql))
        print(f"| {name} | {ours.num_rows:,} | {mine} | {seconds(partial(plain_query, store, sql))} |", flush=True)


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
        store = Store.open((given.keep or Path(scratch)) / "store")
        if not store.audits():
            started = time.perf_counter()
            fill(store, projects, given.windows, now)
            written = time.perf_counter()
            store.compact()
            print(f"written in {written - started:.0f} s, one project of it compacted in", end=" ")
            print(f"{time.perf_counter() - written:.0f} s\n")
        told = []
        for name in SCHEMAS:
            actions = pa.table(delta.open_table(store.location, name).get_add_actions())
            rows, sizes = sum(actions["num_records"].to_pylist()), actions["size_bytes"].to_pylist()
            told.append(f"{name}: {rows:,} rows in {len(sizes)} files, {sum(sizes):,} bytes")
        print("\n".join(told) + "\n")
        ask(store, projects, now)


if __name__ == "__main__":
    main()
