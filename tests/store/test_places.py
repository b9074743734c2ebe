"""What `Store.open` says of places that are no store, or not one we can use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from audits import audit, key_of
from deltalake import DeltaTable

from spectral_edge.errors import NotFoundError, StoreError, StoreUnavailableError, StoreVersionError
from spectral_edge.store import Store
from spectral_edge.tables import SCHEMA_VERSION, SCHEMAS


def test_no_store_where_none_shall_be_created(root: str) -> None:
    with pytest.raises(NotFoundError, match="spectral-edge audit") as caught:
        Store.open(root, create=False)
    assert root in str(caught.value)
    if not root.startswith("s3://"):
        assert not Path(root).exists()


def test_an_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    assert Store.open(tmp_path).audits() == {}


@pytest.mark.parametrize("entry", ["notes.txt", ".git/config", "runs/events.out.tfevents", "gaps/tracker=x/a.parquet"])
def test_a_folder_of_other_things_stays_untouched(tmp_path: Path, entry: str) -> None:
    (tmp_path / entry).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / entry).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for create in (True, False):
        with pytest.raises(StoreError, match=entry.split("/", maxsplit=1)[0]):
            Store.open(tmp_path, create=create)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("mine")
    with pytest.raises(StoreError, match="a file"):
        Store.open(tmp_path / "store")


def test_a_newer_store_is_refused_and_untouched(root: str) -> None:
    store = Store.open(root)
    store.write_run(audit(key_of("a")))
    for name in SCHEMAS:
        table = DeltaTable(store.location.table_uri(name), storage_options=store.location.storage_options())
        table.alter.set_table_description(f"table {name} of spectral-edge, schema version {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreVersionError, match="pip install --upgrade") as caught:
        Store.open(root)
    assert f"version {SCHEMA_VERSION + 1}" in str(caught.value)
    assert f"up to {SCHEMA_VERSION}" in str(caught.value)
    # A store opened before the upgrade is as careful.
    for use in (store.audits, store.datasets, store.runs_table, lambda: store.write_run(audit(key_of("b")))):
        with pytest.raises(StoreVersionError):
            use()


def test_delta_tables_of_others_are_refused(tmp_path: Path) -> None:
    DeltaTable.create(str(tmp_path / "runs"), schema=pa.schema([("x", pa.int64())]), description="sprint planning")
    with pytest.raises(StoreError, match="sprint planning"):
        Store.open(tmp_path)


@pytest.mark.parametrize("lost", SCHEMAS)
def test_a_lost_table_is_damage_and_not_created_again(tmp_path: Path, lost: str) -> None:
    store = Store.open(tmp_path)
    store.write_run(audit(key_of("a")))
    shutil.rmtree(tmp_path / lost)
    with pytest.raises(StoreError, match=f"`{lost}` is missing"):
        Store.open(tmp_path)
    assert not (tmp_path / lost).exists()
    with pytest.raises(StoreError, match="missing"):
        store.read_run(key_of("a"))


def test_a_store_whose_making_was_cut_short_is_finished(tmp_path: Path) -> None:
    """Also where two makers at once have given an empty table a second version, as happens on S3."""
    store = Store.open(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    DeltaTable(str(tmp_path / "gaps")).alter.set_table_description(f"schema version {SCHEMA_VERSION}")
    assert DeltaTable(str(tmp_path / "gaps")).version() == 1
    Store.open(tmp_path)
    store.write_run(audit(key_of("a")))
    assert store.read_run(key_of("a")) is not None


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    shutil.rmtree(tmp_path / "gaps")
    schema = pa.schema([field for field in SCHEMAS["gaps"] if field.name != "drift"])
    DeltaTable.create(
        str(tmp_path / "gaps"), schema=schema, description=f"schema version {SCHEMA_VERSION}", partition_by=["tracker"]
    )
    with pytest.raises(StoreError, match=r"gaps"):
        store.write_run(audit(key_of("a")))


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    store = Store.open(tmp_path)
    store.write_run(audit(key_of("a")))
    (file,) = (tmp_path / "gaps").rglob("*.parquet")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    else:
        file.unlink()
    with pytest.raises(StoreError, match=file.name):
        store.read_run(key_of("a"))


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    Store.open(tmp_path)
    (tmp_path / "runs" / "_delta_log" / "00000000000000000000.json").write_text("garbage{")
    with pytest.raises(StoreError, match="runs"):
        Store.open(tmp_path)


def test_a_missing_bucket(s3_root: str) -> None:
    assert s3_root.startswith("s3://audits/")
    with pytest.raises(NotFoundError, match="bucket"):
        Store.open("s3://no-such-bucket/store")


def test_an_endpoint_that_does_not_answer(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreUnavailableError, match="AWS_ENDPOINT_URL"):
        Store.open(s3_root)
