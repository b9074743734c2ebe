"""A user's probe in a process of its own: what goes wrong there is one clear error here."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from pipelines.probe_process import Limits, Task, probe_in_child
from spectral_edge.errors import CheckpointFormatError, SpectralEdgeError, UsageError
from spectral_edge.gram import LocalCheckpoint
from spectral_edge.probe import Probe, probe_window
from spectral_edge.settings import Settings

WINDOW = 3
LIMITS = Limits(seconds=60, memory=4_000_000_000)
PROBES = '''
import os, signal, subprocess, sys, time
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
def exits_well(parameters): os._exit(0)
def hangs(parameters):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("child", child.pid, flush=True)
    time.sleep(600)
def hungry(parameters): return torch.ones(2_000_000_000, dtype=torch.float64).sum()
def greedy(parameters): return bytearray(20_000_000_000)
def not_scalar(parameters): return parameters["weight"]
def nan(parameters): return loss(parameters) * float("nan")
def no_gradient(parameters): return loss(parameters).detach()
def reads(parameters): return sys.stdin.readline() or loss(parameters)
def leaves_thread(parameters):
    import threading
    threading.Thread(target=time.sleep, args=(600,)).start()
    return loss(parameters)
def floods(parameters):
    for _ in range(100): print("x" * 100_000)
    return loss(parameters)
constant = 3
'''


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


def cube(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
    return (parameters["weight"] ** 3).sum()


@pytest.mark.parametrize(("name", "here"), [("loss", Probe(cube)), ("factory", Probe(cube, cube))])
def test_the_child_gives_what_the_same_call_gives_here(task: Task, name: str, here: Probe) -> None:
    settings = Settings(window=WINDOW, lags=WINDOW)
    expected = probe_window(here, task.checkpoints, settings, learning_rate=0.1, weight_decay=0.01).as_json()
    found = probe_in_child(replace(task, name=f"my_probes:{name}"), LIMITS)
    assert found == expected | {"directions": list(expected["directions"])}


def test_a_factory_gets_the_parameters_of_the_run(task: Task) -> None:
    once = probe_in_child(replace(task, name="my_probes:plain_factory"), LIMITS)
    twice = probe_in_child(replace(task, name="my_probes:with_params"), LIMITS)
    assert twice["train_loss"] == pytest.approx(2 * once["train_loss"])


def test_an_entry_point_names_a_probe(task: Task, tmp_path: Path) -> None:
    info = tmp_path / "my_probes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-probes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[spectral_edge.probes]\ncubes = my_probes:loss\n")
    assert probe_in_child(replace(task, name="cubes"), LIMITS)["k_star"] == 1
    with pytest.raises(UsageError, match=r"`squares` is not written module:function.*known names: cubes"):
        probe_in_child(replace(task, name="squares"), LIMITS)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("raises", r"raised KeyError: 'layer\\nnine' \(.*my_probes.py:14\)"),
        ("crashes", r"crashed its process \(SIGSEGV\)"),
        ("exits", "exit status 3 instead of giving a result; its last words: giving up"),
        ("exits_well", "exit status 0 instead of giving a result"),
        ("hungry", "needs more memory than 4.0 GB, its limit"),
        ("greedy", "needs more memory than 4.0 GB, its limit"),
        ("not_scalar", r"returned a tensor of shape \(6,\), not a scalar"),
        ("nan", "the training loss of the probe is nan"),
        ("no_gradient", "does not depend on the parameters"),
        ("returns_text", r"returned str"),
        ("two", r"takes 2 arguments \(parameters, more\)"),
        ("constant", "is a int, not a function"),
        ("NotALoss", "returned NotALoss"),
        ("nothing", "module `my_probes` has no `nothing`"),
    ],
)
def test_what_goes_wrong_is_one_clear_error(task: Task, name: str, says: str) -> None:
    error = error_of(task, name)
    assert re.search(says, str(error)), str(error)
    assert isinstance(error, UsageError)


def test_a_hang_is_stopped_with_all_that_it_started(task: Task) -> None:
    error = error_of(task, "hangs", Limits(seconds=12))
    assert "did not come to an end within 12 s" in str(error)
    started = re.search(r"child (\d+)", str(error))
    assert started
    assert not psutil.pid_exists(int(started[1])) or psutil.Process(int(started[1])).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("name", ["reads", "leaves_thread", "floods"])
def test_what_a_probe_does_beside_its_work_does_no_harm(task: Task, name: str) -> None:
    assert probe_in_child(replace(task, name=f"my_probes:{name}"), LIMITS)["step"] == WINDOW + 1


def test_a_module_that_is_not_there_and_one_that_lacks_another(task: Task, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no module `elsewhere`"):
        probe_in_child(replace(task, name="elsewhere:loss"), LIMITS)
    (tmp_path / "lacking.py").write_text("import not_installed_here\n")
    with pytest.raises(UsageError, match=r"raised ModuleNotFoundError: No module named 'not_installed_here'"):
        probe_in_child(replace(task, name="lacking:loss"), LIMITS)


def test_the_working_directory_cannot_hide_our_own_modules(task: Task, tmp_path: Path) -> None:
    for ours in ("pipelines", "spectral_edge", "json"):
        (tmp_path / ours).mkdir()
        (tmp_path / ours / "__init__.py").write_text("raise RuntimeError('not ours')")
    assert probe_in_child(task, LIMITS)["step"] == WINDOW + 1


def test_errors_of_checkpoints_keep_their_kind(task: Task) -> None:
    broken = task.checkpoints[2].files[0]
    broken.write_bytes(b"nothing")
    error = error_of(task, "loss")
    assert isinstance(error, CheckpointFormatError)
    assert error.file == broken.name
