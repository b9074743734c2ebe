"""Files of every torch there was, read where they lie, with torch's own loader as the oracle."""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from spectral_edge.checkpoints import open_checkpoint
from spectral_edge.errors import CheckpointFormatError
from spectral_edge.kinds import KINDS, Kind
from tests.checkpoints.torch_tar_writer import write_torch_tar


def _read(path: Path, *kinds: Kind) -> dict[str, torch.Tensor]:
    with open_checkpoint([path], include=frozenset(kinds or ("parameters",))) as reader:
        return {
            name: reader.read_block(name, 0, info.n_parameters).view(info.shape)
            for name, info in reader.tensors.items()
        }


def _same(read: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(read) == sorted(expected)
    for name, value in expected.items():
        wanted = value.detach().float() if value.itemsize == 1 else value.detach()
        assert read[name].dtype is wanted.dtype, name
        assert torch.equal(read[name], wanted), name


def _views() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    whole = torch.randn(6, 4)
    return {
        "whole": whole,
        "rows": whole[2:4],
        "columns": whole[:, 1:3],
        "transposed": torch.randn(5, 3).t(),
        "half": torch.randn(3, 3).half(),
        "brain": torch.randn(7).bfloat16(),
        "double": torch.randn(2, dtype=torch.float64),
        "scalar": torch.tensor(1.5),
    }


def _beside() -> dict[str, torch.Tensor]:
    return {
        "counts": torch.arange(5),
        "mask": torch.ones(3, dtype=torch.bool),
        "bytes": torch.ones(4, dtype=torch.uint8),
    }


def _zip(saved: object, path: Path) -> None:
    torch.save(saved, path)


def _legacy(saved: object, path: Path) -> None:
    torch.save(saved, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [_zip, _legacy, write_torch_tar])
def test_as_torch_itself_loads_it(write: Callable[[object, Path], object], tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    write({"model": OrderedDict(_beside() | _views()), "epoch": 3}, path)
    loaded = torch.load(path, weights_only=False)["model"]
    _same(_read(path), {name: tensor for name, tensor in loaded.items() if tensor.is_floating_point()})


@pytest.mark.parametrize("write", [_zip, _legacy, write_torch_tar])
def test_contiguous_tensors_are_not_copied(write: Callable[[object, Path], object], tmp_path: Path) -> None:
    path, weight = tmp_path / "model.pth", torch.randn(300, 200)
    write({"weight": weight, "rows": weight[10:20]}, path)
    with open_checkpoint([path], scratch=tmp_path / "no such folder") as reader:
        assert torch.equal(reader.read_block("weight", 1000, 3000), weight.view(-1)[1000:3000])
        with path.open("r+b") as file:
            content = file.read()
            file.seek(content.index(weight[15].numpy().tobytes()))
            file.write(bytes(4 * 200))
        assert reader.read_block("rows", 1000, 1200).tolist() == [0.0] * 200


@pytest.mark.parametrize("write", [_zip, _legacy])
def test_float8_comes_as_float32(write: Callable[[object, Path], object], tmp_path: Path) -> None:
    values = torch.randn(5, 3)
    names = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    tensors = {name: values.to(getattr(torch, name)) for name in names}
    write(tensors, tmp_path / "model.pt")
    _same(_read(tmp_path / "model.pt"), tensors)


def test_archives_without_checksums(tmp_path: Path) -> None:
    computed = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(_views(), tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(computed)
    _same(_read(tmp_path / "model.pt"), _views())


class _OldPickler(pickle.Pickler):
    """Writes storages that are parts of others, which torch has been able to read since 0.1.10."""

    def persistent_id(self, value: object) -> object:
        if isinstance(value, _Part):
            return ("storage", torch.FloatStorage, "root", "cpu", 20, ("part", 4, 12))
        return None


class _Part:
    """Entries 4 to 15 of a storage of 20."""


class _View:
    def __reduce__(self) -> tuple[object, ...]:
        rebuild = torch._utils._rebuild_tensor  # type: ignore[attr-defined]
        return rebuild, (_Part(), 2, (2, 3), (3, 1))


def test_views_of_a_part_of_a_storage(tmp_path: Path) -> None:
    path, content = tmp_path / "model.pth", io.BytesIO()
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    for value in (0x1950A86A20F9469CFC6C, 1001, system):
        pickle.dump(value, content, 2)
    _OldPickler(content, 2).dump({"weight": _View()})
    pickle.dump(["root"], content, 2)
    content.write(struct.pack("<q20f", 20, *range(20)))
    path.write_bytes(content.getvalue())
    assert torch.load(path, weights_only=False)["weight"].tolist() == [[6, 7, 8], [9, 10, 11]]
    assert _read(path)["weight"].tolist() == [[6, 7, 8], [9, 10, 11]]


def _no_parameters() -> Iterator[tuple[str, object]]:
    yield "sparse", torch.eye(3).to_sparse()
    yield "without data", torch.ones(3, device="meta")
    yield "negated", torch.ones(3, dtype=torch.cfloat).conj().imag


@pytest.mark.parametrize("kind", [name for name, _ in _no_parameters()])
def test_what_is_no_dense_tensor_is_refused_only_as_a_parameter(kind: str, tmp_path: Path) -> None:
    odd, path = dict(_no_parameters())[kind], tmp_path / "model.pt"
    torch.save({"model": {"weight": torch.ones(3)}, "optimizer": {"state": odd}, "other": odd}, path)
    assert list(_read(path)) == ["weight"]
    torch.save({"model": {"weight": torch.ones(3), "odd": odd}}, path)
    with pytest.raises(CheckpointFormatError, match="expected a plain dense tensor, got a") as caught:
        _read(path)
    assert (caught.value.file, caught.value.tensor) == (str(path), "odd")


def test_an_object_that_is_no_module_is_named(tmp_path: Path) -> None:
    torch.save(torch.device("cpu"), tmp_path / "model.pt")
    with pytest.raises(CheckpointFormatError, match=r"a module, got an object of 'torch\.device'"):
        _read(tmp_path / "model.pt")


def test_dictionaries_of_a_users_class(tmp_path: Path) -> None:
    torch.save({"model": _Settings(weight=torch.ones(3))}, tmp_path / "model.pt")
    assert list(_read(tmp_path / "model.pt")) == ["weight"]


class _Settings(dict[str, object]):
    """As argument parsers and configuration libraries make them."""


# Programs.


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.turned = nn.Parameter(torch.randn(3, 4).t())
        self.register_buffer("table", torch.randn(4))
        self.register_buffer("passing", torch.randn(4), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embed(tokens)) + self.table + self.passing + self.turned.sum(1))


def _expected() -> tuple[_Network, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    network = _Network().eval()
    buffers = {name: network.state_dict()[name] for name in ("norm.running_mean", "norm.running_var", "table")}
    return network, dict(network.named_parameters()), buffers


@pytest.mark.filterwarnings("ignore::DeprecationWarning:copyreg")  # torch.export pickles with its own deprecated names
@pytest.mark.filterwarnings("ignore:No complete tensor found in the group:UserWarning")  # of the transposed one
def test_exported_programs(tmp_path: Path) -> None:
    network, parameters, buffers = _expected()
    torch.export.save(torch.export.export(network, (torch.tensor([1, 2]),)), tmp_path / "model.pt2")
    _same(_read(tmp_path / "model.pt2"), parameters)
    _same(_read(tmp_path / "model.pt2", "buffers"), buffers)
    assert list(_read(tmp_path / "model.pt2", "tied")) == ["head.weight"]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # what is tested is what users have kept
def test_scripts(tmp_path: Path) -> None:
    network, parameters, buffers = _expected()
    torch.jit.save(torch.jit.script(network), str(tmp_path / "model.pt"))
    _same(_read(tmp_path / "model.pt"), parameters)
    _same(_read(tmp_path / "model.pt", "buffers"), buffers | {"passing": network.passing})  # a script keeps all buffers


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # by torch.compile itself when it is imported
def test_compiled_modules(tmp_path: Path) -> None:
    network, parameters, buffers = _expected()
    torch.save(torch.compile(network), tmp_path / "model.pt")
    _same(_read(tmp_path / "model.pt"), parameters)
    _same(_read(tmp_path / "model.pt", "buffers"), buffers)


def test_traced_modules(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    torch.save(torch.fx.symbolic_trace(module), tmp_path / "model.pt")
    _same(_read(tmp_path / "model.pt"), dict(module.named_parameters()))
    assert list(_read(tmp_path / "model.pt", "buffers")) == ["1.running_mean", "1.running_var"]


def test_an_averaged_model_beside_its_model(tmp_path: Path) -> None:
    network, parameters, _ = _expected()
    averaged = torch.optim.swa_utils.AveragedModel(network)
    torch.save({"model": network, "ema": averaged}, tmp_path / "model.pt")
    _same(_read(tmp_path / "model.pt"), parameters)
    read = _read(tmp_path / "model.pt", "averaged")
    assert torch.equal(read["averaged.turned"], network.turned.detach())


def test_every_kind_of_a_whole_module_at_once(tmp_path: Path) -> None:
    network, parameters, buffers = _expected()
    torch.save(network, tmp_path / "model.pt")
    _same(_read(tmp_path / "model.pt", *KINDS), parameters | buffers | {"head.weight": network.head.weight})


def test_files_that_shrink_while_they_are_read(tmp_path: Path) -> None:
    for number, write in enumerate((_zip, _legacy, write_torch_tar)):
        path = tmp_path / f"{number}.pt"
        write({"weight": torch.randn(100, 100)}, path)
        with open_checkpoint([path]) as reader:
            os.truncate(path, 1000)
            with pytest.raises(CheckpointFormatError, match="ends at byte") as caught:
                reader.read_block("weight", 9000, 10000)
        assert caught.value.file == str(path)
