"""The file of recorded sketches: torn, killed, damaged and hostile ones."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from spectral_edge.errors import CheckpointFormatError, SpectralEdgeError
from spectral_edge.recorded import read_recorded, read_run
from spectral_edge.recorder import Recorder
from spectral_edge.sketching.record_file import record_bytes

ROOT = Path(__file__).parents[2]
HEAD = 8 + 12
"""Bytes of magic, version, length and checksum."""


def write(path: Path, records: int, told: Callable[[int], object] = int) -> None:
    """Records of a model whose weights are all equal to the step; `told` is called with each."""
    model = nn.Linear(4, 4)
    with Recorder(path, model, every=1, size=10) as recorder:
        for step in range(1, records + 1):
            nn.init.constant_(model.weight, float(step))
            nn.init.constant_(model.bias, float(step) ** 2)
            recorder.step(step, learning_rate=0.5, val_acc=step / 10)
            told(step)


PROGRAM = """
import sys
from pathlib import Path
from tests.spectral.test_sketch_files import write
write(Path(sys.argv[1]), 10**9, lambda step: step % 100 == 0 and print(step, flush=True))
"""


def test_a_process_killed_while_it_records_loses_at_most_the_last_record(tmp_path: Path) -> None:
    """It also tells that another process makes the same sketches."""
    path = tmp_path / "killed"
    command = [sys.executable, "-c", PROGRAM, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["100\n", "200\n", "300\n"]
        process.send_signal(signal.SIGKILL)
    found = read_run(path)
    assert found.steps == tuple(range(1, len(found.steps) + 1))
    assert len(found.steps) >= 300
    write(tmp_path / "here", len(found.steps))
    here = read_run(tmp_path / "here")
    assert found.file.header == here.file.header
    for theirs, ours in zip(found.file.sketches(found.records), here.file.sketches(here.records), strict=True):
        np.testing.assert_array_equal(theirs, ours)


def test_a_file_cut_at_any_byte_keeps_the_records_before(tmp_path: Path) -> None:
    write(tmp_path / "whole", 4)
    content = (tmp_path / "whole").read_bytes()
    file = read_run(tmp_path / "whole").file
    length = (len(content) - len(file.header.to_bytes())) // 4
    cut = tmp_path / "cut"
    for size in range(len(content) - length, len(content)):
        cut.write_bytes(content[:size])
        found = read_run(cut)
        assert (found.steps, found.file.torn) == ((1, 2, 3), size - (len(content) - length))
    assert f"{length - 1} bytes at the end" in " ".join(read_recorded(cut).warnings)


def test_a_recorder_that_goes_on_cuts_the_torn_record_off(tmp_path: Path) -> None:
    path = tmp_path / "r"
    write(path, 4)
    path.write_bytes(path.read_bytes()[:-5])
    model = nn.Linear(4, 4)
    with Recorder(path, model, every=1, size=10) as recorder:
        recorder.step(7)
    found = read_run(path)
    assert (found.steps, found.file.torn) == ((1, 2, 3, 7), 0)
    assert found.records[-1].learning_rate is None
    assert found.metrics["val_acc"].steps.tolist() == [1, 2, 3]


def test_a_header_half_written_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "r"
    write(path, 0)
    header = path.read_bytes()
    for size in (0, 5, HEAD, len(header) - 1):
        path.write_bytes(header[:size])
        write(path, 1)
        assert read_run(path).steps == (1,)


def test_damage_before_the_last_record_is_no_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "r"
    model = nn.Linear(200, 200)
    with Recorder(path, model, every=1, size=20_000) as recorder:
        for step in range(1, 4):
            recorder.step(step)
    content = bytearray(path.read_bytes())
    content[len(content) // 6] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointFormatError, match=r"record 1 is damaged.*bytes are whole"):
        read_run(path)


def with_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = path.read_bytes()
    length = struct.unpack_from("<I", content, 12)[0]
    told = json.loads(content[HEAD : HEAD + length])
    change(told)
    header = json.dumps(told).encode()
    head = struct.pack("<III", 1, len(header), zlib.crc32(header))
    path.write_bytes(content[:8] + head + header + content[HEAD + length :])


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no cells": lambda told: told.update(cells=[]),
    "cells of another kind": lambda told: told.update(cells=7),
    "a cell that is a text": lambda told: told.update(cells=["x"]),
    "a cell twice": lambda told: told["cells"].append(told["cells"][0]),
    "an unknown category": lambda told: told["cells"][0].update(category="x"),
    "a size below 1": lambda told: told["cells"][0].update(size=0),
    "an enormous size": lambda told: told["cells"][0].update(size=2**60, n_parameters=2**60),
    "more numbers than parameters": lambda told: told["cells"][0].update(n_parameters=1),
    "endless parameters": lambda told: told["cells"][0].update(n_parameters=10**400),
    "rounding that is no number": lambda told: told["cells"][0].update(rounding_eps=float("nan")),
    "rounding too large for a float": lambda told: told["cells"][0].update(rounding_eps=10**400),
    "a lone surrogate": lambda told: told["cells"][0].update(layer="\ud800"),
    "no seed": lambda told: told.pop("seed"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_impossible_headers_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path / "r", 3)
    with_header(tmp_path / "r", HOSTILE[name])
    with pytest.raises(CheckpointFormatError, match="header is not as expected"):
        read_run(tmp_path / "r")


def test_numbers_in_the_file_allocate_nothing(tmp_path: Path) -> None:
    """A thousand cells that claim 8 GB a record, and a record that claims an exabyte."""
    path = tmp_path / "r"
    write(path, 3)

    def claim(told: dict[str, Any]) -> None:
        (one,) = told["cells"]
        told["cells"] = [one | {"layer": f"layer.{i}", "size": 2**20, "n_parameters": 2**20} for i in range(1000)]

    with_header(path, claim)
    assert read_run(path).steps == ()
    write(tmp_path / "s", 0)
    with (tmp_path / "s").open("ab") as file:
        file.write(struct.pack("<QI", 2**60, 0))
    assert read_run(tmp_path / "s").steps == ()


def test_a_newer_format_is_told(tmp_path: Path) -> None:
    write(tmp_path / "r", 1)
    content = bytearray((tmp_path / "r").read_bytes())
    content[8] = 9
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(CheckpointFormatError, match="format version 9"):
        read_run(tmp_path / "r")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "r"
    write(path, 6)
    return path.read_bytes()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bytes_do_more_than_an_error(whole: bytes, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "put", "double"])):
            case "flip":
                content[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 60))]
            case "put":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=40))
            case _:
                content[at:at] = content[at : at + 200]
        content = content or bytearray(b"S")
    path = tmp_path / "fuzzed"
    path.write_bytes(content)
    with suppress(SpectralEdgeError):
        read_recorded(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.floats(), min_size=10, max_size=10),
    st.binary(max_size=200) | st.sampled_from([b"[" * 40_000, b'{"a": 1e999, "b": 1' + b"0" * 400 + b"}", b"[1]"]),
)
def test_no_record_with_a_right_checksum_does_either(
    whole: bytes, tmp_path: Path, step: int, sketch: list[float], metrics: bytes
) -> None:
    record = record_bytes(step, np.array(sketch), None, {})[12:-2] + metrics
    path = tmp_path / "forged"
    path.write_bytes(whole + struct.pack("<QI", len(record), zlib.crc32(record)) + record)
    assert read_run(path).file.torn == 0
    with suppress(SpectralEdgeError):
        read_recorded(path)


def test_metrics_that_are_too_long_are_left_out_from_the_last_on(tmp_path: Path) -> None:
    model, path = nn.Linear(2, 2), tmp_path / "r"
    with Recorder(path, model, every=1) as recorder:
        recorder.step(1, **{f"metric_{i:05}": 1.0 for i in range(5000)}, step=2.0)
    (record,) = read_run(path).records
    assert "metric_00000" in record.metrics
    assert len(record.metrics) < 5000
    assert path.stat().st_size < 70_000
