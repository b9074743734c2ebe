"""A whole audit of a run on a server, at each level and each way, and taken back: what people have on it stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from labs import NOTE_TAG, Logged, MlflowLab, trained
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from integrations.locate import locate
from integrations.tracker import AUDIT_OF
from pipelines.decisions import Scope
from pipelines.one_run import Job, audit_one
from pipelines.retract import Request, Retractor
from pipelines.settings import load_settings
from spectral_edge.store import Store

STEPS = tuple(range(1, 9))
NOTE = "Mine.\r\n\n<b>*stars*</b> "
# Last what leaves points on the run.
WAYS = {
    "ended": [("none", "run"), ("summary", "run"), ("summary", "child"), ("full", "child"), ("full", "run")],
    "running": [("full", "run")],
}


def whole(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """All that MLflow tells of a run: state, times, name, params, tags, every point, files with their bytes' number."""
    run = client.get_run(run_id)
    points = {
        key: sorted((p.step, p.timestamp, p.value) for p in client.get_metric_history(run_id, key))
        for key in run.data.metrics
    }
    entries = client.list_artifacts(run_id) + client.list_artifacts(run_id, "checkpoints")
    files = sorted((entry.path, entry.file_size) for entry in entries)
    return {"info": dict(run.info), "params": dict(run.data.params), **run.data.tags, "points": points, "files": files}


def theirs(state: dict[str, Any]) -> dict[str, Any]:
    """`whole` without what is ours."""
    kept = {key: value for key, value in state.items() if not key.startswith("spectral_edge.")}
    kept["points"] = {key: found for key, found in state["points"].items() if not key.startswith("spectral_edge/")}
    kept["files"] = [entry for entry in state["files"] if entry[0] != "spectral_edge"]
    kept[NOTE_TAG] = state[NOTE_TAG].partition("\n\n<!-- spectral-edge:begin -->")[0]
    return kept


@pytest.mark.parametrize("state", WAYS)
def test_what_people_have_on_a_run_stays(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.chdir(tmp_path)
    lab = MlflowLab(tmp_path, server)
    project = lab.project()
    tags = {"mine": "keep me", NOTE_TAG: NOTE}
    handle = lab.log(project, Logged("run", trained(*STEPS), {"loss": [(1, 2.0)]}, {"lr": "0.1"}, tags))
    if state == "running":
        lab.client.update_run(handle, status="RUNNING")
    source, client = f"mlflow:{project.container}", lab.client
    before = whole(client, handle)
    for level, into in WAYS[state]:
        settings = load_settings(
            window=3, annotate=level, into=into, store=f"{level}-{into}", tracking_uri=server, spool="spool"
        )
        tracker, selection = locate(source, tracking_uri=server, into=settings.into)
        store = Store.open(settings.store)
        (run,) = tracker.runs(selection)
        result = audit_one(Job(Scope.of(tracker, settings, store), store, "cpu"), run)
        assert result.outcome == "audited"
        audited = whole(client, handle)
        assert theirs(audited) == theirs(before)
        if into == "child" or level == "none":
            assert audited == before
        made = client.search_runs([before["info"]["experiment_id"]])
        nested = [
            run for run in made if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == handle and AUDIT_OF in run.data.tags
        ]
        assert len(nested) == int(into == "child" and level != "none")

        again = audit_one(Job(Scope.of(tracker, settings, store), store, "cpu"), run)
        assert (again.outcome, again.writes) == ("unchanged", 0)
        assert whole(client, handle) == audited

        retractor = Retractor.of(Request(source, store=settings.store, tracking_uri=server))
        (taken,) = [retractor.retract(found, dry_run=False) for found in retractor.runs]
        assert (taken.outcome, len(taken.receipt.child_runs)) == ("retracted", len(nested))
        after = whole(client, handle)
        assert {**after, "points": theirs(after)["points"]} == before
        if level == "summary":
            assert after == before
    assert client.get_run(handle).data.tags[NOTE_TAG] == NOTE
