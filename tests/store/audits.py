"""Audits of invented runs, for tests of the store and of queries."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

from spectral_edge import delta
from spectral_edge.store import Store
from spectral_edge.store_place import present
from spectral_edge.tables import SCHEMAS, RunKey, RunTables, audit_id, build


def key_of(run_id: str, project: str = "toy", tracker: str = "mlflow") -> RunKey:
    return RunKey(tracker, project, run_id, f"name of {run_id}")


def audit(key: RunKey, *, settings_hash: str = "s1", rows: int = 12, status: str = "ok") -> RunTables:
    """One audit: `rows` rows of gaps over three groups, twice as many inner products, two transitions, two scores,
    two points of a metric.

    Every number follows from the arguments, as it does for real audits.
    """
    weight = 1.0 + len(settings_hash) / 7
    common = key.columns() | {"audit_id": audit_id(f"fp-{key.run_id}", settings_hash)}
    versioned = common | {"settings_hash": settings_hash, "schema_version": 1}
    run = versioned | {
        "status": status,
        "state": "finished",
        "windows": rows // 3,
        "regime": "plateau",
        "fingerprint": f"fp-{key.run_id}",
        "error": None if status == "ok" else "file x.pt: truncated",
        "warnings": ["one", "two"],
        "audited_at": dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC),
    }
    groups = ("total", "layer.10", "layer.2")
    gaps = [
        versioned
        | {
            "group": groups[i % 3],
            "step": 10 * (i // 3),
            "singular_values": [weight / (j + 1) / (i + 1) for j in range(10)],
            "gap": weight / (i + 1),
            "k_star": 1 + i % 4,
            "short": i < 3,
            "regime": ("plateau", "transition")[i % 2],
        }
        for i in range(rows)
    ]
    products = [
        common | {"group": groups[i % 3], "step": i // 6, "lag": i // 3 % 2, "value": weight * i}
        for i in range(2 * rows)
    ]
    changes = [
        versioned | {"group": "total", "kind": "rotation", "onset_step": 10 * i, "effect": weight * i}
        for i in range(min(2, rows))
    ]
    scores = [
        versioned
        | {
            "prediction": name,
            "outcome": "holds" if rows % 2 else "fails",
            "value": weight * i,
            "numbers": [("beside", weight / (i + 1)), ("b", 2.0)],
        }
        for i, name in enumerate(("overlap_order", "davis_kahan")[: min(2, rows)])
    ]
    points = [
        versioned | {"name": "val_acc", "role": "metric", "higher_is_better": True, "step": 10 * i, "value": weight * i}
        for i in range(min(2, rows))
    ]
    return RunTables(
        key,
        build("runs", [run]),
        build("inner_products", products),
        build("gaps", gaps),
        build("transitions", changes),
        build("scorecard", scores),
        build("metrics", points),
    )


def canonical(table: pa.Table) -> pa.Table:
    """`table` with its rows in the one order that all its plain columns give."""
    plain = [(field.name, "ascending") for field in table.schema if not pa.types.is_nested(field.type)]
    return table.sort_by(plain).combine_chunks()


def assert_same(found: RunTables | None, written: RunTables) -> None:
    assert found is not None
    assert found.key == written.key
    for name, schema in SCHEMAS.items():
        table = getattr(found, name)
        assert table.schema == schema, name
        assert canonical(table).equals(canonical(getattr(written, name))), name


def raw(store: Store) -> dict[str, list[str]]:
    """Every row that deltalake reads from the tables that are there, committed or not, in one order."""
    tables = {name: delta.open_table(store.location, name) for name in present(store.location)}
    return {name: sorted(repr(row) for row in _everything(table).to_pylist()) for name, table in tables.items()}


def as_older(tables: RunTables) -> RunTables:
    """`tables` as a version before tables `scorecard` and `metrics` stored them."""
    return replace(tables, scorecard=build("scorecard", []), metrics=build("metrics", []))


def _everything(table: DeltaTable) -> pa.Table:
    return pa.table(QueryBuilder().register("everything", table).execute("SELECT * FROM everything"))
