"""A process that dies while it audits a run: seen by the next audit, tried again, and given up after three deaths."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from killed_audits import PROCESSES
from one_folder import audit, tracked, weights, write

from integrations.folder_tracker import FolderTracker
from pipelines.attempts import attempt, deaths
from pipelines.budget import sharing
from pipelines.decisions import Scope, identity
from pipelines.looking import by_debt
from pipelines.settings import load_settings
from pipelines.sources_in_turn import in_order
from spectral_edge.errors import QuarantinedError, RunBusyError, StoppedError, TooFewCheckpointsError
from spectral_edge.store import Store
from spectral_edge.tables import RunKey

STORE, KILLED = "spectral-edge-store", -9
KEY = RunKey("dir", "project", "id", "name")


def die_reading(folder: Path) -> None:
    """Audit; at the first checkpoint that is read the process gets SIGKILL, as from the kernel without memory."""

    def trace(frame: FrameType, _event: str, _: object) -> Any:
        if frame.f_code.co_name == "extend" and frame.f_code.co_filename.endswith("spectral_edge/gram.py"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.settrace(trace)
    audit(folder)


def hold(ready: Any) -> None:
    """Work on a run until killed."""
    with attempt(Store.open(STORE), KEY, "dir:runs", "fingerprint", "settings"):
        ready.set()
        signal.pause()


def killed_reading(folder: Path) -> None:
    child = PROCESSES.Process(target=die_reading, args=(folder,), daemon=True)
    child.start()
    child.join(120)
    assert child.exitcode == KILLED


def noted() -> list[str]:
    """What lies in the store's folder of attempts."""
    return sorted(path.name for path in Path(STORE, "attempts").glob("*"))


@pytest.fixture
def run(empty_place: Path) -> Path:
    folder = empty_place / "run"
    for index, row in enumerate(weights(12)):
        write(folder, index, row)
    return folder


def test_a_death_is_seen_told_and_survived(run: Path) -> None:
    killed_reading(run)
    [note, _lock] = noted()
    assert "run" not in note.rpartition(".")[0]  # hashes only
    [died] = deaths(Store.open(STORE))[identity(tracked(run))]
    result = audit(run)
    assert result.outcome == "audited"
    [told] = [warning for warning in result.warnings if "death" in warning]
    assert told.endswith("ended with the death of its process: try 2 of 3")
    assert died.began_at[:10] in told
    assert noted() == []
    assert not [warning for warning in audit(run, force=True).warnings if "death" in warning]
    assert not Path(STORE, "attempts").exists()


def test_three_deaths_are_a_quarantine_until_something_changes(run: Path) -> None:
    for _ in range(2):
        killed_reading(run)
    with pytest.raises(QuarantinedError, match="2 audits of these checkpoints"):
        audit(run, max_tries=2)
    assert noted() == []
    [row] = Store.open(STORE).runs_table().to_pylist()
    assert row["status"] == "failed"
    assert "is in quarantine" in row["error"]
    assert "--force" in row["error"]
    again = audit(run)
    assert (again.outcome, again.known) == ("failed", True)
    assert "is in quarantine" in (again.error or "")
    assert audit(run, window=4).outcome == "audited"
    write(run, 12, weights(13)[12])
    assert audit(run).outcome == "audited"


def test_force_tries_again(run: Path) -> None:
    killed_reading(run)
    with pytest.raises(QuarantinedError):
        audit(run, max_tries=1)
    assert audit(run, max_tries=1, force=True).outcome == "audited"
    assert audit(run, max_tries=1).outcome == "unchanged"


def test_deaths_of_other_checkpoints_do_not_count(run: Path) -> None:
    killed_reading(run)
    write(run, 12, weights(13)[12])
    assert audit(run, max_tries=1).outcome == "audited"
    assert noted() == []


def test_an_audit_that_finds_nothing_new_notes_nothing(run: Path) -> None:
    audit(run)
    before = {path: path.stat().st_mtime_ns for path in Path(STORE).rglob("*")}
    assert audit(run).outcome == "unchanged"
    assert {path: path.stat().st_mtime_ns for path in Path(STORE).rglob("*")} == before


def test_a_living_process_is_no_death(empty_place: Path) -> None:
    del empty_place
    store = Store.open(STORE)
    context = multiprocessing.get_context("forkserver")
    ready = context.Event()
    child = context.Process(target=hold, args=(ready,), daemon=True)
    child.start()
    assert ready.wait(60)
    with attempt(store, KEY, "dir:runs", "fingerprint", "settings"):
        assert deaths(store) == {}
        assert len(noted()) == 4
    assert len(noted()) == 2
    child.kill()
    child.join()
    [died] = deaths(store)[KEY.tracker, KEY.project, KEY.run_id]
    assert (died.pid, died.fingerprint) == (child.pid, "fingerprint")
    with attempt(store, KEY, "dir:runs", "fingerprint", "settings", (died,)):
        pass
    assert noted() == []


@pytest.mark.parametrize("error", [RunBusyError("busy"), StoppedError("stopped"), KeyError("defect"), SystemExit(143)])
def test_what_does_not_end_the_process_by_force_is_no_death(empty_place: Path, error: BaseException) -> None:
    del empty_place
    with pytest.raises(type(error)), attempt(Store.open(STORE), KEY, "dir:runs", "fingerprint", "settings"):
        raise error
    assert noted() == []


def test_only_a_verdict_forgets_earlier_deaths(run: Path) -> None:
    killed_reading(run)
    store = Store.open(STORE)
    dead = deaths(store)[identity(tracked(run))]
    for error, left in ((RunBusyError("busy"), 1), (TooFewCheckpointsError("few"), 0)):
        with (
            pytest.raises(type(error)),
            attempt(store, tracked(run).key, "dir:run", dead[0].fingerprint, dead[0].settings_hash, dead),
        ):
            raise error
        assert len(deaths(store)) == left


def test_who_was_killed_comes_last(run: Path) -> None:
    killed_reading(run)
    write(run.with_name("later"), 0, weights(1)[0])
    store, settings = Store.open(STORE), load_settings()
    scope = Scope.of(FolderTracker(), settings, store)
    runs = [tracked(run), tracked(run.with_name("later"))]
    assert [found.key.run_name for found in by_debt(scope, runs)] == ["later", "run"]
    [died] = deaths(store)[identity(runs[0])]
    note = Path(STORE, died.file)
    note.write_text(note.read_text().replace('"source": ""', '"source": "dir:run"'))
    with sharing(settings):
        assert in_order(["dir:run", "dir:later"], settings) == ["dir:later", "dir:run"]


def test_what_is_not_ours_is_left_alone(run: Path) -> None:
    audit(run)
    folder = Path(STORE, "attempts")
    folder.mkdir()
    for name, content in (("a.json", "{"), ("b.json", "[]"), ("c.json", '{"version": 9}'), ("d.txt", "")):
        (folder / name).write_text(content)
    assert deaths(Store.open(STORE)) == {}
    assert audit(run).outcome == "unchanged"
