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
        ("wandb:team/vision", "wandb", Selection("team/vision")),
        ("wandb:team/*", "wandb", Selection("team/*")),
        ("wandb:team/vision/1a2b3c4d", "wandb", Selection("team/vision", ("1a2b3c4d",))),
        ("wandb:team/vision/runs/1a2b3c4d", "wandb", Selection("team/vision", ("1a2b3c4d",))),  # as in its address
        ("wandb-offline:~/wandb", "wandb-offline", Selection(str(Path("~/wandb").expanduser()))),
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
        ("wand:team/vision", "write wandb:team/vision."),
        ("wandb:vision", "write wandb:ENTITY/PROJECT"),
        ("wandb:team/vision/a/b", "write wandb:ENTITY/PROJECT"),
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


@pytest.mark.parametrize("source", ["wandb:team/vision", "wandb-offline:runs"])
def test_a_library_that_is_not_installed(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integrations.locate.find_spec", {}.get)
    with pytest.raises(UsageError, match=r'needs wandb and xxhash.*pip install "spectral-edge\[wandb\]"'):
        locate(source)


def test_results_of_wandb_go_beside_the_run_unless_they_are_wanted_in_it() -> None:
    assert locate("wandb:team/vision")[0].capabilities.results_apart
    assert not locate("wandb:team/vision", into="run")[0].capabilities.results_apart
    assert locate("wandb-offline:runs")[0].capabilities.results_apart
    with pytest.raises(UsageError, match="not written to"):
        locate("wandb-offline:runs", into="run")


def test_a_folder_has_no_child_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--into"):
        locate(f"dir:{tmp_path}", into="child")
    assert isinstance(locate("mlflow:toy", tracking_uri="sqlite:///nothing.db", into="child")[0], MlflowTracker)
