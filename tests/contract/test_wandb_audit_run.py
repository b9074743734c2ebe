"""What an annotation of a W&B run is there: an audit run beside it, and what points to that from the run itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from wandb_bench import KEYS, NOTES, Bench, at_level_summary, connected, expected, made, points_of

from integrations import wandb_audit_run
from integrations.annotation_section import note_with_section
from integrations.tracker import Annotation, WriteReceipt
from integrations.wandb_annotations import state_of_run, write_annotation
from integrations.wandb_results import quiet_settings
from spectral_edge.errors import RunBusyError
from tests.wandb_double import Double, wandb_environment


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with Double() as double, pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("wandb")
        for name, value in wandb_environment(home, double).items():
            patch.setenv(name, value)
        yield double
        assert not double.problems


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_audit_run, "SILENCE", 0.3)
    monkeypatch.setattr(wandb_audit_run, "ARRIVAL", 0.5)


@pytest.fixture
def bench(double: Double) -> Bench:
    return Bench.of(double)


def write(bench: Bench, annotation: Annotation) -> WriteReceipt:
    return write_annotation(connected(), bench.run, annotation, into="child", replace=False)


def test_the_audit_run_holds_all_and_the_original_only_points_to_it(bench: Bench) -> None:
    before, annotation = bench.theirs, made(10, 20)
    receipt = write(bench, annotation)
    assert receipt == WriteReceipt(4, 2, sum(map(len, annotation.files.values())))
    assert bench.theirs == before
    (audit_id,) = bench.audits
    audit = bench.audits[audit_id]
    assert points_of(audit) == expected(10, 20)
    assert (audit["job_type"], audit["group"], audit["state"]) == ("spectral-audit", "r1", "finished")
    assert (audit["display_name"], audit["tags"]) == ("spectral-edge run", ["spectral-edge"])
    ours = audit["config"]["spectral_edge"]
    assert (ours["audit_of"], ours["fingerprint"]) == ("r1", "f" * 16)
    assert ours["audit_of_url"] == bench.run.url
    (files,) = [logged["files"] for logged in audit["logged"] if logged["type"] == "spectral-audit"]
    assert annotation.files.items() <= files.items()
    assert [used["name"] + used["version"] for used in audit["used"]] == ["weightsv1"]
    assert {"m": 1} or audit["config"]["_wandb"]
    marks = {"spectral_edge/started": annotation.mark, "spectral_edge/finished": annotation.mark}
    told = {
        "spectral_edge/status": "ok",
        "spectral_edge/regime": "plateau",
        "spectral_edge/windows": 2,
        "spectral_edge/settings_hash": "s" * 16,
        **marks,
    }
    assert told.items() <= audit["summary"].items()
    url = f"{bench.double.url}/ent/{bench.project}/runs/{audit_id}"
    assert bench.ours == {**told, "spectral_edge/audit_run": audit_id, "spectral_edge/audit_url": url}
    assert bench.original["tags"] == ["mine", "b", "spectral_edge.regime:plateau", "spectral_edge.status:ok"]
    assert bench.original["notes"] == note_with_section(NOTES, annotation.note)
    state = state_of_run(connected(), bench.run, "child")
    assert state is not None
    assert (state.fingerprint, state.settings_hash, state.complete) == ("f" * 16, "s" * 16, True)
    assert state_of_run(connected(), bench.run, "run") is None
