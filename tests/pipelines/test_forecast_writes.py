"""What `--dry-run` says would be written, against what the audit then writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from one_folder import audit, tables, weights, write

from integrations.folder_tracker import FolderTracker
from pipelines.forecast import Forecast, RunForecast, forecast
from pipelines.forecast_writes import ASSUMED_GROUPS, Work, in_words, writes_of
from pipelines.settings import load_settings
from spectral_edge.store import Store
from spectral_edge.tables import SCHEMAS

CHECKPOINTS = 30
GROUPS = 3
"""total, mlp and layer.0."""
FLAGS = {"window": 3, "annotate": "full"}


def told_of(folder: Path, **flags: object) -> RunForecast:
    [told] = forecast(f"dir:{folder}", load_settings(**(FLAGS | flags))).runs
    return told


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index, row in enumerate(weights(CHECKPOINTS)):
        write(tmp_path / "run", index, row)
    return tmp_path / "run"


def test_the_audit_writes_what_was_told(folder: Path) -> None:
    told = told_of(folder).writes
    assert (told.groups, told.groups_are_known, told.place) == (ASSUMED_GROUPS, False, "run")
    assert not Path("spectral-edge-store").exists()
    empty = size_of(Path(Store.open("spectral-edge-store").location.root))
    audit(folder, **FLAGS)
    share = GROUPS / ASSUMED_GROUPS
    written = tables(folder)
    for name in SCHEMAS:
        rows = getattr(written, name).num_rows
        if name in {"inner_products", "gaps"}:
            assert rows == told.store_rows[name] * share
        elif name not in {"transitions", "metrics"}:
            assert rows == told.store_rows[name]
    results = folder / "spectral_edge"
    tags = (results / "tags.json").read_text()
    assert {name for name in told.tags if name in tags} >= set(told.tags) - {
        "spectral_edge.error",
        "spectral_edge.sketch_size",
    }
    assert {path.name for path in results.iterdir()} == {*told.files, "metrics.csv", "tags.json", "note.md"}
    for name, size in told.files.items():
        assert 0.25 < (results / name).stat().st_size / size < 2
    points = (results / "metrics.csv").read_text().splitlines()[1:]
    assert {point.split(",")[1].rpartition("/")[2] for point in points} <= set(told.metrics)
    assert 0.8 < len(points) / (told.metric_points * share) <= 1
    grown = size_of(Path("spectral-edge-store")) - empty
    assert 0.3 < grown / told.store_bytes < 1.5

    write(folder, CHECKPOINTS, weights(CHECKPOINTS + 1)[-1])
    more = told_of(folder)
    assert (more.action, more.writes.groups, more.writes.groups_are_known) == ("extend", GROUPS, True)
    assert more.writes.metric_points == GROUPS * len(more.writes.metrics)
    audit(folder, **FLAGS)
    assert tables(folder).inner_products.num_rows == more.writes.store_rows["inner_products"]
    assert told_of(folder).writes.bytes == 0


def test_nothing_is_told_of_runs_that_are_left_alone(folder: Path) -> None:
    told = told_of(folder, annotate="none").writes
    assert (told.place, told.tags, told.files, told.bytes) == ("nowhere", (), {}, 0)
    assert told.store_bytes > 0
    assert not any("To each run" in line for line in in_words([told]))
    summary = told_of(folder, annotate="summary").writes
    assert (len(summary.tags) > 5, summary.files, summary.metrics) == (True, {}, ())


def test_people_are_told_names_places_and_sizes(folder: Path) -> None:
    [written, estimated] = Forecast("dir:run", (told_of(folder),)).writes_in_words
    assert written.startswith("To each run: up to 12 tags (spectral_edge.{status, ")
    assert "spectral_edge/<group>/{k_star, gap, " in written
    assert "spectral_edge/spectrum.png up to about 336.0 KB" in written
    assert "counted with 8 parameter groups" in estimated
    apart = writes_of(Work(30, 30, 3, 18, 3, FolderTracker.capabilities), "full")
    assert in_words([apart])[1].endswith("3 parameter groups, as in the store.")
