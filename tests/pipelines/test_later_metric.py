"""A metric that was logged after the audit: analysed from the stored band, with all that follows, and nothing read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from one_folder import audit, tables, tracked, weights, write
from remote_folder import RemoteFolder
from same_tables import assert_same_audit

from spectral_edge.store import Store
from spectral_edge.tables import RunTables, audit_id

COUNT = 24
STEPS = range(0, 10 * COUNT, 10)


def log(folder: Path, until: int, **further: float) -> None:
    """The run's metrics up to step `until`, once a checkpoint."""
    rows = [{"step": step, "val_acc": 0.1 + 0.8 * (step > 100), "lr": 0.1} | further for step in STEPS if step <= until]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, row in enumerate(weights(COUNT)):
        write(tmp_path / "run", index, row)
    log(tmp_path / "run", 120)
    return tmp_path / "run"


def nothing_is_read() -> RemoteFolder:
    return RemoteFolder(broken="step")


def test_it_is_analysed_from_the_store_as_if_all_were_read(folder: Path) -> None:
    audit(folder)
    before = tables(folder)
    log(folder, 230)
    result = audit(folder, tracker=nothing_is_read())
    after = tables(folder)
    assert (result.outcome, result.bytes_read, result.audit_id) == ("reanalysed", 0, after.audit_id)
    assert before.audit_id != after.audit_id
    assert (before.metrics.num_rows, after.metrics.num_rows) == (2 * 13, 2 * 24)
    assert Store.open("spectral-edge-store").sweep() == 0
    assert audit(folder, store="whole", force=True).outcome == "audited"
    assert_same_audit(after, tables(folder, "whole"))
    unchanged = audit(folder, tracker=nothing_is_read())
    assert (unchanged.outcome, unchanged.audit_id) == ("unchanged", after.audit_id)


def test_what_enters_no_number_changes_nothing(folder: Path) -> None:
    log(folder, 230)
    audit(folder)
    log(folder, 230, train_loss=0.5)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 240, "val_acc": 0.3, "lr": 0.1}')
    assert audit(folder).outcome == "unchanged"
    write(folder, COUNT, weights(COUNT + 1)[-1])
    assert audit(folder).outcome in {"audited", "extended"}
    assert set(tables(folder).metrics["name"].to_pylist()) == {"val_acc", "lr", "train_loss"}


def test_annotations_follow_also_when_the_audit_was_killed_before_it_wrote_them(folder: Path) -> None:
    assert audit(folder, annotate="summary").outcome == "audited"
    log(folder, 230)
    assert audit(folder).outcome == "reanalysed"  # writes no annotations, as one that was killed then
    assert audit(folder, annotate="summary").outcome == "updated"
    told = json.loads((folder / "spectral_edge" / "tags.json").read_text())
    assert told["tags"]["spectral_edge.audit_id"] == tables(folder).audit_id
    assert audit(folder, annotate="summary").outcome == "unchanged"


def test_an_audit_by_an_earlier_version_is_made_anew_by_a_recheck_only(folder: Path) -> None:
    audit(folder, annotate="summary")
    made = tables(folder)
    Store.open("spectral-edge-store").write_run(_as_earlier(made))
    tags = folder / "spectral_edge" / "tags.json"
    tags.write_text(tags.read_text().replace(f"/{made.audit_id}-", "/"))
    log(folder, 230)
    assert audit(folder, annotate="summary").outcome == "unchanged"
    assert tables(folder).metrics.num_rows == 0
    result = audit(folder, annotate="summary", recheck=True, tracker=nothing_is_read())
    assert result.outcome == "reanalysed"
    assert tables(folder).metrics.num_rows == 2 * 24
    assert audit(folder, annotate="summary", recheck=True).outcome == "unchanged"


def _as_earlier(made: RunTables) -> RunTables:
    """`made` as a version before `record_hash` stored it."""
    summary = made.summary
    named = audit_id(summary["fingerprint"], summary["settings_hash"])

    def under(table: pa.Table, column: str, value: str | None) -> pa.Table:
        values = pa.array([value] * table.num_rows, pa.string())
        return table.set_column(table.schema.get_field_index(column), table.schema.field(column), values)

    names = ("runs", "inner_products", "gaps", "transitions", "scorecard")
    found = {name: under(getattr(made, name), "audit_id", named) for name in names}
    return replace(
        made, **found | {"runs": under(found["runs"], "record_hash", None), "metrics": made.metrics.slice(0, 0)}
    )


def test_a_failed_run_has_no_record(folder: Path) -> None:
    (folder / "step_30.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(Exception, match="step_30"):
        audit(folder)
    failed = Store.open("spectral-edge-store").read_run(tracked(folder).key)
    assert failed is not None
    assert failed.summary["record_hash"] is None
    again = audit(folder)
    assert (again.outcome, again.known, again.audit_id) == ("failed", True, failed.audit_id)
