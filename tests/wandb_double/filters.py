"""W&B's filters of runs: MongoDB's words over the fields of a run. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

T = TypeVar("T")
MISSING = object()
Document = Mapping[str, object]

FIELDS = {
    "displayName": "display_name",
    "jobType": "job_type",
    "createdAt": "created_at",
    "heartbeatAt": "heartbeat_at",
    "summaryMetrics": "summary_metrics",
    "summary": "summary_metrics",
    "username": "user",
}
TIMES = ("created_at", "heartbeat_at")
TREES = ("config", "summary_metrics")


class FilterError(ValueError):
    """A filter that the server would not understand."""


def matches(document: Document, condition: object) -> bool:
    """Whether a run passes the filter.

    Args:
        document: a run's fields in snake_case; `config` as the server holds it ({key: {"value": value}}).
        condition: the filter, an object in MongoDB's words.

    Raises:
        FilterError: the filter has an unknown operator or a wrong shape, or names an unknown field.
    """
    if not isinstance(condition, Mapping):
        raise FilterError(f"a filter is an object, got {condition!r}")
    return all(_clause(document, key, value) for key, value in condition.items())


def _clause(document: Document, key: str, value: object) -> bool:
    if key in ("$and", "$or", "$nor"):
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise FilterError(f"{key} takes a list of filters that is not empty, got {value!r}")
        results = [matches(document, one) for one in value]
        return all(results) if key == "$and" else any(results) == (key == "$or")
    if key == "$not":
        return not matches(document, value)
    if key.startswith("$"):
        raise FilterError(f"unknown operator {key}")
    name, found = field_of(document, key)
    prepare = _moment if name in TIMES else _same
    if isinstance(value, Mapping) and any(word.startswith("$") for word in value):
        return _holds(prepare(found), value, prepare)
    return _equal(prepare(found), prepare(value))


def field_of(document: Document, key: str) -> tuple[str, object]:
    """Name and value of the field that a filter or an order names; the value is MISSING where the run has none.

    Raises:
        FilterError: runs have no such field.
    """
    head, *path = key.split(".")
    name = FIELDS.get(head, head)
    if name not in document:
        raise FilterError(f"runs have no field {key!r} to filter by")
    if not path:
        return name, document[name]
    if name not in TREES:
        raise FilterError(f"{key!r} does not name a key of config or summary_metrics")
    return name, _at(document[name], path, unwrap=name == "config")


def _at(tree: object, path: Sequence[str], *, unwrap: bool) -> object:
    """The value at a dotted path, where keys may hold dots themselves, and `config.x` means `config.x.value`."""
    if not path:
        return tree
    if not isinstance(tree, Mapping):
        return MISSING
    for length in range(len(path), 0, -1):
        key, rest = ".".join(path[:length]), path[length:]
        if key not in tree:
            continue
        inner = tree[key]
        if unwrap and isinstance(inner, Mapping) and "value" in inner:
            inner, rest = inner["value"], rest[1:] if rest[:1] == ["value"] else rest
        found = _at(inner, rest, unwrap=False)
        if found is not MISSING:
            return found
    return MISSING


def _holds(found: object, words: Document, prepare: Callable[[object], object]) -> bool:
    return all(_operator(found, word, value, prepare) for word, value in words.items())


def _operator(found: object, word: str, value: object, prepare: Callable[[object], object]) -> bool:
    if word == "$not":
        if not isinstance(value, Mapping):
            raise FilterError(f"$not takes operators, got {value!r}")
        return not _holds(found, value, prepare)
    if word == "$exists":
        return (found is not MISSING and found is not None) == bool(value)
    if word == "$regex":
        return any(isinstance(one, str) and re.search(str(value), one) for one in _each(found))
    if word in ("$in", "$nin"):
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise FilterError(f"{word} takes a list, got {value!r}")
        return any(_equal(found, prepare(one)) for one in value) == (word == "$in")
    if word in ("$eq", "$ne"):
        return _equal(found, prepare(value)) == (word == "$eq")
    if word not in ORDERED:
        raise FilterError(f"unknown operator {word}")
    wanted = prepare(value)
    return any(_comparable(one, wanted) and ORDERED[word](one, wanted) for one in _each(found))


ORDERED: dict[str, Callable[..., bool]] = {
    "$gt": lambda a, b: a > b,
    "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b,
    "$lte": lambda a, b: a <= b,
}


def _each(found: object) -> Sequence[object]:
    return found if isinstance(found, list) else [found]


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _comparable(a: object, b: object) -> bool:
    return (_number(a) and _number(b)) or (type(a) is type(b) and isinstance(a, str | bool | datetime))


def _equal(found: object, wanted: object) -> bool:
    if wanted is None:
        return found is None or found is MISSING
    if isinstance(found, list) and not isinstance(wanted, list):
        return any(_equal(one, wanted) for one in found)
    if _number(found) and _number(wanted):
        return found == wanted
    return type(found) is type(wanted) and found == wanted


def _same(value: object) -> object:
    return value


def _moment(value: object) -> object:
    """A time, from the ISO text that filters and runs hold."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise FilterError(f"not a time: {value!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def ordered(items: Sequence[T], order: str | None, document: Callable[[T], Document]) -> list[T]:
    """Items in the order that `+created_at`, `-summary_metrics.loss` and the like ask for.

    Runs that lack the value come last either way.

    Raises:
        FilterError: runs have no such field.
    """
    ranked = list(items)
    for part in reversed((order or "-created_at").split(",")):
        falling, key = part.startswith("-"), part.strip().lstrip("+-")
        having: list[tuple[tuple[int, float, str], T]] = []
        lacking: list[T] = []
        for item in ranked:
            value = field_of(document(item), key)[1]
            if value is None or value is MISSING:
                lacking.append(item)
            else:
                having.append((_rank(value), item))
        having.sort(key=lambda pair: pair[0], reverse=falling)
        ranked = [pair[1] for pair in having] + lacking
    return ranked


def _rank(value: object) -> tuple[int, float, str]:
    return (0, float(str(value)), "") if _number(value) else (1, 0.0, str(value))
