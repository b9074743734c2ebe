"""The short variant of `python -m benchmarks.replication`, and what its numbers are made of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.replication import __main__ as command
from benchmarks.replication import runs as kept
from benchmarks.replication.recipes import FAMILIES, FIRST_SEED, Recipe, queue, short
from benchmarks.replication.runs import Run, pass_over
from benchmarks.replication.search import search
from benchmarks.replication.training import train
from spectral_edge import Settings, analyse

SETTINGS = Settings(window=4)
NOT_NUMBERS = {"audit_id", "fingerprint", "tracker", "project", "project_key", "run_id", "run_name", "rounding_share"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_the_short_variant_prints_every_table_and_trains_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--short", "--work", str(tmp_path / "work"), "--results", str(tmp_path / "results")]
    command.main(arguments)
    printed = capsys.readouterr().out
    for table in ("Runs", "Table 1", "Table 2", "Table 3", "Table 4", "Table 5a"):
        assert f"{table}" in printed
    files = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"about.json", "tables.txt", "runs.csv", "order.csv", "positions.csv", "threshold.csv"} <= files
    runs_told = (tmp_path / "results/runs.csv").read_text().splitlines()
    assert len(runs_told) == 1 + len(short())

    def fail(recipe: Recipe, _: Path) -> Run:
        raise AssertionError(f"{recipe.name} was trained again")

    monkeypatch.setattr(kept, "_train", fail)
    command.main(arguments)
    again = capsys.readouterr().out
    assert again == printed


def test_a_killed_run_leaves_no_file_and_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = short()[1]

    class Killed(BaseException):
        pass

    def killed(_: Recipe, folder: Path) -> Run:
        (folder / "step_0.safetensors").write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(kept, "_train", killed)
        with pytest.raises(Killed):
            kept.trained(recipe, tmp_path)
    assert list(tmp_path.glob("*.npz")) == []
    assert kept.trained(recipe, tmp_path).steps[-1] == recipe.steps
    assert len(list(tmp_path.iterdir())) == 1


def test_without_time_nothing_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.train_all(short(), tmp_path, minutes=0.0)
    assert list(tmp_path.iterdir()) == []
    assert short()[0].name in capsys.readouterr().out


def test_tables_from_the_stored_file_are_those_of_the_checkpoints(tmp_path: Path) -> None:
    recipe = next(one for one in short() if one.fine_tune_at)
    folder = tmp_path / "run"
    folder.mkdir()
    metrics = train(recipe, folder)
    stored = kept.trained(recipe, tmp_path)
    np.testing.assert_array_equal(stored.metrics, metrics)
    direct = analyse(folder, settings=SETTINGS, record=stored.record())
    again = stored.audit(SETTINGS)
    for table in ("gaps", "transitions"):
        rows = getattr(direct, table).to_pylist()
        expected = [row for row in rows if "layer" not in row["group"]]
        found = getattr(again, table).to_pylist()
        assert len(found) == len(expected) > 0
        for got, want in zip(found, expected, strict=True):
            for column in set(want) - NOT_NUMBERS:
                assert alike(got[column], want[column]), (column, got[column], want[column])


def alike(got: object, want: object) -> bool:
    if isinstance(want, float | list) and want:
        return bool(np.allclose(np.array(got, dtype=float), np.array(want, dtype=float), rtol=1e-9, equal_nan=True))
    return got == want


def test_coarser_checkpoints_are_those_that_a_sparser_run_would_have_kept(tmp_path: Path) -> None:
    recipe = next(one for one in short() if one.task == "digits")
    dense = kept.trained(recipe, tmp_path)
    folder = tmp_path / "sparse"
    folder.mkdir()
    train(recipe, folder)
    for file in folder.iterdir():
        if int(file.stem.removeprefix("step_")) % (3 * recipe.every):
            file.unlink()
    sparse = dense.coarser(3)
    summed = pass_over(folder, Settings(lags=60))
    assert tuple(sparse.steps) == summed.steps
    band = sparse.bands(Settings(lags=60))["total"].values
    # Differences of float32 weights summed in float64: exact up to the order of the sums.
    np.testing.assert_allclose(band, summed.bands["total"].values, rtol=1e-9, atol=1e-12)


def test_a_trial_tells_what_the_metrics_say_and_a_larger_start_is_one() -> None:
    recipe = replace(short()[0], task="dyck", steps=4, share=0.1)
    row = search([recipe, replace(recipe, embeddings_times=8.0, matrices_times=3.0)]).rows
    assert [one["steps"] for one in row] == [4, 4]
    assert row[0]["fitted"] == row[0]["held-out 0.95"] == "never"
    assert row[0]["held-out at most"] != row[1]["held-out at most"]


def test_the_queue_begins_with_three_seeds_of_each_kind_and_holds_every_run_once() -> None:
    order = queue(5)
    assert {(one.kind, one.seed) for one in order[:12]} == {
        (kind, FIRST_SEED + index)
        for kind in ("grokking", "memorising", "supervised", "forgetting")
        for index in range(3)
    }
    assert len({one.hash for one in order}) == len(order)
    assert {one.family for one in order} == {family.family for family in FAMILIES}
