"""The whole demo, with short runs: train, log, audit by Prefect, write back, report."""

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.demo import DemoResult, Learning
from spectral_edge.query import query
from spectral_edge.store import Store

SHORT_DEMO = Path(__file__).with_name("short_demo.py")
RUNS = ("addition", "digits")


@dataclass(frozen=True)
class Demo:
    folder: Path
    first: subprocess.CompletedProcess[str]
    second: subprocess.CompletedProcess[str]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo, run twice into one folder."""
    folder = tmp_path_factory.mktemp("demo")
    working = tmp_path_factory.mktemp("working")
    environment = os.environ | {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))}
    command = [sys.executable, SHORT_DEMO, folder]
    first, second = (
        subprocess.run(command, cwd=working, env=environment, capture_output=True, text=True, check=False)
        for _ in range(2)
    )
    assert list(working.iterdir()) == [], "the demo left files in the working directory"
    return Demo(folder, first, second)


def test_it_ends_well_and_says_where_things_are(demo: Demo) -> None:
    assert demo.first.returncode == 0, demo.first.stderr
    assert "Traceback" not in demo.first.stderr
    assert f"{demo.folder / 'report.html'}" in demo.first.stdout
    assert f"ui --backend-store-uri sqlite:///{demo.folder / 'mlflow.db'}" in demo.first.stdout
    assert "addition: did not grok" in demo.first.stdout


def test_the_runs_carry_metrics_tags_files_and_a_note(demo: Demo) -> None:
    client = demo.client
    experiment = client.get_experiment_by_name("spectral-edge-demo")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == list(RUNS)
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.tags["spectral_edge.checkpoints"] == "16"
        assert "Spectral edge audit" in run.data.tags["mlflow.note.content"]
        history = client.get_metric_history(run.info.run_id, "spectral_edge/total/gap_ratio")
        assert [point.step for point in history] == [110, 120, 130, 140, 150, 160]
        files = {file.path for file in client.list_artifacts(run.info.run_id, "spectral_edge")}
        assert "spectral_edge/gaps.parquet" in files


def test_the_store_and_the_page_know_both_runs(demo: Demo) -> None:
    store = Store.open(str(demo.folder / "store"), create=False)
    rows = query(
        store, "select run_name, status, checkpoints, weight_decay, metric_name from runs order by 1"
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("addition", "ok", 16, 1.0, "val_accuracy"),
        ("digits", "ok", 16, 0.01, "val_accuracy"),
    ]
    page = (demo.folder / "report.html").read_text()
    assert all(run in page for run in RUNS)


def test_the_query_to_try_gives_the_printed_answer(demo: Demo) -> None:
    lines = demo.first.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("Try"))
    command = shlex.split(lines[at].removeprefix("Try"))
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = [line.split() for line in answer.splitlines()]
    assert [line.split() for line in lines[at + 1 :]] == words
    assert [row[0] for row in words] == ["run_name", *RUNS]


def test_the_second_time_nothing_is_trained_fetched_or_written(demo: Demo) -> None:
    assert demo.second.returncode == 0, demo.second.stderr
    assert "all 2 runs are trained already" in demo.second.stderr
    assert "nothing new: 0 bytes fetched, 0 writes" in demo.second.stdout
    assert demo.second.stdout.splitlines()[1:] == demo.first.stdout.splitlines()[1:]


@pytest.mark.parametrize(
    ("trained_at", "generalised_at", "expected"),
    [
        (300, 1250, "grokked at step 1250 (95% of the training data were learnt at step 300)"),
        (200, 300, "nothing to grok (validation data were learnt along with training data)"),
        (300, None, "did not grok (validation accuracy never reached 95%)"),
        (None, None, "did not grok (validation accuracy never reached 95%)"),
    ],
)
def test_grokking_is_named_only_long_after_memorising(
    trained_at: int | None, generalised_at: int | None, expected: str
) -> None:
    assert Learning("run", trained_at, generalised_at).line == f"run: {expected}"


@pytest.mark.parametrize(
    ("low", "high", "order"),
    [
        (50, 900, "; 50 to 900 steps before val_accuracy moved"),
        (-1800, -50, "; 50 to 1800 steps after val_accuracy moved"),
        (-1400, 300, "; whether before or after val_accuracy moved is not established"),
        (0, 300, "; whether before or after val_accuracy moved is not established"),
        (None, None, ""),
    ],
)
def test_an_order_in_time_is_told_only_where_its_interval_tells_it(
    low: int | None, high: int | None, order: str
) -> None:
    change = {"run_name": "run", "group": "attention", "kind": "gap_opening", "onset_step": 1750, "q_value": 0.0321}
    change |= {"metric_name": "val_accuracy", "lead_low": low, "lead_high": high}
    shown = DemoResult(Path("demo"), ("MLflow",), (Learning("run", 300, 1250),), (change,), ({"run": 1},))
    assert f"  gap_opening of attention at step 1750, q = 0.032{order}" in str(shown).splitlines()
