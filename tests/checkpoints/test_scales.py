"""Float8 weights with scales beside them, as DeepSeek, vLLM and others keep them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from spectral_edge.checkpoints import open_checkpoint
from spectral_edge.errors import CheckpointFormatError
from tests.checkpoints.checkpoint_writers import WRITERS

FLOAT8 = {torch.float8_e4m3fn: 448.0, torch.float8_e5m2: 57344.0}
EPS = {torch.float8_e4m3fn: 2.0**-4, torch.float8_e5m2: 2.0**-3}
"""Half the spacing of numbers just above 1 (theory 2)."""


def _spread(scale: torch.Tensor, blocks: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor:
    """`scale` with one entry for each entry of a tensor of `shape`."""
    for axis, (block, extent) in enumerate(zip(blocks, shape, strict=True)):
        scale = scale.repeat_interleave(block, dim=axis).narrow(axis, 0, extent)
    return scale


def _quantised(weight: torch.Tensor, blocks: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """`weight` in float8 and the scale of each block, by which its largest entry becomes the largest of the dtype."""
    counts = [math.ceil(extent / block) for extent, block in zip(weight.shape, blocks, strict=True)]
    largest = torch.zeros(counts)
    for place in torch.cartesian_prod(*[torch.arange(count) for count in counts]).view(-1, len(counts)).tolist():
        inside = tuple(slice(at * block, (at + 1) * block) for at, block in zip(place, blocks, strict=True))
        largest[tuple(place)] = weight[inside].abs().max()
    scale = largest / FLOAT8[dtype]
    return (weight / _spread(scale, blocks, tuple(weight.shape))).to(dtype), scale


def _read(path: Path) -> dict[str, torch.Tensor]:
    with open_checkpoint([path]) as reader:
        assert all(info.read_dtype is torch.float32 for info in reader.tensors.values())
        return {
            name: reader.read_block(name, 0, info.n_parameters).view(info.shape)
            for name, info in reader.tensors.items()
        }


_extents = st.sampled_from([1, 2, 5, 127, 128, 129, 300])


@st.composite
def _layouts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape, and blocks that its scale's shape tells."""
    shape = tuple(draw(st.lists(_extents, min_size=1, max_size=2)))
    if draw(st.booleans()) and len(shape) == 2:
        shape = (3, *shape)
    kind = draw(st.sampled_from(["tensor", "rows", "128"]))
    if kind == "tensor":
        return shape, shape
    if kind == "rows":
        return shape, (1, *shape[1:])
    leading = tuple(1 for _ in shape[:-2])
    return shape, (*leading, *(128 for _ in shape[-2:]))


@settings(max_examples=60, deadline=None)
@given(layout=_layouts(), dtype=st.sampled_from(list(FLOAT8)), data=st.data())
def test_any_block_is_the_product_with_its_scales(
    layout: tuple[tuple[int, ...], tuple[int, ...]],
    dtype: torch.dtype,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    shape, blocks = layout
    weight, scale = _quantised(torch.randn(shape), blocks, dtype)
    expected = (weight.float() * _spread(scale, blocks, shape)).reshape(-1)
    path = tmp_path_factory.mktemp("scaled") / "model.safetensors"
    save_file({"layer.weight": weight, "layer.weight_scale_inv": scale.contiguous()}, path)
    start = data.draw(st.integers(0, len(expected)))
    stop = data.draw(st.integers(start, len(expected)))
    with open_checkpoint([path]) as reader:
        assert list(reader.tensors) == ["layer.weight"]
        assert reader.tensors["layer.weight"].dtype is dtype  # so that the precision guard knows
        assert torch.equal(reader.read_block("layer.weight", start, stop), expected[start:stop])
        assert torch.equal(reader.read_block("layer.weight", 0, len(expected)), expected)


@pytest.mark.parametrize(
    ("scale", "blocks"),
    [
        ({"layer.weight_scale": torch.tensor(0.5)}, (6, 4)),
        ({"layer.weight_scale": torch.tensor([0.5], dtype=torch.bfloat16)}, (6, 4)),
        ({"layer.weight_scale": torch.arange(1.0, 7).view(6, 1)}, (1, 4)),
        ({"layer.weight_scale": torch.arange(1.0, 7)}, (1, 4)),
        ({"layer.weight_scale": torch.arange(1.0, 7).double().view(6, 1)}, (1, 4)),
        ({"layer.weight_scale_inv": torch.arange(1.0, 13).half().view(6, 2)}, (1, 2)),
        ({"layer.weight_scale_inv": torch.arange(1.0, 5).view(2, 2)}, (3, 2)),
    ],
)
def test_shapes_and_dtypes_of_scales(
    scale: Mapping[str, torch.Tensor], blocks: tuple[int, int], tmp_path: Path
) -> None:
    weight = torch.randn(6, 4).to(torch.float8_e4m3fn)
    of_activations = {"layer.input_scale": torch.ones(1), "layer.output_scale": torch.ones(1)}
    save_file({"layer.weight": weight, "norm.weight": torch.ones(4), **scale, **of_activations}, tmp_path / "model.bin")
    found = _read(tmp_path / "model.bin")
    assert set(found) == {"layer.weight", "norm.weight"}
    counts = [-(-extent // block) for extent, block in zip(weight.shape, blocks, strict=True)]
    (values,) = scale.values()
    assert torch.equal(found["layer.weight"], weight.float() * _spread(values.float().reshape(counts), blocks, (6, 4)))


@pytest.mark.parametrize("writer", ["torch_zip", "torch_shards", "safetensors_shards"])
def test_in_every_format_and_from_another_shard(writer: str, tmp_path: Path) -> None:
    weight, scale = _quantised(torch.randn(200, 150), (128, 128), torch.float8_e4m3fn)
    tensors = {"a.weight": weight, "a.weight_scale_inv": scale, "b.weight": torch.ones(2), "c.weight": weight.clone()}
    with open_checkpoint(WRITERS[writer](tensors, tmp_path)) as reader:
        assert list(reader.tensors) == ["a.weight", "b.weight", "c.weight"]
        scaled = weight.float() * _spread(scale, (128, 128), (200, 150))
        assert torch.equal(reader.read_block("a.weight", 0, 30_000), scaled.reshape(-1))
        assert torch.equal(reader.read_block("c.weight", 0, 30_000), weight.float().reshape(-1))


def test_a_scale_beside_other_floats_is_a_parameter(tmp_path: Path) -> None:
    save_file({"norm.weight": torch.ones(3), "norm.weight_scale": torch.ones(1)}, tmp_path / "model.safetensors")
    assert set(_read(tmp_path / "model.safetensors")) == {"norm.weight", "norm.weight_scale"}


_WEIGHT = torch.ones(6, 4).to(torch.float8_e5m2)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({"w_scale": torch.ones(4, 2)}, r"scale of shape \(4, 2\) for a tensor of shape \(6, 4\)"),
        ({"w_scale": torch.ones(4)}, r"scale of shape \(4,\)"),
        ({"w_scale": torch.ones(6, 4, 1)}, r"scale of shape \(6, 4, 1\)"),
        ({"w_scale": torch.ones(0, 4)}, r"scale of shape \(0, 4\)"),
        ({"w_scale": torch.ones(6, 1), "w_scale_inv": torch.ones(6, 1)}, "it has two scales"),
        ({"w_scale": torch.ones(6, 1, dtype=torch.uint8)}, "a microscaling format.*Next: save the weights in bfloat16"),
        ({"w_scale": torch.ones(6, 1).to(torch.float8_e8m0fnu)}, "a microscaling format"),
        ({"w_scale": torch.ones(6, 1).to(torch.float8_e4m3fn)}, "a microscaling format"),
    ],
)
def test_scales_that_fit_nothing(scales: Mapping[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": _WEIGHT, **scales}, path)
    with pytest.raises(CheckpointFormatError, match=message) as caught:
        open_checkpoint([path])
    assert caught.value.file == str(path)


def test_other_floats_of_a_byte_or_less_are_left_out(tmp_path: Path) -> None:
    numbers = {"exponents": torch.ones(4).to(torch.float8_e8m0fnu), "phases": torch.ones(4, dtype=torch.complex64)}
    numbers["halves"] = torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    save_file({"weight": torch.ones(3), **numbers}, tmp_path / "model.safetensors")
    assert set(_read(tmp_path / "model.safetensors")) == {"weight"}


def test_a_fine_scale_is_not_loaded_whole(tmp_path: Path) -> None:
    """One scale for each 8 entries, 4 bytes for 8: as large as half the tensor."""
    weight = torch.ones(1 << 12, 1 << 13).to(torch.float8_e4m3fn)
    scale = torch.full((1 << 12, 1 << 10), 2.0)
    save_file({"w": weight, "w_scale": scale}, tmp_path / "model.safetensors")
    before = psutil.Process().memory_info().rss
    with open_checkpoint([tmp_path / "model.safetensors"]) as reader:
        for start in range(0, 1 << 22, 1 << 15):
            assert reader.read_block("w", start, start + (1 << 15)).max().item() == 2.0
        assert psutil.Process().memory_info().rss - before < scale.nbytes // 2


@settings(max_examples=20, deadline=None)
@given(
    dtype=st.sampled_from(list(FLOAT8)),
    spread=st.sampled_from([1e-3, 0.02, 1.0]),
    blocks=st.sampled_from([(128, 128), (1, 384), (256, 384)]),
    heavy=st.booleans(),
)
def test_the_rounding_error_of_scaled_float8_is_the_theory_s(
    dtype: torch.dtype, spread: float, blocks: tuple[int, int], heavy: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Theory 2 takes eps |theta| / sqrt(3) an entry; the error follows the power of two below |theta|.

    Its energy is therefore between a quarter and the whole of it, 0.54 (3 / (8 ln 2)) for entries spread evenly over
    powers of two. With half or twice the eps it would lie outside.
    """
    weight = torch.randn(256, 384) * spread
    weight = weight * torch.randn(256, 384) if heavy else weight
    quantised, scale = _quantised(weight, blocks, dtype)
    path = tmp_path_factory.mktemp("rounded") / "model.safetensors"
    save_file({"w": quantised, "w_scale": scale}, path)
    read = _read(path)["w"]
    told = EPS[dtype] ** 2 / 3 * read.square().sum()
    assert 0.25 < (read - weight).square().sum() / told < 1.0
