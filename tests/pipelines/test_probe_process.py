"""A user's probe in a process of its own: what goes wrong there is one clear error here."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from pipelines.probe_process import Limits, Task, load_probe, probe_in_child
from spectral_edge.errors import CheckpointFormatError, SpectralEdgeError, UsageError
from spectral_edge.gram import LocalCheckpoint
from spectral_edge.probe import Probe, probe_window
from spectral_edge.settings import Settings

WINDOW = 3
LIMITS = Limits(seconds=60, memory=4_000_000_000)
PROBES = """
import os, signal, subprocess, sys, threading, time
import torch
from spectral_edge.probe import Probe

class NotALoss: pass

def loss(parameters): return (parameters["weight"] ** 3).sum()
def factory(): return Probe(loss, loss)
def plain_factory(): return loss
def with_params(*, run_params): return Probe(lambda p: float(run_params["scale"]) * loss(p))
def returns_text(): return "loss"
def two(parameters, more): return loss(parameters)
def raises(parameters): raise KeyError("layer\\nnine")
def crashes(parameters): os.kill(os.getpid(), signal.SIGSEGV)
def exits(parameters):
    print("giving up")
    sys.exit(3)
def hangs(parameters):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("child", child.pid, flush=True)
    time.sleep(600)
def hungry(parameters): return torch.ones(2_000_000_000, dtype=torch.float64).sum()
def busy(*, run_params):
    def busy_loss(parameters):
        threading.Thread(target=time.sleep, args=(600,)).start()
        for _ in range(100): print("x" * 100_000)
        return float(run_params["scale"]) * loss(parameters) + len(sys.stdin.readline())
    return Probe(busy_loss, busy_loss)
constant = 3
"""


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """A window of three updates and the checkpoint before it, and in the working directory a module of probes."""
    (tmp_path / "my_probes.py").write_text(PROBES)
    generator = torch.Generator().manual_seed(0)
    checkpoints = []
    weight = torch.randn(6, dtype=torch.float64, generator=generator)
    for step in range(WINDOW + 2):
        file = tmp_path / f"step_{step}.safetensors"
        save_file({"weight": weight}, file)
        checkpoints.append(LocalCheckpoint(step, file.name, (file,)))
        weight = weight + 0.1 * torch.randn(6, dtype=torch.float64, generator=generator)
    return Task("my_probes:loss", checkpoints, WINDOW, ("parameters",), "total", 0.1, 0.01, {"scale": "2"})


def error_of(task: Task, name: str, limits: Limits = LIMITS) -> SpectralEdgeError:
    with pytest.raises(SpectralEdgeError) as caught:
        probe_in_child(replace(task, name=f"my_probes:{name}"), limits)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_child_gives_what_the_same_call_gives_here_whatever_else_it_does(task: Task, tmp_path: Path) -> None:
    """It reads stdin, floods stdout and leaves threads; and modules in its folder are called as ours are."""
    for ours in ("pipelines", "spectral_edge", "json"):
        (tmp_path / ours).mkdir()
        (tmp_path / ours / "__init__.py").write_text("raise RuntimeError('not ours')")

    def twice_the_cubes(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return 2 * (parameters["weight"] ** 3).sum()

    here, settings = Probe(twice_the_cubes, twice_the_cubes), Settings(window=WINDOW, lags=WINDOW)
    expected = probe_window(here, task.checkpoints, settings, learning_rate=0.1, weight_decay=0.01).as_json()
    found = probe_in_child(replace(task, name="my_probes:busy"), LIMITS)
    assert found == expected | {"directions": list(expected["directions"])}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("raises", r"raised KeyError: 'layer\\nnine' \(.*my_probes.py:14\)"),
        ("crashes", r"crashed its process \(SIGSEGV\)"),
        ("exits", "exit status 3 instead of giving a result; its last words: giving up"),
        ("hungry", "needs more memory than 4.0 GB, its limit"),
    ],
)
def test_what_goes_wrong_is_one_clear_error(task: Task, name: str, says: str) -> None:
    error = error_of(task, name)
    assert re.search(says, str(error)), str(error)
    assert isinstance(error, UsageError)


def test_a_hang_is_stopped_with_all_that_it_started(task: Task) -> None:
    error = error_of(task, "hangs", Limits(seconds=20))
    assert "did not come to an end within 20 s" in str(error)
    started = re.search(r"child (\d+)", str(error))
    assert started
    assert not psutil.pid_exists(int(started[1])) or psutil.Process(int(started[1])).status() == psutil.STATUS_ZOMBIE


def test_errors_of_checkpoints_keep_their_kind(task: Task) -> None:
    broken = task.checkpoints[2].files[0]
    broken.write_bytes(b"nothing")
    error = error_of(task, "loss")
    assert isinstance(error, CheckpointFormatError)
    assert error.file == broken.name


@pytest.fixture
def importable(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of probes, and an entry point for one of them, can be imported here."""
    info = tmp_path / "my_probes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-probes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[spectral_edge.probes]\ncubes = my_probes:factory\n")
    (tmp_path / "lacking.py").write_text("import not_installed_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_probes", raising=False)


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("name", "has_validation"),
    [("my_probes:loss", False), ("my_probes:factory", True), ("my_probes:plain_factory", False), ("cubes", True)],
)
def test_functions_factories_and_entry_points_are_probes(name: str, has_validation: bool) -> None:
    probe = load_probe(name, {})
    assert probe.train_loss({"weight": torch.full((2,), 2.0)}) == 16
    assert (probe.validation_loss is not None) == has_validation


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_probes:returns_text", r"returned str"),
        ("my_probes:two", r"takes 2 arguments \(parameters, more\)"),
        ("my_probes:constant", "is a int, not a function"),
        ("my_probes:NotALoss", "returned NotALoss"),
        ("my_probes:nothing", "module `my_probes` has no `nothing`"),
        ("elsewhere:loss", "there is no module `elsewhere`"),
        ("squares", "`squares` is not written module:function.*known names: cubes"),
    ],
)
def test_what_is_no_probe_is_refused(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_probe(name, {})


@pytest.mark.usefixtures("importable")
def test_a_module_that_lacks_another_says_which() -> None:
    with pytest.raises(ModuleNotFoundError, match="not_installed_here"):
        load_probe("lacking:loss", {})
