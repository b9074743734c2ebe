"""kill -9 in the middle of an audit that only adds new checkpoints, then the same again: as if nothing had happened."""

from __future__ import annotations

import shutil
from pathlib import Path

from killed_audits import audit_folder, killed_at, lines_of
from one_folder import tables, weights, write
from same_tables import assert_same_audit

from spectral_edge.store import Store

BEFORE, NOW, KILLS = 14, 18, 6
KILLED = -9


def test_killed_anywhere_while_a_run_is_extended(tmp_path: Path) -> None:
    folder, ours = tmp_path / "run", tmp_path / "run" / "spectral_edge"
    for index, row in enumerate(weights(BEFORE)):
        write(folder, index, row)
    assert audit_folder(folder, "before").outcome == "audited"
    shutil.copytree(ours, tmp_path / "annotations")
    for index in range(BEFORE, NOW):
        write(folder, index, weights(NOW)[index])

    def start_again(store: str) -> None:
        shutil.rmtree(ours)
        shutil.copytree(tmp_path / "annotations", ours)
        shutil.copytree("before", store)

    start_again("undisturbed")
    lines = lines_of(folder, "undisturbed")
    expected, annotations = tables(folder, "undisturbed"), {path.name: path.read_bytes() for path in ours.iterdir()}
    assert lines > 100

    outcomes = set()
    for kill in range(KILLS):
        store = f"killed-{kill}"
        start_again(store)
        line = 1 + kill * (lines - 2) // (KILLS - 1)
        assert killed_at(folder, store, line) == KILLED
        outcomes.add(audit_folder(folder, store).outcome)
        assert_same_audit(tables(folder, store), expected)
        assert {path.name: path.read_bytes() for path in ours.iterdir()} == annotations
        assert len(Store.open(store).runs_table()) == 1
        assert not Path("spectral-edge-spool").exists()
    assert outcomes >= {"extended", "updated"}  # before and after the tables were written
