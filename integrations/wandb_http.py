"""Reading addresses that W&B gives: signed ones of its bucket, and its own, which alone get the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import requests

from integrations.wandb_connection import WandbConnection

_SECONDS: Final = (10, 60)
"""For a connection, and for each piece of an answer."""
_AS_STORED: Final = {"Accept-Encoding": "identity"}


@contextmanager
def get(connection: WandbConnection, address: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
    """The answer to a GET, of which nothing was read yet.

    The key goes to W&B's own host alone; where that leads to another host, requests leaves it out.

    Args:
        connection: Knows the key.
        address: Absolute, or a path on W&B's own host.
        headers: To send.
    """
    url = connection.absolute(address)
    key = connection.key if connection.is_own(url) else ""
    # Without a key of ours, none that requests might find in a netrc file: a signed address is refused with two.
    auth = requests.auth.HTTPBasicAuth("api", key) if key else _anonymous
    with requests.get(url, headers={**_AS_STORED, **headers}, auth=auth, stream=True, timeout=_SECONDS) as response:
        yield response


def _anonymous(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
