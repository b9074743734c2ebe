"""Runs of W&B that have ended and of which the listing tells nothing new: no request is made about any of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from looked_at import audit_all
from one_folder import TENSOR, weights
from safetensors.torch import save
from torch import tensor
from wandb_double import Double, wandb_environment

from pipelines.settings import load_settings
from spectral_edge.query import query
from spectral_edge.store import Store

SOURCE = "wandb:team/many"


def ago(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    with Double() as served:
        for name, value in wandb_environment(tmp_path / "home", served).items():
            monkeypatch.setenv(name, value)
        yield served
        assert not served.problems


def put_run(double: Double, name: str, count: int, *, days: float, state: str = "finished") -> None:
    told = {"display_name": name, "created_at": ago(days + 1), "heartbeat_at": ago(days)}
    double.put_run("team", "many", name, state=state, summary={"val_loss": 0.5}, **told)
    for index, row in enumerate(weights(count, seed=len(name))):
        put_version(double, name, index, row)


def put_version(double: Double, name: str, index: int, row: object) -> None:
    files = {"model.safetensors": save({TENSOR: tensor(row)})}
    double.put_artifact("team", "many", name, f"model-{name}", files, metadata={"step": 10 * index})


def audit(**flags: object) -> tuple[dict[str, str], list[str]]:
    return audit_all(SOURCE, load_settings(**{"window": 3, "annotate": "summary", **flags}))


def test_nothing_new_costs_its_pages(double: Double) -> None:
    runs = {"old": "unchanged", "bare": "no_checkpoints", "running": "unchanged"}
    put_run(double, "old", 4, days=3)
    put_run(double, "bare", 0, days=2)
    put_run(double, "running", 4, days=0, state="running")
    assert audit() == ({**runs, "old": "audited", "running": "audited"}, ["old", "bare", "running"])
    audit()  # what is written may be a sign of life
    before = len(double.calls)
    assert audit(state="finished") == ({"old": "unchanged", "bare": "no_checkpoints"}, [])
    asked = [str(call.operation) for call in double.calls[before:]]
    assert asked == ["Viewer", "GetDefaultEntity", "Runs"]

    double.state.run("team", "many", "old").summary["val_loss"] = 0.25
    assert audit(state="finished")[1] == ["old"]
    put_version(double, "old", 4, weights(5)[4])
    assert audit(state="finished")[1] == []
    assert audit(state="finished", recheck=True)[0]["old"] in {"audited", "extended"}


def test_a_metric_logged_later_is_analysed_from_the_store_and_every_series_costs_one_query(double: Double) -> None:
    put_run(double, "old", 8, days=3)
    rows = [{"_step": step, "val_acc": 0.1, "train_acc": 0.2, "train_loss": 2.0, "loss": 3.0} for step in (0, 10, 20)]
    double.put_history("team", "many", "old", [*rows, {"_step": 30, "val_acc": 0.1}, {"_step": 40, "val_acc": 0.2}])

    def queries() -> int:
        return sum("HistoryPage" in str(call.operation) for call in double.calls[before:])

    before = len(double.calls)
    assert audit()[0] == {"old": "audited"}
    assert queries() == 3  # the metric, and two further ones
    before = len(double.calls)
    assert audit(recheck=True)[0] == {"old": "unchanged"}
    assert queries() == 1
    double.put_history("team", "many", "old", [{"_step": 70, "val_acc": 0.9}])
    assert audit(recheck=True)[0] == {"old": "reanalysed"}
    kept = query(Store.open(load_settings().store), "select name, count(*) as n from metrics group by all order by all")
    assert {row["name"]: row["n"] for row in kept.to_pylist()} == {"train_acc": 3, "train_loss": 3, "val_acc": 6}
