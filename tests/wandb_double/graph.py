"""GraphQL over the state: each request is parsed, checked against the schema, and executed by the resolvers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLResolveInfo,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    build_schema,
    execute_sync,
    parse,
    validate,
)

from .filters import FilterError
from .state import RefusedError, State

Resolver = Callable[..., object]
R = TypeVar("R", bound=Resolver)
RESOLVERS: dict[tuple[str, str], Resolver] = {}


@dataclass
class Context:
    """What resolvers work on.

    Attributes:
        state: everything the double knows.
        url: where the double is served.
        page_cap: the most that a page holds, whatever was asked for.
        features: names of the server's features that are on.
    """

    state: State
    url: str
    page_cap: int
    features: frozenset[str]


@dataclass
class Result:
    """What a request gives: the HTTP status, the body, and what was wrong with the request itself."""

    status: int
    body: dict[str, Any]
    problems: list[str] = field(default_factory=list)


def resolves(type_name: str, *names: str) -> Callable[[R], R]:
    """Register a function (source, context, **arguments in snake_case) for fields of a type."""

    def register(function: R) -> R:
        for name in names:
            RESOLVERS[type_name, name] = function
        return function

    return register


def snake(name: str) -> str:
    """A GraphQL name as Python writes it: artifactID -> artifact_id."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@cache
def schema() -> GraphQLSchema:
    """The schema of `schema.graphql`; objects of the state know their type by their class."""
    built = build_schema(Path(__file__).with_name("schema.graphql").read_text())
    for name, python in (("ArtifactCollection", {"Collection": "ArtifactSequence"}), ("Creator", {"Run": "Run"})):
        abstract: Any = built.type_map[name]
        abstract.resolve_type = lambda value, _info, _type, python=python: python[type(value).__name__]
    return built


def _resolve(source: object, info: GraphQLResolveInfo, **arguments: object) -> object:
    own = RESOLVERS.get((info.parent_type.name, info.field_name))
    if own is not None:
        return own(source, info.context, **{snake(name): value for name, value in arguments.items()})
    if isinstance(source, Mapping):
        return source[info.field_name]
    return getattr(source, snake(info.field_name))


def run_query(context: Context, query: str, variables: Mapping[str, object], *, may_write: bool) -> Result:
    """Execute a request.

    Args:
        context: the state, and where it is served.
        query: the text of the request.
        variables: its variables.
        may_write: whether the key in use allows mutations.
    """
    document = _checked(query)
    if not isinstance(document, DocumentNode):
        return _invalid(query, document)
    if is_mutation(document) and not may_write:
        return Result(403, {"data": None, "errors": [{"message": "permission denied"}]})
    # Variables that the request does not declare are sent by the SDK, and left out here as by any server.
    result = execute_sync(schema(), document, None, context, dict(variables), field_resolver=_resolve)
    if not result.errors:
        return Result(200, {"data": result.data})
    causes = [error.original_error for error in result.errors]
    refusals = [cause for cause in causes if isinstance(cause, RefusedError)]
    body = {"data": result.data, "errors": [_message(error) for error in result.errors]}
    problems = [
        f"{operation_name(query)}: {error.message} at {error.path}"
        for error, cause in zip(result.errors, causes, strict=True)
        if not isinstance(cause, RefusedError | FilterError)
    ]
    return Result(refusals[0].status if refusals else 200 if not problems else 400, body, problems)


@cache
def _checked(query: str) -> DocumentNode | list[GraphQLError]:
    """The request, or what is wrong with it; the same texts come again and again, and the check takes long."""
    try:
        document = parse(query)
    except GraphQLError as error:
        return [error]
    return validate(schema(), document) or document


def _message(error: GraphQLError) -> dict[str, Any]:
    return {"message": error.message, "path": error.path or []}


def _invalid(query: str, errors: Sequence[GraphQLError]) -> Result:
    messages = [{"message": error.message} for error in errors]
    problems = [f"{operation_name(query)}: {error.message}" for error in errors]
    return Result(400, {"data": None, "errors": messages}, problems)


def operation_name(query: str) -> str:
    """Name of the operation in a request's text, "?" without one."""
    found = re.search(r"\b(?:query|mutation|subscription)\s+(\w+)", query)
    return found[1] if found else "?"


def is_mutation(document: DocumentNode) -> bool:
    """Whether the request writes."""
    operations = (node for node in document.definitions if isinstance(node, OperationDefinitionNode))
    return any(node.operation is OperationType.MUTATION for node in operations)


def page(
    items: Sequence[Any], context: Context, after: str | None, first: int | None, **edge: Callable[[Any], object]
) -> dict[str, object]:
    """A page of a list, as a connection; the cursor is the position.

    Args:
        items: the whole list.
        context: knows the longest page that is given.
        after: cursor of the last item of the page before.
        first: how many are wanted, 50 without a wish.
        edge: further fields of an edge, from its item.
    """
    start = int(after or 0)
    end = min(start + min(50 if first is None else first, context.page_cap), len(items))
    edges = [
        {"node": item, "cursor": str(start + position + 1), **{name: give(item) for name, give in edge.items()}}
        for position, item in enumerate(items[start:end])
    ]
    return {
        "totalCount": len(items),
        "edges": edges,
        "pageInfo": {"endCursor": str(end) if edges else None, "hasNextPage": end < len(items)},
    }
