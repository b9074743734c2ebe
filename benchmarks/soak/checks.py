"""What must hold after all kills: nothing lost, nothing twice, nothing left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
from mlflow import MlflowClient

from benchmarks.soak.places import Runs
from integrations.tracker import OUR_NAME
from spectral_edge.store import Store
from spectral_edge.tables import RunKey
from tests.same_tables import assert_same_audit


def lost(store: Store, runs: Runs) -> list[str]:
    """Runs that the store does not hold as a whole, up to their last checkpoint."""
    rows = {row["run_id"]: row for row in store.runs_table().to_pylist()}
    by_name = {row["run_name"]: row for row in rows.values()}

    def is_there(name: str, checkpoints: int) -> bool:
        row = rows.get(name) or by_name.get(name)
        return row is not None and (row["status"], row["checkpoints"]) == ("ok", checkpoints)

    return [name for name, checkpoints in runs.checkpoints().items() if not is_there(name, checkpoints)]


def wrong(store: Store, undisturbed: Store) -> list[str]:
    """Runs whose tables are not those of an undisturbed audit; also those that only one of both has."""
    ours, theirs = _keys(store), _keys(undisturbed)
    different = [key.run_name for key in ours & theirs if not _is_same(store, undisturbed, key)]
    return different + [key.run_name for key in ours ^ theirs]


def orphans(store: Store) -> int:
    """Audits of which rows are left that no run owns."""
    return store.sweep()


def doubles(client: MlflowClient, runs: Runs) -> tuple[int, int]:
    """Our metric points on the server, and how many of them are there twice."""
    points = again = 0
    for run in runs.logged():
        for name in client.get_run(run).data.metrics:
            if name.startswith(f"{OUR_NAME}/"):
                steps = [point.step for point in client.get_metric_history(run, name)]
                points += len(steps)
                again += len(steps) - len(set(steps))
    return points, again


def left_files(home: Path) -> list[str]:
    """Files and folders that belong to no finished work."""
    temporary = [path for path in (home / "tmp").iterdir() if path.name.startswith("spectral-edge")]
    hidden = [path for path in (home / "runs").rglob(".*") if path.name != ".lock"]
    found = [*temporary, *hidden, *(home / "work").glob("spectral-edge-spool"), *(home / "work").glob("store/attempts")]
    return sorted(str(path.relative_to(home)) for path in found)


def left_processes(home: Path) -> list[int]:
    """Processes that work in this place and are not ours."""
    return [process.pid for process in _working_in(home / "work")]


def _working_in(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.pid != psutil.Process().pid and Path(process.cwd()) == folder:
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def _keys(store: Store) -> set[RunKey]:
    names = ("tracker", "project", "run_id", "run_name")
    return {RunKey(*(row[name] for name in names)) for row in store.runs_table().to_pylist()}


def _is_same(store: Store, undisturbed: Store, key: RunKey) -> bool:
    ours, theirs = store.read_run(key), undisturbed.read_run(key)
    assert ours is not None
    assert theirs is not None
    try:
        assert_same_audit(ours, theirs)
    except AssertionError:
        return False
    return True
