"""A query reads the seven views and nothing else, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from pyarrow import parquet

from spectral_edge.errors import UsageError
from spectral_edge.query import Limits, query
from spectral_edge.store import Store

LEAKS = [
    "SELECT * FROM read_csv('secret.csv')",
    "SELECT * FROM read_csv_auto('secret.csv')",
    "SELECT * FROM sniff_csv('secret.csv')",
    "SELECT * FROM 'secret.csv'",
    "SELECT * FROM read_text('secret.csv')",
    "SELECT * FROM read_blob('secret.csv')",
    "SELECT * FROM read_json('secret.json')",
    "SELECT * FROM read_json_objects('secret.json')",
    "SELECT * FROM read_ndjson('secret.json')",
    "SELECT * FROM read_parquet('secret.parquet')",
    "SELECT * FROM parquet_scan('secret.parquet')",
    "SELECT * FROM parquet_metadata('secret.parquet')",
    "SELECT * FROM 'secret.parquet'",
    "SELECT * FROM glob('*')",
    "SELECT * FROM query('SELECT * FROM read_text(''secret.csv'')')",
    "SELECT (SELECT content FROM read_text('secret.csv'))",
    "WITH t AS (FROM read_text('secret.csv')) FROM t",
    "SELECT * FROM read_text('/etc/hostname')",
    "SELECT * FROM read_text(':memory:')",
    "SELECT * FROM read_text(':memory:.wal')",
    "SELECT * FROM read_json_auto('secret.json')",
    "SELECT * FROM read_ndjson_objects('secret.json')",
    "SELECT * FROM parquet_schema('secret.parquet')",
    "SELECT * FROM parquet_kv_metadata('secret.parquet')",
    "SELECT * FROM parquet_file_metadata('secret.parquet')",
    "SELECT * FROM parquet_bloom_probe('secret.parquet', 'word', 'x')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM read_text(''secret.csv'')'))",
]
READS = [
    *LEAKS,
    "SELECT * FROM query_table('secret.csv')",
    "SELECT getenv('HOME')",
    "SELECT * FROM read_csv('https://example.org/x.csv')",
    "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
    "IMPORT DATABASE 'folder'",
    "ATTACH 'secret.db'",
    "ATTACH 'secret.db' AS other (READ_ONLY)",
]
WRITES = [
    "COPY gaps TO 'stolen.csv'",
    "COPY (SELECT 1) TO 'stolen.parquet'",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "COPY gaps FROM 'secret.csv'",
    "EXPORT DATABASE 'stolen'",
    "ATTACH 'stolen.db'",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE MACRO m() AS 1",
    "CREATE PERSISTENT SECRET s (TYPE s3)",
    "INSERT INTO gaps VALUES (1)",
    "UPDATE gaps SET step = 1",
    "DELETE FROM gaps",
    "DROP VIEW gaps",
    "ALTER VIEW gaps RENAME TO g",
    "MERGE INTO gaps USING runs ON false WHEN NOT MATCHED THEN INSERT VALUES (1)",
]
SETTINGS = [
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD 'stolen.duckdb_extension'",
    "UPDATE EXTENSIONS",
    "PRAGMA threads = 1",
    "PRAGMA enable_profiling",
    "SET threads = 1",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET VARIABLE x = 1",
    "RESET threads",
    "USE memory",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DETACH memory",
    "EXPLAIN ANALYZE SELECT 1",
    "PIVOT gaps ON regime USING count(*)",
    "SELECT 1; COPY (SELECT 1) TO 'stolen.csv'",
    "SELECT * FROM enable_logging(storage = 'file', storage_path = 'stolen')",
    "SELECT * FROM enable_profiling(save_location = 'stolen.json')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''stolen.csv''')",
    "SELECT * FROM import_database('folder')",
    "SELECT * FROM copy_database('memory', 'stolen')",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("sealed") / "store")


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory and the home, with files that no query may read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "secret.csv").write_text("word\nswordfish\n")
    for name in (":memory:", ":memory:.wal"):  # DuckDB 2.0 may take them for files of its own
        (tmp_path / name).write_text("swordfish")
    (tmp_path / "secret.json").write_text('{"word": "swordfish"}')
    parquet.write_table(pa.table({"word": ["swordfish"]}), tmp_path / "secret.parquet")
    return tmp_path


@pytest.mark.parametrize("sql", READS + WRITES + SETTINGS)
def test_refused(store: Store, sql: str, secrets: Path) -> None:
    before = {path: path.read_bytes() for path in secrets.iterdir()}
    with pytest.raises(UsageError) as caught:
        query(store, sql)
    assert "swordfish" not in str(caught.value)
    assert {path: path.read_bytes() for path in secrets.iterdir()} == before


@pytest.mark.parametrize("sql", LEAKS)
def test_an_open_duckdb_would_have_told(sql: str, secrets: Path) -> None:
    assert secrets.is_dir()
    with duckdb.connect() as connection:
        assert connection.execute(sql).fetchall()


def test_python_variables_are_not_tables(store: Store) -> None:
    secret = pa.table({"word": ["swordfish"]})
    with pytest.raises(UsageError, match="secret does not exist"):
        query(store, "SELECT * FROM secret")
    assert secret.num_rows == 1


def test_a_query_too_large_for_memory_leaves_no_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert query(store, "SELECT current_setting('temp_directory') AS t").to_pylist() == [{"t": ""}]
    assert list(tmp_path.iterdir()) == []


def test_no_path_and_no_variable_of_this_machine_is_told(store: Store, secrets: Path) -> None:
    told = query(store, "SELECT name, value FROM duckdb_settings()").to_pylist()
    assert not [row for row in told if str(secrets) in str(row["value"])]
    assert {row["value"] for row in told if row["name"] == "lock_configuration"} == {"true"}


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT count(*) FROM range(100000000000)", "longer than 0.3 s"),
        ("SELECT * FROM range(100000000000)", "larger than 100,000 bytes"),
    ],
)
def test_a_query_ends_at_its_limits(store: Store, sql: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        query(store, sql, Limits(seconds=0.3, answer_bytes=100_000))


def test_a_query_ends_at_its_memory(store: Store) -> None:
    with pytest.raises(UsageError, match="Out of Memory"):
        query(store, "SELECT list(range) FROM range(100000000)", Limits(memory="100MB"))
