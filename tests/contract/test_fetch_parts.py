"""Parts of a run that is downloaded: what each asks of the store, and that all together see the whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from fetch_ways import PROBE, TO_S3, Way, asked, carries_bytes
from mlflow import MlflowClient
from safetensors.torch import save
from wandb_double import Double
from wandb_labs import ENTITY

from integrations.mlflow_tracker import MlflowTracker
from integrations.tracker import CheckpointFile, CheckpointRef, Selection, TrackedRun, Tracker
from integrations.wandb_tracker import WandbTracker
from pipelines.reading import Costs, Reading, read
from pipelines.share import require_same_versions
from spectral_edge.blocks import WHOLE, Shard
from spectral_edge.errors import DiskFullError, FetchInterruptedError, NonFiniteError
from spectral_edge.settings import Settings
from spectral_edge.tables import RunKey
from spectral_edge.trajectory import Trajectory, add_up

PARTS, CHECKPOINTS = 3, 4
HEADS = 16 << 10
RUN = TrackedRun(RunKey("mlflow", "p", "r", "run"), "finished", None, None, {}, {}, "")
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def model(step: int, dtype: torch.dtype = torch.float32) -> list[dict[str, torch.Tensor]]:
    """The tensors of two files."""
    torch.manual_seed(step)
    return [
        {f"layers.{layer}.mlp.weight": torch.randn(3, 60_001).to(dtype) for layer in (2 * file, 2 * file + 1)}
        for file in range(2)
    ]


def files_of(shards: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, bytes]:
    """As they lie in a sharded checkpoint."""
    told = {name: file for file, tensors in zip(SHARDS, shards, strict=True) for name in tensors}
    index = json.dumps({"metadata": {}, "weight_map": told}).encode()
    return {**{file: save(dict(it)) for file, it in zip(SHARDS, shards, strict=True)}, INDEX: index}


def log(way: Way, checkpoints: Sequence[Mapping[str, bytes]]) -> tuple[CheckpointRef, ...]:
    """A run with these checkpoints."""
    way.log()
    home, refs = way.scratch / "checkpoints", []
    for step, files in enumerate(checkpoints):
        folder = home / f"ck-{step}"
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        listed = tuple(CheckpointFile(f"ck-{step}/{name}", len(content)) for name, content in files.items())
        refs.append(CheckpointRef(f"ck-{step}", step, "folder_name", listed, way.run.artifact_uri))
    MlflowClient(way.tracking).log_artifacts(way.run.run_id, str(home))
    way.proxy.requests.clear()
    return tuple(refs)


@dataclass
class Read:
    """What was read, and how many bytes came for it."""

    trajectory: Trajectory
    n_bytes: int
    versions: Mapping[str, str]


def read_part(
    tracker: Tracker, run: TrackedRun, refs: tuple[CheckpointRef, ...], shard: Shard, spool: Path, max_disk: int = 10**9
) -> Read:
    costs = Costs()
    reading = Reading(run, refs, Settings(window=3, lags=3), "cpu", spool, max_disk, 1, shard)
    return Read(read(tracker, reading, costs), costs.bytes_fetched, costs.versions)


def assert_same(found: Trajectory, expected: Trajectory) -> None:
    assert (found.steps, found.warnings, found.bands.keys()) == (
        expected.steps,
        expected.warnings,
        expected.bands.keys(),
    )
    for group, band in expected.bands.items():
        assert found.bands[group].n_parameters == band.n_parameters
        np.testing.assert_allclose(found.bands[group].values, band.values, rtol=1e-12, atol=1e-9)


def sent(way: Way) -> int:
    """Bytes of the files that were asked for."""
    edges = [found.removeprefix("bytes=").split("-") for found in asked(way)]
    return sum(int(last) - int(first) + 1 for first, last in edges)


@pytest.mark.parametrize(("name", "changes"), [("signed", False), ("s3", False), ("s3", True)])
def test_all_parts_together_fetch_each_byte_about_once(
    make_way: Callable[[str], Way], tmp_path: Path, name: str, changes: bool
) -> None:
    way = make_way(name)
    shards = [model(step) for step in range(CHECKPOINTS)]
    if changes:  # a group ends, and all that comes behind it by name lies elsewhere in the files
        shards[-1][0] = {"a.mlp.weight": torch.ones(7), "layers.1.mlp.weight": shards[-1][0]["layers.1.mlp.weight"]}
    refs = log(way, [files_of(it) for it in shards])
    tracker, size = MlflowTracker(way.server.address), sum(ref.size for ref in refs)
    whole = read_part(tracker, RUN, refs, WHOLE, tmp_path / "spool")
    assert whole.n_bytes == size
    way.proxy.requests.clear()
    parts = [read_part(tracker, RUN, refs, Shard(index, PARTS), tmp_path / "spool") for index in range(PARTS)]
    assert_same(add_up([part.trajectory for part in parts], [ref.name for ref in refs]), whole.trajectory)
    assert sum(part.n_bytes for part in parts) == sent(way)
    print(f"\n{name}: {size / 1e6:.2f} MB; fetched by {PARTS} parts: {sent(way) / 1e6:.2f} MB")
    heads = PARTS * CHECKPOINTS * (2 * HEADS + refs[0].files[2].size)
    assert (0.8 if changes else 1.0) * size < sent(way) < size + heads
    assert not (tmp_path / "spool").exists()
    # The first part asks of the second file for nothing but the head.
    of_second = [
        line.rpartition(" ")[2] for line in way.proxy.requests if SHARDS[1] in line and carries_bytes(way) in line
    ]
    assert of_second.count(f"bytes=0-{HEADS - 1}") == PARTS * CHECKPOINTS
    assert len([found for found in of_second if found != PROBE]) < 2 * PARTS * CHECKPOINTS


def test_parts_that_saw_different_files_are_not_added_up(make_way: Callable[[str], Way], tmp_path: Path) -> None:
    way = make_way("s3")
    refs = log(way, [files_of(model(step)) for step in range(3)])
    tracker, spool = MlflowTracker(way.server.address), tmp_path / "spool"
    first, second = (read_part(tracker, RUN, refs, Shard(index, 3), spool).versions for index in range(2))
    require_same_versions(second, first, "run")
    way.put(f"ck-1/{SHARDS[1]}", files_of(model(99))[SHARDS[1]])
    third = read_part(tracker, RUN, refs, Shard(2, 3), spool).versions
    with pytest.raises(FetchInterruptedError, match="run run, file ck-1: its files were replaced"):
        require_same_versions(third, first, "run")


def test_the_disk_needs_room_for_the_part_alone(make_way: Callable[[str], Way], tmp_path: Path) -> None:
    way = make_way("s3")
    refs = log(way, [files_of(model(step)) for step in range(CHECKPOINTS)])
    tracker, room = MlflowTracker(way.server.address), 3 * refs[0].size
    with pytest.raises(DiskFullError):
        read_part(tracker, RUN, refs, WHOLE, tmp_path / "spool", room)
    read_part(tracker, RUN, refs, Shard(0, 2), tmp_path / "spool", room)


@pytest.mark.parametrize("name", TO_S3)
def test_a_file_that_is_replaced_between_two_ranges(make_way: Callable[[str], Way], tmp_path: Path, name: str) -> None:
    way = make_way(name)
    [ref] = log(way, [files_of(model(0))])

    def replace_and_ask(files: Sequence[Path]) -> Mapping[Path, Sequence[range]]:
        way.put(f"ck-0/{SHARDS[0]}", files_of(model(99))[SHARDS[0]])
        return {files[0]: [range(100_000, 200_000)]}

    with pytest.raises(FetchInterruptedError, match="replaced by another file"):
        MlflowTracker(way.server.address).fetch_part(RUN, ref, tmp_path / "spool", replace_and_ask)
    assert not list((tmp_path / "spool").iterdir())


@pytest.mark.parametrize("name", ["folder", "through"])
def test_where_the_store_gives_no_ranges_a_part_fetches_whole_files(
    make_way: Callable[[str], Way], tmp_path: Path, name: str
) -> None:
    way = make_way(name)
    refs = log(way, [files_of(model(step)) for step in range(3)])
    part = read_part(MlflowTracker(way.server.address), RUN, refs, Shard(1, 2), tmp_path / "spool")
    assert part.n_bytes == sum(ref.size for ref in refs)


def test_an_error_of_a_part_names_the_checkpoint(make_way: Callable[[str], Way], tmp_path: Path) -> None:
    way = make_way("s3")
    shards = [model(step) for step in range(3)]
    shards[1][1]["layers.3.mlp.weight"][2, 60_000] = float("nan")
    refs = log(way, [files_of(it) for it in shards])
    tracker = MlflowTracker(way.server.address)
    with pytest.raises(NonFiniteError) as raised:
        read_part(tracker, RUN, refs, Shard(1, 2), tmp_path / "spool")
    assert (raised.value.file, raised.value.tensor) == ("ck-1", "layers.3.mlp.weight")


def test_parts_of_files_of_wandb(double: Double, tmp_path: Path) -> None:
    project = "in-parts"
    double.put_run(ENTITY, project, "run")
    for step in range(CHECKPOINTS):
        tensors = {name: tensor for tensors in model(step) for name, tensor in tensors.items()}
        double.put_artifact(
            ENTITY, project, "run", "model", {"model.safetensors": save(tensors)}, metadata={"step": step}
        )
    tracker = WandbTracker()
    [run] = tracker.runs(Selection(f"{ENTITY}/{project}"))
    refs = tracker.checkpoints(run).checkpoints
    whole = read_part(tracker, run, refs, WHOLE, tmp_path / "spool")
    parts = [read_part(tracker, run, refs, Shard(index, PARTS), tmp_path / "spool") for index in range(PARTS)]
    assert_same(add_up([part.trajectory for part in parts], [ref.name for ref in refs]), whole.trajectory)
    assert whole.n_bytes < sum(part.n_bytes for part in parts) < whole.n_bytes + PARTS * CHECKPOINTS * HEADS
