"""Who we are to a tracker: where each secret comes from, and that it is told to that tracker alone.

A secret is known by its place (a variable, a file), read when a request needs it, and cut out of all messages from then
on. Places may be shown, recorded and sent to another process; the secrets never travel.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from integrations.file_errors import file_errors
from integrations.http_errors import hide
from spectral_edge.errors import AccessDeniedError, UsageError


class Secret(Protocol):
    """A secret, by the place it is kept in."""

    @property
    def place(self) -> str:
        """The place, for people: `environment variable PROD_TOKEN`."""
        ...

    def reveal(self) -> str:
        """The secret, read now; never empty. Messages leave it out from now on.

        Raises:
            AccessDeniedError: It is not there, or may not be read; the message says where it was looked for.
        """
        ...


@dataclass(frozen=True)
class Open:
    """What is no secret, where one could be: the name of a user, written in the settings."""

    text: str
    place: str = "the settings"

    def reveal(self) -> str:
        """The text; messages may hold it."""
        return self.text


@dataclass(frozen=True)
class FromEnvironment:
    """A secret in a variable of the environment."""

    name: str

    @property
    def place(self) -> str:
        """See `Secret`."""
        return f"environment variable {self.name}"

    def reveal(self) -> str:
        """See `Secret`."""
        return hidden(os.environ.get(self.name, ""), self.place, f"set {self.name} where the audit runs.")


@dataclass(frozen=True)
class FromFile:
    """A secret that is all of a file, without the white space around it. Read each time: tokens are renewed."""

    path: Path

    @property
    def place(self) -> str:
        """See `Secret`."""
        return f"file {self.path}"

    def reveal(self) -> str:
        """See `Secret`.

        Raises:
            AccessDeniedError: Others than its owner may write it, or may read it and are not of its group.
        """
        with file_errors(file=str(self.path)):
            mode = self.path.stat().st_mode
            told = self.path.read_text(encoding="utf-8", errors="replace")
        if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
            raise AccessDeniedError(
                f"this secret can be read or changed by others (mode {stat.S_IMODE(mode):04o}).",
                file=str(self.path),
                next_step=f"chmod 600 {self.path} (0640 will do where a group is to read it).",
            )
        return hidden(told.strip(), self.place, f"write the secret to {self.path}.")


def hidden(secret: str, place: str, next_step: str) -> str:
    """`secret`, which is cut out of all messages from now on.

    Raises:
        AccessDeniedError: It is empty, or holds what no header can.
    """
    if not secret:
        raise AccessDeniedError(f"{place} is empty or not set.", next_step=next_step)
    hide(secret)
    if not secret.isprintable():
        raise AccessDeniedError(f"{place} holds line breaks or control characters.", next_step=next_step)
    return secret


@dataclass(frozen=True)
class MlflowAccess:
    """Who we are to one MLflow server, and whom we take for it.

    Attributes:
        uri: The server, database or folder, without secrets.
        username: For basic authentication, and for databases.
        password: Likewise.
        token: Sent as a bearer.
        ca_file: Certificates of those who may vouch for the server; None is what MLflow does by itself.
    """

    uri: str
    username: Secret | None = None
    password: Secret | None = field(default=None, repr=False)
    token: Secret | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @property
    def name(self) -> str | None:
        """The user's name, where one is needed."""
        return None if self.username is None else self.username.reveal()

    @property
    def places(self) -> str:
        """Where our credentials are, for people."""
        secrets = (self.username, self.password, self.token)
        found = [it.place for it in secrets if it is not None and not isinstance(it, Open)]
        return " and ".join(found) or f"the credentials of {self.uri}: none are configured"

    def is_for(self, address: str) -> bool:
        """Whether `address` is of the server itself, which alone is told who we are."""
        return _origin(address) == _origin(self.uri)


@dataclass(frozen=True)
class WandbAccess:
    """Who we are to one W&B server.

    Attributes:
        base_url: The server; None is the one that wandb finds by itself.
        api_key: The key; None is the one that wandb finds by itself.

    Raises:
        UsageError: A server without a key: wandb would send it one that it finds elsewhere.
    """

    base_url: str | None = None
    api_key: Secret | None = field(default=None, repr=False)

    @property
    def places(self) -> str | None:
        """Where our key is, for people; None where wandb finds it."""
        return None if self.api_key is None else self.api_key.place

    def __post_init__(self) -> None:
        if self.base_url is not None and self.api_key is None:
            raise UsageError(
                f"the W&B server {self.base_url} has no `api_key`: wandb would send it the key of another server.",
                next_step='say where its key is: api_key = {env = "NAME"}',
            )


def _origin(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
