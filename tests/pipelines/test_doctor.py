"""What the doctor says of folders, stores, clocks and named trackers; nothing is written."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from one_folder import weights, write

from integrations.file_examine import folder_finding
from integrations.finding import Finding, clock_finding
from pipelines.doctor import examine, findings_on
from pipelines.doctor_store import store_findings
from pipelines.settings import load_settings
from spectral_edge.store import Store
from tests.json_documents import require_schema

TABLES = """
sources = ["lab:."]

[trackers.lab]
kind = "dir"
path = "runs"

[trackers.empty]
kind = "wandb"
api_key = {env = "NOT_SET_ANYWHERE"}

[trackers.other]
kind = "mlflow"
uri = "http://127.0.0.1:9"
token = {file = "nowhere"}
"""


def write_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    for index, row in enumerate(weights(3)):
        write(folder, index, row)


def named(findings: list[Finding]) -> Mapping[str, Finding]:
    return {finding.name: finding for finding in findings}


def contents(root: Path) -> dict[str, tuple[int, int]]:
    return {str(it): (it.stat().st_mtime_ns, it.stat().st_size) for it in root.rglob("*")}


def test_every_source_and_every_tracker_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "runs" / "one")
    (tmp_path / "spectral-edge.toml").write_text(TABLES)
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    before = contents(tmp_path)
    settings = load_settings()
    found = named(list(findings_on([], settings)))
    assert contents(tmp_path) == before
    assert found["lab:."].seen.endswith("1 run selected.")
    assert (found["lab:. read"].level, found["lab:. write"].level) == ("ok", "ok")
    assert "NOT_SET_ANYWHERE is empty or not set" in found["empty"].seen
    assert found["empty"].advice == "set NOT_SET_ANYWHERE where the audit runs."
    assert (found["other"].level, "nowhere" in found["other"].seen) == ("problem", True)
    assert "empty" not in named(list(findings_on(["lab:."], settings)))


def test_problems_alone_decide_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs" / "one")
    settings = load_settings(max_disk="1MB")
    assert examine(["dir:runs"], settings, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    require_schema("doctor", told)
    assert told["counts"]["problem"] == 0
    assert examine(["dir:runs", "dir:nowhere"], settings) == 1
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("no ")] == [line for line in said if "dir:nowhere" in line]


@pytest.mark.parametrize(
    ("minutes", "level", "said"),
    [(0, "ok", "agree"), (6, "problem", "6 minutes behind"), (-30, "problem", "30 minutes ahead of")],
)
def test_clocks(minutes: int, level: str, said: str) -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    told = format_datetime(now + timedelta(minutes=minutes), usegmt=True)
    finding = clock_finding("clock", {"Date": told}, now)
    assert (finding.level, said in finding.seen) == (level, True)
    assert clock_finding("clock", {}).level == clock_finding("clock", {"Date": "noon"}).level == "unknown"


def test_a_store(tmp_path: Path) -> None:
    place = tmp_path / "store"
    assert "does not exist yet" in named(list(store_findings(str(place))))["store"].seen
    assert not place.exists()
    Store.open(place)
    (place / ".write-lock").touch()
    before = contents(place)
    found = named(list(store_findings(str(place))))
    assert {name: it.level for name, it in found.items() if name != "store disk"} == {
        "store": "ok",
        "store write": "ok",
        "store lock": "ok",
    }
    with (place / ".write-lock").open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert named(list(store_findings(str(place))))["store lock"].level == "warning"
    assert contents(place) == before
    (tmp_path / "note").write_text("no store")
    assert named(list(store_findings(str(tmp_path / "note"))))["store"].level == "problem"


def test_a_folder_that_is_mounted_read_only() -> None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    locked = [Path(mount[1]) for mount in mounts if "ro" in mount[3].split(",") and Path(mount[1]).is_dir()]
    if not locked:
        pytest.skip("nothing is mounted read-only here")
    finding = folder_finding("write", locked[0])
    assert (finding.level, "read-only" in finding.seen) == ("problem", True)
