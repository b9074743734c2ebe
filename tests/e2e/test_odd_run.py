"""A run as they really look: unevenly spaced, resumed, with a checkpoint saved twice and a tensor that goes missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, random_walk, write_safetensors
from safetensors.torch import save_file

from spectral_edge.query import query
from spectral_edge.store import Store

COUNT, LOST = 14, 11


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, with_server: Callable[[Path], CommandLine]) -> Store:
    """The store after one audit, which ends with exit code 1: a part of the run could not be followed to its end."""
    folder = tmp_path_factory.mktemp("odd")
    weights = random_walk(COUNT, seed=4)
    weights[6] = weights[5]
    for tensors in weights[LOST:]:
        del tensors["embedding.weight"]
    paths = write_safetensors(folder / "runs" / "odd", weights)
    paths[8].rename(paths[8].with_name("step_850.safetensors"))
    save_file(random_walk(1, seed=5)[0], folder / "runs/odd/step_0300.safetensors")  # of the run before it was resumed
    answer = with_server(folder).run("audit", "dir:runs", "--window", "3")
    assert answer.code == 1
    return Store.open(folder / "spectral-edge-store", create=False)


def rows(store: Store, sql: str) -> list[dict[str, Any]]:
    return list(query(store, sql).to_pylist())


def test_uneven_spacing_is_marked_in_every_window_that_it_touches(audited: Store) -> None:
    sql = "select step, spacing, uneven from gaps where \"group\" = 'mlp' and not short order by step"
    found = {row["step"]: (row["spacing"], row["uneven"]) for row in rows(audited, sql)}
    # Steps 700, 850, 900: a window of three updates that holds one of these two differs within itself.
    assert found[700] == (100.0, False)
    assert {step for step, (_, uneven) in found.items() if uneven} == {850, 900, 1000, 1100}
    assert found[850] == (100.0, True)
    assert found[1200] == (100.0, False)


def test_warnings_name_what_was_left_out_and_what_is_identical(audited: Store) -> None:
    [run] = rows(audited, "select checkpoints, warnings from runs")
    assert run["checkpoints"] == COUNT
    [repeated] = [warning for warning in run["warnings"] if warning.startswith("step 300 occurs 2 times")]
    assert "kept `step_300.safetensors`, left out `step_0300.safetensors`" in repeated
    assert "step_600.safetensors is identical to step_500.safetensors: its update is zero." in run["warnings"]


def test_a_missing_tensor_ends_its_groups_and_no_others(audited: Store) -> None:
    [run] = rows(audited, "select status, error from runs")
    assert run["status"] == "partial"
    assert "step_1100.safetensors (step 1100): tensor embedding.weight is missing" in run["error"]
    last = rows(audited, 'select "group", max(step) as step from gaps group by all order by all')
    steps = {row["group"]: row["step"] for row in last}
    assert steps == {"total": 1000, "embedding": 1000, "attention": 1300, "mlp": 1300, "layer.0": 1300}
