"""What is measured once is not read again: other settings, and runs that grow. Always the tables of a full audit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from one_folder import SIZE, audit, tables, weights, write
from remote_folder import RemoteFolder
from safetensors.torch import load_file, save_file
from same_tables import assert_same_audit

from pipelines.forecast import Forecast, RunForecast, forecast
from pipelines.settings import load_settings
from spectral_edge.errors import DiskFullError, NonFiniteError

COUNT, LAGS = 24, 8
BYTES = SIZE * 4
FLAGS = {"window": 3, "lags": LAGS}


def run_of(folder: Path, count: int) -> Path:
    for index, row in enumerate(weights(count)):
        write(folder, index, row)
    return folder


def grow(folder: Path, count: int) -> None:
    """Log the checkpoints up to number `count`; what is there stays as it is."""
    for index, row in enumerate(weights(count)):
        if not (folder / f"step_{10 * index}.safetensors").exists():
            write(folder, index, row)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of 24 checkpoints."""
    return run_of(tmp_path / "run", COUNT)


def assert_as_if_read_whole(folder: Path, **flags: object) -> None:
    """The store holds what an audit of all checkpoints into an empty store gives."""
    assert audit(folder, store="whole", force=True, **flags).outcome in {"audited", "partial"}
    assert_same_audit(tables(folder), tables(folder, "whole"))


def foreseen(folder: Path, **flags: object) -> tuple[Forecast, RunForecast]:
    told = forecast(f"dir:{folder}", load_settings(**{"annotate": "none", **flags}))
    [run] = told.runs
    return told, run


class TestOtherSettings:
    @pytest.mark.parametrize(
        "flags",
        [
            {"window": 5, "lags": LAGS},
            {"window": 3, "lags": LAGS, "false_alarm_rate": 0.3},
            {"window": 3, "lags": 5, "metric_direction": "lower"},
        ],
    )
    def test_nothing_is_fetched_or_read(self, folder: Path, flags: dict[str, object]) -> None:
        audit(folder, **FLAGS)
        before = tables(folder).inner_products
        _, run = foreseen(folder, **flags)
        assert (run.action, run.bytes_to_read, run.bytes_to_fetch) == ("reanalyse", 0, 0)
        tracker = RemoteFolder(broken="step")  # whoever fetches is found out
        result = audit(folder, tracker=tracker, **flags)
        assert (result.outcome, result.bytes_read, result.bytes_fetched) == ("reanalysed", 0, 0)
        assert result.line.startswith("run: re-analysed from the store, 24 checkpoints, regime ")
        after = tables(folder).inner_products
        assert after.drop_columns("audit_id").equals(before.drop_columns("audit_id"))
        assert audit(folder, tracker=tracker, **flags).outcome == "unchanged"
        audit(folder, store="whole", **flags)
        assert tables(folder).gaps.equals(tables(folder, "whole").gaps)
        assert tables(folder).transitions.equals(tables(folder, "whole").transitions)
        assert tables(folder).summary["bytes_read"] == 0

    def test_lags_once_measured_are_kept(self, folder: Path) -> None:
        audit(folder, **FLAGS)
        assert audit(folder, window=3, lags=4).outcome == "reanalysed"
        assert audit(folder, window=4, lags=6).outcome == "reanalysed"
        assert audit(folder, **FLAGS).outcome == "reanalysed"
        assert_as_if_read_whole(folder, **FLAGS)

    def test_more_lags_than_were_measured_are_read_and_the_forecast_tells_how_not_to(self, folder: Path) -> None:
        audit(folder, **FLAGS)
        told, run = foreseen(folder, window=5)
        assert (run.action, run.enough_lags, run.bytes_to_read > 0) == ("audit", LAGS, True)
        assert told.line.endswith(f"with --lags {LAGS} they would not be read again.")
        told, run = foreseen(folder, window=LAGS + 1)
        assert (run.action, run.enough_lags) == ("audit", None)
        assert told.line.endswith("Nothing was fetched or written.")
        result = audit(folder, window=5)
        assert (result.outcome, result.bytes_read) == ("audited", COUNT * BYTES)

    def test_a_run_shorter_than_its_lags_serves_any_window(self, folder: Path) -> None:
        audit(folder, window=4)
        assert audit(folder, window=10).outcome == "reanalysed"
        assert_as_if_read_whole(folder, window=10)

    def test_another_method_needs_no_checkpoint_and_another_pass_needs_all(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        audit(folder, **FLAGS)
        monkeypatch.setattr("spectral_edge.settings.METHOD_VERSION", 1_000)
        assert audit(folder, **FLAGS).outcome == "reanalysed"
        monkeypatch.setattr("spectral_edge.settings.PASS_VERSION", 1_000)
        assert audit(folder, **FLAGS).outcome == "audited"

    def test_force_reads_all(self, folder: Path) -> None:
        audit(folder, **FLAGS)
        assert audit(folder, window=4, lags=LAGS, force=True).bytes_read == COUNT * BYTES

    def test_a_run_that_failed_is_read_again(self, folder: Path) -> None:
        write(folder, 9, np.full(SIZE, np.nan))
        for window in (3, 4):
            with pytest.raises(NonFiniteError):
                audit(folder, window=window, lags=LAGS)

    def test_a_run_done_in_part_stays_so(self, folder: Path) -> None:
        change_shape(folder, 18)
        first = audit(folder, **FLAGS)
        again = audit(folder, tracker=RemoteFolder(broken="step"), window=4, lags=LAGS)
        assert (again.outcome, again.error, again.bytes_read) == ("partial", first.error, 0)
        assert_as_if_read_whole(folder, window=4, lags=LAGS)


def change_shape(folder: Path, first: int) -> None:
    """From checkpoint number `first` on there is an embedding of another size; the MLP stays."""
    for index in range(COUNT):
        path = folder / f"step_{10 * index}.safetensors"
        tensors = load_file(path)
        tensors["embedding.weight"] = tensors["layers.0.mlp.weight"][: 10 if index < first else 11].clone()
        save_file(tensors, path)


class TestGrowth:
    def test_only_the_new_checkpoints_and_their_window_are_fetched_and_read(self, tmp_path: Path) -> None:
        folder = run_of(tmp_path / "run", 14)
        audit(folder, tracker=RemoteFolder(), **FLAGS)
        for before, now in ((14, 15), (15, 19), (19, COUNT)):
            grow(folder, now)
            tracker = RemoteFolder()
            result = audit(folder, tracker=tracker, **FLAGS)
            wanted = range(before - LAGS - 1, now)
            assert sorted(tracker.fetched) == sorted(f"step_{10 * index}.safetensors" for index in wanted)
            assert (result.outcome, result.new_checkpoints, result.checkpoints) == ("extended", now - before, now)
            assert result.bytes_read == len(wanted) * BYTES == tables(folder).summary["bytes_read"]
            assert result.bytes_fetched == file_bytes(folder, wanted)
        assert result.line.startswith("run: extended by 5 new checkpoints, 24 checkpoints, regime ")
        assert_as_if_read_whole(folder, **FLAGS)
        assert audit(folder, tracker=RemoteFolder(broken="step"), **FLAGS).outcome == "unchanged"

    def test_the_forecast_tells_what_it_costs(self, tmp_path: Path) -> None:
        folder = run_of(tmp_path / "run", 20)
        audit(folder, **FLAGS)
        grow(folder, COUNT)
        told, run = foreseen(folder, **FLAGS)
        assert (run.action, run.checkpoints, run.new_checkpoints) == ("extend", COUNT, 4)
        assert run.bytes_to_read == file_bytes(folder, range(20 - LAGS - 1, COUNT))
        assert told.line.startswith("1 run, 0 to audit, 1 to extend: 0 bytes to fetch, ")
        assert told.rows[0]["would"] == "be extended by 4 new checkpoints"

    def test_within_the_disk_allowed(self, tmp_path: Path) -> None:
        folder = run_of(tmp_path / "run", 14)
        audit(folder, **FLAGS)
        grow(folder, COUNT)
        one = file_bytes(folder, range(1))
        with pytest.raises(DiskFullError):
            audit(folder, tracker=RemoteFolder(), max_disk=str((LAGS + 1) * one), **FLAGS)
        result = audit(folder, tracker=RemoteFolder(), max_disk=str((LAGS + 4) * one), **FLAGS)
        assert (result.outcome, result.bytes_fetched) == ("extended", file_bytes(folder, range(14 - LAGS - 1, COUNT)))
        assert result.bytes_read > (COUNT - 14 + LAGS + 1) * BYTES  # what is kept is read once for each segment
        assert_as_if_read_whole(folder, **FLAGS)

    def test_with_other_settings_at_once(self, tmp_path: Path) -> None:
        folder = run_of(tmp_path / "run", 18)
        audit(folder, **FLAGS)
        grow(folder, COUNT)
        assert audit(folder, window=4, lags=6).outcome == "extended"
        assert audit(folder, window=4, lags=LAGS).outcome == "reanalysed"  # the new rows have all lags as well
        assert_as_if_read_whole(folder, window=4, lags=LAGS)

    def test_a_run_whose_every_checkpoint_is_needed_is_audited(self, tmp_path: Path) -> None:
        folder = run_of(tmp_path / "run", LAGS + 1)
        audit(folder, **FLAGS)
        grow(folder, COUNT)
        assert audit(folder, **FLAGS).bytes_read == COUNT * BYTES

    def test_identical_checkpoints_are_told_old_and_new(self, tmp_path: Path) -> None:
        folder = run_of(tmp_path / "run", 14)
        rows = weights(COUNT)
        write(folder, 3, rows[2])
        audit(folder, **FLAGS)
        grow(folder, COUNT)
        write(folder, 20, rows[19])
        result = audit(folder, **FLAGS)
        assert result.outcome == "extended"
        assert [word for word in result.warnings if "is identical to" in word] == [
            "step_30.safetensors is identical to step_20.safetensors: its update is zero.",
            "step_200.safetensors is identical to step_190.safetensors: its update is zero.",
        ]
        assert_as_if_read_whole(folder, **FLAGS)

    def test_a_new_checkpoint_that_is_bad_fails_the_run(self, tmp_path: Path) -> None:
        folder = run_of(tmp_path / "run", 20)
        audit(folder, **FLAGS)
        write(folder, 20, np.full(SIZE, np.nan))
        with pytest.raises(NonFiniteError, match=r"step_200\.safetensors"):
            audit(folder, **FLAGS)
        assert tables(folder).summary["bytes_read"] < 20 * BYTES


def file_bytes(folder: Path, indices: range) -> int:
    return sum((folder / f"step_{10 * index}.safetensors").stat().st_size for index in indices)


def write_over_old(folder: Path) -> None:
    write(folder, 2, weights(1, seed=5)[0])


def write_over_unnoticed(folder: Path) -> None:
    """Another checkpoint of the same size, as its tracker tells it: only the weights themselves give it away."""
    path = folder / "step_100.safetensors"
    times = path.stat().st_mtime_ns
    write(folder, 10, weights(1, seed=5)[0])
    os.utime(path, ns=(times, times))


def remove_old(folder: Path) -> None:
    (folder / "step_0.safetensors").unlink()


def change_tensors(folder: Path) -> None:
    path = folder / "step_180.safetensors"
    save_file(load_file(path) | {"layers.0.mlp.bias": torch.zeros(3)}, path)


class TestGrowthThatIsReadWhole:
    @pytest.mark.parametrize(
        "change", [write_over_old, write_over_unnoticed, remove_old, change_tensors], ids=lambda change: change.__name__
    )
    def test_old_and_new_do_not_join(self, tmp_path: Path, change: Callable[[Path], None]) -> None:
        folder = run_of(tmp_path / "run", 14)
        audit(folder, **FLAGS)
        grow(folder, COUNT)
        change(folder)
        result = audit(folder, **FLAGS)
        assert result.outcome == ("partial" if change is change_tensors else "audited")
        assert result.new_checkpoints == 0
        assert_as_if_read_whole(folder, **FLAGS)

    def test_all_that_is_looked_at_stands_still(self, tmp_path: Path) -> None:
        folder = run_of(tmp_path / "run", 5)
        for index in range(5, 14):
            write(folder, index, weights(5)[4])
        audit(folder, **FLAGS)
        for index in range(14, 17):
            write(folder, index, weights(5)[4])
        result = audit(folder, **FLAGS)
        assert result.outcome == "audited"
        assert len([word for word in result.warnings if "is identical to" in word]) == 12
        assert_as_if_read_whole(folder, **FLAGS)

    def test_a_run_done_in_part_before(self, folder: Path) -> None:
        change_shape(folder, 12)
        for index in range(16, COUNT):
            (folder / f"step_{10 * index}.safetensors").rename(folder / f"later_{index}")
        audit(folder, **FLAGS)
        for index in range(16, COUNT):
            (folder / f"later_{index}").rename(folder / f"step_{10 * index}.safetensors")
        result = audit(folder, **FLAGS)
        assert (result.outcome, result.bytes_read > 16 * BYTES) == ("partial", True)
        assert_as_if_read_whole(folder, **FLAGS)


def test_every_byte_is_read_once_unless_the_disk_is_too_small_for_it(folder: Path) -> None:
    once = audit(folder, tracker=RemoteFolder(), **FLAGS)
    assert (once.bytes_read, once.bytes_fetched) == (COUNT * BYTES, file_bytes(folder, range(COUNT)))
    one = file_bytes(folder, range(1))
    small = audit(folder, tracker=RemoteFolder(), max_disk=str((LAGS + 1 + 5) * one), force=True, **FLAGS)
    # Nine checkpoints stay on disk, so segments are 14, 5 and 5 new ones long.
    assert small.bytes_read == (COUNT + 2 * (LAGS + 1)) * BYTES
    assert small.bytes_fetched == once.bytes_fetched
