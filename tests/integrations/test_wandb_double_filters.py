"""The filters and orders of runs that the W&B double understands: MongoDB's laws hold for them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wandb_double.filters import FilterError, matches, ordered

RUN = {
    "name": "r1",
    "display_name": "warm heron",
    "state": "finished",
    "tags": ["baseline", "v2"],
    "job_type": None,
    "group": "sweep",
    "notes": None,
    "description": None,
    "user": "ent",
    "sweep": None,
    "created_at": "2026-01-15T10:00:00Z",
    "heartbeat_at": "2026-01-15T12:00:00Z",
    "config": {
        "lr": {"value": 0.1, "desc": None},
        "model": {"value": {"layers": 4, "value": "inner"}},
        "a.b": {"value": "dotted"},
        "flag": {"value": True},
    },
    "summary_metrics": {"loss": 0.5, "spectral_edge/status": "ok", "nested": {"k.star": 3}},
}


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"state": "finished"},
        {"state": {"$in": ["running", "finished"]}},
        {"state": {"$ne": "running"}},
        {"tags": "baseline"},
        {"tags": ["baseline", "v2"]},
        {"tags": {"$in": ["v2", "v3"]}},
        {"tags": {"$nin": ["v3"]}},
        {"tags": {"$regex": "^base"}},
        {"jobType": None},
        {"job_type": {"$exists": False}},
        {"group": {"$exists": True}},
        {"displayName": {"$regex": "heron"}},
        {"display_name": "warm heron"},
        {"createdAt": {"$gt": "2026-01-01"}},
        {"created_at": {"$gte": "2026-01-15T11:00:00+01:00", "$lt": "2026-01-15T10:00:01"}},
        {"heartbeatAt": {"$lte": "2026-01-15T12:00:00Z"}},
        {"config.lr": 0.1},
        {"config.lr.value": {"$gte": 0.1}},
        {"config.model.layers": 4},
        {"config.model.value.layers": 4},
        {"config.a.b": "dotted"},
        {"config.a.b.value": "dotted"},
        {"config.flag": True},
        {"config.flag": {"$ne": 1}},
        {"config.nothing": {"$exists": False}},
        {"config.nothing": None},
        {"summary_metrics.loss": {"$lt": 1, "$gt": 0}},
        {"summary_metrics.spectral_edge/status": "ok"},
        {"summary_metrics.nested.k.star": 3},
        {"summaryMetrics.loss": {"$not": {"$gt": 1}}},
        {"username": "ent"},
        {"$and": [{"state": "finished"}, {"$or": [{"group": "x"}, {"group": "sweep"}]}]},
        {"$nor": [{"state": "running"}, {"group": "x"}]},
        {"$not": {"state": "running"}},
    ],
    ids=json.dumps,
)
def test_run_passes_and_its_opposite_does_not(condition: dict[str, object]) -> None:
    assert matches(RUN, condition)
    assert not matches(RUN, {"$not": condition})


@pytest.mark.parametrize(
    "condition",
    [
        {"state": {"$gt": 1}},
        {"config.lr": {"$gt": "0"}},
        {"config.nothing": {"$lt": 1}},
        {"config.nothing": {"$in": [1]}},
        {"jobType": {"$regex": ""}},
        {"config.flag": 1},
        {"config.lr": "0.1"},
    ],
    ids=json.dumps,
)
def test_values_of_other_kinds_do_not_compare(condition: dict[str, object]) -> None:
    assert not matches(RUN, condition)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"stat": "finished"}, "no field 'stat'"),
        ({"state": {"$like": "f"}}, r"unknown operator \$like"),
        ({"$xor": []}, r"unknown operator \$xor"),
        ({"$and": []}, "not empty"),
        ({"$or": {"state": "finished"}}, "takes a list"),
        ({"state": {"$in": "finished"}}, "takes a list"),
        ({"createdAt": {"$gt": "yesterday"}}, "not a time"),
        ({"tags.first": "x"}, "does not name a key"),
        ([], "is an object"),
    ],
)
def test_filter_that_the_server_would_not_take(condition: object, words: str) -> None:
    with pytest.raises(FilterError, match=words):
        matches(RUN, condition)


VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.5]) | st.sampled_from("ab")
RUNS = st.builds(
    lambda lr, loss, tags, state: {
        **RUN,
        "config": {"lr": {"value": lr}} if lr is not None else {},
        "summary_metrics": {"loss": loss} if loss is not None else {},
        "tags": tags,
        "state": state,
    },
    VALUES,
    VALUES,
    st.lists(st.sampled_from("abc"), max_size=2),
    st.sampled_from(["running", "finished", "failed"]),
)
FIELDS = st.sampled_from(["config.lr", "config.lr.value", "summary_metrics.loss", "tags", "state", "config.gone"])
PLAIN = st.builds(lambda field, value: {field: value}, FIELDS, VALUES)
COMPARED = st.builds(
    lambda field, word, value: {field: {word: value}},
    FIELDS,
    st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$exists"]),
    VALUES,
)
LISTED = st.builds(
    lambda field, word, values: {field: {word: values}}, FIELDS, st.sampled_from(["$in", "$nin"]), st.lists(VALUES)
)
CONDITIONS = st.recursive(
    PLAIN | COMPARED | LISTED,
    lambda inner: (
        st.builds(
            lambda word, parts: {word: parts}, st.sampled_from(["$and", "$or", "$nor"]), st.lists(inner, min_size=1)
        )
        | st.builds(lambda part: {"$not": part}, inner)
    ),
    max_leaves=8,
)


@given(RUNS, CONDITIONS)
def test_not_is_the_opposite(run: dict[str, object], condition: dict[str, object]) -> None:
    assert matches(run, {"$not": condition}) != matches(run, condition)


@given(RUNS, st.lists(CONDITIONS, min_size=1, max_size=4))
def test_and_or_nor(run: dict[str, object], conditions: list[dict[str, object]]) -> None:
    each = [matches(run, condition) for condition in conditions]
    assert matches(run, {"$and": conditions}) == all(each)
    assert matches(run, {"$or": conditions}) == any(each)
    assert matches(run, {"$nor": conditions}) != any(each)


@given(RUNS, FIELDS, st.lists(VALUES, max_size=4))
def test_in_is_any_equal(run: dict[str, object], field: str, values: list[object]) -> None:
    equal = any(matches(run, {field: value}) for value in values)
    assert matches(run, {field: {"$in": values}}) == equal
    assert matches(run, {field: {"$nin": values}}) != equal


@given(RUNS, FIELDS, VALUES)
def test_equality_by_each_way(run: dict[str, object], field: str, value: object) -> None:
    assert matches(run, {field: value}) == matches(run, {field: {"$eq": value}})
    assert matches(run, {field: value}) != matches(run, {field: {"$ne": value}})


@given(RUNS, st.integers(-3, 3) | st.sampled_from("abc"))
def test_orders_agree_with_python(run: dict[str, object], bound: int | str) -> None:
    held = run["config"]
    assert isinstance(held, dict)
    lr = held.get("lr", {}).get("value")
    numbers = isinstance(bound, int) and isinstance(lr, int | float) and not isinstance(lr, bool)
    comparable = numbers or (isinstance(bound, str) and isinstance(lr, str))
    assert matches(run, {"config.lr": {"$gt": bound}}) == (comparable and lr > bound)  # type: ignore[operator]
    assert matches(run, {"config.lr": {"$lte": bound}}) == (comparable and lr <= bound)  # type: ignore[operator]


@given(RUNS, CONDITIONS)
def test_filters_come_as_json(run: dict[str, object], condition: dict[str, object]) -> None:
    assert matches(run, json.loads(json.dumps(condition))) == matches(run, condition)


@given(st.lists(st.none() | st.integers(-3, 3), max_size=8))
def test_order_rises_falls_and_keeps_ties(losses: list[int | None]) -> None:
    runs = [
        {**RUN, "name": number, "summary_metrics": {"loss": loss} if loss is not None else {}}
        for number, loss in enumerate(losses)
    ]
    having = [(loss, number) for number, loss in enumerate(losses) if loss is not None]
    lacking = [number for number, loss in enumerate(losses) if loss is None]
    rising = [number for _, number in sorted(having)]
    falling = [number for _, number in sorted(having, key=lambda pair: (-pair[0], pair[1]))]
    assert [run["name"] for run in ordered(runs, "+summary_metrics.loss", dict)] == rising + lacking
    assert [run["name"] for run in ordered(runs, "-summary_metrics.loss", dict)] == falling + lacking


def test_order_by_time_and_by_several_keys() -> None:
    runs = [
        {**RUN, "name": name, "created_at": when, "state": state}
        for name, when, state in [("a", "2026-01-02", "b"), ("b", "2026-01-01", "a"), ("c", "2026-01-03", "a")]
    ]
    names = [run["name"] for run in ordered(runs, "+created_at", dict)]
    assert names == ["b", "a", "c"]
    assert [run["name"] for run in ordered(runs, None, dict)] == ["c", "a", "b"]
    assert [run["name"] for run in ordered(runs, "+state,-created_at", dict)] == ["c", "b", "a"]
    with pytest.raises(FilterError, match="no field 'colour'"):
        ordered(runs, "+colour", dict)
