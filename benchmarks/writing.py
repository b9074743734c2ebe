"""Seconds to write one run's annotation to an MLflow server on PostgreSQL, beside metrics logged one by one.

    python -m benchmarks.writing [--points 1000] [--naive 100] [--rounds 5] [--tracking-uri URI]

Ours is all of `Tracker.annotate`: lease, marks, points, the gap table and both charts, note and tags. The naive way is
`MlflowClient.log_metric` for each point, measured on --naive of them and scaled, and writes nothing but points. Without
--tracking-uri, PostgreSQL and a server with its artifacts in a folder are started on this machine. Medians of the
rounds, each on a new run; in turn, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from mlflow import MlflowClient

from integrations.mlflow_tracker import MlflowTracker
from integrations.tracker import Annotation, MetricPoint, Selection
from tests.servers import mlflow_server, postgres

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
KEYS = 20
FILES = {"gaps.parquet": bytes(100_000), "spectrum.png": bytes(100_000), "spectrum.html": bytes(1_000_000)}


def annotation(count: int, *, full: bool) -> Annotation:
    points = [MetricPoint(f"spectral_edge/group.{i % KEYS}/gap", 100 * (i // KEYS), i + 0.5) for i in range(count)]
    tags = {f"spectral_edge.tag{number}": str(number) for number in range(11)}
    return Annotation("f" * 64, "s" * 16, tags, "### Audit\n\nA note.", points, FILES if full else {})


def seconds(tracker: MlflowTracker, client: MlflowClient, wanted: Annotation) -> tuple[float, float]:
    """To annotate a new run, and to annotate it again."""
    name = f"writing {time.monotonic_ns()}"
    client.create_run(client.create_experiment(name), run_name="run")
    (run,) = tracker.runs(Selection(name))
    times = []
    for _ in range(2):
        started = time.perf_counter()
        tracker.annotate(run, wanted)
        times.append(time.perf_counter() - started)
    history = sum(len(client.get_metric_history(run.key.run_id, f"spectral_edge/group.{i}/gap")) for i in range(KEYS))
    assert history == len(wanted.metrics)
    return times[0], times[1]


def naive(client: MlflowClient, wanted: Annotation, count: int) -> float:
    run_id = client.create_run(client.create_experiment(f"naive {time.monotonic_ns()}")).info.run_id
    started = time.perf_counter()
    for point in wanted.metrics[:count]:
        client.log_metric(run_id, point.key, point.value, step=point.step)
    return (time.perf_counter() - started) * len(wanted.metrics) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--naive", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tracking-uri")
    arguments = parser.parse_args()
    os.environ.update(QUIET)
    with ExitStack() as servers:
        address = arguments.tracking_uri
        if address is None:
            folder = Path(servers.enter_context(tempfile.TemporaryDirectory()))
            database = servers.enter_context(postgres())
            place = ("--artifacts-destination", str(folder / "artifacts"))
            address = servers.enter_context(mlflow_server(folder, database, *place))
        tracker, client = MlflowTracker(address), MlflowClient(address)
        points, full = annotation(arguments.points, full=False), annotation(arguments.points, full=True)
        seconds(tracker, client, annotation(KEYS, full=True))  # the first of all pays for imports and connections
        rows: dict[str, list[float]] = {}
        for _ in range(arguments.rounds):
            first, again = seconds(tracker, client, full)
            rows.setdefault("spectral-edge, everything", []).append(first)
            rows.setdefault("spectral-edge, without files", []).append(seconds(tracker, client, points)[0])
            rows.setdefault("spectral-edge, again", []).append(again)
            rows.setdefault(f"log_metric, {arguments.naive} scaled", []).append(naive(client, full, arguments.naive))
        print(f"{arguments.points} points in {KEYS} metrics, {os.cpu_count()} cores, {arguments.rounds} rounds")
        print(f"{'':30s}{'median s':>10s}{'slowest s':>11s}")
        for name, times in rows.items():
            print(f"{name:30s}{statistics.median(times):10.2f}{max(times):11.2f}")


if __name__ == "__main__":
    main()
