"""W&B projects end to end: from the runs, through the store, back to the runs, by the real SDK and its core."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Answer, CommandLine, random_walk
from safetensors.torch import save
from wandb_double import Double, Reply, wandb_environment

CHECKPOINTS = 14
ENTITY, PROJECT = "team", "toy"
AUDIT = ("audit", f"wandb:{ENTITY}/{PROJECT}", "--window", "4")


@pytest.fixture
def double() -> Iterator[Double]:
    with Double() as served:
        yield served
        assert not served.problems


@pytest.fixture
def command(double: Double, tmp_path: Path, with_server: Callable[[Path], CommandLine]) -> CommandLine:
    environment = {**with_server(tmp_path).environment, **wandb_environment(tmp_path / "home", double)}
    (tmp_path / "work").mkdir()
    return CommandLine(tmp_path / "work", environment)


def put_run(double: Double, name: str, *, seed: int, state: str = "finished") -> None:
    """A run as a training loop leaves it: metrics by its own step metric, a version of one artifact a checkpoint."""
    steps = [100 * index for index in range(CHECKPOINTS)]
    rows = [{"trainer/step": step, "lr": 1e-3, "val_loss": 1 / (1 + step)} for step in steps]
    config: dict[str, object] = {
        "optimizer": "AdamW",
        "weight_decay": 0.1,
        "_wandb": {"t": {"1": []}, "m": [{"1": "trainer/step"}, {"2": "*", "5": 1}]},
    }
    summary = {**rows[-1], "nested": {"a": 1}}
    told = {"display_name": f"{name} run", "notes": "Mine."}
    double.put_run(ENTITY, PROJECT, name, state=state, config=config, summary=summary, history=rows, **told)
    for step, weights in zip(steps, random_walk(CHECKPOINTS, seed=seed), strict=True):
        files = {"model.safetensors": save(weights)}
        double.put_artifact(ENTITY, PROJECT, name, f"model-{name}", files, metadata={"step": step})


def theirs(double: Double, name: str) -> dict[str, Any]:
    """All of a run that is not ours."""
    run = double.run(ENTITY, PROJECT, name)
    summary = run["summary"]
    assert isinstance(summary, dict)
    run["summary"] = {key: value for key, value in summary.items() if not key.startswith("spectral_edge")}
    return run


def audit_runs(double: Double) -> list[dict[str, Any]]:
    project = double.state.project(ENTITY, PROJECT)
    assert project is not None
    every = [double.run(ENTITY, PROJECT, name) for name in project.runs]
    return [run for run in every if run["job_type"] == "spectral-audit"]


def outcomes(answer: Answer) -> dict[str, str]:
    [source] = answer.json["sources"]
    return {run["run_name"]: run["outcome"] for run in source["runs"]}


def test_a_project_is_audited_written_to_once_and_taken_back(double: Double, command: CommandLine) -> None:
    put_run(double, "done", seed=1)
    put_run(double, "going", seed=2, state="running")
    double.put_run(ENTITY, PROJECT, "bare", display_name="bare run")
    before = {name: double.run(ENTITY, PROJECT, name) for name in ("done", "going", "bare")}

    first = command.run(*AUDIT, "--json")
    assert first.code == 0, first.err
    assert outcomes(first) == {"done run": "audited", "going run": "audited", "bare run": "no_checkpoints"}
    made = audit_runs(double)
    assert sorted(run["group"] for run in made) == ["done", "going"]
    for run in made:
        assert run["state"] == "finished"
        points = [row for row in run["history"] if "spectral_edge/total/gap" in row]
        assert [row["spectral_edge/step"] for row in points] == [100 * (4 + i) for i in range(CHECKPOINTS - 4)]
        assert {name for logged in run["logged"] for name in logged["files"]} >= {"gaps.parquet", "spectrum.png"}
        assert [used["name"] for used in run["used"]] == [f"model-{run['group']}"]
    done = double.run(ENTITY, PROJECT, "done")
    assert done["summary"]["spectral_edge/status"] == "ok"
    assert "Spectral edge audit" in done["notes"]
    assert any(tag.startswith("spectral_edge.regime:") for tag in done["tags"])
    kept = ("state", "config", "history", "files", "logged", "used", "group", "job_type", "heartbeat_at")
    assert {key: done[key] for key in kept} == {key: before["done"][key] for key in kept}
    assert theirs(double, "done")["summary"] == before["done"]["summary"]
    assert double.run(ENTITY, PROJECT, "going") == before["going"]

    rows = command.run("query", "select run_name, optimizer, metric_name, step_source from runs order by 1", "--json")
    assert [tuple(row.values()) for row in rows.json] == [
        (f"{name} run", "AdamW", "val_loss", "metadata") for name in ("done", "going")
    ]
    once = {run["group"]: run for run in audit_runs(double)}
    second = command.run(*AUDIT)
    assert second.code == 0
    assert second.out == "3 runs, nothing new, 1 without checkpoints: 0 bytes fetched, 0 writes.\n"
    assert {run["group"]: run for run in audit_runs(double)} == once

    retracted = command.run("retract", f"wandb:{ENTITY}/{PROJECT}", "--yes")
    assert retracted.code == 0, retracted.err
    assert not audit_runs(double)
    assert {name: double.run(ENTITY, PROJECT, name) for name in before} == before


def test_one_runs_failure_never_stops_the_others_and_no_key_is_shown(
    double: Double, command: CommandLine, tmp_path: Path, prefect_home: Path
) -> None:
    put_run(double, "a", seed=1)
    put_run(double, "b", seed=2)
    double.on("RunHistoryKeys", lambda: double.delete_run(ENTITY, PROJECT, "a"))
    double.fault("RunOutputArtifacts", 503, Reply(429, f'{{"error": "slow down, {double.key}"}}'))
    answer = command.run(*AUDIT, "--json")
    assert answer.code == 1
    assert outcomes(answer) == {"a run": "failed", "b run": "audited"}
    assert len(answer.errors) <= 1, answer.err
    assert [run["group"] for run in audit_runs(double)] == ["b"]

    double.keys.clear()
    refused = command.run(*AUDIT)
    assert (refused.code, len(refused.errors)) == (1, 1), refused.err
    assert "WANDB_API_KEY" in refused.errors[0]
    for said in (answer, refused):
        assert double.key not in said.out + said.err
    files = [path for root in (tmp_path, prefect_home) for path in root.rglob("*") if path.is_file()]
    # wandb's core writes down what servers answer, in a log of its own; this one repeats the key.
    files = [path for path in files if not path.name.startswith("core-debug-")]
    assert not [path for path in files if double.key.encode() in path.read_bytes()]
    assert not (tmp_path / "work" / "wandb").exists()
