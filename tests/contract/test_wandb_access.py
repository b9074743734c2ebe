"""What W&B's doors say when they are shut: no key, a wrong one, no server, a busy one; and who waits how long."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import free_port
from test_mlflow_access import chain_of
from wandb_double import Double, Lost, Reply
from wandb_labs import ENTITY

from integrations.tracker import Selection, TrackedRun
from integrations.wandb_connection import DEFAULTS
from integrations.wandb_tracker import WandbTracker
from spectral_edge.errors import AccessDeniedError, SpectralEdgeError, TrackerUnavailableError

SECONDS = 1
"""What is waited for an answer with all its tries."""
WRONG = "wrong-" + "0" * 40
READING = ("Runs", "Run", "RunOutputArtifacts", "FetchArtifactManifest", "RunFiles", "RunHistoryKeys")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", str(SECONDS))
    for name, value in {"TRIES": 3, "BACKOFF": 0.0, "JITTER": 0.0}.items():
        monkeypatch.setattr(f"integrations.wandb_fetch.{name}", value)


@pytest.fixture
def project(double: Double) -> Iterator[str]:
    """A project with a run that has all there is to read; the double is healed at the end."""
    name = f"access-{time.monotonic_ns()}"
    double.put_run(ENTITY, name, "run", history=[{"loss": 1.0}])
    for step in (1, 2):
        double.put_artifact(ENTITY, name, "run", "net", {f"step_{step}.pt": b"%d" % step})
    yield name
    double.heal()


def read_all(tracker: WandbTracker, project: str, spool: Path) -> TrackedRun:
    """All that reading an audit does."""
    (run,) = tracker.runs(Selection(f"{ENTITY}/{project}"))
    listing = tracker.checkpoints(run)
    assert [ref.step for ref in listing.checkpoints] == [1, 2]
    (path,) = tracker.fetch(run, listing.checkpoints[0], spool)
    assert path.read_bytes() == b"1"
    assert tracker.metric_names(run) == ("loss",)
    assert tracker.metric_series(run, "loss").values.tolist() == [1.0]
    return run


def one_line_without_keys(error: SpectralEdgeError, *keys: str) -> str:
    told = str(error)
    assert len(told.splitlines()) == 1
    assert not [key for shown in chain_of(error) for key in keys if key in f"{shown} {shown!r}"]
    return told


def test_a_wrong_key(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", WRONG)
    with pytest.raises(AccessDeniedError, match="WANDB_API_KEY") as caught:
        WandbTracker().check()
    assert double.url in one_line_without_keys(caught.value, WRONG)


def test_a_key_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    with pytest.raises(AccessDeniedError, match="40\\+ characters") as caught:
        WandbTracker().check()
    one_line_without_keys(caught.value, "hunter2")


CHECK = """
import os, sys
from pathlib import Path
from urllib.parse import urlsplit
from integrations.wandb_tracker import WandbTracker
from spectral_edge.errors import AccessDeniedError

try:
    WandbTracker().check()
except AccessDeniedError as error:
    print(error)
netrc = Path(os.environ["NETRC"])
assert not netrc.read_text()
machine = urlsplit(os.environ["WANDB_BASE_URL"]).netloc
netrc.write_text(f"machine {machine} login user password {sys.argv[1]}")
print(WandbTracker().check())
"""


def test_without_a_key_and_with_one_in_netrc(double: Double, tmp_path: Path) -> None:
    """In a process that knows nothing else: wandb keeps a key that it has found."""
    netrc = tmp_path / "netrc"
    netrc.touch(mode=0o600)
    done = subprocess.run(
        [sys.executable, "-c", CHECK, double.key],
        env=os.environ | {"WANDB_API_KEY": "", "NETRC": str(netrc), "WANDB_CONFIG_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    refused, known = done.stdout.splitlines()
    assert "WANDB_API_KEY" in refused
    assert known.startswith(f"W&B at {double.url}: signed in as {double.entity} (client ")


def test_nothing_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TrackerUnavailableError, match=r"did not answer in time.*doctor") as caught:
        WandbTracker().check()
    one_line_without_keys(caught.value)


def test_who_may_read_but_not_write_reads_all(
    double: Double, project: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", double.read_key)
    read_all(WandbTracker(), project, tmp_path)


def test_what_passes_is_waited_for(
    double: Double, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "60")
    tracker = WandbTracker()
    tracker.check()
    slow = Reply(429, f'{{"error": "slow down, {double.key}"}}', {"Retry-After": "1"})
    faults = {"Runs": slow, "RunOutputArtifacts": 503, "RunFiles": Lost(), "/manifest/": 503, "/store/": 429}
    for name, fault in faults.items():
        double.fault(name, fault)
    read_all(tracker, project, tmp_path)


@pytest.mark.parametrize("operation", ["Runs", "RunOutputArtifacts", "RunHistoryKeys", "/manifest/"])
def test_what_never_passes_ends_soon(double: Double, project: str, tmp_path: Path, operation: str) -> None:
    tracker = WandbTracker()
    tracker.check()
    double.fault(operation, Reply(503, f'{{"error": "down, {double.key}"}}'), forever=True)
    with pytest.raises(TrackerUnavailableError) as caught:
        read_all(tracker, project, tmp_path)
    one_line_without_keys(caught.value, double.key)
    assert caught.value.run == (None if operation == "Runs" else "run")


@pytest.mark.parametrize("operation", READING)
@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_told_at_once(double: Double, project: str, tmp_path: Path, operation: str, status: int) -> None:
    tracker = WandbTracker()
    tracker.check()
    told = Reply(status, f'{{"errors": [{{"message": "no, {double.key}"}}]}}')
    double.fault(operation, told, forever=True)
    with pytest.raises(AccessDeniedError, match="WANDB_API_KEY") as caught:
        read_all(tracker, project, tmp_path)
    one_line_without_keys(caught.value, double.key)


def test_no_key_travels_with_a_tracker(double: Double) -> None:
    tracker = WandbTracker("run")
    tracker.check()
    sent = pickle.dumps(tracker)
    assert double.key.encode() not in sent
    other = pickle.loads(sent)  # noqa: TID251 - our own object
    assert other.capabilities == tracker.capabilities
    assert other.check() == tracker.check()


def test_what_the_user_has_set_stays_and_the_rest_gets_our_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB__GRAPHQL_RETRY_MAX", "3")
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    WandbTracker().check()
    assert os.environ["WANDB__GRAPHQL_RETRY_MAX"] == "3"
    assert os.environ["WANDB_ERROR_REPORTING"] == DEFAULTS["WANDB_ERROR_REPORTING"] == "false"
