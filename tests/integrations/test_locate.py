"""Sources as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from integrations.locate import locate
from integrations.mlflow_tracker import MlflowTracker
from integrations.tracker import Selection
from spectral_edge.errors import UsageError

RUN_ID = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("source", "kind", "selection"),
    [
        ("mlflow:demo", "mlflow", Selection("demo")),
        ("mlflow:0", "mlflow", Selection("0")),
        (f"mlflow:demo/{RUN_ID}", "mlflow", Selection("demo", (RUN_ID,))),
        ("mlflow:/Users/me/demo", "mlflow", Selection("/Users/me/demo")),
        (f"mlflow:/Users/me/demo/{RUN_ID}", "mlflow", Selection("/Users/me/demo", (RUN_ID,))),
        ("mlflow:a:b c", "mlflow", Selection("a:b c")),
        ("dir:runs", "dir", Selection("runs")),
        ("dir:/data/a:b", "dir", Selection("/data/a:b")),
        ("dir:~/runs", "dir", Selection(str(Path("~/runs").expanduser()))),
    ],
)
def test_sources(source: str, kind: str, selection: Selection) -> None:
    tracker, found = locate(source, tracking_uri="sqlite:///nothing.db")
    assert (tracker.kind, found) == (kind, selection)


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("mflow:demo", "write mlflow:demo."),
        ("MLflow:demo", "write mlflow:demo."),
        ("Dir:x", "write dir:x."),
        ("mlflow:", "write mlflow:EXPERIMENT"),
        ("dir: ", "write dir:PATH"),
        ("demo", "write mlflow:EXPERIMENT"),
        ("", "write mlflow:EXPERIMENT"),
        ("http://host:5000", "write mlflow:EXPERIMENT"),
    ],
)
def test_what_is_no_source_names_the_known_ones_and_what_was_meant(source: str, meant: str) -> None:
    with pytest.raises(UsageError, match="dir:PATH") as caught:
        locate(source)
    assert meant in str(caught.value)


def test_a_folder_without_its_scheme(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        locate(str(tmp_path))
    assert f"write dir:{tmp_path}." in str(caught.value)


def test_a_folder_has_no_child_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--into"):
        locate(f"dir:{tmp_path}", into="child")
    assert isinstance(locate("mlflow:toy", tracking_uri="sqlite:///nothing.db", into="child")[0], MlflowTracker)
