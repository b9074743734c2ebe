"""Whole modules, pickled by real torch: the parameters under their names, and no class is needed."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from spectral_edge.checkpoints import open_checkpoint
from spectral_edge.kinds import Kind

_WRITTEN_ELSEWHERE = """
import sys, torch
from torch import nn
class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.scale = nn.Parameter(torch.arange(5.0))
        self.register_buffer("table", torch.ones(6))
        self.activation = torch.nn.functional.gelu
        self.config = {"lr": 1e-3, "names": ["a", "b"]}
torch.manual_seed(0)
model = Mine()
torch.save(model, sys.argv[1])
torch.save(model.state_dict(), sys.argv[2])
"""


def _read(path: Path, *kinds: Kind) -> dict[str, torch.Tensor]:
    with open_checkpoint([path], include=frozenset(kinds or ("parameters",))) as reader:
        return {
            name: reader.read_block(name, 0, info.n_parameters).reshape(info.shape)
            for name, info in reader.tensors.items()
        }


def _same(read: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], value.detach()) for name, value in expected.items())


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.body = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.again = self.body[0]


_MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(3, 2),
    "transformer": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
    "lstm": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    "convolutions": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
    "channels last": lambda: nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),
    "tied": _Tied,
    "half": lambda: nn.Linear(3, 2).bfloat16(),
}


def _parameters(module: nn.Module) -> dict[str, torch.Tensor]:
    """Each parameter under the first of its names in the order of the alphabet, the rule for tied ones."""
    named = sorted(module.named_parameters(remove_duplicate=False))
    first = {id(value): name for name, value in reversed(named)}
    return {name: value for name, value in named if first[id(value)] == name}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", _MODULES)
def test_parameters(name: str, legacy: bool, tmp_path: Path) -> None:
    module = _MODULES[name]()
    torch.save(module, tmp_path / "model.pth", _use_new_zipfile_serialization=not legacy)
    _same(_read(tmp_path / "model.pth"), _parameters(module))


@pytest.mark.parametrize("legacy", [False, True])
def test_buffers_are_told_apart_exactly(legacy: bool, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module.register_buffer("looks_like.a_weight".replace(".", "_"), torch.rand(3))
    torch.save(module, tmp_path / "model.pth", _use_new_zipfile_serialization=not legacy)
    floating = {name: value for name, value in module.named_buffers() if value.is_floating_point()}
    assert len(floating) == 3
    _same(_read(tmp_path / "model.pth", "buffers"), floating)
    _same(_read(tmp_path / "model.pth", "buffers", "parameters"), floating | dict(module.named_parameters()))


def test_wrapped_and_beside_other_things(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": nn.DataParallel(module), "epoch": 3, "optimizer": optimizer}, tmp_path / "model.pt")
    _same(_read(tmp_path / "model.pt"), dict(module.named_parameters()))


def test_a_class_of_a_script_that_is_gone(tmp_path: Path) -> None:
    module, weights = tmp_path / "module.pt", tmp_path / "weights.pt"
    subprocess.run([sys.executable, "-c", _WRITTEN_ELSEWHERE, module, weights], check=True, timeout=120)
    with pytest.raises(AttributeError, match="Mine"):
        torch.load(module, weights_only=False)  # torch itself needs the class
    expected = _read(weights)
    assert expected.pop("table").tolist() == [1.0] * 6  # a dictionary does not tell that this is a buffer
    _same(_read(module), expected)


def test_the_whole_trajectory_of_whole_modules(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    states = []
    for step in range(4):
        with torch.no_grad():
            module.weight.add_(torch.randn_like(module.weight))
        torch.save(module, tmp_path / f"step_{step}.pt")
        states.append(copy.deepcopy(module.state_dict()))
    for step, state in enumerate(states):
        _same(_read(tmp_path / f"step_{step}.pt"), dict(state))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # what is tested is what users have kept
def test_torchscript_archives(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    torch.jit.save(torch.jit.script(module), str(tmp_path / "model.pt"))
    _same(_read(tmp_path / "model.pt"), dict(module.named_parameters()))
