"""W&B's SDK asks the server for what it was recorded to ask, and the double knows all of it."""

import copy
from collections.abc import Iterator

import pytest
from graphql import build_client_schema, get_introspection_query, parse, print_schema, validate
from wandb_double import Double
from wandb_double.graph import schema
from wandb_double.record import HOW, kept, record
from wandb_double.requests import Shape, differences, shape_of, with_ids
from wandb_double.scenario import AUDIT, ENTITY, PROJECT, TRAINED, seed_all

RECORDED = kept()
REQUESTS = RECORDED["requests"]

ADVICE = (
    f"If the double still answers rightly (tests/integrations/test_wandb_double_sdk.py), record anew: "
    f"`{HOW}` from the folder tests/, and commit recording.json."
)


@pytest.fixture
def double() -> Iterator[Double]:
    """A double that is not served: requests go straight to the executor."""
    double = Double()
    yield double
    double.http.server_close()


def _ids(double: Double) -> dict[str, object]:
    run = double.state.run(ENTITY, PROJECT, TRAINED)
    artifact = run.outputs[0]
    return {
        "<run>": run.id,
        "<artifact>": artifact.id,
        "<manifest>": f"manifest-{artifact.id}",
        "<file>": run.files["checkpoint.pt"].id,
        "<number>": int(run.project.internal_id),
        "client": "client",
    }


@pytest.mark.parametrize("number", range(len(REQUESTS)), ids=[request["operation"] for request in REQUESTS])
def test_recorded_request_is_answered(number: int, double: Double) -> None:
    request = REQUESTS[number]
    assert validate(schema(), parse(request["query"])) == []
    seed_all(double)
    if request["operation"] == "MarkRunFilesUploaded":
        for name in request["variables"]["files"]:
            double.put_file(ENTITY, PROJECT, request["variables"]["run"], name, b"uploaded")
    answer = double.execute(request["query"], with_ids(request["variables"], _ids(double)))
    assert answer.problems == []
    assert answer.status == 200
    assert "errors" not in answer.body
    assert _nulls(answer.body["data"]) == []


def _nulls(data: dict[str, object]) -> list[str]:
    """Objects at the top, and those just below, that the seeded server should have had."""
    found = [name for name, value in data.items() if value is None]
    inner = [(name, value) for name, value in data.items() if isinstance(value, dict)]
    seeded = {"run", "bucket", "artifactType", "artifactCollection", "artifactCollectionMembership", "currentManifest"}
    return found + [
        f"{name}.{key}" for name, value in inner for key, one in value.items() if one is None and key in seeded
    ]


def test_sdk_asks_as_recorded(tmp_path) -> None:
    fresh = record(tmp_path)
    found = differences(map(shape_of, REQUESTS), map(shape_of, fresh["requests"]))
    found += _listed("path", RECORDED["paths"], fresh["paths"])
    for part in ("keys", "files"):
        found += _listed(f"stream's {part}", RECORDED["stream"][part], fresh["stream"][part])
    versions = f"recorded with wandb {RECORDED['wandb']}, now {fresh['wandb']}"
    assert not found, "\n".join([f"The SDK asks differently ({versions}):", *found, ADVICE])


def _listed(what: str, before: list[str], after: list[str]) -> list[str]:
    gone = [f"{what} {one}: gone" for one in before if one not in after]
    return gone + [f"{what} {one}: new" for one in after if one not in before]


def test_recording_holds_all_that_the_product_does() -> None:
    asked = {request["operation"] for request in REQUESTS}
    listing = {"GetProjects", "Runs", "Run"}
    history = {"RunFullHistory", "RunSampledHistory", "RunHistoryKeys", "HistoryPage", "SampledHistoryPage"}
    checkpoints = {"RunOutputArtifacts", "FetchArtifactManifest", "GetArtifactMembershipFileUrls", "RunFiles"}
    lineage = {"UseArtifact", "ArtifactUsedBy", "ArtifactCreatedBy", "RunInputArtifacts"}
    writing = {"UpsertBucket", "CreateArtifact", "CommitArtifact", "CreateRunFiles", "RunResumeStatus"}
    retracting = {"DeleteRun", "DeleteArtifact", "deleteFiles"}
    assert listing | history | checkpoints | lineage | writing | retracting <= asked
    upserts = [request["variables"] for request in REQUESTS if request["operation"] == "UpsertBucket"]
    assert any(variables.get("name") == AUDIT for variables in upserts)


def test_recording_holds_no_key_and_no_folder(double: Double) -> None:
    text = str(RECORDED)
    assert double.key not in text
    assert "/tmp" not in text
    assert "127.0.0.1" not in text


# Drift would be seen


def _request(operation: str) -> dict[str, object]:
    return copy.deepcopy(next(request for request in REQUESTS if request["operation"] == operation))


def test_a_field_that_the_schema_lacks_is_named(double: Double) -> None:
    answer = double.execute("query Runs { viewer { favouriteColour } }", {})
    assert answer.status == 400
    assert double.problems == ["Runs: Cannot query field 'favouriteColour' on type 'User'."]


def test_an_operation_that_the_schema_lacks_is_named(double: Double) -> None:
    double.execute("mutation Rename { renameRun(id: 1) { id } }", {})
    assert double.problems == ["Rename: Cannot query field 'renameRun' on type 'Mutation'. Did you mean 'deleteRun'?"]


def test_differences_are_named() -> None:
    before = [shape_of(request) for request in REQUESTS]
    runs = _request("Runs")
    runs["query"] = str(runs["query"]).replace("jobType", "jobKind").replace("$order: String", "$order: String!")
    other = [shape_of(runs) if shape == shape_of(_request("Runs")) else shape for shape in before]
    other = [shape for shape in other if shape.operation != "DeleteRun"] + [Shape("Purge", frozenset(), frozenset())]
    found = differences(before, other)
    assert "DeleteRun: not asked any more" in found
    assert "Purge: new" in found
    assert "Runs: variable order: String! new" in found
    assert any(line.startswith("Runs: field ") and line.endswith("jobKind new") for line in found)
    assert differences(before, reversed(before)) == []


def test_values_that_are_sent_otherwise_are_named() -> None:
    request = _request("UpsertBucket")
    changed = {**request, "sent": [*request["sent"], "labels"]}  # type: ignore[misc]
    found = differences([shape_of(request)], [shape_of(changed)])
    assert found == ["UpsertBucket: value labels new"]


def test_schema_answers_introspection(double: Double) -> None:
    answer = double.execute(get_introspection_query(), {})
    assert answer.status == 200
    assert print_schema(build_client_schema(answer.body["data"])) == print_schema(schema())
