"""What the libraries log to MLflow when they train is found by the names that they give it today."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from integrations.mlflow_tracker import MlflowTracker
from integrations.tracker import Selection
from integrations.training_record import training_record
from spectral_edge.settings import Settings

FOUND = {
    "hugging_face": ("learning_rate", "eval_loss", "adamw_torch_fused"),
    "lightning": ("lr-AdamW", "val_loss", None),
    "lightning_autolog": (None, "val_loss", "AdamW"),
    "keras_callback": ("learning_rate", "val_loss", "adam_w"),
}
"""Learning rate, evaluation metric and optimizer of the runs that framework_runs.py makes; all decay by 0.25."""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowTracker]:
    folder = tmp_path_factory.mktemp("frameworks")
    uri = folder.as_uri()
    quiet = {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
    command = [sys.executable, "-m", "tests.integrations.framework_runs", uri]
    done = subprocess.run(
        command,
        env=os.environ | quiet | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        yield MlflowTracker(uri)


@pytest.mark.parametrize("name", FOUND)
def test_what_a_library_logs_is_found(logged: MlflowTracker, name: str) -> None:
    (run,) = (run for run in logged.runs(Selection("frameworks")) if run.key.run_name == name)
    record = training_record(logged, run, np.arange(3), Settings())
    rate, metric, optimizer = FOUND[name]
    assert (record.learning_rate and record.learning_rate.name, record.optimizer) == (rate, optimizer)
    assert record.metric is not None
    assert (record.metric.name, record.higher_is_better, record.weight_decay) == (metric, False, 0.25)
    assert not record.warnings
