"""What a tensor is to the model: each is of one kind, and a kind that is asked for comes under names of its own."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import nn

from spectral_edge.checkpoints import open_checkpoint
from spectral_edge.errors import CheckpointFormatError
from spectral_edge.kinds import KINDS, Kind
from tests.checkpoints.checkpoint_writers import WRITERS


def _names(saved: object, tmp_path: Path, *kinds: Kind) -> list[str]:
    torch.save(saved, tmp_path / "model.pt")
    with open_checkpoint([tmp_path / "model.pt"], include=frozenset(kinds)) as reader:
        return list(reader.tensors)


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def _saved_by_a_loop() -> dict[str, object]:
    network = _Network()
    optimizer = torch.optim.AdamW(network.parameters())
    network.norm(network.embed(torch.tensor([1, 2]))).sum().backward()
    optimizer.step()
    averaged = torch.optim.swa_utils.AveragedModel(network)
    return {
        "model": nn.DataParallel(network).state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema_model": averaged.state_dict(),
        "scheduler": {"last": torch.ones(2)},
    }


_EXPECTED: dict[Kind, list[str]] = {
    "parameters": ["embed.weight", "norm.bias", "norm.weight"],
    "buffers": ["norm.running_mean", "norm.running_var"],
    "tied": ["head.weight"],
    "averaged": [
        f"averaged.{name}"
        for name in (
            *("embed.weight", "head.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.weight"),
        )
    ],
    "optimizer": [
        f"optimizer.state.{number}.{name}" for number in range(3) for name in ("exp_avg", "exp_avg_sq", "step")
    ],
}


@pytest.mark.parametrize("kinds", [kinds for count in range(1, 6) for kinds in combinations(KINDS, count)], ids=str)
def test_any_choice_of_kinds(kinds: tuple[Kind, ...], tmp_path: Path) -> None:
    expected = sorted(name for kind in kinds for name in _EXPECTED[kind])
    assert _names(_saved_by_a_loop(), tmp_path, *kinds) == expected


def test_the_numbers_are_those_of_the_kind(tmp_path: Path) -> None:
    saved = {"model": {"w": torch.zeros(3)}, "optim": {"w": torch.ones(3)}, "ema": {"w": torch.full((3,), 2.0)}}
    torch.save(saved, tmp_path / "model.pt")
    with open_checkpoint([tmp_path / "model.pt"], include=frozenset(KINDS)) as reader:
        assert {name: reader.read_block(name, 0, 3).tolist()[0] for name in reader.tensors} == {
            "averaged.w": 2.0,
            "optimizer.w": 1.0,
            "w": 0.0,
        }


def test_several_optimizers_and_copies_keep_their_keys(tmp_path: Path) -> None:
    saved = {
        "generator": {"w": torch.ones(3)},
        "optim_g": {"state": {"m": torch.ones(3)}},
        "optim_d": {"state": {"m": torch.ones(3)}},
        "ema": {"w": torch.ones(3)},
        "swa": {"module.w": torch.ones(3)},
    }
    assert _names(saved, tmp_path, *KINDS) == [
        "averaged.ema.w",
        "averaged.swa.w",
        "generator.w",
        "optimizer.optim_d.state.m",
        "optimizer.optim_g.state.m",
    ]


def test_lists_of_optimizers_and_of_averages(tmp_path: Path) -> None:
    """Lightning keeps a list of optimizers, torch_ema a list of tensors."""
    saved = {
        "state_dict": {"w": torch.ones(3)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "ema": {"decay": 0.9, "shadow_params": [torch.ones(3), torch.ones(2)]},
    }
    assert _names(saved, tmp_path, *KINDS) == [
        "averaged.shadow_params.0",
        "averaged.shadow_params.1",
        "optimizer.0.state.0.exp_avg",
        "w",
    ]


def test_lightnings_averaged_weights_are_not_taken_for_the_trained_ones(tmp_path: Path) -> None:
    """WeightAveraging moves the trained model aside and puts the average in its place."""
    saved = {
        "state_dict": {"w": torch.zeros(3)},
        "current_model_state": {"w": torch.ones(3)},
        "averaging_state": {"n_averaged": torch.tensor(3)},
    }
    torch.save(saved, tmp_path / "model.ckpt")
    with open_checkpoint([tmp_path / "model.ckpt"]) as reader:
        assert reader.read_block("w", 0, 3).tolist() == [1.0] * 3
    with open_checkpoint([tmp_path / "model.ckpt"], include=frozenset({"averaged"})) as reader:
        assert reader.read_block("averaged.w", 0, 3).tolist() == [0.0] * 3


def test_averages_do_not_keep_a_wrappers_prefix_on_the_model(tmp_path: Path) -> None:
    saved = {"model.w": torch.ones(3), "ema_model.w": torch.zeros(3)}
    assert _names(saved, tmp_path, "parameters", "averaged") == ["ema_model.w", "w"]


@pytest.mark.parametrize(
    "saved",
    [
        {"model": {"averaged.w": torch.ones(3)}, "ema": {"w": torch.ones(3)}},
        {"model": {"optimizer.m": torch.ones(3)}, "optim": {"m": torch.ones(3)}},
        {"a": {"optim": {"b.m": torch.ones(3)}}, "a.optim": {"b.m": torch.ones(3)}, "w": torch.ones(9)},
    ],
)
def test_two_tensors_never_come_under_one_name(saved: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointFormatError, match="same name"):
        _names(saved, tmp_path, *KINDS)


@pytest.mark.parametrize("writer", ["safetensors_file", "torch_zip", "torch_legacy", "torch_tar", "numpy_npz"])
def test_kinds_told_by_name_alone_in_every_format(writer: str, tmp_path: Path) -> None:
    tensors = {
        "layer.weight": torch.ones(3),
        "norm.running_var": torch.ones(3),
        "ema.layer.weight": torch.ones(3),
        "optimizer.exp_avg": torch.ones(3),
    }
    files = WRITERS[writer](tensors, tmp_path)
    for kind, name in zip(("parameters", "buffers", "averaged", "optimizer"), tensors, strict=True):
        with open_checkpoint(files, include=frozenset[Kind]({kind})) as reader:  # type: ignore[arg-type]
            assert list(reader.tensors) == [name]


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (("optimizer",), "holds no tensors of the kinds asked for: optimizer"),
        (("averaged", "optimizer"), "holds no tensors of the kinds asked for: averaged, optimizer"),
        (("tied",), "no floating point tensor in it is of the kinds asked for: tied"),
        (("buffers",), "no floating point tensor in it is of the kinds asked for: buffers"),
    ],
)
def test_a_kind_that_is_not_there(kinds: tuple[Kind, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointFormatError, match=message) as caught:
        _names({"model": {"w": torch.ones(3)}}, tmp_path, *kinds)
    assert caught.value.file == str(tmp_path / "model.pt")
