"""The file for Prometheus, read back by Prometheus's own parser."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines import metrics_file
from pipelines.metrics_file import GAUGES, MOST_PROJECTS, OTHERS, Audited, record
from pipelines.results import AuditSummary, RunResult
from spectral_edge.errors import AccessDeniedError, TerminalError, TrackerUnavailableError

DEBT = datetime(2026, 1, 2, tzinfo=UTC)


def audited(source: str, *runs: RunResult, ended: float = 1000.0, left: int = 0) -> Audited:
    summary = AuditSummary(source, runs, left=left, oldest_debt=DEBT if left else None)
    return Audited(source, "mlflow", summary, {"toy": 3}, 2.5, ended)


def run(project: str = "toy", **more: object) -> RunResult:
    return RunResult("name", "id", "audited", project=project, **more)  # type: ignore[arg-type]


def samples(path: Path) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(value for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


def value(path: Path, name: str, **labels: str) -> float | None:
    told = [value for _, value in sorted(labels.items())]
    return samples(path).get((f"spectral_edge_{name}", tuple(told)))


def test_sums_by_project_and_outcome(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audits.prom"
    failed = RunResult("x", "x", "failed", error="e", error_class="UnsafeCheckpointError", project="toy")
    known = RunResult("y", "y", "failed", error="e", known=True, project="toy")
    works = run(bytes_read=10, bytes_fetched=4, seconds_gram=1.5, writes=7)
    record(path, audited("mlflow:toy", works, run(bytes_read=5, seconds_gram=0.5), failed, known, left=2))
    here = {"project": "toy", "source": "mlflow:toy", "tracker": "mlflow"}
    assert value(path, "runs", outcome="audited", **here) == 2
    assert value(path, "runs", outcome="failed", **here) == 2
    assert value(path, "read_bytes", **here) == 15
    assert value(path, "fetched_bytes", **here) == 4
    assert value(path, "writes", **here) == 7
    assert value(path, "work_seconds", phase="gram", **here) == 2
    assert value(path, "failures", error="UnsafeCheckpointError", **here) == 1
    assert value(path, "failures", error="as_before", **here) == 1
    assert value(path, "alerts_open", **here) == 3
    assert value(path, "runs_left", source="mlflow:toy") == 2
    assert value(path, "oldest_debt_timestamp_seconds", source="mlflow:toy") == DEBT.timestamp()
    assert value(path, "last_success_timestamp_seconds", source="mlflow:toy") is None


def test_the_last_success_outlives_failures(tmp_path: Path) -> None:
    path = tmp_path / "audits.prom"
    record(path, audited("mlflow:toy", run(), ended=1000))
    refused = Audited("mlflow:toy", "mlflow", TrackerUnavailableError("no answer"), {}, 1.0, 2000.0)
    record(path, refused)
    assert value(path, "last_success_timestamp_seconds", source="mlflow:toy") == 1000
    assert value(path, "last_audit_timestamp_seconds", source="mlflow:toy") == 2000
    assert value(path, "source_failed", error="TrackerUnavailableError", source="mlflow:toy") == 1
    assert value(path, "runs", outcome="audited", project="toy", source="mlflow:toy", tracker="mlflow") is None
    record(path, audited("mlflow:toy", run(), ended=3000))
    assert value(path, "last_success_timestamp_seconds", source="mlflow:toy") == 3000
    assert value(path, "source_failed", error="TrackerUnavailableError", source="mlflow:toy") is None


def test_odd_names_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "audits.prom"
    odd = 'a"b\\c\nspectral_edge_runs{} 7\x1b[31m' + "ü" * 500
    record(path, audited(f"mlflow:{odd}", run(project=odd)))
    record(path, audited("other", run()))
    [name] = {labels[1] for (name, labels) in samples(path) if name.endswith("_runs") and labels[2] != "other"}
    assert name.startswith('a"b\\c spectral_edge_runs{} 7')
    assert len(name) == 200


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audits.prom"
    many = [run(f"p{index}") for index in range(MOST_PROJECTS + 50)]
    record(path, audited("mlflow:*", run("large"), run("large"), *many))
    by_project = {labels[1]: number for (name, labels), number in samples(path).items() if name.endswith("_runs")}
    assert len(by_project) == MOST_PROJECTS + 1
    assert (by_project["large"], by_project[OTHERS]) == (2, 51)
    monkeypatch.setattr(metrics_file, "MOST_SOURCES", 3)
    for index in range(5):
        record(path, audited(f"s{index}", ended=2000.0 + index))
    told = {labels[0] for (name, labels) in samples(path) if "last_audit" in name}
    assert told == {"s2", "s3", "s4"}


def test_a_file_of_others_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "audits.prom"
    path.write_text("not { a metric\n")
    record(path, audited("mlflow:toy", run()))
    assert {name for name, _ in samples(path)} <= set(GAUGES)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((AccessDeniedError, TerminalError), match="the metrics cannot be written"):
        record(tmp_path / "file" / "audits.prom", audited("mlflow:toy"))


def _record_ten(path: Path, source: str) -> None:
    for _ in range(10):
        record(path, audited(source, run()))


def test_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audits.prom"
    processes = multiprocessing.get_context("fork")
    sources = [f"source-{index}" for index in range(4)]
    children = [processes.Process(target=_record_ten, args=(path, source)) for source in sources]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert {labels[0] for (name, labels) in samples(path) if "last_audit" in name} == set(sources)
