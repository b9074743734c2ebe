"""Rights that the doctor tells: of a database's user, and of a W&B key in a project."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from labs import Logged, MlflowLab, trained
from wandb_double import Double
from wandb_labs import ENTITY, WandbLab

from integrations.credentials import MlflowAccess
from integrations.finding import Finding
from integrations.mlflow_tracker import MlflowTracker
from integrations.wandb_tracker import WandbTracker


def test_rights_in_a_database_are_told_without_writing(server: str, runs_database: str, tmp_path: Path) -> None:
    lab = MlflowLab(tmp_path, server)
    project = lab.project()
    lab.log(project, Logged("run", trained(1, 2)))
    engine = sa.create_engine(runs_database)
    try:
        with engine.begin() as owner:
            owner.execute(sa.text("create role onlooker login"))
            owner.execute(sa.text("grant select on all tables in schema public to onlooker"))
            owner.execute(sa.text("grant insert, update on runs, tags to onlooker"))
        (finding,) = asked(runs_database.replace("tester@", "onlooker@"))
        assert (finding.level, finding.advice) == (
            "problem",
            "grant INSERT and UPDATE, or audit with --annotate none.",
        )
        assert finding.seen == "the database user may not write the tables metrics, latest_metrics."
        assert [finding.level for finding in asked(runs_database)] == ["ok"]
    finally:
        with engine.begin() as owner:
            owner.execute(sa.text("drop owned by onlooker"))
            owner.execute(sa.text("drop role onlooker"))
        engine.dispose()


def asked(uri: str) -> list[Finding]:
    return [it for it in MlflowTracker(access=MlflowAccess(uri)).examine(None) if it.name == "write runs"]


@pytest.mark.parametrize(("read_only", "level"), [(True, "problem"), (False, "ok")])
def test_a_key_that_may_only_read_a_project(double: Double, tmp_path: Path, read_only: bool, level: str) -> None:
    lab = WandbLab(tmp_path, double)
    project = lab.project()
    lab.log(project, Logged("run", trained(1, 2)))
    held = double.state.project(ENTITY, project.container.partition("/")[2])
    assert held is not None
    held.read_only = read_only
    (run,) = WandbTracker().runs(project)
    (finding,) = [it for it in WandbTracker().examine(run) if it.name == "write"]
    assert finding.level == level
    assert bool(finding.advice) is read_only
