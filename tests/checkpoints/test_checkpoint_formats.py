"""One contract, every format: the same tensors give the same names, dtypes, shapes and blocks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_edge.checkpoints import TensorInfo, open_checkpoint
from spectral_edge.checkpoints.raw_file import file_error
from spectral_edge.errors import (
    AccessDeniedError,
    CheckpointFormatError,
    DiskFullError,
    NotFoundError,
    SpectralEdgeError,
    UsageError,
)
from tests.checkpoints.checkpoint_writers import COPIED, WRITERS, Tensors, as_written, torch_legacy, torch_zip

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _example() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    tensors = {f"layer.{n}.weight": torch.randn(3, 5, 7).to(dtype) for n, dtype in enumerate(DTYPES)}
    return tensors | {
        "scale": torch.tensor(1.5),
        "bias": torch.randn(11),
        "with nan": torch.tensor([float("nan"), float("inf"), 1.0]),
        "ünïcode/名": torch.randn(2, 2),
    }


LEFT_OUT: Tensors = {
    "norm.num_batches_tracked": torch.tensor(3),
    "mask": torch.ones(4, dtype=torch.bool),
    "empty": torch.zeros(0, 3),
    "norm.running_mean": torch.zeros(5),
    "norm.running_var": torch.ones(5),
}


@pytest.fixture(scope="module", params=WRITERS)
def writer(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def written(writer: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return WRITERS[writer](_example() | LEFT_OUT, tmp_path_factory.mktemp(writer))


@pytest.fixture(scope="module")
def tensors(writer: str) -> Tensors:
    """What the files in `written` should hold."""
    return as_written(writer, _example())


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def test_names_shapes_and_dtypes_sorted_by_name(written: list[Path], tensors: Tensors) -> None:
    expected = {name: TensorInfo(tuple(tensor.shape), tensor.dtype) for name, tensor in sorted(tensors.items())}
    with open_checkpoint(written) as reader:
        assert list(reader.tensors.items()) == list(expected.items())


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_block(written: list[Path], tensors: Tensors, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(tensors)))
    start = data.draw(st.integers(0, tensors[name].numel()))
    stop = data.draw(st.integers(start, tensors[name].numel()))
    with open_checkpoint(written) as reader:
        block = reader.read_block(name, start, stop)
    expected = tensors[name].reshape(-1)[start:stop]
    assert block.shape == (stop - start,)
    assert block.dtype == expected.dtype
    assert torch.equal(_bits(block), _bits(expected))


def test_the_bytes_lie_where_the_reader_says(written: list[Path], tensors: Tensors) -> None:
    with open_checkpoint(written) as reader:
        assert reader.location("absent") is None
        for name, info in reader.tensors.items():
            place = reader.location(name)
            if place is not None:
                there = os.pread(place.descriptor, info.n_parameters * info.dtype.itemsize, place.offset)
                assert there == _bits(tensors[name]).numpy().tobytes()


@pytest.mark.parametrize("writer", ["safetensors_file", "torch_zip"])
def test_the_formats_that_most_people_use_tell_where_their_bytes_lie(writer: str, tmp_path: Path) -> None:
    with open_checkpoint(WRITERS[writer](_example(), tmp_path)) as reader:
        assert all(reader.location(name) for name, info in reader.tensors.items() if info.dtype.itemsize > 1)


_shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
_names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(
    layout=st.dictionaries(
        _names.map(lambda name: f"x{name}"), st.tuples(_shapes, st.sampled_from(DTYPES)), min_size=3
    ),
    writer=st.sampled_from(sorted(WRITERS)),
)
def test_round_trip_of_any_names_and_shapes(
    layout: dict[str, tuple[tuple[int, ...], torch.dtype]], writer: str
) -> None:
    tensors = {name: torch.randn(shape).to(dtype) for name, (shape, dtype) in layout.items()} | {"one": torch.ones(1)}
    tensors = as_written(writer, tensors)
    kept = {name: tensor for name, tensor in tensors.items() if tensor.numel()}
    with TemporaryDirectory() as folder:
        files = WRITERS[writer](tensors, Path(folder))
        with open_checkpoint(files) as reader:
            got = {name: reader.read_block(name, 0, info.n_parameters) for name, info in reader.tensors.items()}
            shapes = {name: info.shape for name, info in reader.tensors.items()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in kept.items()}
    assert all(torch.equal(_bits(got[name]), _bits(tensor)) for name, tensor in kept.items())


def test_blocks_belong_to_the_caller(written: list[Path]) -> None:
    with open_checkpoint(written) as reader:
        reader.read_block("bias", 0, 11).zero_()
        assert torch.equal(reader.read_block("bias", 0, 11), _example()["bias"])


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 12), (12, 12)])
def test_a_range_outside_the_tensor_is_refused(written: list[Path], start: int, stop: int) -> None:
    with open_checkpoint(written) as reader, pytest.raises(CheckpointFormatError, match="expected a range within 0:11"):
        reader.read_block("bias", start, stop)


def test_an_unknown_tensor_is_refused(written: list[Path]) -> None:
    with open_checkpoint(written) as reader, pytest.raises(CheckpointFormatError, match="no such tensor"):
        reader.read_block("absent", 0, 1)


def test_closing_releases_every_file(written: list[Path], tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    reader = open_checkpoint(written, scratch=tmp_path)
    assert psutil.Process().num_fds() > before
    assert list(tmp_path.iterdir()) == []  # a scratch file has no name: a killed process leaves none behind
    reader.close()
    reader.close()
    assert psutil.Process().num_fds() == before
    with pytest.raises(CheckpointFormatError, match="cannot be read"):
        reader.read_block("bias", 0, 1)


@pytest.mark.parametrize("writer", sorted(set(WRITERS) - COPIED))
def test_a_file_cut_short_while_open_is_an_error_and_not_a_crash(writer: str, tmp_path: Path) -> None:
    files = WRITERS[writer](_example(), tmp_path)
    with open_checkpoint(files) as reader:
        for file in files:
            os.truncate(file, 10)
        with pytest.raises(CheckpointFormatError, match="ends at byte") as caught:
            reader.read_block("bias", 0, 11)
    assert caught.value.file in {str(file) for file in files}


def test_a_file_replaced_while_open_stays_what_it_was(written: list[Path]) -> None:
    with TemporaryDirectory() as folder:
        copy = [Path(folder) / file.name for file in written]
        for source, target in zip(written, copy, strict=True):
            target.write_bytes(source.read_bytes())
        with open_checkpoint(copy) as reader:
            for file in copy:
                file.unlink()
                file.write_bytes(b"something else")
            assert torch.equal(reader.read_block("bias", 0, 11), _example()["bias"])


def _views() -> Iterator[tuple[str, torch.Tensor]]:
    torch.manual_seed(1)
    whole = torch.randn(6, 4)
    yield "transposed", torch.randn(5, 3).t()
    yield "channels_last", torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    yield "columns", whole[:, 1:3]
    yield "rows", whole[2:4]
    yield "every other", torch.randn(9, dtype=torch.float64)[::2]
    yield "half", torch.randn(4, 4).bfloat16().t()
    yield "repeated", torch.randn(3).expand(2, 3)


@pytest.mark.parametrize("writer", [torch_zip, torch_legacy])
def test_views_are_read_row_major(writer: object, tmp_path: Path) -> None:
    views = dict(_views()) | {"padding": torch.zeros(64)}
    files = WRITERS[writer.__name__](views, tmp_path)  # type: ignore[attr-defined]
    with open_checkpoint(files) as reader:
        assert set(reader.tensors) == set(views)
        for name, view in views.items():
            assert reader.tensors[name].shape == tuple(view.shape)
            assert torch.equal(reader.read_block(name, 1, view.numel()), view.reshape(-1)[1:]), name


@pytest.mark.parametrize("writer", ["torch_zip", "torch_legacy"])
def test_tied_weights_count_once_under_the_first_name(writer: str, tmp_path: Path) -> None:
    weight = torch.randn(4, 3)
    tensors = {"z.head": weight, "a.embedding": weight, "b.transposed": weight.t(), "b.copy": weight.clone()}
    tensors |= {"c.part": weight[:2]}
    with open_checkpoint(WRITERS[writer](tensors, tmp_path)) as reader:
        assert list(reader.tensors) == ["a.embedding", "b.copy", "c.part"]


def test_parameters_that_require_a_gradient(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    torch.save({"weight": layer.weight, "bias": layer.bias}, tmp_path / "model.pt")
    with open_checkpoint([tmp_path / "model.pt"]) as reader:
        assert torch.equal(reader.read_block("weight", 0, 6), layer.weight.detach().reshape(-1))


# Shards and their index.


def _shards(tmp_path: Path) -> tuple[list[Path], Path]:
    *shards, index = WRITERS["safetensors_shards"](_example(), tmp_path)
    return shards, index


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ('{"weight_map": {"bias": "../../etc/passwd"}}', "1 files that were not given, '../../etc/passwd' first"),
        ('{"weight_map": {"bias": "model-00001-of-00003.safetensors"}}', "lacks it|does not name"),
        ('{"weight_map": {"gone": "model-00001-of-00003.safetensors"}}', "lacks it"),
        ('{"weight_map": ["bias"]}', "expected `weight_map`"),
        ('{"weight_map": {"bias": 3}}', "expected `weight_map`"),
        ("[" * 100_000, "not valid JSON"),
        ("\udcff", "not valid JSON"),
    ],
)
def test_an_index_that_contradicts(tmp_path: Path, told: str, message: str) -> None:
    shards, index = _shards(tmp_path)
    index.write_text(told, errors="surrogateescape")
    with pytest.raises(CheckpointFormatError, match=message) as caught:
        open_checkpoint([*shards, index])
    assert caught.value.file == str(index)


def test_a_missing_shard_is_told_by_the_index(tmp_path: Path) -> None:
    shards, index = _shards(tmp_path)
    with pytest.raises(CheckpointFormatError, match="model-00003-of-00003"):
        open_checkpoint([*shards[:2], index])


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    shards, _ = _shards(tmp_path)
    twin = tmp_path / "twin.safetensors"
    twin.write_bytes(shards[0].read_bytes())
    with pytest.raises(CheckpointFormatError, match="expected one"):
        open_checkpoint([*shards, twin])


# What is not there, or not allowed.


def test_no_files_at_all() -> None:
    with pytest.raises(UsageError, match="at least one file"):
        open_checkpoint([])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        open_checkpoint([tmp_path / "absent.pt"])


def test_the_files_opened_before_an_error_are_closed(written: list[Path], tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    with pytest.raises(NotFoundError):
        open_checkpoint([*written, tmp_path / "absent.pt"])
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(PermissionError(13, ""), AccessDeniedError), (OSError(24, ""), UsageError), (OSError(28, ""), DiskFullError)],
)
def test_what_the_file_system_says_becomes_our_error(raised: OSError, expected: type[SpectralEdgeError]) -> None:
    assert type(file_error(raised, "model.pt")) is expected


def test_no_room_for_the_copy(tmp_path: Path) -> None:
    files = torch_zip({"weight": torch.zeros(512, 512).t()}, tmp_path)  # not contiguous
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from spectral_edge.checkpoints import open_checkpoint\nfrom spectral_edge.errors import SpectralEdgeError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: open_checkpoint([Path(sys.argv[1])])\n"
        "except SpectralEdgeError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, files[0]], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("DiskFullError file scratch file"), done


def test_memory_does_not_grow_with_the_number_of_checkpoints(tmp_path: Path) -> None:
    """Ten checkpoints of 24 MB open at once and read through, in each format, in a process of its own."""
    tensors = {"a": torch.randn(1 << 20), "b": torch.randn(5, 1 << 20)}
    for writer in ("safetensors_file", "torch_zip", "torch_legacy"):
        for number in range(10):
            folder = tmp_path / f"{writer}-{number}"
            folder.mkdir()
            WRITERS[writer](tensors, folder)
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom spectral_edge.checkpoints import open_checkpoint\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = peak()\n"
        "readers = [open_checkpoint([file]) for file in sorted(Path(sys.argv[1]).glob('*/*'))]\n"
        "for name, info in readers[0].tensors.items():\n"
        "    for start in range(0, info.n_parameters, 1 << 16):\n"
        "        for reader in readers: reader.read_block(name, start, start + (1 << 16))\n"
        "print(len(readers), peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    count, kilobytes = map(int, done.stdout.split())
    assert count == 30
    assert kilobytes < 150_000  # 720 MB were read
