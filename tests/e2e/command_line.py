"""The real `spectral-edge` command in subprocesses, and small real checkpoints for it to read."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from spectral_edge.recorder import Recorder

SHAPES: Mapping[str, tuple[int, ...]] = {
    "embedding.weight": (10, 8),
    "layers.0.attention.q_proj.weight": (8, 8),
    "layers.0.mlp.weight": (16, 8),
}
"""Tensors of the models below."""

SECRET_FILE = "spectral-edge-was-here"
"""What the pickled code in a bad checkpoint would write, were it executed."""


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """All of stdout as one JSON document."""
        return json.loads(self.out)

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that tell of an error."""
        return [line for line in self.err.splitlines() if line.startswith("error:")]


@dataclass(frozen=True)
class CommandLine:
    """`spectral-edge` in the working directory `folder`."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command and do not wait for it."""
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("spectral-edge")), *arguments],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> Answer:
        """Run the command to its end. Whatever happens, no traceback may be shown."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=240)
        assert "Traceback" not in err, err
        return Answer(process.returncode, out, err)

    def _environment(self) -> dict[str, str]:
        ours = ("SPECTRAL_EDGE_", "PREFECT_", "MLFLOW_", "WANDB_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return clean | {"COLUMNS": "200"} | dict(self.environment)


def random_walk(n: int, seed: int = 0, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> list[dict[str, torch.Tensor]]:
    """Weights at `n` checkpoints of a run that drifts and shakes."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> dict[str, torch.Tensor]:
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    weights, drift = [draw()], draw()
    for _ in range(n - 1):
        shake = draw()
        weights.append({name: weights[-1][name] + 0.1 * drift[name] + 0.05 * shake[name] for name in shapes})
    return weights


def write_safetensors(folder: Path, weights: list[dict[str, torch.Tensor]]) -> list[Path]:
    """One `step_N.safetensors` for each of `weights`, a hundred steps apart."""
    folder.mkdir(parents=True)
    paths = [folder / f"step_{100 * index}.safetensors" for index in range(len(weights))]
    for path, tensors in zip(paths, weights, strict=True):
        save_file(tensors, path)
    return paths


def write_torch(folder: Path, weights: list[dict[str, torch.Tensor]]) -> list[Path]:
    """One `checkpoint-N.pt` for each of `weights`, as a training loop saves it."""
    folder.mkdir(parents=True)
    paths = [folder / f"checkpoint-{100 * index}.pt" for index in range(len(weights))]
    for path, tensors in zip(paths, weights, strict=True):
        torch.save({"model_state_dict": tensors, "step": 1}, path)
    return paths


def write_long_run(folder: Path, checkpoints: int = 100, numbers: int = 100_000_000) -> None:
    """Files of zeros that take no room on disk, and a minute or so to read."""
    folder.mkdir(parents=True)
    tensor = {"dtype": "F32", "shape": [numbers // 1000, 1000], "data_offsets": [0, 4 * numbers]}
    header = json.dumps({"layers.0.mlp.weight": tensor}).encode()
    for index in range(checkpoints):
        with (folder / f"step_{100 * index}.safetensors").open("wb") as out:
            out.write(struct.pack("<Q", len(header)) + header)
            out.truncate(out.tell() + 4 * numbers)


def write_recorded(path: Path, records: int, seed: int = 0) -> Path:
    """A file of sketches, as a Recorder writes it during a training, 100 steps apart."""
    torch.manual_seed(seed)
    model = nn.Linear(40, 30)
    with Recorder(path, model, every=100, size=200) as recorder:
        for index in range(records):
            with torch.no_grad():
                model.weight += 0.1 * torch.randn_like(model.weight)
            recorder.step(100 * index, learning_rate=1e-3)
    return path


class _Code:
    """Pickled, asks whoever loads it to create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.target}",)


def write_bad_runs(root: Path) -> dict[str, str]:
    """One run for each way of being bad; the file (or word) that its error must name, by the run's name."""
    truncated = write_safetensors(root / "truncated", random_walk(6))
    truncated[3].write_bytes(truncated[3].read_bytes()[:-100])
    magic = write_torch(root / "wrong_magic", random_walk(6))
    magic[2].write_bytes(b"this is no checkpoint" * 50)
    weights = random_walk(6)
    weights[4]["layers.0.mlp.weight"][3, 3] = float("nan")
    write_safetensors(root / "not_finite", weights)
    write_safetensors(root / "identical", [random_walk(1)[0]] * 6)
    write_safetensors(root / "only_two", random_walk(2))
    shapes = [{name: (*shape[:-1], shape[-1] + index) for name, shape in SHAPES.items()} for index in range(6)]
    write_safetensors(root / "changing_shapes", [random_walk(1, shapes=shape)[0] for shape in shapes])
    later = random_walk(12)
    for tensors in later[8:]:
        tensors["embedding.weight"] = torch.zeros(11, 8)
    write_safetensors(root / "embedding_grows", later)
    for path in write_safetensors(root / "without_steps", random_walk(6)):
        path.rename(path.with_name("abcdef"[int(path.stem[5:]) // 100] + ".safetensors"))
    damaged = write_recorded(root / "damaged_recording.sketch", 6)
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2] + b"spoilt" + content[len(content) // 2 + 6 :])
    code = write_torch(root / "pickled_code", random_walk(6))
    code[5].write_bytes(pickle.dumps({"weight": torch.zeros(3), "code": _Code(root / SECRET_FILE)}))
    return {
        "truncated": truncated[3].name,
        "wrong_magic": magic[2].name,
        "not_finite": "step_400.safetensors",
        "identical": "step_500.safetensors",
        "only_two": "step_100.safetensors",
        "changing_shapes": "step_100.safetensors",
        "embedding_grows": "step_800.safetensors",
        "without_steps": ".safetensors",
        "damaged_recording": damaged.name,
        "pickled_code": code[5].name,
    }


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Every file below `root`: size and time of its last change."""
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
