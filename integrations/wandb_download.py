"""Files that W&B has, or knows the web address of, as sources of downloads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Self

import requests

from integrations import download
from integrations.download import Answer, Wanted
from integrations.download_digest import Digest
from integrations.download_http import answer_of, broken_connections, raise_for_status
from integrations.wandb_connection import WandbConnection
from integrations.wandb_http import get

_EXPIRED: Final = frozenset({400, 401, 403})
"""What stores answer to an address whose time is up."""


@dataclass
class WandbFile:
    """A file at an address that holds for some minutes; a `Source`.

    Attributes:
        connection: Knows the key.
        wanted: Which file.
        address: Where it was to be had when this was made.
        renew: Asks for another address.
        digest: Of its bytes, where W&B tells it.
        in_ranges: Whether ranges of it may be asked for at once.
    """

    connection: WandbConnection
    wanted: Wanted
    address: str
    renew: Callable[[], str | None] = lambda: None
    digest: Digest | None = None
    in_ranges: bool = False

    def ready(self, *, ranged: bool = False) -> Self:
        """This file, once it is known whether its store gives ranges; asked where these matter."""
        if self.wanted.size > download.RANGE or (ranged and self.wanted.size):
            with self.answer({"Range": "bytes=0-0"}) as response:
                self.in_ranges = response.status_code == HTTPStatus.PARTIAL_CONTENT
        return self

    @contextmanager
    def open(self, start: int, stop: int, _etag: str | None) -> Iterator[Answer]:
        """See `Source.open`."""
        # The first bytes of a file that comes in one piece are asked for without a range, which no store refuses.
        ranged = stop > start and (start > 0 or self.in_ranges)
        with self.answer({"Range": f"bytes={start}-{stop - 1}"} if ranged else {}) as response:
            yield answer_of(response, self.wanted)

    @contextmanager
    def answer(self, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        """What the store sends; a new address is asked for when the time of the last one is up."""
        with (
            self.connection.errors(run=self.wanted.run, file=self.wanted.path),
            broken_connections(self.wanted),
            self._sent(headers) as response,
        ):
            raise_for_status(response, self.wanted)
            yield response

    @contextmanager
    def _sent(self, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        with get(self.connection, self.address, headers) as response:
            renewed = self.renew() if response.status_code in _EXPIRED else None
            if renewed is None:
                yield response
                return
        self.address = renewed
        with get(self.connection, renewed, headers) as response:
            yield response
