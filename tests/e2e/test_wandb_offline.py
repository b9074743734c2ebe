"""Folders of W&B end to end: audited without a network, uploaded with `wandb sync`, and taken back."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, tree
from wandb_double import Double, wandb_environment

TRAINING = Path(__file__).with_name("wandb_offline_training.py")
AUDIT = ("audit", "wandb-offline:logs", "--window", "4")


@pytest.fixture
def double() -> Iterator[Double]:
    with Double() as served:
        served.put_project(served.entity, "toy")
        yield served
        assert not served.problems


@pytest.fixture
def home(tmp_path: Path, double: Double) -> dict[str, str]:
    """Variables of a machine on which two runs were logged to `logs/wandb`."""
    variables = wandb_environment(tmp_path, double)
    paths = os.pathsep.join(str(TRAINING.parents[place]) for place in range(2))
    environment = {**_without_wandb(), **variables, "PYTHONPATH": paths}
    subprocess.run([sys.executable, str(TRAINING), "first", "second"], env=environment, cwd=tmp_path, check=True)
    return variables


@pytest.fixture
def offline(tmp_path: Path, home: dict[str, str], with_server: Callable[[Path], CommandLine]) -> CommandLine:
    """The command line with no way to a server and no key."""
    kept = {name: value for name, value in home.items() if name not in ("WANDB_BASE_URL", "WANDB_API_KEY")}
    nowhere = {"WANDB_BASE_URL": "http://127.0.0.1:9"}
    return CommandLine(tmp_path, {**with_server(tmp_path).environment, **kept, **nowhere})


def test_folders_are_audited_uploaded_and_taken_back(
    tmp_path: Path, home: dict[str, str], offline: CommandLine, double: Double
) -> None:
    place = tmp_path / "logs" / "wandb"
    before, latest = tree(tmp_path / "logs"), (place / "latest-run").readlink()
    first = offline.run(*AUDIT, "--json")
    assert first.code == 0, first.err
    [source] = first.json["sources"]
    runs = {run["run_name"]: run for run in source["runs"]}
    assert {name: run["outcome"] for name, run in runs.items()} == {"run first": "audited", "run second": "audited"}
    assert all(run["bytes_fetched"] == 0 for run in runs.values())
    after = tree(tmp_path / "logs")
    assert before.items() <= after.items()
    assert (place / "latest-run").readlink() == latest
    assert all("-spectral-" in path for path in after.keys() - before.keys())

    second = offline.run(*AUDIT)
    assert second.out == "2 runs, nothing new: 0 bytes fetched, 0 writes.\n"
    assert tree(tmp_path / "logs") == after

    said = next(warning for warning in runs["run first"]["warnings"] if "wandb sync" in warning)
    paths = [Path(shlex.split(command)[2]) for command in re.findall(r"wandb sync \S+", said)]
    assert [path.parent for path in paths] == [place, place]
    original = uploaded(home, paths[0], double, "first")
    annotation = paths[1].name.partition("-spectral-")[2]
    made = uploaded(home, paths[1], double, f"spectral-{annotation}")
    assert double.run(double.entity, "toy", "first") == original
    ours = [row for row in made["history"] if "spectral_edge/step" in row]
    assert len({row["spectral_edge/step"] for row in ours}) == len(ours) > 5
    assert any(key.startswith("spectral_edge/total/") for key in ours[-1])
    assert (made["job_type"], made["group"]) == ("spectral-audit", "first")
    assert {"spectral_edge/gaps.parquet", "spectral_edge/spectrum.html"} <= made["files"].keys()
    assert made["summary"]["spectral_edge/finished"] == made["summary"]["spectral_edge/started"]
    calls = len(double.calls)
    for path in paths:
        sync(home, path)
    assert len(double.calls) == calls

    retract = offline.run("retract", "wandb-offline:logs", "--yes", "--json")
    left = {run["run_name"]: run["leftovers"] for run in retract.json["sources"][0]["runs"]}
    assert not left["run second"]
    assert f"spectral-{annotation}" in left["run first"][0]["what"]
    assert [path.name for path in place.glob("*-spectral-*")] == [paths[1].name]


def uploaded(home: dict[str, str], path: Path, double: Double, run_id: str) -> dict[str, Any]:
    """What the server holds of a run after its folder was uploaded."""
    sync(home, path)
    return double.run(double.entity, "toy", run_id)


def sync(home: dict[str, str], path: Path) -> None:
    command = [str(Path(sys.executable).with_name("wandb")), "sync", str(path)]
    done = subprocess.run(command, env={**_without_wandb(), **home}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _without_wandb() -> dict[str, str]:
    """The environment without what wandb has put into it, as the address of this process' core."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
