"""Downloads from W&B and its bucket over connections that break and lie; whom the key is told; references."""

from __future__ import annotations

import base64
import hashlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import boto3
import pytest
from fault_proxy import Fault, FaultProxy, fault_proxy
from servers import S3_CREDENTIALS
from wandb_double import Double, Reply
from wandb_double.objects import Artifact
from wandb_labs import ENTITY

from integrations.tracker import CheckpointFile, CheckpointRef, Selection, TrackedRun
from integrations.wandb_tracker import WandbTracker
from spectral_edge.errors import AccessDeniedError, FetchInterruptedError, NotFoundError, UsageError

RANGE = 64 << 10
SIZE = 4 * RANGE - 1
TRIES = 3
FILE = "ck/step_1.safetensors"
BYTES = random.Random(1).randbytes(SIZE)


@dataclass
class Place:
    """A project, behind a door that is W&B's address, and a bucket where the bytes are: other hosts to a client."""

    double: Double
    door: FaultProxy
    bucket: FaultProxy
    project: str
    spool: Path

    def put(self, files: dict[str, bytes], **more: object) -> None:
        """One more version of the run's artifact."""
        self.double.put_artifact(ENTITY, self.project, "run", "model", files, **more)  # type: ignore[arg-type]

    def checkpoints(self) -> tuple[WandbTracker, TrackedRun, tuple[CheckpointRef, ...]]:
        """As a fresh tracker lists them."""
        tracker = WandbTracker()
        (run,) = tracker.runs(Selection(f"{ENTITY}/{self.project}"))
        return tracker, run, tracker.checkpoints(run).checkpoints

    def fetch(self) -> tuple[Path, ...]:
        """The files of the first checkpoint."""
        tracker, run, found = self.checkpoints()
        return tracker.fetch(run, found[0], self.spool)

    def asked(self) -> list[str]:
        """Ranges that were asked for so far."""
        return self.bucket.ranges("GET /store/")

    def nothing_is_left(self) -> bool:
        return not list(self.spool.iterdir())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integrations.download.RANGE", RANGE)
    for name, value in {"TRIES": TRIES, "BACKOFF": 0.0, "JITTER": 0.0}.items():
        monkeypatch.setattr(f"integrations.wandb_fetch.{name}", value)


@pytest.fixture
def place(double: Double, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    project = f"fetch-{time.monotonic_ns()}"
    double.put_run(ENTITY, project, "run")
    with fault_proxy(double.url) as bucket, fault_proxy(double.url, {double.url: bucket.address}) as door:
        monkeypatch.setenv("WANDB_BASE_URL", door.address)
        yield Place(double, door, bucket, project, tmp_path / "spool")


def test_ranges_are_fetched_at_once_and_names_survive(place: Place) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    odd = "step_1/a [b] 漢ü+&.json"
    place.put({**{f"step_1/{name}": BYTES for name in names}, odd: BYTES}, metadata={"step": 1})
    tracker, run, (ref,) = place.checkpoints()
    assert [file.path for file in ref.files] == [f"step_1/{name}" for name in names]
    ref = replace(ref, files=(*ref.files, CheckpointFile(odd, SIZE)))
    fetched = tracker.fetch(run, ref, place.spool)
    assert [path.name for path in fetched] == [*names, "a__b______.json"]
    assert {path.read_bytes() for path in fetched} == {BYTES}
    parts = [f"bytes={start}-{min(start + RANGE, SIZE) - 1}" for start in range(0, SIZE, RANGE)]
    assert sorted(set(place.asked()) - {"bytes=0-0"}) == sorted(parts)


def test_a_broken_connection_is_taken_up_where_it_broke(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("integrations.download.RANGE", 2 * SIZE)
    place.put({FILE: BYTES})
    place.bucket.spoil(Fault("GET /store/", cut=100_000))
    (path,) = place.fetch()
    assert path.read_bytes() == BYTES
    assert place.asked() == ["", f"bytes=100000-{SIZE - 1}"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"cut": 1000}, f"Tried {TRIES} times"),
        ({"status": 503}, f"Tried {TRIES} times"),
        ({"corrupt": 10}, "3 copies in turn had another XXH128"),
    ],
)
def test_what_never_gets_better_ends_and_leaves_nothing(place: Place, fault: dict[str, int], told: str) -> None:
    place.put({FILE: BYTES}, algorithm="XXH128")
    place.bucket.spoil(Fault("GET /store/", unless="bytes=0-0", times=1000, **fault))  # type: ignore[arg-type]
    with pytest.raises(FetchInterruptedError, match=told) as caught:
        place.fetch()
    assert (caught.value.run, caught.value.file) == ("run", FILE)
    assert place.nothing_is_left()


@pytest.mark.parametrize("algorithm", ["MD5", "XXH128"])
def test_bytes_changed_on_the_way_are_fetched_again(place: Place, algorithm: str) -> None:
    place.put({FILE: BYTES}, algorithm=algorithm)
    place.bucket.spoil(Fault(f"bytes={RANGE}-", corrupt=5))
    (path,) = place.fetch()
    assert path.read_bytes() == BYTES
    assert place.bucket.is_spent


@pytest.mark.parametrize("status", [400, 403])
def test_an_address_whose_time_is_up_is_asked_for_again(place: Place, status: int) -> None:
    place.put({FILE: BYTES})
    place.bucket.spoil(Fault(f"bytes={RANGE}-", status=status, text="Request has expired"))
    before = place.double.operations().count("ArtifactMembershipFiles")
    (path,) = place.fetch()
    assert path.read_bytes() == BYTES
    assert place.bucket.is_spent
    assert place.double.operations().count("ArtifactMembershipFiles") == before + 2


def test_a_bucket_that_refuses_is_told_once(place: Place) -> None:
    place.put({FILE: BYTES})
    place.bucket.spoil(Fault("GET /store/", status=403, times=1000, text="<Code>AccessDenied</Code><Key>k</Key>"))
    with pytest.raises(AccessDeniedError, match=r"403 .*AccessDenied") as caught:
        place.fetch()
    assert "<Key>" not in str(caught.value)
    assert place.nothing_is_left()


def test_the_key_is_told_to_wandb_alone(place: Place) -> None:
    place.put({FILE: BYTES})
    (path,) = place.fetch()
    assert path.read_bytes() == BYTES
    assert len(place.asked()) > 1
    assert any("/manifest/" in request for request in place.bucket.requests)
    assert not place.bucket.credentials
    assert place.door.credentials == {f"Basic {base64.b64encode(f'api:{place.double.key}'.encode()).decode()}"}


def test_where_wandb_leads_elsewhere_the_key_does_not_follow(place: Place) -> None:
    """As api.wandb.ai does with files of runs: its own address answers with that of the bucket."""
    place.double.put_file(ENTITY, place.project, "run", "step_1.pt", b"saved")
    place.double.put_file(ENTITY, place.project, "run", "step_2.pt", b"saved again")
    place.double.put_artifact(ENTITY, place.project, "run", "x", {"y": b"saved"}, type="dataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", place.double.url)
        elsewhere = f"{place.bucket.address}/store/{_last(place.double).id}/y"
        place.double.fault("/files/", Reply(302, "", {"Location": elsewhere}))
        (path,) = place.fetch()
    assert path.read_bytes() == b"saved"
    assert place.asked() == [""]
    assert not place.bucket.credentials


def _last(double: Double) -> Artifact:
    return list(double.state.artifacts.values())[-1]


def test_a_file_that_is_saved_again_after_it_was_listed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", place.double.url)
    place.double.put_file(ENTITY, place.project, "run", "step_1.pt", b"first")
    tracker, run, (ref,) = place.checkpoints()
    place.double.put_file(ENTITY, place.project, "run", "step_1.pt", b"other")
    with pytest.raises(FetchInterruptedError, match="replaced"):
        tracker.fetch(run, ref, place.spool)
    assert place.nothing_is_left()


def test_a_version_or_a_run_that_is_deleted_after_it_was_listed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", place.double.url)
    place.put({FILE: BYTES})
    tracker, run, (ref,) = place.checkpoints()
    _last(place.double).delete()
    for fetching in (tracker, WandbTracker()):  # one that has its manifest, and one that has not
        with pytest.raises(NotFoundError):
            fetching.fetch(run, ref, place.spool)
        assert place.nothing_is_left()
    place.double.delete_run(ENTITY, place.project, "run")
    with pytest.raises(NotFoundError, match="deleted") as caught:
        tracker.checkpoints(run)
    assert caught.value.run == "run"


def md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


@pytest.mark.parametrize("checksum", [True, False])
def test_a_reference_to_a_file_of_this_machine_is_verified_in_place(
    place: Place, tmp_path: Path, checksum: bool
) -> None:
    source = tmp_path / "far away" / "step_7.pt"
    source.parent.mkdir()
    source.write_bytes(b"seven")
    digest = md5(b"seven") if checksum else md5(source.as_uri().encode())
    place.put({}, refs={"step_7.pt": (source.as_uri(), digest, 5)})
    (path,) = place.fetch()
    assert path.is_relative_to(place.spool)
    assert path.read_bytes() == b"seven"
    assert source.read_bytes() == b"seven"
    if checksum:
        source.write_bytes(b"eight")
        with pytest.raises(NotFoundError, match="other bytes"):
            place.fetch()
    source.unlink()
    with pytest.raises(NotFoundError, match="this machine does not have"):
        place.fetch()


def test_a_reference_to_s3(place: Place, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**S3_CREDENTIALS, "AWS_S3_ENDPOINT_URL": storage}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=storage)
    client.put_object(Bucket="artifacts", Key=place.project, Body=b"five")
    address, tag = f"s3://artifacts/{place.project}", hashlib.md5(b"five").hexdigest()
    # As logged; with checksum=False, which looks at nothing; and as it was before somebody put another file there.
    for step, (digest, size) in enumerate([(tag, 4), (address, 0), ("another", 4)]):
        place.put({}, refs={f"step_{step}.pt": (address, digest, size)})
    tracker, run, found = place.checkpoints()
    assert [(ref.step, ref.size) for ref in found] == [(0, 4), (1, 4), (2, 4)]
    for ref in found[:2]:
        (path,) = tracker.fetch(run, ref, place.spool)
        assert path.read_bytes() == b"five"
    with pytest.raises(FetchInterruptedError, match="replaced"):
        tracker.fetch(run, found[2], place.spool)


@pytest.mark.parametrize("scheme", ["gs", "http", "https"])
def test_a_reference_to_a_place_that_nothing_here_reads_is_not_asked_for(place: Place, scheme: str) -> None:
    address = f"{place.door.address}/files/a/b/c/d".replace("http", scheme)
    place.put({}, refs={"step_5.pt": (address, "tag", 5)})
    before = len(place.double.calls)
    with pytest.raises(UsageError, match=f"{scheme}://") as caught:
        place.fetch()
    assert not [call for call in place.double.calls[before:] if call.path.startswith("/files/a")]
    assert (caught.value.run, caught.value.file) == ("run", "step_5.pt")
    assert place.nothing_is_left()
