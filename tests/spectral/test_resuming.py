"""Bands from stored tables, and runs that grow: the same as reading everything."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from same_tables import assert_same_audit
from trajectories import State, random_states, write_checkpoints

from spectral_edge.analysis import Provenance, analyse_run
from spectral_edge.band import Band
from spectral_edge.gram import LocalCheckpoint, TrajectoryPass
from spectral_edge.groups import cells, groups, in_order
from spectral_edge.resuming import lags_of, stored_trajectory, with_new_checkpoints
from spectral_edge.series import TrainingRecord
from spectral_edge.settings import Settings
from spectral_edge.tables import RunKey, RunTables
from spectral_edge.trajectory import Trajectory

SHAPES = {
    "embed.weight": (5, 6),
    "layers.2.attn.q_proj.weight": (7, 3),
    "layers.10.attn.q_proj.weight": (7, 3),
    "layers.2.mlp.fc1.weight": (6, 7),
    "head.bias": (3,),
}
KEY = RunKey("dir", "project", "run", "run")


def read(checkpoints: Sequence[LocalCheckpoint], asked: Settings) -> Trajectory:
    run = TrajectoryPass(asked)
    run.extend([], checkpoints)
    return run.result()


def analysed(trajectory: Trajectory, asked: Settings) -> RunTables:
    return analyse_run(KEY, trajectory, TrainingRecord(), asked, Provenance("fingerprint", "finished", "file:///run"))


def stored(tables: RunTables, checkpoints: Sequence[LocalCheckpoint], lags: int) -> Trajectory | None:
    return stored_trajectory(tables, [c.step for c in checkpoints], [c.name for c in checkpoints], lags)


def shuffled(tables: RunTables, seed: int = 0) -> RunTables:
    order = np.random.default_rng(seed).permutation(tables.inner_products.num_rows)
    return RunTables(KEY, tables.runs, tables.inner_products.take(order), tables.gaps, tables.transitions)


def in_steps(checkpoints: Sequence[LocalCheckpoint], cuts: Sequence[int], asked: Settings) -> RunTables:
    """Audited at each of `cuts`, every time with what the tables before tell, then at the end."""
    names = [checkpoint.name for checkpoint in checkpoints]
    known = read(checkpoints[: cuts[0]], asked)
    for begin, end in zip(cuts, (*cuts[1:], len(checkpoints)), strict=True):
        told = stored(shuffled(analysed(known, asked), begin), checkpoints[:begin], asked.lags)
        assert told is not None
        tail = read(checkpoints[max(0, begin - asked.lags - 1) : end], asked)
        whole = with_new_checkpoints(told, tail, names[:end])
        assert whole is not None
        known = whole
    return analysed(known, asked)


def with_repeats(count: int, seed: int, repeated: set[int]) -> list[State]:
    states = random_states(SHAPES, count, seed)
    for index in sorted(repeated):
        if 0 < index < count:
            states[index] = states[index - 1]
    return states


@settings(max_examples=15, deadline=None)
@given(
    lags=st.integers(3, 9),
    cuts=st.lists(st.integers(4, 20), min_size=1, max_size=3, unique=True).map(sorted),
    more=st.integers(1, 12),
    repeated=st.sets(st.integers(1, 20), max_size=2),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 5),
)
def test_in_steps_or_at_once(
    lags: int, cuts: list[int], more: int, repeated: set[int], dtype: torch.dtype, seed: int
) -> None:
    states = with_repeats(cuts[-1] + more, seed, repeated - {1, 2, 3})
    states = [{name: value.to(dtype) for name, value in state.items()} for state in states]
    asked = Settings(window=3, lags=lags)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = write_checkpoints(Path(folder), states)
        assert_same_audit(in_steps(checkpoints, cuts, asked), analysed(read(checkpoints, asked), asked))


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[LocalCheckpoint]:
    return write_checkpoints(tmp_path, with_repeats(20, 1, {9}))


def test_a_stored_band_is_the_one_that_was_summed(checkpoints: list[LocalCheckpoint]) -> None:
    asked = Settings(window=4, lags=7)
    summed = read(checkpoints, asked)
    told = stored(shuffled(analysed(summed, asked)), checkpoints, 5)
    assert told is not None
    assert (told.steps, told.endings, told.warnings) == (summed.steps, summed.endings, summed.warnings)
    assert list(told.bands) == list(summed.bands)
    for group, band in summed.bands.items():
        assert_equal(told.bands[group], band)
    assert lags_of(told) == 7


def assert_equal(found: Band, expected: Band) -> None:
    np.testing.assert_array_equal(found.values, expected.values)
    np.testing.assert_array_equal(found.rounding_energy, expected.rounding_energy)
    assert found.n_parameters == expected.n_parameters


def test_all_products_of_a_short_run_serve_any_number_of_lags(checkpoints: list[LocalCheckpoint]) -> None:
    few, wide = checkpoints[:8], Settings(window=4, lags=30)
    narrow = analysed(read(few, Settings(window=4, lags=7)), Settings(window=4, lags=7))
    told = stored(narrow, few, wide.lags)
    assert told is not None
    for group, band in read(few, wide).bands.items():
        np.testing.assert_allclose(told.bands[group].values, band.values, rtol=1e-13)


def test_groups_that_end_early_come_back(tmp_path: Path) -> None:
    states = random_states(SHAPES, 14, seed=2)
    for state in states[6:]:
        state["embed.weight"] = torch.zeros(6, 6)
    checkpoints, asked = write_checkpoints(tmp_path, states), Settings(window=4, lags=9)
    summed = read(checkpoints, asked)
    told = stored(analysed(summed, asked), checkpoints, asked.lags)
    assert told is not None
    assert told.endings == summed.endings != ()
    assert told.bands["embedding"].updates == 5
    assert_same_audit(analysed(told, asked), analysed(summed, asked))


def test_rows_that_are_no_whole_band_are_not_used(checkpoints: list[LocalCheckpoint]) -> None:
    asked = Settings(window=4, lags=7)
    tables = analysed(read(checkpoints, asked), asked)
    rows = tables.inner_products

    def with_rows(part: object) -> RunTables:
        return RunTables(KEY, tables.runs, part, tables.gaps, tables.transitions)

    assert stored(with_rows(rows.slice(0, 0)), checkpoints, 7) is None
    assert stored(with_rows(rows.slice(1)), checkpoints, 7) is None
    assert stored(tables, checkpoints[:-1], 7) is None
    assert stored(tables, [*checkpoints[:5], *checkpoints[6:], checkpoints[5]][:-1], 7) is None


def test_what_does_not_continue_the_run_is_refused(checkpoints: list[LocalCheckpoint], tmp_path: Path) -> None:
    asked = Settings(window=3, lags=4)
    names, known = [checkpoint.name for checkpoint in checkpoints], read(checkpoints[:15], asked)
    tail = checkpoints[10:]
    assert with_new_checkpoints(known, read(tail, asked), names) is not None

    def refused(states: Sequence[State], place: str) -> bool:
        folder = tmp_path / place
        folder.mkdir()
        return with_new_checkpoints(known, read(write_checkpoints(folder, states)[10:], asked), names) is None

    written_over = with_repeats(20, 1, {9})
    written_over[12]["head.bias"] = written_over[12]["head.bias"] + 1e-3
    assert refused(written_over, "written_over")
    grown = [state | {"head.weight": torch.randn(4)} for state in with_repeats(20, 1, {9})]
    assert refused(grown, "grown")
    another_group = [state | {"layers.0.norm.weight": torch.randn(4)} for state in with_repeats(20, 1, {9})]
    assert refused(another_group, "another_group")
    changed = with_repeats(20, 1, {9})
    changed[17]["head.bias"] = torch.zeros(5)
    assert refused(changed, "changed")


def test_the_order_of_groups_is_that_of_the_cells() -> None:
    listed = list(groups(cells(["x.10.mlp.w", "x.9.attn.w", "emb", "x.1.norm"]).values()))
    assert in_order(sorted(listed)) == listed
    assert in_order(["decoder.layer.10", "decoder.layer.9"]) == ["decoder.layer.9", "decoder.layer.10"]
