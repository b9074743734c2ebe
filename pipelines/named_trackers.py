"""Trackers by name: `[trackers.NAME]` in spectral-edge.toml says where each is, who we are, and what holds there.

Only places of secrets are written there, to be read when the tracker is asked something: see integrations.credentials.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from integrations.credentials import FromEnvironment, FromFile, MlflowAccess, Open, Secret, WandbAccess, hidden
from integrations.place import SCHEMES, Place
from integrations.selection import STATES, RunState, moment
from spectral_edge.errors import AccessDeniedError, TransientError

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_BLOCK: Final = re.compile(r"(?:secret/)?(?P<name>[a-z0-9]+(?:-[a-z0-9]+)*)")
_TELLING: Final = re.compile(r"pass|pwd|token|secret|key", re.IGNORECASE)
_RIGHT: Final = '{env = "NAME"}, {file = "PATH"} or {block = "secret/NAME"}'


class _Table(BaseModel):
    # A secret that was written where none may be is not repeated, by whoever shows the error.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SecretPlace(_Table):
    """Where one secret is: exactly one of a variable, a file and a Prefect Secret block."""

    env: str | None = Field(None, min_length=1, description="the name of an environment variable")
    file: Path | None = Field(None, description="a file that only its owner can read")
    block: str | None = Field(None, min_length=1, description='a Prefect Secret block, "secret/NAME"')

    @model_validator(mode="before")
    @classmethod
    def _is_no_secret(cls, given: object) -> object:
        if isinstance(given, str):
            raise PydanticCustomError("secret_in_file", f"must not be written here: say where it is, {_RIGHT}")
        return given

    @model_validator(mode="after")
    def _is_one_place(self) -> SecretPlace:
        if sum(place is not None for place in (self.env, self.file, self.block)) != 1:
            raise PydanticCustomError("one_place", f"must be one of {_RIGHT}")
        if self.block is not None and not _BLOCK.fullmatch(self.block):
            raise PydanticCustomError("block_name", 'must name a Secret block: {block = "secret/NAME"}')
        return self

    def secret(self) -> Secret:
        """What reads it."""
        if self.env is not None:
            return FromEnvironment(self.env)
        if self.file is not None:
            return FromFile(self.file.expanduser())
        found = _BLOCK.fullmatch(self.block or "")
        return FromBlock(found["name"] if found else "")


class _Tracker(_Table):
    """What any named tracker can be told; what is told here comes before the general settings of the file."""

    applied: ClassVar[tuple[str, ...]] = ("filter", "state", "since", "into", "annotate", "workers")

    filter: str | None = Field(None, min_length=1, description="a filter in the tracker's words")
    state: tuple[RunState, ...] | None = Field(None, description=f"a list of {', '.join(STATES)}")
    since: str | None = Field(None, description="an age such as 24h, or a date")
    into: Literal["run", "child"] | None = Field(None, description="run or child")
    annotate: Literal["none", "summary", "full"] | None = Field(None, description="none, summary or full")
    workers: int | None = Field(None, ge=1, le=64, description="a whole number of runs at once, 1 to 64")
    concurrency_limit: str | None = Field(None, min_length=1, description="the name of a Prefect concurrency limit")

    @field_validator("state", mode="before")
    @classmethod
    def _separated(cls, given: object) -> object:
        return tuple(word.strip() for word in given.split(",")) if isinstance(given, str) else given

    @field_validator("since", mode="before")
    @classmethod
    def _names_a_moment(cls, given: object) -> object:
        text = given.isoformat() if isinstance(given, date) else given
        if isinstance(text, str):
            moment(text, datetime.now(UTC))
        return text

    def overrides(self) -> dict[str, Any]:
        """Settings by name that hold for this tracker's sources."""
        return {name: value for name in self.applied if (value := getattr(self, name)) is not None}

    def without(self, names: frozenset[str]) -> Self:
        """The same, without a say on settings that were given by a flag or the environment."""
        return self.model_copy(update=dict.fromkeys(names & set(self.applied)))


class MlflowTable(_Tracker):
    """An MLflow server, database or folder."""

    kind: Literal["mlflow"]
    uri: str = Field(min_length=1, description="the address of an MLflow server, database or folder")
    token: SecretPlace | None = None
    username: str | SecretPlace | None = None
    password: SecretPlace | None = None
    ca_file: Path | None = Field(None, description="a file with certificates")

    @field_validator("uri")
    @classmethod
    def _without_secret(cls, given: str) -> str:
        return _open_address(given, "password")

    @model_validator(mode="after")
    def _has_whole_credentials(self) -> MlflowTable:
        is_server = urlsplit(self.uri).scheme in {"http", "https"}
        if self.token is not None and (self.password is not None or not is_server):
            raise PydanticCustomError("token", "takes a `token` for a server, without `password`")
        if is_server and (self.username is None) != (self.password is None):
            raise PydanticCustomError("password", "takes `username` and `password` together")
        return self

    def place(self) -> Place:
        """What `locate` needs."""
        name = Open(self.username) if isinstance(self.username, str) else _secret(self.username)
        access = MlflowAccess(self.uri, name, _secret(self.password), _secret(self.token), _path(self.ca_file))
        return Place("mlflow", access)


class WandbTable(_Tracker):
    """A W&B server."""

    kind: Literal["wandb"]
    base_url: str | None = Field(None, min_length=1, description="the address of a W&B server")
    api_key: SecretPlace | None = None
    entity: str | None = Field(None, min_length=1, description="the entity of sources that name none")

    @field_validator("base_url")
    @classmethod
    def _without_secret(cls, given: str | None) -> str | None:
        return given and _open_address(given, "api_key")

    @model_validator(mode="after")
    def _has_key(self) -> WandbTable:
        if self.base_url is not None and self.api_key is None:
            raise PydanticCustomError("api_key", f"needs `api_key` beside `base_url`, as {_RIGHT}")
        return self

    def place(self) -> Place:
        """What `locate` needs."""
        return Place("wandb", WandbAccess(self.base_url, _secret(self.api_key)), self.entity or "")


class FolderTable(_Tracker):
    """A folder of runs, or of runs of W&B that were not sent."""

    kind: Literal["dir", "wandb-offline"]
    path: Path = Field(description="a folder")

    def place(self) -> Place:
        """What `locate` needs."""
        return Place(self.kind, None, str(self.path.expanduser()))


NamedTracker = Annotated[MlflowTable | WandbTable | FolderTable, Field(discriminator="kind")]


def wrong_name(name: str) -> str | None:
    """What is wrong with `name` for a tracker; None when nothing is."""
    if name in SCHEMES:
        return f"a tracker cannot be called `{name}`: that is a kind of source"
    if not _NAME.fullmatch(name):
        return f"a tracker's name is 1 to 64 letters, digits and _.-, got {name!r}"
    return None


def places(trackers: Mapping[str, MlflowTable | WandbTable | FolderTable]) -> dict[str, Place]:
    """What `locate` needs of all of them."""
    return {name: tracker.place() for name, tracker in trackers.items()}


@dataclass(frozen=True)
class FromBlock:
    """A secret in a Prefect Secret block; a `Secret`. Loaded once for each process."""

    name: str

    @property
    def place(self) -> str:
        """See `Secret`."""
        return f"Prefect block secret/{self.name}"

    def reveal(self) -> str:
        """See `Secret`.

        Raises:
            TransientError: The Prefect server did not answer.
        """
        return hidden(_loaded(self.name), self.place, "give that block a value.")


@cache
def _loaded(name: str) -> str:
    import httpx  # noqa: PLC0415 - as below
    from prefect.blocks.system import Secret as SecretBlock  # noqa: PLC0415 - takes seconds, and few need it
    from prefect.settings import get_current_settings  # noqa: PLC0415 - likewise

    place = f"Prefect block secret/{name}"
    if not get_current_settings().api.url:
        raise AccessDeniedError(
            f"{place} is kept by a Prefect server, and none is known.", next_step="set PREFECT_API_URL."
        )
    try:
        load: Any = SecretBlock.load  # it takes `_sync`, which its type does not say
        block = load(name, _sync=True)
    except httpx.HTTPError as error:
        raise TransientError(f"{place} could not be loaded: {type(error).__name__}.") from None
    except ValueError as error:
        raise AccessDeniedError(
            f"there is no {place}." if "Unable to find" in str(error) else f"{place} is not a block of type Secret.",
            next_step=f'make it: python -c "from prefect.blocks.system import Secret; '
            f"Secret(value=input()).save('{name}')\"",
        ) from None
    return str(block.get())


def _secret(place: SecretPlace | None) -> Secret | None:
    return None if place is None else place.secret()


def _path(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser()


def _open_address(address: str, key: str) -> str:
    parts = urlsplit(address)
    telling = [name for name, _ in parse_qsl(parts.query) if _TELLING.search(name)]
    if parts.password is not None or telling or (parts.scheme in {"http", "https"} and parts.username is not None):
        raise PydanticCustomError("secret_in_address", f"must not hold a secret: write `{key}` as {_RIGHT}")
    return address
