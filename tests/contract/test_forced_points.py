"""What MLflow shows of points that `--force` has put beside others, as docs/what-is-written.md says."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from labs import MlflowLab
from test_tracker_annotate import KEYS, logged_run, made

from spectral_edge.errors import AnnotationConflictError


def test_charts_draw_both_and_tables_show_the_new_one(server: str, tmp_path: Path) -> None:
    lab = MlflowLab(tmp_path, server)
    handle, run = logged_run(lab)
    lab.tracker.annotate(run, made(10, 20))
    other = made(10, 20, settings="t" * 16, scale=3.0)
    with pytest.raises(AnnotationConflictError, match="--force"):
        lab.tracker.annotate(run, other)
    lab.tracker.annotate(run, other, replace=True)
    assert lab.client.get_run(handle).data.metrics[KEYS[0]] == 61.5
    asked = {"run_ids": handle, "metric_key": KEYS[0], "max_results": 320}
    # What the charts on MLflow's pages ask.
    drawn = requests.get(f"{server}/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval", asked, timeout=30)
    points = [(point["step"], point["value"]) for point in drawn.json()["metrics"]]
    assert points == [(10, 10.5), (10, 31.5), (20, 20.5), (20, 61.5)]
