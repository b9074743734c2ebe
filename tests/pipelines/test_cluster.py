"""Audits whose reading is done by the processes of a real Dask cluster, and what they do when these are killed."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from dying_workers import Deaths
from one_folder import audit, tables, tracked, write
from safetensors.torch import save_file
from same_tables import assert_same_audit

from integrations.tracker import CheckpointFile, CheckpointRef
from pipelines import cluster
from pipelines.part import Origin
from pipelines.reading import Reading
from pipelines.results import RunResult
from pipelines.settings import load_settings
from spectral_edge.errors import NonFiniteError, TerminalError, TransientError, UsageError
from spectral_edge.settings import Settings

TWO: Any = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "memory_limit": 0}


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in here is a worker that will die in the middle of a pass."""
    return tmp_path_factory.mktemp("deaths")


@pytest.fixture(scope="module")
def workers(deaths: Path) -> Iterator[LocalCluster]:
    """Two processes that are there for all tests of this file."""
    with LocalCluster(**TWO) as started, Client(started, set_as_default=False) as client:
        client.register_plugin(Deaths(deaths))
        yield started


def write_run(folder: Path, count: int, size: int, seed: int = 0) -> None:
    """Checkpoints of two tensors, of `size` parameters each."""
    generator = torch.Generator().manual_seed(seed)
    state = {f"layers.{layer}.mlp.weight": torch.randn(size, generator=generator) for layer in range(2)}
    folder.mkdir()
    for index in range(count):
        for tensor in state.values():
            tensor.add_(torch.randn(size, generator=generator), alpha=1e-2)
        save_file(state, folder / f"step_{10 * index}.safetensors")


def audit_on(started: LocalCluster, folder: Path, **flags: Any) -> RunResult:
    """Audit the run in `folder` with the workers of `started`."""
    told = {"dask": started.scheduler_address, **flags}
    with cluster.using(f"dir:{folder}", load_settings(**told)):
        return audit(folder, **told)


@pytest.mark.parametrize("shards", [1, 3])
def test_the_tables_are_those_of_an_audit_without_a_cluster(workers: LocalCluster, tmp_path: Path, shards: int) -> None:
    folder = tmp_path / "run"
    write_run(folder, count=12, size=3000)
    here = audit(folder, store="here")
    there = audit_on(workers, folder, store="there", shards=shards)
    assert (there.outcome, there.bytes_read) == ("audited", here.bytes_read)
    assert_same_audit(tables(folder, "there"), tables(folder, "here"))
    write(folder, 99, np.zeros(3))  # another layout: all groups end there
    assert audit_on(workers, folder, store="there").outcome == audit(folder, store="here").outcome == "partial"


def test_an_error_comes_with_its_run_and_file(workers: LocalCluster, tmp_path: Path) -> None:
    folder = tmp_path / "diverged"
    rows = np.random.default_rng(0).normal(size=(6, 60))
    rows[3, 7] = np.nan
    for index, row in enumerate(rows):
        write(folder, index, row)
    with pytest.raises(NonFiniteError) as raised:
        audit_on(workers, folder, shards=2)
    assert (raised.value.run, raised.value.file) == ("diverged", "step_30.safetensors")
    assert tables(folder).summary["status"] == "failed"


def test_another_worker_takes_the_part_of_one_that_was_killed(
    workers: LocalCluster, deaths: Path, tmp_path: Path
) -> None:
    folder, spool = tmp_path / "run", tmp_path / "spool"
    write_run(folder, count=8, size=300_000)
    (deaths / "one").touch()
    told = audit_on(workers, folder, store="there", shards=2, spool=spool)
    assert not list(deaths.iterdir()), "nobody was killed"
    assert told.outcome == "audited"
    audit(folder, store="here")
    assert_same_audit(tables(folder, "there"), tables(folder, "here"))
    assert not spool.exists(), "what the killed worker left was not swept"


def test_a_part_that_kills_every_worker_is_given_up(workers: LocalCluster, deaths: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deadly"
    write_run(folder, count=8, size=300_000)
    (deaths / "one").touch()
    workers.scheduler.allowed_failures = 0
    with pytest.raises(TerminalError, match="run deadly: 1 worker died while reading it"):
        audit_on(workers, folder, spool=tmp_path / "spool")
    assert not list(deaths.iterdir())


def test_a_secret_is_sent_as_the_place_it_is_kept_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROD_TOKEN", "the-secret")
    Path("spectral-edge.toml").write_text(
        '[trackers.prod]\nkind = "mlflow"\nuri = "https://mlflow.example"\ntoken = {env = "PROD_TOKEN"}\n'
    )
    origin = Origin.of("prod:my-experiment", load_settings())
    assert origin.tracker().kind == "mlflow"
    sent = pickle.dumps(origin)
    assert b"PROD_TOKEN" in sent
    assert b"the-secret" not in sent


def test_an_address_with_a_password_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "https://me:the-secret@mlflow.example"
    with pytest.raises(UsageError, match="holds a password"):
        Origin.of("mlflow:a", load_settings(tracking_uri=address))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert Origin.of("mlflow:a", load_settings()).tracking_uri is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert Origin.of("mlflow:a", load_settings()).tracking_uri == "https://mlflow.example"


def test_without_dask_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_dask", None)
    with (
        pytest.raises(UsageError, match=r'pip install "spectral-edge\[dask\]"'),
        cluster.using("dir:.", load_settings(dask="local:2")),
    ):
        pass


def test_a_scheduler_that_does_not_answer_is_named() -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "200ms"}),
        pytest.raises(TransientError, match="no Dask scheduler answers at tcp://127"),
        cluster.using("dir:.", load_settings(dask="tcp://127.0.0.1:9")),
    ):
        pass


@pytest.mark.parametrize("address", ["", "local:0", "local", "host:8786", "tcp://me:secret@host:1"])
def test_an_address_that_cannot_be_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="`dask` must be the address of a Dask scheduler"):
        load_settings(dask=address)


@pytest.mark.parametrize(("size", "parts"), [(1, 1), (3_999_999_999, 1), (4_000_000_000, 2), (10**13, 256)])
def test_large_checkpoints_are_read_in_parts(tmp_path: Path, size: int, parts: int) -> None:
    ref = CheckpointRef("a", 1, "file_name", (CheckpointFile("a", size),))
    write_run(tmp_path / "run", 1, 1)
    reading = Reading(tracked(tmp_path / "run"), (ref,), Settings(), "cpu", tmp_path, 1)
    assert cluster.parts_of(reading, lambda: True) == parts
    assert cluster.parts_of(reading, lambda: False) == 1
