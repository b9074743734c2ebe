"""How long it takes to list the runs of many experiments, and to decide that nothing is to be done to them.

    python -m benchmarks.listing [--runs 5000] [--experiments 20] [--metrics 10] [--params 10] [--audited 25]
    python -m benchmarks.listing --tracking-uri URI [--source 'mlflow:*']

The first starts `mlflow server` on PostgreSQL, fills its database directly, and times, over REST: the listing of all
runs, of those that two filters leave, and the decisions of a second audit: of runs without checkpoints, and of some
that were audited just before with everything written back. Then it gives all runs the rows, in the store and on the
server, that an audit long ago would have left, and times what a command does where nothing is new: the listing with all
decisions, and the whole of `spectral-edge audit`, Prefect's temporary server included. The second lists the runs of a
server of yours, and writes nothing. Times are for 1,000 runs; the listing's is the best of three.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import requests
import sqlalchemy as sa
import torch
from mlflow import MlflowClient
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
from safetensors.torch import save_file

from integrations.locate import locate
from integrations.tracker import Criteria, TrackedRun
from pipelines.audit import prepare
from pipelines.decisions import Scope, decide
from pipelines.looking import look_of, settled
from pipelines.one_run import Job, audit_one
from pipelines.results import RunResult
from pipelines.settings import load_settings
from spectral_edge import delta
from spectral_edge.looks import write_looks
from spectral_edge.store import Store
from spectral_edge.tables import build
from tests.servers import mlflow_server, postgres

CHECKPOINTS = 6
DAY = 86_400_000
LISTINGS: Mapping[str, Criteria] = {
    "all": Criteria(),
    "state finished": Criteria(states=("finished",)),
    "filter of one run in ten": Criteria(filter="params.p0 = '7'"),
}


def fill(database: str, runs: int, experiments: int, metrics: int, params: int) -> None:
    """Rows as a training loop's calls leave them, written in bulk: through the API they would take minutes."""
    now = int(time.time() * 1000)
    engine = sa.create_engine(database)
    ids = range(1000, 1000 + experiments)
    names = [uuid.uuid4().hex for _ in range(runs)]
    place = {name: ids[index * experiments // runs] for index, name in enumerate(names)}
    rows: dict[Any, Iterator[dict[str, Any]]] = {
        SqlExperiment: (
            {"experiment_id": it, "name": f"team-{it}/sweep", "artifact_location": f"mlflow-artifacts:/{it}"}
            for it in ids
        ),
        SqlRun: (
            {
                "run_uuid": name,
                "name": f"run-{index}",
                "user_id": "somebody",
                "experiment_id": place[name],
                "status": "FAILED" if index % 4 == 3 else "FINISHED",
                "start_time": now - 60_000 * (runs - index) - 2 * DAY,
                "end_time": now - 60_000 * (runs - index) - 2 * DAY + 30_000,
                "artifact_uri": f"mlflow-artifacts:/{place[name]}/{name}/artifacts",
                "lifecycle_stage": "active",
            }
            for index, name in enumerate(names)
        ),
        SqlTag: ({"run_uuid": it, "key": "mlflow.runName", "value": f"run-{i}"} for i, it in enumerate(names)),
        SqlParam: (
            {"run_uuid": name, "key": f"p{key}", "value": str(index % 10)}
            for index, name in enumerate(names)
            for key in range(params)
        ),
        SqlMetric: (metric(name, key, now) for name in names for key in range(metrics)),
        SqlLatestMetric: (metric(name, key, now) for name in names for key in range(metrics)),
    }
    with engine.begin() as connection:
        for table, content in rows.items():
            listed = list(content)
            for first in range(0, len(listed), 5000):
                connection.execute(sa.insert(table), listed[first : first + 5000])
    engine.dispose()


def metric(run: str, key: int, now: int) -> dict[str, Any]:
    return {"run_uuid": run, "key": f"m{key}", "value": 0.5, "timestamp": now, "step": 100, "is_nan": False}


@contextmanager
def counted() -> Iterator[list[str]]:
    """The paths of the requests sent inside the block."""
    sent: list[str] = []
    plain = requests.Session.send

    def send(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        sent.append(str(request.path_url))
        return plain(session, request, **options)

    requests.Session.send = send  # type: ignore[method-assign,assignment]
    try:
        yield sent
    finally:
        requests.Session.send = plain  # type: ignore[method-assign]


def line(what: str, work: Callable[[], int], rounds: int) -> None:
    """Print the best time of `work`, which tells how many runs it was about, for 1,000 runs; and its requests."""
    times, runs = [], 0
    for _ in range(rounds):
        with counted() as sent:
            started = time.perf_counter()
            runs = work()
            times.append(time.perf_counter() - started)
    per_thousand = f"{min(times) / runs * 1000:14.2f}" if runs else f"{'-':>14s}"
    print(f"{what:42s}{runs:8d}{min(times):10.2f}{per_thousand}{len(sent):10d}", flush=True)


def listings(uri: str, source: str, chosen: Mapping[str, Criteria]) -> list[TrackedRun]:
    def listed(criteria: Criteria) -> list[TrackedRun]:
        tracker, selection = locate(source, tracking_uri=uri, criteria=criteria)
        return list(tracker.runs(selection))

    def count(criteria: Criteria) -> int:
        return len(listed(criteria))

    for name, criteria in chosen.items():
        line(f"list {source}, {name}", partial(count, criteria), rounds=3)
    return listed(Criteria())


def log_trajectories(uri: str, count: int, scratch: Path) -> None:
    """`count` runs in experiment `audited` with a few small checkpoints each."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("audited")
    random = np.random.default_rng(0)
    folder = scratch / "checkpoints"
    folder.mkdir()
    for number in range(count):
        run_id = client.create_run(experiment, run_name=f"audited-{number}").info.run_id
        for step, row in enumerate(np.cumsum(random.normal(size=(CHECKPOINTS, 64)), axis=0)):
            save_file({"layers.0.mlp.weight": torch.tensor(row)}, folder / f"step_{step}.safetensors")
        client.log_artifacts(run_id, str(folder), "checkpoints")
        client.set_terminated(run_id)


def decisions(uri: str, bare: Sequence[TrackedRun], count: int, scratch: Path) -> dict[str, Any]:
    """Returns the row of table `runs` of one that was audited."""
    log_trajectories(uri, count, scratch)
    settings = load_settings(window=3, tracking_uri=uri, store=str(scratch / "store"))
    store = Store.open(settings.store)
    tracker, selection = locate("mlflow:audited", tracking_uri=uri)
    runs = list(tracker.runs(selection))
    job = Job(Scope.of(tracker, settings, store), store, "cpu")
    for run in runs:
        audit_one(job, run)
    scope = Scope.of(tracker, settings, store)

    def decided(some: Sequence[TrackedRun], action: str) -> int:
        assert {decide(scope, run).action for run in some} <= {action}
        return len(some)

    line("decide, runs without checkpoints", lambda: decided(bare, "report_no_checkpoints"), rounds=1)
    line("decide, audited runs with nothing new", lambda: decided(runs, "nothing"), rounds=1)
    return dict(store.runs_table().to_pylist()[0])


def leave_audits(database: str, runs: Sequence[TrackedRun], row: Mapping[str, Any], store: Store) -> None:
    """What an audit of `runs` would have left, written in bulk: `row` for each, marks on the server, and looks."""
    rows = [dict(row) | run.key.columns() | {"state": run.state} for run in runs]
    delta.replace(store.location, "runs", "true", build("runs", rows))
    now = datetime.now(UTC)
    settings = load_settings(window=3)
    scope = Scope.of(locate("dir:.")[0], settings, store)
    result = RunResult("", "", "unchanged", checkpoints=CHECKPOINTS, audit_id=row["audit_id"])
    write_looks(store, {run.key: look_of(scope, run, result, now) for run in runs})
    mark = f"{row['fingerprint']}/{row['settings_hash']}/0"
    tags = [
        {"run_uuid": run.key.run_id, "key": f"spectral_edge.{key}", "value": mark}
        for run in runs
        for key in ("annotating", "annotated")
    ]
    engine = sa.create_engine(database)
    with engine.begin() as connection:
        for first in range(0, len(tags), 5000):
            connection.execute(sa.insert(SqlTag), tags[first : first + 5000])
    engine.dispose()


def nothing_new(uri: str, store: Store, scratch: Path) -> None:
    def decided() -> int:
        job, runs = prepare("mlflow:team-*", load_settings(window=3, tracking_uri=uri, store=store.location.root))
        assert all(settled(job.scope, run) for run in runs)
        return len(runs)

    def audited() -> int:
        command = [
            str(Path(sys.executable).with_name("spectral-edge")),
            "audit",
            "mlflow:team-*",
            "--window",
            "3",
            "--json",
        ]
        where = ["--store", store.location.root, "--tracking-uri", uri]
        told = json.loads(subprocess.run([*command, *where], check=True, capture_output=True, cwd=scratch).stdout)
        runs = told["sources"][0]["runs"]
        assert {run["outcome"] for run in runs} == {"unchanged"}
        return len(runs)

    line("list and decide, nothing new", decided, rounds=3)
    line("spectral-edge audit, nothing new", audited, rounds=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--experiments", type=int, default=20)
    parser.add_argument("--metrics", type=int, default=10)
    parser.add_argument("--params", type=int, default=10)
    parser.add_argument("--audited", type=int, default=25)
    parser.add_argument("--tracking-uri")
    parser.add_argument("--source", default="mlflow:*")
    asked = parser.parse_args()
    print(f"{'':42s}{'runs':>8s}{'seconds':>10s}{'s per 1,000':>14s}{'requests':>10s}")
    if asked.tracking_uri:
        listings(asked.tracking_uri, asked.source, {"all": Criteria()})
        return
    with tempfile.TemporaryDirectory() as folder, postgres() as database:
        scratch = Path(folder)
        artifacts = ("--artifacts-destination", str(scratch / "artifacts"))
        with mlflow_server(scratch, database, *artifacts) as uri:
            fill(database, asked.runs, asked.experiments, asked.metrics, asked.params)
            runs = listings(uri, "mlflow:team-*", LISTINGS)
            row = decisions(uri, runs[:200], asked.audited, scratch)
            store = Store.open(scratch / "long-ago")
            leave_audits(database, runs, row, store)
            nothing_new(uri, store, scratch)


if __name__ == "__main__":
    main()
