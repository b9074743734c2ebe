"""What is done to one run, without Prefect: which changes lead to which work, and what is recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from one_folder import audit, tables, tracked, weights, write

from integrations.folder_tracker import FolderTracker
from pipelines.decisions import fingerprint
from pipelines.results import AuditSummary, RunResult
from spectral_edge.errors import NonFiniteError, TooFewCheckpointsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of ten checkpoints of one small tensor."""
    for index, row in enumerate(weights(10)):
        write(tmp_path / "run", index, row)
    return tmp_path / "run"


def status(folder: Path) -> dict[str, object]:
    return tables(folder).summary


def test_the_same_again_is_nothing(folder: Path) -> None:
    first = audit(folder)
    assert (first.outcome, first.checkpoints, first.bytes_fetched, first.writes) == ("audited", 10, 0, 0)
    assert first.bytes_read == 10 * 60 * 4
    assert audit(folder).outcome == "unchanged"
    assert not Path("spectral-edge-spool").exists()


def test_other_settings_another_checkpoint_or_force_are_audited(folder: Path) -> None:
    audit(folder)
    assert audit(folder, window=4).outcome == "reanalysed"
    write(folder, 10, np.zeros(60))
    assert audit(folder, window=4).outcome == "audited"
    assert status(folder)["checkpoints"] == 11
    assert audit(folder, window=4).outcome == "unchanged"
    assert audit(folder, window=4, force=True).outcome == "audited"


def test_missing_annotations_come_from_the_store(folder: Path) -> None:
    audit(folder)
    for checkpoint in folder.glob("*.safetensors"):
        checkpoint.chmod(0)  # whoever reads them now is found out, unless they are root
    result = audit(folder, annotate="summary")
    assert (result.outcome, result.bytes_read) == ("updated", 0)
    assert result.regime is not None
    assert (folder / "spectral_edge" / "tags.json").exists()
    assert audit(folder, annotate="summary").outcome == "unchanged"


def test_a_run_that_ended_since_is_updated(folder: Path) -> None:
    audit(folder, "running")
    before = status(folder)
    assert audit(folder, "finished").outcome == "updated"
    after = status(folder)
    assert (before.pop("state"), after.pop("state")) == ("running", "finished")
    assert before == after
    assert audit(folder, "finished").outcome == "unchanged"


def test_a_failure_is_recorded_and_not_read_again(folder: Path) -> None:
    write(folder, 4, np.full(60, np.nan))
    with pytest.raises(NonFiniteError, match=r"run run, file step_40\.safetensors"):
        audit(folder)
    assert status(folder)["status"] == "failed"
    again = audit(folder)
    assert (again.outcome, again.known, again.bytes_read) == ("failed", True, 0)
    assert again.error == status(folder)["error"]
    with pytest.raises(NonFiniteError):
        audit(folder, force=True)
    write(folder, 4, np.ones(60))
    assert audit(folder).outcome == "audited"
    assert status(folder)["status"] == "ok"


def test_two_checkpoints_are_too_few(folder: Path) -> None:
    for checkpoint in sorted(folder.glob("*.safetensors"))[2:]:
        checkpoint.unlink()
    with pytest.raises(TooFewCheckpointsError, match="got 2"):
        audit(folder)
    assert audit(folder).known


def test_a_fingerprint_tells_names_steps_sizes_and_digests_apart(folder: Path) -> None:
    refs = FolderTracker().checkpoints(tracked(folder)).checkpoints
    [file] = refs[0].files
    changed = [
        replace(refs[0], name="other"),
        replace(refs[0], step=1),
        replace(refs[0], files=(replace(file, size=1),)),
        replace(refs[0], files=(replace(file, digest="other"),)),
        replace(refs[0], files=(replace(file, path="other"),)),
        replace(refs[0], files=(file, file)),
    ]
    prints = {fingerprint(refs), *(fingerprint((ref, *refs[1:])) for ref in changed), fingerprint(refs[1:])}
    assert len(prints) == 2 + len(changed)
    assert fingerprint(refs) == fingerprint(list(refs))


def test_the_summary_counts_in_words() -> None:
    runs = (
        RunResult("a", "1", "audited", bytes_fetched=2_000_000, writes=1200),
        RunResult("b", "2", "unchanged"),
        RunResult("c", "3", "failed"),
        RunResult("d", "4", "failed", known=True),
        RunResult("e", "5", "no_checkpoints"),
    )
    assert AuditSummary("dir:x", runs).line == (
        "5 runs, 1 audited, 1 failed, 1 still failing, 1 without checkpoints: 2.0 MB fetched, 1,200 writes."
    )
    later = (
        RunResult("a", "1", "extended", checkpoints=9, new_checkpoints=1),
        RunResult("b", "2", "extended", checkpoints=9, new_checkpoints=4),
        RunResult("c", "3", "reanalysed", checkpoints=9),
    )
    assert AuditSummary("dir:x", later).line == (
        "3 runs, 2 extended by 5 new checkpoints, 1 re-analysed from the store: 0 bytes fetched, 0 writes."
    )
    assert [run.line for run in later[1:]] == [
        "b: extended by 4 new checkpoints, 9 checkpoints",
        "c: re-analysed from the store, 9 checkpoints",
    ]
    assert AuditSummary("dir:x", runs[1:2]).line == "1 run, nothing new: 0 bytes fetched, 0 writes."
    assert not AuditSummary("dir:x", runs[:2]).has_failures
