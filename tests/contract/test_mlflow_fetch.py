"""Downloads from real servers over connections that break, stall and lie, in each way that files come."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from fault_proxy import Fault
from fetch_ways import FILE, MB, PROBE, RANGE, RESUMING, SIZE, SWITCH, TO_S3, TRIES, WAYS, Way, asked, parts, spoil
from servers import S3_CREDENTIALS, free_port

from pipelines.spool import sweep
from spectral_edge.errors import AccessDeniedError, FetchInterruptedError, NotFoundError


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, make_way: Callable[[str], Way]) -> Way:
    """Each way in turn."""
    return make_way(request.param)


def test_bytes_and_names_survive(way: Way) -> None:
    names = [
        ".metadata",
        "__0_0.distcp",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "epoch=1-step=8.ckpt",
        "a [b] 漢ü+&.pt",
    ]
    logged = way.log(*(f"ck/{name}" for name in names))
    fetched = way.fetch(*logged)
    assert [path.read_bytes() for path in fetched] == list(logged.values())
    assert [path.name for path in fetched] == [*names[:5], "a__b______.pt"]
    assert {path.parent.parent.parent for path in fetched} == {way.spool}
    assert not list(way.spool.rglob("*.part"))


def test_an_empty_file(way: Way) -> None:
    way.log(FILE, size=0)
    (path,) = way.fetch(FILE, size=0)
    assert path.read_bytes() == b""


def test_ranges_only_where_the_store_has_them(way: Way) -> None:
    way.log(FILE)
    way.fetch(FILE)
    assert sorted(asked(way)) == (parts(SIZE) if way.name in TO_S3 else [""])


def test_a_broken_connection_is_taken_up_where_it_broke(way: Way) -> None:
    logged = way.log(FILE)
    spoil(way, cut=150_000)
    (path,) = way.fetch(FILE)
    assert path.read_bytes() == logged[FILE]
    if way.name in TO_S3:
        (resumed,) = set(asked(way)) - set(parts(SIZE))
        begin, end = map(int, resumed.removeprefix("bytes=").split("-"))
        assert (begin % RANGE, f"bytes={begin - 150_000}-{end}" in parts(SIZE)) == (150_000, True)
    else:
        assert asked(way) == ["", "" if way.name == "through" else f"bytes=150000-{SIZE - 1}"]


def test_a_connection_that_breaks_after_the_last_byte(make_way: Callable[[str], Way]) -> None:
    """A stream of chunks without its last, empty one."""
    way = make_way("through")
    logged = way.log(FILE)
    spoil(way, cut=SIZE)
    (path,) = way.fetch(FILE)
    assert path.read_bytes() == logged[FILE]
    assert asked(way) == [""]


def test_a_connection_that_breaks_whenever_something_has_come(make_way: Callable[[str], Way]) -> None:
    """More breaks than tries, each after at least a block: such a download goes on."""
    way = make_way("folder")
    logged = way.log(FILE, size=6 * MB)
    spoil(way, cut=MB + 1, times=5)
    (path,) = way.fetch(FILE, size=6 * MB)
    assert path.read_bytes() == logged[FILE]
    assert len(asked(way)) == 6 > TRIES


@pytest.mark.parametrize("fault", [{"cut": 1000}, {"truncate": 1000}, {"status": 503}])
def test_what_never_gets_better_ends(way: Way, fault: dict[str, int]) -> None:
    way.log(FILE)
    spoil(way, times=1000, **fault)
    with pytest.raises(FetchInterruptedError, match=f"Tried {TRIES} times") as caught:
        way.fetch(FILE)
    assert (caught.value.run, caught.value.file) == ("run", FILE)
    assert way.nothing_is_left()


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"status": 429, "headers": {"Retry-After": "0"}}, {"truncate": 170_000}]
)
def test_what_gets_better_is_waited_for(way: Way, fault: dict[str, object]) -> None:
    logged = way.log(FILE)
    spoil(way, times=TRIES - 1, **fault)
    (path,) = way.fetch(FILE)
    assert path.read_bytes() == logged[FILE]
    assert way.proxy.is_spent


def test_a_server_is_left_alone_as_long_as_it_asks(make_way: Callable[[str], Way]) -> None:
    way = make_way("folder")
    way.log(FILE)
    spoil(way, status=503, headers={"Retry-After": "1"})
    started = time.monotonic()
    way.fetch(FILE)
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("name", RESUMING)
def test_a_connection_that_falls_silent(
    make_way: Callable[[str], Way], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    way = make_way(name)
    logged = way.log(FILE)
    spoil(way, stall=200_000)
    (path,) = way.fetch(FILE)
    assert path.read_bytes() == logged[FILE]
    assert way.proxy.is_spent


@pytest.mark.parametrize("status", [401, 403])
def test_who_is_refused_is_told_what_to_do(way: Way, status: int) -> None:
    way.log(FILE)
    spoil(way, status=status, times=1000, text="<Error><Code>SignatureDoesNotMatch</Code><Key>secret</Key></Error>")
    what_to_do = {"folder": "MLFLOW_TRACKING_USERNAME", "through": "MLFLOW_TRACKING_USERNAME", "s3": "AWS_PROFILE"}
    with pytest.raises(AccessDeniedError, match=what_to_do.get(way.name, SWITCH)) as caught:
        way.fetch(FILE)
    assert caught.value.file == FILE
    assert "secret" not in str(caught.value)


def test_a_file_that_is_gone(way: Way) -> None:
    way.log(FILE)
    with pytest.raises(NotFoundError) as caught:
        way.fetch(FILE, "ck/gone.safetensors")
    assert (caught.value.run, caught.value.file) == ("run", "ck/gone.safetensors")
    assert way.nothing_is_left()


@pytest.mark.parametrize("difference", [-1, 1])
def test_another_size_than_listed(way: Way, difference: int) -> None:
    way.log(FILE)
    with pytest.raises(FetchInterruptedError) as caught:
        way.fetch(FILE, size=SIZE + difference)
    assert str(SIZE + difference) in str(caught.value)
    assert way.nothing_is_left()


def test_a_store_that_sends_without_end_fills_no_disk(make_way: Callable[[str], Way]) -> None:
    way = make_way("through")
    way.log(FILE)
    spoil(way, extend=1)
    with pytest.raises(FetchInterruptedError, match="more than"):
        way.fetch(FILE)
    assert way.nothing_is_left()


@pytest.mark.parametrize("name", TO_S3)
@pytest.mark.parametrize("times", [1, 1000])
def test_bytes_changed_on_the_way(make_way: Callable[[str], Way], name: str, times: int) -> None:
    way = make_way(name)
    logged = way.log(FILE)
    spoil(way, corrupt=200_000, times=times)
    if times == 1:
        (path,) = way.fetch(FILE)
        assert path.read_bytes() == logged[FILE]
        assert len(asked(way)) == 2 * len(parts(SIZE))
        return
    with pytest.raises(FetchInterruptedError, match="MD5" if name == "signed" else "CRC32") as caught:
        way.fetch(FILE)
    assert caught.value.file == FILE
    assert way.nothing_is_left()


@pytest.mark.parametrize("times", [1, 1000])
def test_bytes_of_an_upload_in_parts_changed_on_the_way(make_way: Callable[[str], Way], times: int) -> None:
    """Its entity tag is the digest of the parts' digests, and says how many there are."""
    way, size = make_way("s3"), 9 * MB
    logged = way.log(FILE, size=size)
    spoil(way, corrupt=200_000, times=times)
    if times == 1:
        (path,) = way.fetch(FILE, size=size)
        assert path.read_bytes() == logged[FILE]
        assert len(asked(way)) == 2 * len(parts(size))
        return
    with pytest.raises(FetchInterruptedError, match="MD5"):
        way.fetch(FILE, size=size)


@pytest.mark.parametrize("name", TO_S3)
def test_a_file_that_is_replaced_while_it_comes_is_no_mixture(make_way: Callable[[str], Way], name: str) -> None:
    way = make_way(name)
    way.log(FILE)
    spoil(way, cut=100, then=lambda: way.put(FILE, bytes(SIZE)))
    with pytest.raises(FetchInterruptedError, match="replaced"):
        way.fetch(FILE)
    assert way.nothing_is_left()


def test_a_file_that_the_server_replaces_is_begun_again(make_way: Callable[[str], Way]) -> None:
    way = make_way("folder")
    way.log(FILE)
    spoil(way, cut=100_000, then=lambda: way.put(FILE, bytes(SIZE)))
    (path,) = way.fetch(FILE)
    assert path.read_bytes() == bytes(SIZE)


def test_a_store_behind_the_server_that_cannot_be_reached(make_way: Callable[[str], Way]) -> None:
    way = make_way("signed")
    logged = way.log(FILE)
    nowhere = f"http://127.0.0.1:{free_port()}"
    way.server.rewrite = dict.fromkeys(way.server.rewrite, nowhere)
    (path,) = way.fetch(FILE)
    assert path.read_bytes() == logged[FILE]
    assert not asked(way)


@pytest.mark.parametrize("status", [200, 403, 404])
def test_a_store_behind_the_server_that_does_not_serve_us(make_way: Callable[[str], Way], status: int) -> None:
    way = make_way("signed")
    logged = way.log(FILE)
    way.proxy.spoil(Fault(PROBE, status=status))
    (path,) = way.fetch(FILE)
    assert path.read_bytes() == logged[FILE]
    assert not asked(way)


def test_no_signature_and_no_key_in_messages(make_way: Callable[[str], Way]) -> None:
    way = make_way("signed")
    way.log(FILE)
    spoil(way, cut=0, times=1000)
    with pytest.raises(FetchInterruptedError) as caught:
        way.fetch(FILE)
    told = f"{caught.value!r} {caught.value} {caught.value.__cause__}"
    assert caught.value.__suppress_context__
    assert not [secret for secret in ("Signature", "Credential", "testing") if secret in told]


def test_no_credentials_for_a_bucket(make_way: Callable[[str], Way], monkeypatch: pytest.MonkeyPatch) -> None:
    way = make_way("s3")
    way.log(FILE)
    for name in S3_CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(AccessDeniedError, match="credentials of the artifact store"):
        way.fetch(FILE)


FETCH = """
import sys, tracemalloc
from pathlib import Path
from integrations.mlflow_connection import MlflowConnection
from integrations.mlflow_fetch import fetch_checkpoint
from integrations.tracker import CheckpointFile, CheckpointRef
from pipelines.spool import spool_folder

address, location, path, size, spool = sys.argv[1:]
ref = CheckpointRef("checkpoint", 1, "file_name", (CheckpointFile(path, int(size)),), location)
connection = MlflowConnection(address)
with spool_folder(Path(spool), "run") as folder:
    tracemalloc.start()
    fetch_checkpoint(connection, "run", ref, folder)
    print(tracemalloc.get_traced_memory()[1])
"""


def fetching(way: Way, size: int) -> subprocess.Popen[str]:
    """A process that fetches the file and prints the most memory it took."""
    arguments = [way.server.address, way.run.artifact_uri, FILE, str(size), str(way.spool)]
    command = [sys.executable, "-c", FETCH, *arguments]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_memory_does_not_grow_with_the_file(make_way: Callable[[str], Way]) -> None:
    way, size = make_way("signed"), 64 * MB
    way.log(FILE, size=size)
    told, _ = fetching(way, size).communicate(timeout=60)
    assert int(told) < 8 * MB


def test_what_a_killed_download_leaves_is_swept(
    make_way: Callable[[str], Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    way = make_way("folder")
    way.log(FILE)
    spoil(way, stall=600_000)
    with fetching(way, SIZE) as process:
        while not any(path.stat().st_size for path in way.spool.rglob("*.part")):
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
    assert [path.name for path in way.spool.rglob("model*")] == ["model.safetensors.part"]
    assert sweep(way.spool) == 1
    assert not way.spool.exists()
