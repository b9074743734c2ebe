"""Artifacts as the usual frameworks log them to W&B: which are one series, and what tells the step of a version."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from integrations.listing import Series
from integrations.tracker import CheckpointFile
from integrations.wandb_artifacts import artifact_series, is_model
from integrations.wandb_steps import LoggedArtifact

RUN_ID = "1a2b3c4d"


@dataclass(frozen=True)
class Files:
    """Files of an artifact; those with content can be brought."""

    names: tuple[str, ...]
    scratch: Path | None = None
    contents: Mapping[str, str] = field(default_factory=dict)
    location: str = "here"

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(self.names)

    def described(self, path: str) -> CheckpointFile:
        return CheckpointFile(path, 10)

    @contextmanager
    def brought(self, paths: Sequence[str]) -> Iterator[list[Path]]:
        assert self.scratch is not None
        places = [self.scratch / str(place) for place in range(len(paths))]
        for path, place in zip(paths, places, strict=True):
            place.write_text(self.contents[path])
        yield places


def logged(
    collection: str = f"model-{RUN_ID}",
    version: int = 0,
    aliases: tuple[str, ...] = (),
    metadata: Mapping[str, object] | None = None,
    history_step: int | None = None,
    files: Any = ("model.safetensors",),
) -> LoggedArtifact:
    held = files if isinstance(files, Files) else Files(files)
    return LoggedArtifact(collection, f"v{version}", aliases, metadata or {}, history_step, held)


def only(artifacts: Sequence[LoggedArtifact]) -> Series:
    (series,), left_out = artifact_series(artifacts, "run", RUN_ID)
    assert not left_out
    return series


def steps(series: Series) -> list[tuple[int, str]]:
    return [(ref.step, ref.step_source) for ref in series.checkpoints]


@pytest.mark.parametrize("key", ["step", "global_step", "trainer/global_step", "iteration"])
def test_a_step_in_the_metadata(key: str) -> None:
    series = only([logged(version=n, metadata={key: 100.0 * n, "score": 0.5}) for n in (1, 2)])
    assert steps(series) == [(100, "metadata"), (200, "metadata")]
    assert series.name == f"artifact:model-{RUN_ID}"
    assert series.checkpoints[0].name == f"model-{RUN_ID}:v1/model.safetensors"
    assert not series.warnings


def test_a_configuration_in_the_metadata_tells_no_step() -> None:
    config = {"step": 5, "epochs": 3, "iteration": True}
    series = only([logged(version=n, metadata=config, aliases=(f"step_{n}0", "latest")) for n in (1, 2)])
    assert steps(series) == [(10, "alias"), (20, "alias")]


@pytest.mark.parametrize("alias", ["checkpoint-{}", "checkpoint_global_step_{}", "step={}", "iter_{}"])
def test_an_alias_of_trainer_ranks_before_the_step_that_was_logged_last(alias: str) -> None:
    versions = [
        logged(
            version=n, aliases=("latest", f"epoch_{n}", alias.format(4 * n)), metadata={"train/global_step": 4 * n - 1}
        )
        for n in (1, 2, 3)
    ]
    assert steps(only(versions)) == [(4, "alias"), (8, "alias"), (12, "alias")]


def test_where_nothing_else_tells_the_step_that_was_logged_last_does() -> None:
    versions = [logged(version=n, metadata={"train/global_step": 10 * n}) for n in (1, 2)]
    assert steps(only(versions)) == [(10, "metadata"), (20, "metadata")]


def test_the_name_that_lightning_keeps_in_the_metadata() -> None:
    versions = [
        logged(version=n, metadata={"original_filename": f"epoch={n}-step={n * 400}.ckpt"}, files=("model.ckpt",))
        for n in (1, 2)
    ]
    assert steps(only(versions)) == [(400, "file_name"), (800, "file_name")]


def test_the_folder_that_trainer_saves() -> None:
    versions = [logged(version=n, files=(f"checkpoint-{n}00/model.safetensors", "config.json")) for n in (1, 2)]
    assert steps(only(versions)) == [(100, "folder_name"), (200, "folder_name")]


def test_names_of_log_model_without_the_id_of_the_run() -> None:
    versions = [logged(f"run-{RUN_ID}-weights_{n}.pt", files=(f"w{n % 2}.pt",)) for n in (100, 200, 300)]
    series = only(versions)
    assert steps(series) == [(100, "model_name"), (200, "model_name"), (300, "model_name")]
    assert series.name == f"artifact:run-{RUN_ID}-weights_#.pt"


def test_a_record_beside_the_weights(tmp_path: Path) -> None:
    record = "trainer_state.json"
    versions = [
        logged(
            version=n,
            files=Files(("model.safetensors", record), tmp_path, {record: json.dumps({"global_step": 7 * n})}),
        )
        for n in (1, 2)
    ]
    assert steps(only(versions)) == [(7, "metadata"), (14, "metadata")]


def test_the_history_tells_last_and_it_is_said() -> None:
    series = only([logged(version=n, history_step=50 * n) for n in (1, 2)])
    assert steps(series) == [(50, "history"), (100, "history")]
    assert "history" in series.warnings[0]


def test_a_history_that_goes_back_tells_nothing() -> None:
    found, left_out = artifact_series(
        [logged(version=n, history_step=s) for n, s in enumerate((50, 40))], "run", RUN_ID
    )
    assert not found
    assert left_out == (f"artifact `model-{RUN_ID}:v0`, `model-{RUN_ID}:v1` left out: no training step is known.",)


def test_the_number_of_a_version_is_no_step() -> None:
    assert not artifact_series([logged(version=n, aliases=(f"v{n}", "best")) for n in (1, 2, 3)], "run", RUN_ID)[0]


def test_epochs_are_taken_where_nothing_counts_steps_and_it_is_said() -> None:
    versions = [logged(version=n, metadata={"original_filename": f"epoch={n}.ckpt"}) for n in (1, 2, 3)]
    series = only(versions)
    assert [ref.step for ref in series.checkpoints] == [1, 2, 3]
    assert "epochs" in series.warnings[0]
    counted = [logged(version=n, metadata={"original_filename": f"epoch={n}.ckpt"}, history_step=n * 9) for n in (1, 2)]
    assert steps(only(counted)) == [(9, "history"), (18, "history")]


def test_epochs_in_an_alias() -> None:
    series = only([logged(version=n, aliases=("latest", f"epoch_{n}_batch_9")) for n in (1, 2, 3)])
    assert steps(series) == [(1, "alias"), (2, "alias"), (3, "alias")]
    assert "epochs" in series.warnings[0]


def test_of_versions_of_the_same_step_the_last_counts() -> None:
    series = only([logged(version=n, metadata={"step": step}) for n, step in enumerate((10, 20, 20, 30))])
    assert [ref.name.split("/")[0].split(":")[1] for ref in series.checkpoints] == ["v0", "v2", "v3"]
    assert "v1" in series.warnings[0]


def test_an_artifact_that_holds_a_whole_series() -> None:
    files = tuple(f"checkpoints/step_{n}.pt" for n in (1, 2, 3))
    series = only([logged("all", 0, files=files[:2]), logged("all", 1, files=files)])
    assert steps(series) == [(1, "file_name"), (2, "file_name"), (3, "file_name")]
    assert series.name == "artifact:all:v1/checkpoints/step_#.pt"


def test_shards_are_one_checkpoint() -> None:
    shards = tuple(f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    series = only(
        [logged(version=n, metadata={"step": n}, files=(*shards, "model.safetensors.index.json")) for n in (1, 2)]
    )
    assert [len(ref.files) for ref in series.checkpoints] == [3, 3]


def test_the_folder_of_shards_tells_their_step() -> None:
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    series = only([logged(version=n, files=tuple(f"checkpoint-{n}00/{shard}" for shard in shards)) for n in (1, 2)])
    assert steps(series) == [(100, "folder_name"), (200, "folder_name")]
    assert [len(ref.files) for ref in series.checkpoints] == [2, 2]


def test_several_series_come_by_length_and_what_holds_no_weights_is_named() -> None:
    short = [logged("generator", n, metadata={"step": n}) for n in (1, 2)]
    long = [logged("critic", n, metadata={"step": n}) for n in (1, 2, 3)]
    found, left_out = artifact_series([*short, *long, logged("card", files=("README.md",))], "run", RUN_ID)
    assert [series.name for series in found] == ["artifact:critic", "artifact:generator"]
    assert left_out == ("artifact `card:v0` left out: it holds no weights file.",)


@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), float("inf"), "10", None, True, 10**30, [1]])
def test_what_is_no_step(value: object) -> None:
    assert not artifact_series([logged(version=n, metadata={"step": value}) for n in (1, 2)], "run", RUN_ID)[0]


@pytest.mark.parametrize(
    ("type_", "taken"), [("model", True), ("checkpoints", True), ("weights", True), ("dataset", False)]
)
def test_which_types_are_looked_into(type_: str, taken: bool) -> None:
    assert is_model(type_) is taken
