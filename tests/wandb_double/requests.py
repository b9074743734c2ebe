"""Requests of the SDK made comparable: what they ask for, without what differs from run to run. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
    print_ast,
)

from .server import Call

STREAM = "file_stream"
UNSTABLE = {  # values of variables that say nothing about the request
    "clientID": "client",
    "config": "{}",
    "digest": "0" * 32,
    "host": "host",
    "md5": "MD5 in base64",
    "program": "program",
    "projectId": "<number>",
    "sequenceClientID": "sequence client",
    "summaryMetrics": "{}",
}


@dataclass(frozen=True)
class Shape:
    """What an operation asks for.

    Attributes:
        operation: its name.
        fields: paths of the fields, with the arguments: `project.runs(first: $perPage).edges`.
        variables: the variables that it declares, with their types.
        sent: paths of the keys in the variables that were sent.
    """

    operation: str
    fields: frozenset[str]
    variables: frozenset[str]
    sent: frozenset[str] = frozenset()


def shape_of(request: Mapping[str, Any]) -> Shape:
    """The shape of a recorded request."""
    document = parse(request["query"])
    root = next(node for node in document.definitions if isinstance(node, OperationDefinitionNode))
    variables = frozenset(
        f"{variable.variable.name.value}: {print_ast(variable.type)}" for variable in root.variable_definitions
    )
    fields = frozenset(_paths(root.selection_set, document, ""))
    return Shape(request["operation"], fields, variables, frozenset(request.get("sent", [])))


def _paths(selections: SelectionSetNode, document: DocumentNode, above: str) -> Iterator[str]:
    for node in selections.selections:
        if isinstance(node, FieldNode):
            given = ", ".join(sorted(print_ast(argument) for argument in node.arguments))
            path = above + node.name.value + (f"({given})" if given else "")
            yield path
            if node.selection_set:
                yield from _paths(node.selection_set, document, f"{path}.")
        elif isinstance(node, FragmentSpreadNode):
            fragments = (found for found in document.definitions if isinstance(found, FragmentDefinitionNode))
            fragment = next(found for found in fragments if found.name.value == node.name.value)
            yield from _paths(fragment.selection_set, document, above)
        else:
            inner = getattr(node, "selection_set", None)
            assert isinstance(inner, SelectionSetNode)
            yield from _paths(inner, document, above)


def differences(before: Iterable[Shape], after: Iterable[Shape]) -> list[str]:
    """What differs, a line each: operations, their fields and their variables."""
    old, new = _by_operation(before), _by_operation(after)
    lines = [f"{name}: not asked any more" for name in sorted(old.keys() - new.keys())]
    lines += [f"{name}: new" for name in sorted(new.keys() - old.keys())]
    for name in sorted(old.keys() & new.keys()):
        if old[name] == new[name]:
            continue
        for what, of in (("field", _fields), ("variable", _variables), ("value", _sent)):
            lines += [f"{name}: {what} {one} gone" for one in sorted(of(old[name]) - of(new[name]))]
            lines += [f"{name}: {what} {one} new" for one in sorted(of(new[name]) - of(old[name]))]
        if not any(line.startswith(f"{name}: ") for line in lines):
            lines.append(f"{name}: the same fields and variables in other combinations")
    return lines


def _by_operation(shapes: Iterable[Shape]) -> dict[str, set[Shape]]:
    found: dict[str, set[Shape]] = {}
    for shape in shapes:
        found.setdefault(shape.operation, set()).add(shape)
    return found


def _fields(shapes: set[Shape]) -> set[str]:
    return {path for shape in shapes for path in shape.fields}


def _variables(shapes: set[Shape]) -> set[str]:
    return {variable for shape in shapes for variable in shape.variables}


def _sent(shapes: set[Shape]) -> set[str]:
    return {key for shape in shapes for key in shape.sent}


# Volatile values


def named(value: Any, key: str = "") -> Any:
    """A request's variables with names for what is volatile: `<run>` for a run's id, and so on."""
    if isinstance(value, Mapping):
        return {inner: named(one, inner) for inner, one in value.items()}
    if isinstance(value, list):
        return [named(one, key) for one in value]
    if key in UNSTABLE and value is not None:
        return UNSTABLE[key]
    return name_of_id(value) or _without_hash(value) if isinstance(value, str) else value


def name_of_id(text: str) -> str | None:
    """What an id of the double is called in a recording; None for other texts."""
    if text.startswith("manifest-"):
        return "<manifest>"
    try:
        found = re.fullmatch(r"(\w+):v1:\d+", base64.b64decode(text, validate=True).decode())
    except ValueError:
        return None
    return f"<{found[1].lower()}>" if found else None


def _without_hash(text: str) -> str:
    """Names of media files and of tables' artifacts without their hashes and random parts."""
    return re.sub(r"[0-9a-f]{20}", "0" * 20, text)


def with_ids(value: Any, ids: Mapping[str, object]) -> Any:
    """Recorded variables with the ids of another server in the place of their names."""
    if isinstance(value, Mapping):
        return {key: with_ids(one, ids) for key, one in value.items()}
    if isinstance(value, list):
        return [with_ids(one, ids) for one in value]
    return ids.get(value, value) if isinstance(value, str) else value


def keys_in(value: Any, above: str = "") -> Iterator[str]:
    """Paths of all keys in a request's variables: `input.aliases.alias`."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield f"{above}{key}"
            yield from keys_in(inner, f"{above}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from keys_in(inner, above)


# What comes beside GraphQL


def streamed(calls: Sequence[Call]) -> dict[str, list[str]]:
    """Keys of the streams, and the files in them."""
    bodies = [call.variables for call in calls if call.operation == STREAM]
    files = {name for body in bodies for name in body.get("files") or {}}
    return {"keys": sorted({key for body in bodies for key in body}), "files": sorted(files)}


def paths(calls: Sequence[Call]) -> list[str]:
    """Methods and paths of all requests, with names for what is volatile, and without the names of files."""
    return sorted({f"{call.method} {_path(call.path)}" for call in calls})


def _path(path: str) -> str:
    parts = [name_of_id(part) or part for part in path.split("/")]
    text = "/".join("<hex>" if re.fullmatch(r"[0-9a-f]{32}", part) else part for part in parts)
    kinds: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (r"^/files/[^/]+/[^/]+/[^/]+/file_stream$", "/files/<entity>/<project>/<run>/file_stream"),
        (r"^/(files|upload/run)/[^/]+/[^/]+/[^/]+/.+", lambda found: f"/{found[1]}/<entity>/<project>/<run>/<name>"),
        (r"^/store/<artifact>/.+", "/store/<artifact>/<name>"),
        (
            r"^/artifactsV2/([^/]+)/[^/]+/[^/]+/[^/]+/(.*)/[^/]+$",
            r"/artifactsV2/\1/<entity>/<project>/<name>/\2/<name>",
        ),
    ]
    for pattern, kind in kinds:
        if re.search(pattern, text):
            return re.sub(pattern, kind, text)
    return text


def recorded(calls: Sequence[Call]) -> list[dict[str, Any]]:
    """The GraphQL requests, each text once, in a stable order, with an example of the variables and all their keys."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for call in calls:
        if call.query is None or call.operation is None:
            continue
        key = (call.operation, print_ast(parse(call.query)))
        fresh = {"operation": key[0], "query": key[1], "variables": named(call.variables), "sent": []}
        request = found.setdefault(key, fresh)
        request["sent"] = sorted({*request["sent"], *keys_in(call.variables)})
    return [found[key] for key in sorted(found)]


def to_json(recording: Mapping[str, Any]) -> str:
    """A recording as the file holds it."""
    return json.dumps(recording, indent=1, sort_keys=True) + "\n"
