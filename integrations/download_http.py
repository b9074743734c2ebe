"""Reading a file's bytes out of an HTTP response, and what its status and failures mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

import requests
import urllib3

from integrations.download import Answer, Wanted
from integrations.download_streams import BLOCK, BusyError

_ERROR_TEXT: Final = 4096
"""Bytes that are read of an error's text."""

_BUSY: Final = frozenset({429, 503})
REPLACED: Final = frozenset({412, 416})
"""The version asked for is not there any more, or ends before the range."""


def answer_of(response: requests.Response, wanted: Wanted) -> Answer:
    """The bytes in `response`, whose status is below 400.

    Raises:
        FetchInterruptedError: It tells another size of the file than the one announced.
    """
    start, size = 0, response.headers.get("Content-Length")
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        header = response.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", header)
        if found is None:
            raise wanted.broken(f"the store sent a range that it calls {header[:80]!r}.")
        start, size = int(found[1]), found[2]
    if size:
        wanted.check_size(int(size))
    # Not decoded: sizes and digests are those of the bytes as they are stored, compressed or not.
    blocks = response.raw.stream(BLOCK, decode_content=False)
    return Answer(start, response.headers.get("ETag"), blocks)


def raise_for_status(response: requests.Response, wanted: Wanted) -> None:
    """Raise what a status of 400 and more means.

    Raises:
        BusyError: It tells when to ask again.
        FetchInterruptedError: The file was replaced.
        requests.HTTPError: Anything else, with the beginning of the response's text.
    """
    if response.status_code < HTTPStatus.BAD_REQUEST:
        return
    if response.status_code in REPLACED:
        raise wanted.replaced()
    what = f"{response.status_code} {response.reason}: {_error_text(response)}"
    wait = response.headers.get("Retry-After", "")
    if response.status_code in _BUSY and wait.isdecimal():
        busy = BusyError(f"the server answered {what}", run=wanted.run, file=wanted.path)
        busy.seconds = float(wait)
        raise busy
    raise requests.HTTPError(what, response=response)


def _error_text(response: requests.Response) -> str:
    """What it says, without markup, and of S3's errors no more than that: the rest repeats keys and signatures."""
    text = response.raw.read(_ERROR_TEXT, decode_content=True).decode(errors="replace")
    told = re.findall(r"<(?:Code|Message)>([^<]*)", text) or [re.sub(r"<[^>]*>", " ", text)]
    return " ".join(" ".join(told).split())[:300]


@contextmanager
def broken_connections(wanted: Wanted) -> Iterator[None]:
    """Turn what breaks inside the block into an error that is tried again; queries of addresses (signed) are cut."""
    try:
        yield
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        text = re.sub(r"\?[^\s'\"),]+", "", str(error))
        raise wanted.broken(f"the connection broke: {text[:300]}.") from None
