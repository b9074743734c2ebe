"""Folders of torch.distributed.checkpoint, as one process and as two write them."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest
import torch
import torch.distributed.checkpoint as distributed
from safetensors.torch import load_file
from torch.distributed.checkpoint._extension import StreamTransformExtension

from integrations.folder_runs import run_files, run_places
from spectral_edge import read_checkpoint
from spectral_edge.checkpoints import find_trajectory, open_checkpoint
from spectral_edge.checkpoints.block_reader import StoredTensor
from spectral_edge.checkpoints.dcp_format import read_distributed
from spectral_edge.checkpoints.raw_file import RawFile, ScratchFile
from spectral_edge.errors import CheckpointFormatError, NotFoundError
from tests.checkpoints.checkpoint_writers import distributed_folder

RUNS = ("fsdp", "placements")


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    command = [sys.executable, "-m", "tests.checkpoints.distributed_runs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("run", RUNS)
def test_every_checkpoint_of_two_ranks_holds_the_whole_tensors(run: str, two_ranks: Path) -> None:
    (folder,) = run_places(two_ranks / run)
    found = find_trajectory(run_files(folder))
    assert [checkpoint.step for checkpoint in found.checkpoints] == [1, 2, 3]
    assert found.warnings == ()
    for checkpoint in found.checkpoints:
        assert len(checkpoint.paths) == 3
        read = read_checkpoint(*(folder / path for path in checkpoint.paths))
        whole = load_file(two_ranks / "live" / run / f"{checkpoint.step}.safetensors")
        assert list(read) == sorted(whole)
        assert all(torch.equal(read[name], whole[name]) for name in whole)
        assert all(read[name].dtype == whole[name].dtype for name in whole)


def test_rows_of_two_ranks_are_read_in_place_and_columns_gathered(two_ranks: Path, tmp_path: Path) -> None:
    folder = two_ranks / "placements" / "step-1"
    data = sorted(folder.glob("*.distcp"))
    with ExitStack() as stack:
        opened = [stack.enter_context(RawFile.open(path)) for path in (*data, folder / ".metadata")]
        scratch = stack.enter_context(ScratchFile(tmp_path))
        tensors = read_distributed(opened, scratch).tensors
        assert _files(tensors["rows"]) == [str(path) for path in data]
        assert _files(tensors["columns"]) == _files(tensors["middle"]) == [scratch.file.name]
        assert tensors["columns"].place[0] in {str(path) for path in data}


def _files(tensor: StoredTensor) -> list[str]:
    return [stretch.file.name for stretch in tensor.stretches]


def _save(state: dict[str, object], folder: Path, **options: object) -> list[Path]:
    with warnings.catch_warnings(action="ignore"):  # says that this is one process
        distributed.save(state, checkpoint_id=folder, **options)  # type: ignore[arg-type]
    return sorted(folder.iterdir())


WEIGHTS = {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.arange(2.0)}
MOMENTS = {"state": {name: {"exp_avg": torch.ones(99)} for name in WEIGHTS}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    "state",
    [
        WEIGHTS,
        {"model": WEIGHTS},
        {"state_dict": WEIGHTS, "optimizer_0": MOMENTS, "epoch": 3},
        {"model": WEIGHTS, "optim": MOMENTS, "rng": torch.zeros(5000), "ema": dict.fromkeys(WEIGHTS, torch.zeros(2))},
        WEIGHTS | {"optimizer": MOMENTS, "lr_scheduler": {"last": 1}, "dataloader": {"seen": [torch.ones(9)]}},
    ],
    ids=["bare", "model", "Lightning", "averages", "torchtitan"],
)
def test_the_model_is_told_from_what_is_beside_it(state: dict[str, object], tmp_path: Path) -> None:
    read = read_checkpoint(*_save(state, tmp_path / "step-1"))
    assert sorted(read) == sorted(WEIGHTS)
    assert all(torch.equal(read[name], WEIGHTS[name]) for name in WEIGHTS)


def test_a_key_above_the_model_leads_its_names(tmp_path: Path) -> None:
    """As PyTorch's tutorial saves, and as in any other torch file."""
    state = {"app": {"model": WEIGHTS, "optim": MOMENTS}}
    assert sorted(read_checkpoint(*_save(state, tmp_path / "step-1"))) == ["app.0.bias", "app.0.weight"]


def test_what_is_beside_the_model_on_request(tmp_path: Path) -> None:
    state = {"model": WEIGHTS, "ema": {"0.weight": torch.full((2, 3), 5.0)}, "optim": MOMENTS}
    with open_checkpoint(_save(state, tmp_path / "step-1"), include=frozenset({"averaged", "optimizer"})) as reader:
        assert list(reader.tensors) == [
            "averaged.0.weight",
            "optimizer.state.0.bias.exp_avg",
            "optimizer.state.0.weight.exp_avg",
        ]
        assert reader.read_block("averaged.0.weight", 0, 6).tolist() == [5.0] * 6


def test_names_that_were_flat_when_saved(tmp_path: Path) -> None:
    """As Megatron saves: no keys are told, and the optimizer is known by the names alone."""
    flat = {f"decoder.{name}": value for name, value in WEIGHTS.items()} | {"optimizer.state.exp_avg": torch.ones(99)}
    planner = distributed.DefaultSavePlanner(flatten_state_dict=False)
    assert sorted(read_checkpoint(*_save(flat, tmp_path / "step-1", planner=planner))) == [
        "decoder.0.bias",
        "decoder.0.weight",
    ]


def test_tied_weights_count_once_for_each_name(tmp_path: Path) -> None:
    """torch writes them out twice: that they were one is not in the files."""
    weight = torch.randn(4, 3)
    assert sorted(read_checkpoint(*_save({"a": weight, "b": weight}, tmp_path / "step-1"))) == ["a", "b"]


def test_several_files_a_rank(tmp_path: Path) -> None:
    files = distributed_folder(WEIGHTS, tmp_path, thread_count=2)
    assert len(files) == 3
    assert sorted(read_checkpoint(*files)) == sorted(WEIGHTS)


def test_data_files_of_an_earlier_save_are_passed_by(tmp_path: Path) -> None:
    files = distributed_folder(WEIGHTS, tmp_path)
    (tmp_path / "__7_0.distcp").write_bytes(b"of a larger world")
    assert sorted(read_checkpoint(*files, tmp_path / "__7_0.distcp")) == sorted(WEIGHTS)


def test_the_files_may_lie_in_different_folders(tmp_path: Path) -> None:
    """As a tracker fetches them, each into a folder of its own."""
    for number, file in enumerate(distributed_folder(WEIGHTS, tmp_path)):
        (tmp_path / str(number)).mkdir()
        file.rename(tmp_path / str(number) / file.name)
    assert sorted(read_checkpoint(*tmp_path.glob("?/*"))) == sorted(WEIGHTS)


class _Upside(StreamTransformExtension):  # type: ignore[misc]
    """A stream transform as users may plug in: it writes each byte's complement."""

    @staticmethod
    def registry_name() -> str:
        return "tests.upside"

    @staticmethod
    def from_descriptor(_version: str) -> _Upside:
        return _Upside()

    def get_descriptor(self) -> str:
        return "tests.upside/1"

    def transform_to(self, output: IO[bytes]) -> IO[bytes]:
        class Writer(io.RawIOBase):
            def writable(self) -> bool:
                return True

            def write(self, data: bytes) -> int:  # type: ignore[override]
                return output.write(bytes(255 - value for value in bytes(data)))

        return Writer()  # type: ignore[return-value]

    def transform_from(self, input: IO[bytes]) -> IO[bytes]:  # noqa: A002 - torch's name
        return input


def test_transformed_entries_are_refused_with_a_way_out(tmp_path: Path) -> None:
    files = distributed_folder(WEIGHTS, tmp_path, _extensions=[_Upside()])
    with pytest.raises(CheckpointFormatError, match=r"stored through tests\.upside/1") as caught:
        open_checkpoint(files)
    assert "_extensions" in str(caught.value)
    assert caught.value.file == str(tmp_path / "__0_0.distcp")


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    metadata, *_ = distributed_folder(WEIGHTS, tmp_path)
    with pytest.raises(CheckpointFormatError, match=r"it lies in '__0_0\.distcp', which was not given") as caught:
        open_checkpoint([metadata])
    assert caught.value.file == str(metadata)
    with pytest.raises(NotFoundError):
        open_checkpoint([metadata, tmp_path / "__9_0.distcp"])


def test_data_files_alone_say_what_is_missing(tmp_path: Path) -> None:
    _, *data = distributed_folder(WEIGHTS, tmp_path)
    with pytest.raises(CheckpointFormatError, match=r"`\.metadata`") as caught:
        open_checkpoint(data)
    assert caught.value.file == str(data[0])


@pytest.mark.parametrize("which", [".metadata", "__0_0.distcp"])
def test_two_files_of_one_name_are_refused(which: str, tmp_path: Path) -> None:
    files = distributed_folder(WEIGHTS, tmp_path)
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / which
    twin.write_bytes((tmp_path / which).read_bytes())
    with pytest.raises(CheckpointFormatError, match=rf"two files are called `{which}`"):
        open_checkpoint([*files, twin])
