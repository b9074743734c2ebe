"""The W&B double over plain HTTP: keys and roles, ranges of bytes, streams, faults, the log of requests."""

import json
from collections.abc import Iterator

import httpx
import pytest
from wandb_double import Cut, Double, Hang, Lost, Reply
from wandb_double.digests import hex_of

RUNS = """query Runs($filters: JSONString, $order: String, $first: Int, $after: String) {
  project(name: "p", entityName: "ent") {
    runCount(filters: $filters)
    runs(filters: $filters, order: $order, first: $first, after: $after) {
      edges { node { name } cursor }
      pageInfo { endCursor hasNextPage }
    }
  }
}"""
UPSERT = """mutation UpsertBucket($name: String, $entity: String = "ent") {
  upsertBucket(input: {name: $name, modelName: "p", entityName: $entity}) { bucket { id } inserted }
}"""
VIEWER = "query Viewer { viewer { username } }"


@pytest.fixture
def double() -> Iterator[Double]:
    with Double(page_cap=2) as double:
        for number in range(3):
            double.put_run(
                "ent", "p", f"r{number}", config={"lr": number}, created_at=f"2026-01-0{number + 1}T00:00:00Z"
            )
        yield double


@pytest.fixture
def client(double: Double) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=double.url, auth=("api", double.key), timeout=10) as client:
        yield client


def _ask(client: httpx.Client, query: str, **variables: object) -> httpx.Response:
    return client.post("/graphql", json={"query": query, "variables": variables})


def _stream(client: httpx.Client, offset: int, *rows: dict[str, object], **more: object) -> httpx.Response:
    part = {"offset": offset, "content": [json.dumps(row) for row in rows]}
    return client.post("/files/ent/p/r0/file_stream", json={"files": {"wandb-history.jsonl": part}, **more})


# Keys and roles


@pytest.mark.parametrize("auth", [None, ("api", "x" * 40)], ids=["no key", "bad key"])
def test_no_key_or_a_bad_one_is_refused(double: Double, auth: tuple[str, str] | None) -> None:
    double.put_file("ent", "p", "r0", "a.txt", b"a")
    with httpx.Client(base_url=double.url, auth=auth) as client:
        assert _ask(client, VIEWER).status_code == 401
        assert _stream(client, 0, {"_step": 0}).status_code == 401
        assert client.get("/files/ent/p/r0/a.txt").status_code == 401


def test_reader_reads_and_cannot_write(double: Double) -> None:
    before = double.run("ent", "p", "r0")
    with httpx.Client(base_url=double.url, auth=("api", double.read_key)) as client:
        assert _ask(client, RUNS).json()["data"]["project"]["runCount"] == 3
        assert _ask(client, UPSERT, name="new").status_code == 403
        assert _stream(client, 0, {"_step": 0}).status_code == 403
    assert not double.has_run("ent", "p", "new")
    assert double.run("ent", "p", "r0") == before
    assert double.problems == []


def test_log_of_requests_has_no_keys(double: Double, client: httpx.Client) -> None:
    _ask(client, RUNS, filters='{"state": "finished"}')
    _stream(client, 0, {"_step": 0})
    first, second = double.calls
    assert (first.method, first.path, first.operation, first.status) == ("POST", "/graphql", "Runs", 200)
    assert first.query == RUNS
    assert first.variables == {"filters": '{"state": "finished"}'}
    assert (second.operation, second.path, second.status) == ("file_stream", "/files/ent/p/r0/file_stream", 200)
    assert double.key not in repr(double.calls)
    assert double.operations() == ["Runs", "file_stream"]


# Runs


def test_filters_orders_and_pages_with_a_cap(client: httpx.Client) -> None:
    first = _ask(client, RUNS, order="-created_at", first=50).json()["data"]["project"]["runs"]
    assert [edge["node"]["name"] for edge in first["edges"]] == ["r2", "r1"]
    assert first["pageInfo"] == {"endCursor": "2", "hasNextPage": True}
    second = _ask(client, RUNS, order="-created_at", after="2").json()["data"]["project"]["runs"]
    assert [edge["node"]["name"] for edge in second["edges"]] == ["r0"]
    assert not second["pageInfo"]["hasNextPage"]
    chosen = _ask(client, RUNS, filters='{"config.lr": {"$gte": 1}}', order="+created_at").json()["data"]["project"]
    assert chosen["runCount"] == 2
    assert [edge["node"]["name"] for edge in chosen["runs"]["edges"]] == ["r1", "r2"]


def test_wrong_filter_is_an_error_that_is_no_drift(double: Double, client: httpx.Client) -> None:
    answer = _ask(client, RUNS, filters='{"colour": 1}')
    assert "runs have no field 'colour'" in answer.json()["errors"][0]["message"]
    assert double.problems == []


def test_id_of_a_deleted_run_stays_taken(double: Double, client: httpx.Client) -> None:
    double.delete_run("ent", "p", "r0")
    answer = _ask(client, UPSERT, name="r0")
    assert answer.status_code == 409
    message = answer.json()["errors"][0]["message"]
    assert message == "run ent/p/r0 was previously created and deleted; try a new run name"
    assert _stream(client, 0, {"_step": 0}).status_code == 404
    assert _ask(client, UPSERT, name="r0-2").json()["data"]["upsertBucket"]["inserted"]


def test_entities_are_not_made_by_runs(double: Double, client: httpx.Client) -> None:
    answer = _ask(client, UPSERT, name="new", entity="nobody")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["message"] == "entity nobody not found during upsertBucket"
    assert double.problems == []


def test_streams_write_at_their_offsets(double: Double, client: httpx.Client) -> None:
    assert _stream(client, 0, {"_step": 0, "a": 1}, {"_step": 1, "a": 2}).status_code == 200
    assert double.run("ent", "p", "r0")["state"] == "running"
    _stream(client, 1, {"_step": 1, "a": 3}, complete=True, exitcode=1)
    found = double.run("ent", "p", "r0")
    assert found["history"] == [{"_step": 0, "a": 1}, {"_step": 1, "a": 3}]
    assert (found["state"], found["exit_code"]) == ("failed", 1)


def test_strange_streams_are_remembered(double: Double, client: httpx.Client) -> None:
    assert client.post("/files/ent/p/r0/file_stream", json={"files": {}, "colour": 1}).status_code == 400
    assert client.get("/unheard/of").status_code == 404
    assert [problem.split(":")[0] for problem in double.problems] == ["/files/ent/p/r0/file_stream", "no such path"]


# Bytes


def test_ranges_of_bytes(double: Double, client: httpx.Client) -> None:
    artifact = double.put_artifact("ent", "p", "r0", "model", {"dir/w.bin": b"0123456789"})
    path = f"/store/{artifact.id}/dir/w.bin"
    whole = client.get(path)
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    for asked, got, named in [
        ("bytes=3-", b"3456789", "bytes 3-9/10"),
        ("bytes=3-5", b"345", "bytes 3-5/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=8-100", b"89", "bytes 8-9/10"),
    ]:
        part = client.get(path, headers={"Range": asked, "If-Range": whole.headers["ETag"]})
        assert (part.status_code, part.content) == (206, got)
        assert part.headers["Content-Range"] == named
    assert client.get(path, headers={"Range": "bytes=10-"}).status_code == 416
    changed = client.get(path, headers={"Range": "bytes=3-", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, b"0123456789")
    head = client.head(path)
    assert (head.headers["Content-Length"], head.content) == ("10", b"")


@pytest.mark.parametrize("algorithm", ["MD5", "XXH128"])
def test_bytes_by_digest(double: Double, client: httpx.Client, algorithm: str) -> None:
    artifact = double.put_artifact("ent", "p", "r0", "model", {"w.bin": b"weights"}, algorithm=algorithm)
    wanted = hex_of(str(artifact.contents["w.bin"]["digest"]))
    base = "/artifactsV2/default/ent/p/model"
    for path in (f"{base}/{artifact.id}/{artifact.id}/{wanted}/w.bin", f"{base}/{artifact.id}/{wanted}/w.bin"):
        assert client.get(path).content == b"weights"
    assert client.get(f"{base}/{artifact.id}/{'0' * 32}/w.bin").status_code == 404


def test_upload_with_another_md5_is_refused(double: Double, client: httpx.Client) -> None:
    artifact = double.put_artifact("ent", "p", "r0", "model", {"w.bin": b"weights"})
    path = f"/store/{artifact.id}/w.bin"
    assert client.put(path, content=b"torn", headers={"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}).status_code == 400
    assert client.get(path).content == b"weights"


# Faults


def test_faults_come_one_by_one_and_for_what_they_name(double: Double, client: httpx.Client) -> None:
    double.fault("Runs", 503, Reply(429, '{"error":"slow down"}', {"Retry-After": "1"}))
    assert _ask(client, VIEWER).status_code == 200
    assert _ask(client, RUNS).status_code == 503
    limited = _ask(client, RUNS)
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "1")
    assert _ask(client, RUNS).status_code == 200
    double.put_file("ent", "p", "r0", "a.txt", b"a")
    double.fault("/files/ent/p/r0/", 500)
    assert client.get("/files/ent/p/r0/a.txt").status_code == 500
    assert client.get("/files/ent/p/r0/a.txt").content == b"a"
    assert [call.status for call in double.calls] == [200, 503, 429, 200, 500, 200]


def test_swallowed_streams_are_swallowed_until_healed(double: Double, client: httpx.Client) -> None:
    double.swallow_streams()
    assert [_stream(client, 0, {"_step": 0}).status_code for _ in range(3)] == [404, 404, 404]
    assert double.run("ent", "p", "r0")["history"] == []
    double.heal()
    assert _stream(client, 0, {"_step": 0}).status_code == 200


def test_cut_answer_ends_early(double: Double, client: httpx.Client) -> None:
    double.put_file("ent", "p", "r0", "a.txt", b"0123456789")
    double.fault("/files/", Cut(after=4))
    got = bytearray()
    with client.stream("GET", "/files/ent/p/r0/a.txt") as answer, pytest.raises(httpx.RemoteProtocolError):
        got.extend(byte for piece in answer.iter_raw() for byte in piece)
    assert got == b"0123"
    assert double.calls[-1].status == 0


def test_lost_answer_was_done(double: Double, client: httpx.Client) -> None:
    double.fault("UpsertBucket", Lost())
    with pytest.raises(httpx.RemoteProtocolError):
        _ask(client, UPSERT, name="new")
    assert double.has_run("ent", "p", "new")
    assert double.calls[-1].status == 0


def test_hanging_answer_comes_late_or_not_at_all(double: Double, client: httpx.Client) -> None:
    double.fault("Viewer", Hang(30.0), Hang(0.05))
    with pytest.raises(httpx.ReadTimeout):
        client.post("/graphql", json={"query": VIEWER}, timeout=0.2)
    assert _ask(client, VIEWER).status_code == 200


def test_call_in_the_middle_is_made_once(double: Double, client: httpx.Client) -> None:
    double.on("file_stream", lambda: double.delete_run("ent", "p", "r0"))
    assert _ask(client, VIEWER).status_code == 200
    assert double.has_run("ent", "p", "r0")
    assert _stream(client, 0, {"_step": 0}).status_code == 404
    assert _stream(client, 0, {"_step": 0}).status_code == 404
    assert not double.has_run("ent", "p", "r0")


def test_plain_data_does_not_change_later(double: Double, client: httpx.Client) -> None:
    before = double.run("ent", "p", "r0")
    _stream(client, 0, {"_step": 0})
    assert before["history"] == []
    assert double.run("ent", "p", "r0")["history"] == [{"_step": 0}]
