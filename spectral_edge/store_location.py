"""Where a store lies: a local folder, or a prefix in an S3 bucket."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pyarrow import fs

from spectral_edge.errors import UsageError

# deltalake 1.6 takes a local path for a URL in part: `%20` is decoded, a backslash becomes a slash, the others abort.
_UNUSABLE: Final = re.compile(r"[%\\\[\]^|\x00-\x1f\x7f]")


@dataclass(frozen=True)
class StoreLocation:
    """Absolute path of a folder, or `s3://bucket/prefix` without a slash at its end.

    Credentials, region and endpoint of S3 come from the standard AWS variables: AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION or AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3 or
    AWS_ENDPOINT_URL. Unencrypted HTTP is used only with an endpoint that starts with http://.
    """

    root: str

    @classmethod
    def of(cls, uri: str | Path) -> StoreLocation:
        """The location `uri` names.

        Raises:
            UsageError: Neither a folder nor an s3:// address, or a folder name that deltalake cannot use.
        """
        text = str(uri)
        scheme, separator, rest = text.partition("://")
        if separator and scheme == "s3" and rest.strip("/"):
            return cls(f"s3://{rest.strip('/')}")
        if separator or not text.strip():
            raise UsageError(
                f"`store` must be a folder or s3://BUCKET/PREFIX, got {text!r}.",
                next_step="name one with --store, or leave it out for ./spectral-edge-store",
            )
        path = str(Path(text).expanduser().absolute())
        if unusable := _UNUSABLE.search(path):
            raise UsageError(
                f"`store` cannot lie below a folder with {unusable.group()!r} in its name, got {path!r}.",
                next_step="name another folder with --store",
            )
        return cls(path)

    @property
    def is_local(self) -> bool:
        """Whether the store is a folder of this machine's file system, where a lock file can be held."""
        return not self.root.startswith("s3://")

    def table_uri(self, table: str) -> str:
        """Address of the Delta table `table`."""
        return f"{self.root}/{table}"

    def storage_options(self) -> dict[str, str]:
        """What deltalake needs beyond the AWS variables that it reads by itself; empty for a folder."""
        if self.is_local:
            return {}
        options = {
            "AWS_ENDPOINT_URL": _endpoint(),
            "AWS_REGION": _region(),
            "AWS_ALLOW_HTTP": "true" if _endpoint().startswith("http://") else "",
        }
        return {name: value for name, value in options.items() if value}

    def filesystem(self) -> fs.FileSystem:
        """A native file system rooted at the store.

        deltalake's own one calls back into Python from Arrow's threads; measured with deltalake 1.6 and pyarrow 25,
        every second process that had used it died with SIGABRT at its exit.
        """
        if self.is_local:
            return fs.SubTreeFileSystem(self.root, fs.LocalFileSystem())
        endpoint = urlsplit(_endpoint())
        options = {
            "endpoint_override": endpoint.netloc,
            "scheme": endpoint.scheme,
            "region": _region(),
        }
        remote = fs.S3FileSystem(**{name: value for name, value in options.items() if value})
        return fs.SubTreeFileSystem(self.root.removeprefix("s3://"), remote)

    def entries(self, folder: str = "") -> frozenset[str]:
        """Names directly inside `folder`, a path relative to the store; none when it does not exist."""
        selector = fs.FileSelector(folder, allow_not_found=True)
        return frozenset(entry.base_name for entry in self.filesystem().get_file_info(selector))


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
