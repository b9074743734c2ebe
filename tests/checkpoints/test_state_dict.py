"""Which tensors count as the model's parameters, and under which names."""

from __future__ import annotations

import io
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import spectral_edge.checkpoints
from spectral_edge.checkpoints import open_checkpoint
from spectral_edge.checkpoints.state_dict import find_state_dict, plain_names
from spectral_edge.errors import CheckpointFormatError
from tests.checkpoints.checkpoint_writers import WRITERS, rewritten

WEIGHTS = {"embed.weight": torch.ones(4, 3), "head.weight": torch.ones(2, 4)}


def _names(saved: object, tmp_path: Path) -> list[str]:
    torch.save(saved, tmp_path / "model.pt")
    with open_checkpoint([tmp_path / "model.pt"]) as reader:
        return list(reader.tensors)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sd: sd,
        OrderedDict,
        lambda sd: {"model": sd, "optimizer": {"state": {0: {"exp_avg": torch.ones(99)}}}, "step": 8},
        lambda sd: {"model_state_dict": sd, "optimizer_state_dict": {"state": {}}, "loss": torch.tensor(0.5)},
        lambda sd: {"net": sd, "acc": 0.9, "epoch": 3},
        lambda sd: {"module": sd, "lr_scheduler": {"x": torch.ones(50)}},
        lambda sd: {"checkpoint": {"model": {"state_dict": sd}}},
        lambda sd: {"state_dict": sd, "state_dict_ema": {name: t + 1 for name, t in sd.items()}},
        lambda sd: {"ema_model": {name: t + 1 for name, t in sd.items()}, "model": sd},
        lambda sd: {"model": None, "weights": sd},
        lambda sd: {"step": torch.tensor(3), "model": {}, "network": sd},
        lambda sd: sd | {"_extra_state": {"amax": torch.ones(1000)}},
        lambda sd: {"model": {f"module._orig_mod.{name}": t for name, t in sd.items()}},
        lambda sd: {"model": {f"_orig_mod.module.{name}": t for name, t in sd.items()}},
        lambda sd: {"state_dict": {f"model._orig_mod.{name}": t for name, t in sd.items()}, "hyper_parameters": {}},
    ],
)
def test_the_usual_wrappers(wrap: object, tmp_path: Path) -> None:
    assert _names(wrap(dict(WEIGHTS)), tmp_path) == sorted(WEIGHTS)  # type: ignore[operator]


def test_a_lightning_checkpoint(tmp_path: Path) -> None:
    checkpoint = {
        "epoch": 1,
        "global_step": 8,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict((f"model.{name}", tensor) for name, tensor in WEIGHTS.items()),
        "loops": {"fit_loop": {"state_dict": {"seen": torch.ones(500)}}},
        "callbacks": {"EarlyStopping": {"best_score": torch.tensor(0.1)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(12)}}}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
    }
    assert _names(checkpoint, tmp_path) == sorted(WEIGHTS)


def test_modules_side_by_side_are_taken_together(tmp_path: Path) -> None:
    saved = {
        "generator": WEIGHTS,
        "discriminator": WEIGHTS,
        "optim_g": {"m": torch.ones(99)},
        "loss": torch.tensor(1.0),
    }
    sides = {key: {name: tensor.clone() for name, tensor in WEIGHTS.items()} for key in ("discriminator", "generator")}
    expected = [f"{key}.{name}" for key in sorted(sides) for name in sorted(WEIGHTS)]
    assert _names(saved | sides, tmp_path) == expected


def test_tensors_and_a_small_dictionary_of_tensors_side_by_side(tmp_path: Path) -> None:
    assert _names(WEIGHTS | {"input": {"mean": torch.ones(3)}}, tmp_path) == sorted(WEIGHTS)


@pytest.mark.parametrize("saved", [torch.ones(3), [torch.ones(3)], {}, {"epoch": 3}, {0: torch.ones(3)}, 7, None])
def test_nothing_to_find(saved: object) -> None:
    with pytest.raises(CheckpointFormatError, match="expected a dictionary with the model's tensors by name, got "):
        find_state_dict(saved)


def test_the_error_names_the_keys_that_are_there() -> None:
    with pytest.raises(CheckpointFormatError, match=r"keys 'epoch', 'optimizer'\."):
        find_state_dict({"epoch": 3, "optimizer": {"state": {}}})


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("steps", torch.tensor(4))
        self.register_buffer("mask", torch.ones(3, dtype=torch.bool))


def test_buffers_and_tied_weights_are_left_out(tmp_path: Path) -> None:
    expected = ["embed.weight", "norm.bias", "norm.weight"]
    assert _names(_Network().state_dict(), tmp_path) == expected
    assert _names(nn.DataParallel(_Network()).state_dict(), tmp_path) == expected


@pytest.mark.parametrize("legacy", [False, True])
def test_all_that_a_training_loop_keeps_beside_the_model(legacy: bool, tmp_path: Path) -> None:
    model = _Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 20])  # keeps a collections.Counter
    model.norm(model.embed(torch.tensor([1, 2]))).sum().backward()
    optimizer.step()
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "averaged": torch.optim.swa_utils.AveragedModel(model).state_dict(),
        "rng": torch.get_rng_state(),
        "config": {
            "layers": [1, 2],
            "seen": {"a", "b"},
            "name": "grok",
            "dtype": torch.float32,
            "shape": torch.Size([2]),
        },
        "losses": [0.5, float("nan"), 1 + 2j],
        "best": torch.tensor(0.3),
        "device": torch.device("cpu"),
        "big": 1 << 80,
    }
    torch.save(saved, tmp_path / "model.pt", _use_new_zipfile_serialization=not legacy)
    with open_checkpoint([tmp_path / "model.pt"]) as reader:
        assert list(reader.tensors) == ["embed.weight", "norm.bias", "norm.weight"]
        assert torch.equal(reader.read_block("embed.weight", 0, 15), model.embed.weight.detach().reshape(-1))


def test_tensors_with_attributes_and_of_the_parameter_class(tmp_path: Path) -> None:
    named, parameter = torch.ones(3), nn.Parameter(torch.ones(2))
    named.note = "kept by torch.save"  # type: ignore[attr-defined]
    parameter.shared = True  # type: ignore[attr-defined]
    assert _names({"named": named, "parameter": parameter, "buffer": nn.Buffer(torch.ones(4))}, tmp_path) == [
        "buffer",
        "named",
        "parameter",
    ]


def test_tensors_saved_from_a_gpu_are_read_without_one(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer)
    on_gpu = rewritten(buffer.getvalue(), lambda _, data: data.replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:0"))
    (tmp_path / "model.pt").write_bytes(on_gpu)
    with open_checkpoint([tmp_path / "model.pt"]) as reader:
        assert reader.read_block("embed.weight", 0, 12).tolist() == [1.0] * 12


@pytest.mark.parametrize("writer", ["safetensors_file", "torch_zip", "torch_legacy"])
def test_copies_and_optimizer_state_are_left_out_by_name_in_every_format(writer: str, tmp_path: Path) -> None:
    beside = {"ema.weight": torch.ones(3), "model_ema.weight": torch.ones(3), "optimizer.exp_avg": torch.ones(3)}
    kept = {"layers.0.ema.alpha": torch.ones(3), "optimism.weight": torch.ones(2), "ema": torch.ones(2)}
    files = WRITERS[writer](WEIGHTS | beside | kept, tmp_path)
    with open_checkpoint(files) as reader:
        assert list(reader.tensors) == sorted(WEIGHTS | kept)


@pytest.mark.parametrize(
    ("names", "plain"),
    [
        (["module.a", "module.b"], ["a", "b"]),
        (["module.module.a", "module.module.b"], ["a", "b"]),
        (["module.a", "b"], ["module.a", "b"]),
        (["model.a", "model.b"], ["a", "b"]),
        (["model.layers.0.w", "lm_head.weight"], ["model.layers.0.w", "lm_head.weight"]),
        (["model.model.layers.0.w", "model.lm_head.weight"], ["model.layers.0.w", "lm_head.weight"]),
        (["_orig_mod.a", "b"], ["a", "b"]),
        (["layers.0._orig_mod.w", "layers.1._checkpoint_wrapped_module._orig_mod.w"], ["layers.0.w", "layers.1.w"]),
        (["my_orig_mod.w", "x_orig_mod._orig_mod.w"], ["my_orig_mod.w", "x_orig_mod.w"]),
        (["model."], ["model."]),
        ([], []),
    ],
)
def test_prefixes(names: list[str], plain: list[str]) -> None:
    assert plain_names(names) == plain


_segment = st.text("abcxyz_0123456789", min_size=1, max_size=5)
_name = st.lists(_segment, min_size=1, max_size=3).map(".".join)


@given(
    names=st.lists(_name, min_size=2, max_size=6, unique=True),
    prefixes=st.lists(st.sampled_from(["module.", "_orig_mod.", "model."]), max_size=4),
)
def test_wrappers_in_any_order_are_taken_off(names: list[str], prefixes: list[str]) -> None:
    wrapped = [f"{''.join(prefixes)}{name}" for name in names]
    assert plain_names(wrapped) == plain_names(names)


def test_two_names_that_become_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointFormatError, match="same name"):
        _names({"a._orig_mod.w": torch.ones(2), "a.w": torch.ones(2)}, tmp_path)


def test_what_the_package_shows() -> None:
    assert set(spectral_edge.checkpoints.__all__) == {
        "DCP_METADATA",
        "CheckpointReader",
        "FoundCheckpoint",
        "FoundFiles",
        "FoundSeries",
        "FoundTrajectory",
        "Location",
        "Span",
        "TensorInfo",
        "find_series",
        "find_trajectory",
        "is_checkpoint_file",
        "open_checkpoint",
        "shown",
    }
    described = set(spectral_edge.checkpoints.__all__) - {"DCP_METADATA"}  # a constant
    assert all(getattr(spectral_edge.checkpoints, name).__doc__ for name in described)


def test_nothing_that_runs_a_pickle_is_called_anywhere() -> None:
    root = Path(spectral_edge.checkpoints.__file__).parents[2]
    sources = [
        path for package in ("spectral_edge", "integrations", "pipelines") for path in (root / package).rglob("*.py")
    ]
    assert len(sources) > 100
    pattern = re.compile(r"torch\.load\(|pickle\.loads?\(|Unpickler\(|allow_pickle=True|torch\.jit\.load\(")
    assert [path.name for path in sources if pattern.search(path.read_text())] == []
