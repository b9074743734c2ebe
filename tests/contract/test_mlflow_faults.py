"""MLflow behind a network and a server that fail: success after tries, or one clear line; never a double point."""

from __future__ import annotations

import datetime as dt
import gc
import ipaddress
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fault_proxy import Fault, FaultProxy, fault_proxy
from labs import MlflowLab
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache
from test_mlflow_access import chain_of
from test_tracker_annotate import KEYS, logged_run, made
from test_tracker_child import children

from integrations.mlflow_http import DEFAULTS
from integrations.mlflow_tracker import MlflowTracker
from integrations.tracker import Selection, TrackedRun
from spectral_edge.errors import AccessDeniedError, SpectralEdgeError, TrackerUnavailableError, UsageError

# MLflow deletes an artifact through a server without reading the answer, and so leaves the connection to the collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")

WRITING = ("runs/get", "runs/set-tag", "runs/log-batch", "runs/delete-tag", "PUT ")
RETRACTING = ("runs/get", "runs/delete-tag", "runs/set-tag", "DELETE ")
READING = (
    "experiments/get-by-name",
    "runs/search",
    "runs/get",
    "GET /api/2.0/mlflow-artifacts",
    "logged-models/search",
    "get-history",
)
TOKEN, PASSWORD = "a-token-that-nobody-may-see", "a-password-that-nobody-may-see"
HOST_CHECK = "Invalid Host header - possible DNS rebinding attack detected"

Faults = Callable[[str], list[Fault]]
PASSING: dict[str, Faults] = {
    "429": lambda to: [Fault(to, status=429, headers={"Retry-After": "1"})],
    "5xx": lambda to: [Fault(to, status=status, text="<html>no") for status in (500, 502, 503)],
    "time-out": lambda to: [Fault(to, mute=True)],
    "answer lost": lambda to: [Fault(to, lost=True)],
}
REFUSALS = {
    "host check": (403, HOST_CHECK, "--allowed-hosts"),
    "401": (401, f"You are not authenticated: Bearer {TOKEN}", "MLFLOW_TRACKING_TOKEN"),
    "403": (
        403,
        f'{{"error_code": "PERMISSION_DENIED", "message": "denied to {PASSWORD}"}}',
        "MLFLOW_TRACKING_PASSWORD",
    ),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a user may set, so that the tests do not wait long; and secrets to look for."""
    for name, value in {"MAX_RETRIES": "3", "BACKOFF_FACTOR": "0", "BACKOFF_JITTER": "0", "TIMEOUT": "2"}.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    yield
    gc.collect()


@pytest.fixture
def lab(server: str, tmp_path: Path) -> MlflowLab:
    return MlflowLab(tmp_path, server)


@pytest.fixture
def proxy(server: str) -> Iterator[FaultProxy]:
    with fault_proxy(server) as running:
        yield running


def through(proxy: FaultProxy, into: str = "run") -> MlflowTracker:
    """A tracker that has reached the server, with a password in its address."""
    address = proxy.address.replace("://", f"://someone:{PASSWORD}@")
    tracker = MlflowTracker(address, "child" if into == "child" else "run")
    tracker.check()
    _artifact_repos_cache.clear()  # MLflow's, by run: it remembers that the test itself came without the proxy
    return tracker


def places(kind: str, requests: Sequence[str]) -> Sequence[str]:
    """To which requests it happens; some of them where each costs seconds."""
    return requests[1::2] if kind in {"429", "time-out"} else requests


def is_written_once(lab: MlflowLab, handle: str) -> None:
    assert lab.points(handle) == {key: [(10, 10.5), (20, 20.5)] for key in KEYS}
    assert lab.files(handle) == made().files
    assert made().tags.items() <= lab.tags(handle).items()
    assert lab.note(handle).count("Spectral edge audit") == 1
    assert not [tag for tag in lab.tags(handle) if "lease" in tag]


def one_line_without_secrets(error: SpectralEdgeError) -> str:
    told = str(error)
    assert len(told.splitlines()) == 1
    assert not any(secret in str(shown) for shown in chain_of(error) for secret in (TOKEN, PASSWORD))
    return told


@pytest.mark.parametrize("kind", PASSING)
def test_writing_goes_on_after_what_passes(lab: MlflowLab, proxy: FaultProxy, kind: str) -> None:
    handle, run = logged_run(lab)
    before = lab.theirs(handle)
    tracker = through(proxy)
    proxy.spoil(*(fault for to in places(kind, WRITING) for fault in PASSING[kind](to)))
    assert tracker.annotate(run, made(10, 20)).metric_points == 4
    assert proxy.is_spent
    is_written_once(lab, handle)
    proxy.spoil(*(fault for to in places(kind, RETRACTING) for fault in PASSING[kind](to)))
    assert tracker.retract(run).took_back
    assert proxy.is_spent
    assert not lab.tags(handle)
    assert not lab.files(handle)
    assert lab.theirs(handle) == before


def test_a_child_run_whose_making_was_not_heard_of_is_not_made_twice(lab: MlflowLab, proxy: FaultProxy) -> None:
    handle, run = logged_run(lab)
    tracker = through(proxy, "child")
    proxy.spoil(*(Fault(to, lost=True) for to in ("runs/create", "runs/update", *WRITING)))
    tracker.annotate(run, made(10, 20))
    assert proxy.is_spent
    (child,) = children(lab, handle)
    is_written_once(lab, child.info.run_id)
    assert child.info.status == "FINISHED"
    proxy.spoil(Fault("runs/delete", unless="delete-tag", lost=True))
    assert tracker.retract(run).child_runs == (child.info.run_id,)
    assert proxy.is_spent
    assert not children(lab, handle)


@pytest.mark.parametrize("kind", PASSING)
def test_reading_goes_on_after_what_passes(lab: MlflowLab, proxy: FaultProxy, kind: str) -> None:
    _, run = logged_run(lab)
    tracker = through(proxy)
    proxy.spoil(*(fault for to in places(kind, READING) for fault in PASSING[kind](to)))
    (found,) = tracker.runs(Selection(run.key.project))
    assert [ref.step for ref in tracker.checkpoints(found).checkpoints] == [1, 2]
    assert tracker.metric_names(found) == ("loss", "val_loss")
    assert list(tracker.metric_series(found, "loss").values) == [2.0, 1.0]
    assert proxy.is_spent


@pytest.mark.parametrize("to", WRITING[:-1])  # MLflow does not read what it is answered to a PUT
def test_an_answer_cut_in_the_middle_is_told_and_the_same_again_finishes(
    lab: MlflowLab, proxy: FaultProxy, to: str
) -> None:
    handle, run = logged_run(lab)
    tracker = through(proxy)
    proxy.spoil(Fault(to, cut=1))
    with pytest.raises(TrackerUnavailableError) as caught:
        tracker.annotate(run, made(10, 20))
    assert caught.value.run == "run"
    one_line_without_secrets(caught.value)
    tracker.annotate(run, made(10, 20))
    is_written_once(lab, handle)


def test_a_server_that_stays_broken_is_told_and_the_same_again_finishes(lab: MlflowLab, proxy: FaultProxy) -> None:
    handle, run = logged_run(lab)
    tracker = through(proxy)
    proxy.spoil(Fault("runs/log-batch", times=4, status=503, text=f"<html>\nno, Basic {TOKEN}"))
    with pytest.raises(TrackerUnavailableError, match="doctor") as caught:
        tracker.annotate(run, made(10, 20))
    one_line_without_secrets(caught.value)
    tracker.annotate(run, made(10, 20))
    is_written_once(lab, handle)


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_is_one_line_that_says_what_to_do(lab: MlflowLab, proxy: FaultProxy, kind: str) -> None:
    status, text, advice = REFUSALS[kind]
    handle, run = logged_run(lab)
    before = (lab.theirs(handle), lab.tags(handle))
    tracker = through(proxy)
    asked: dict[str, Callable[[], object]] = {
        "runs/search": lambda: list(tracker.runs(Selection(run.key.project))),
        "runs/set-tag": lambda: tracker.annotate(run, made(10)),
        "GET /api/2.0/mlflow-artifacts": lambda: tracker.checkpoints(run),
        "POST ": lambda: tracker.annotate(run, made(10)),
    }
    for to, ask in asked.items():
        proxy.spoil(Fault(to, status=status, text=text))
        with pytest.raises(AccessDeniedError) as caught:
            ask()
        assert advice in one_line_without_secrets(caught.value)
        assert proxy.is_spent  # asked once: trying again changes nothing
    assert (lab.theirs(handle), lab.tags(handle)) == before


def test_what_the_user_has_set_stays_and_the_rest_gets_our_values(
    lab: MlflowLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR")
    lab.tracker.check()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"
    assert os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] == DEFAULTS["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed but itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made_of = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(made_of.public_bytes(serialization.Encoding.PEM) + secret)
    return path


def test_a_certificate_that_nobody_vouches_for_is_refused(
    lab: MlflowLab, server: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = logged_run(lab)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with fault_proxy(server, tls=tls) as proxy:
        with pytest.raises(UsageError, match="MLFLOW_TRACKING_SERVER_CERT_PATH") as caught:
            through(proxy)
        one_line_without_secrets(caught.value)
        assert not proxy.requests
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        tracker = through(proxy)
        assert names(tracker, run) == ["run"]
        assert tracker.annotate(run, made(10)).metric_points == 2


def names(tracker: MlflowTracker, run: TrackedRun) -> list[str]:
    return [found.key.run_name for found in tracker.runs(Selection(run.key.project))]
