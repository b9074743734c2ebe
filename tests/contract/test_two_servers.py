"""Two servers of one kind in one process: each is told its own credentials, by all that is asked of it, in threads."""

from __future__ import annotations

import base64
import copy
import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_proxy import fault_proxy
from guarded import ADMIN, EDITOR, READER
from labs import Logged, MlflowLab, trained
from test_tracker_annotate import made
from wandb_double import Double
from wandb_labs import WandbLab

from integrations.credentials import FromEnvironment, MlflowAccess, Open, WandbAccess
from integrations.finding import Finding
from integrations.locate import locate
from integrations.mlflow_access import host_creds
from integrations.mlflow_tracker import MlflowTracker
from integrations.place import Place
from integrations.tracker import Selection, TrackedRun, Tracker
from integrations.wandb_tracker import WandbTracker
from spectral_edge.errors import AccessDeniedError

TOKEN = "token-of-the-one-server"
OTHER_KEY = "other-" + "2" * 40


@pytest.fixture(autouse=True)
def _of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What lies around in a user's environment for another server, and must be told to none of these."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login netrc password of-a-third-server\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "nobody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "password-of-a-third-server")
    for name, value in {"ONE": TOKEN, "TWO": ADMIN[1], "OTHER": OTHER_KEY}.items():
        monkeypatch.setenv(f"SECRET_{name}", value)


def everything(tracker: Tracker, selection: Selection, spool: Path) -> int:
    """All that an audit and its retraction ask of a tracker; gives how many files were fetched."""
    (run,) = tracker.runs(selection)
    listing = tracker.checkpoints(run)
    fetched = [tracker.fetch(run, ref, spool) for ref in listing.checkpoints]
    assert tracker.metric_series(run, "loss").values.tolist() == [1.0]
    tracker.annotate(run, made(10))
    state = tracker.annotation_state(run)
    assert state is not None
    assert state.complete
    assert tracker.retract(run).took_back
    return len(fetched)


def test_mlflow_servers(server: str, guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    lab = MlflowLab(tmp_path, server)  # both servers show the same runs
    logged = Logged("run", trained(1, 2), {"loss": [(1, 1.0)]})
    projects = [lab.project(), lab.project()]
    for project in projects:
        lab.log(project, logged)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-of-a-third-server")
    with fault_proxy(server) as one, fault_proxy(guarded) as two:
        one.demanded = f"Bearer {TOKEN}"
        places = {
            "one": Place("mlflow", MlflowAccess(one.address, token=FromEnvironment("SECRET_ONE"))),
            "two": Place("mlflow", MlflowAccess(two.address, Open(ADMIN[0]), FromEnvironment("SECRET_TWO"))),
        }
        sources = [f"{name}:{project.container}" for name, project in zip(places, projects, strict=True)]
        asked = [(*locate(source, places=places), tmp_path / source[:3]) for source in sources]
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lambda it: everything(*it), asked)) == [2, 2]
        assert one.credentials == {f"Bearer {TOKEN}"}
        basic = base64.b64encode(":".join(ADMIN).encode()).decode()
        assert two.credentials == {f"Basic {basic}"}
        again, selection = locate(sources[0], places=places)
        assert TOKEN not in repr(vars(again)) + repr(pickle.dumps(places))
        assert len(list(again.runs(selection))) == 1


def test_credentials_go_to_their_own_server_alone() -> None:
    access = MlflowAccess("https://one.example.org/base", token=FromEnvironment("SECRET_ONE"))
    assert host_creds(access, "https://one.example.org:443/base/api").token == TOKEN
    for other in ("http://one.example.org/base", "https://two.example.org/base", "https://one.example.org:5000"):
        asked = host_creds(access, other)
        assert (asked.token, asked.username, asked.password, asked.auth) == (None, None, None, None)


def test_a_wrong_token_is_told_by_its_place(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_ONE", "a-wrong-token-of-nobody")
    with fault_proxy(server) as one:
        one.demanded = f"Bearer {TOKEN}"
        tracker = MlflowTracker(access=MlflowAccess(one.address, token=FromEnvironment("SECRET_ONE")))
        with pytest.raises(AccessDeniedError, match=r"check environment variable SECRET_ONE") as caught:
            tracker.check()
    assert "a-wrong-token" not in str(caught.value)


def written_in(tracker: Tracker, run: TrackedRun | None) -> Mapping[str, Finding]:
    return {finding.name: finding for finding in tracker.examine(run)}


def test_rights_on_an_mlflow_server_are_told_without_writing(
    server: str, guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = MlflowLab(tmp_path, server)
    project = lab.project()
    lab.log(project, Logged("run", trained(1, 2)))
    told = {}
    for user in (ADMIN, EDITOR, READER):
        monkeypatch.setenv("SECRET_TWO", user[1])
        with fault_proxy(guarded) as proxy:
            tracker = MlflowTracker(access=MlflowAccess(proxy.address, Open(user[0]), FromEnvironment("SECRET_TWO")))
            (run,) = tracker.runs(project)
            found = written_in(tracker, run)
            told[user[0]] = (found["write"].level, found["clock"].level, found["version"].level)
            asking = {request.split("?")[0].split()[0] for request in proxy.requests}
            posts = [request for request in proxy.requests if request.startswith("POST") and "search" not in request]
            assert asking <= {"GET", "POST"}
            assert not posts
    assert told == {
        "admin": ("ok", "ok", "ok"),
        "editor": ("ok", "ok", "ok"),
        "reader": ("warning", "ok", "ok"),
    }
    found = written_in(lab.tracker, lab.run(project))
    assert found["write"].level == found["write artifacts"].level == "unknown"
    assert "without writing" in found["write"].seen


def test_wandb_servers(double: Double, tmp_path: Path) -> None:
    logged = Logged("run", trained(1, 2), {"loss": [(1, 1.0)]})
    with Double() as other:
        other.keys = {OTHER_KEY: "write"}
        labs = [WandbLab(tmp_path, double), WandbLab(tmp_path, other)]
        projects = [lab.project() for lab in labs]
        for lab, project in zip(labs, projects, strict=True):
            lab.log(project, logged)
        named = WandbTracker(access=WandbAccess(other.url, FromEnvironment("SECRET_OTHER")))
        with ThreadPoolExecutor(2) as pool:
            asked = [(WandbTracker(), projects[0], tmp_path / "one"), (named, projects[1], tmp_path / "two")]
            assert list(pool.map(lambda it: everything(*it), asked)) == [2, 2]
        again = copy.copy(named)  # as it arrives in another process
        assert everything(again, projects[1], tmp_path / "three") == 2
        assert OTHER_KEY not in repr(pickle.dumps(named)) + repr(named._connection.access)
        assert everything(WandbTracker(), projects[0], tmp_path / "four") == 2
        assert not [call for call in other.calls if call.status in {401, 403}]
        assert not other.problems


@pytest.mark.parametrize("place", ["environment", "netrc"])
def test_two_keys_of_one_wandb_server(
    double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "netrc":
        monkeypatch.delenv("WANDB_API_KEY")
        netrc = tmp_path / "netrc"
        netrc.write_text(f"machine {double.url.removeprefix('http://')} login user password {double.key}\n")
    monkeypatch.setenv("SECRET_OTHER", double.read_key)
    lab = WandbLab(tmp_path, double)
    project = lab.project()
    lab.log(project, Logged("run", trained(1, 2), {"loss": [(1, 1.0)]}))
    reader = WandbTracker(access=WandbAccess(double.url, FromEnvironment("SECRET_OTHER")))
    (run,) = reader.runs(project)
    with pytest.raises(AccessDeniedError, match="environment variable SECRET_OTHER"):
        reader.annotate(run, made(10))
    assert everything(WandbTracker(), project, tmp_path / "one") == 2
    with pytest.raises(AccessDeniedError):
        reader.annotate(run, made(10))
    # wandb.init makes the key that it is given the one of the whole process: a later one must not be sent it.
    monkeypatch.setenv("SECRET_OTHER", OTHER_KEY)
    monkeypatch.setitem(double.keys, OTHER_KEY, "write")
    writer = WandbTracker(access=WandbAccess(double.url, FromEnvironment("SECRET_OTHER")))
    assert everything(writer, project, tmp_path / "two") == 2
    del double.keys[OTHER_KEY]
    assert everything(WandbTracker(), project, tmp_path / "three") == 2


def test_what_wandb_is_asked_by_the_doctor(double: Double, tmp_path: Path) -> None:
    lab = WandbLab(tmp_path, double)
    project = lab.project()
    lab.log(project, Logged("run", trained(1, 2)))
    (run,) = WandbTracker().runs(project)
    before = len(double.calls)
    found = written_in(WandbTracker(), run)
    assert found["clock"].level == "ok"
    assert found["write"].level in {"ok", "unknown"}
    asked = double.calls[before:]
    assert asked
    assert not [call for call in asked if (call.query or "").lstrip().startswith("mutation") or call.method == "PUT"]
