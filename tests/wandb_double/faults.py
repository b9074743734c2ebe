"""Faults that a test orders for requests to come, and calls that a test wants made in the middle of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reply:
    """An answer over HTTP, instead of the double's own or as its own."""

    status: int
    body: bytes | str = '{"error":"ordered by the test"}'
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        """The body's bytes."""
        return self.body.encode() if isinstance(self.body, str) else self.body


@dataclass(frozen=True)
class Cut:
    """The request is done, and the connection closed after so many bytes of the answer's body."""

    after: int = 0


@dataclass(frozen=True)
class Hang:
    """The request is done and answered, after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Lost:
    """The request is done, and nothing of the answer arrives."""


Response = int | Reply | Cut | Hang | Lost


@dataclass
class _Order:
    match: str
    responses: list[Response]
    forever: bool = False

    def take(self) -> Response:
        return self.responses[0] if self.forever else self.responses.pop(0)


class Faults:
    """Orders, each for an operation's name or for a path's beginning ("/files/")."""

    def __init__(self) -> None:
        self._orders: list[_Order] = []
        self._calls: list[tuple[str, Callable[[], object]]] = []
        self._lock = threading.Lock()

    def fault(self, match: str, *responses: Response, forever: bool = False) -> None:
        """Answer the next requests that match with these responses, one each.

        Args:
            match: name of a GraphQL operation, or a path's beginning with its slash.
            responses: a number is an HTTP status.
            forever: the first response holds for all requests to come.
        """
        with self._lock:
            self._orders.append(_Order(match, list(responses), forever))

    def swallow_streams(self) -> None:
        """From now on file streams are answered by 404, which the SDK takes without a word."""
        self.fault("file_stream", 404, forever=True)

    def heal(self) -> None:
        """Forget all orders."""
        with self._lock:
            self._orders.clear()
            self._calls.clear()

    def on(self, match: str, call: Callable[[], object]) -> None:
        """Make a call right before the next request that matches is served, once."""
        with self._lock:
            self._calls.append((match, call))

    def take_call(self, operation: str | None, path: str) -> Callable[[], object] | None:
        """The call ordered for this request."""
        with self._lock:
            for order in self._calls:
                if _meant(order[0], operation, path):
                    self._calls.remove(order)
                    return order[1]
        return None

    def take_fault(self, operation: str | None, path: str) -> Response | None:
        """The response ordered for this request."""
        with self._lock:
            for order in self._orders:
                if order.responses and _meant(order.match, operation, path):
                    return order.take()
        return None


def _meant(match: str, operation: str | None, path: str) -> bool:
    return path.startswith(match) if match.startswith("/") else match == operation
