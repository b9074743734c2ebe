"""What Prefect's page of a flow run shows of an audit."""

from __future__ import annotations

from pipelines.results import AuditSummary, RunResult
from pipelines.summary_markdown import SHOWN, summary_markdown


def test_failures_and_changes_have_links_and_nothing_is_markup() -> None:
    runs = (
        RunResult("broken", "1", "failed", error="file a: truncated. Next: fetch it again."),
        RunResult("[x](http://evil) <b>", "2", "audited", regime="plateau", transitions=2),
        RunResult("quiet", "3", "unchanged"),
        RunResult("local", "4", "audited", regime="plateau", transitions=1),
    )
    addresses = {"1": "https://mlflow.example/#/runs/1", "2": "https://h/a) [b](javascript:x", "4": "javascript:x"}
    lines = summary_markdown(AuditSummary("mlflow:a", runs), addresses).splitlines()
    assert "- [broken](https://mlflow.example/#/runs/1): file a: truncated. Next: fetch it again." in lines
    hostile = next(line for line in lines if "evil" in line)
    assert hostile.count("](") == 1
    assert "<b>" not in hostile
    assert "](https://h/a%29%20%5Bb%5D%28javascript:x)" in hostile
    assert next(line for line in lines if "local" in line).startswith("- local: 1 change")
    assert not any("quiet" in line for line in lines)


def test_long_lists_are_cut_and_say_so() -> None:
    runs = tuple(RunResult(f"r{i}", str(i), "failed", error="bad") for i in range(SHOWN + 3))
    assert summary_markdown(AuditSummary("dir:a", runs), {}).endswith("- and 3 further runs")
