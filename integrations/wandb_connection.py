"""One W&B server: reaching it with the user's key, and asking it without anything that was remembered."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import wandb
from wandb.apis.public import Run
from wandb.sdk.lib import wbauth

from integrations.credentials import WandbAccess
from integrations.http_errors import without_secrets
from integrations.wandb_errors import wandb_errors
from spectral_edge.errors import NotFoundError

DEFAULTS: Final = {
    # Nothing is told to anybody but the server that was asked for.
    "WANDB_ERROR_REPORTING": "false",
    # wandb says who is logged in; stdout and stderr are for results and for us.
    "WANDB_SILENT": "true",
    # Tries within about half a minute, then Prefect tries the run again; wandb's own take twenty minutes.
    "WANDB__GRAPHQL_RETRY_MAX": "6",
    "WANDB__GRAPHQL_RETRY_WAIT_MIN_SECONDS": "1",
    "WANDB__GRAPHQL_RETRY_WAIT_MAX_SECONDS": "10",
}
"""Variables of wandb and what they are where the user has set none."""

_ANSWER_SECONDS: Final = 60
"""For one answer of the server, with all tries; WANDB_HTTP_TIMEOUT overrules it."""

_MANIFEST: Final = """
query FetchArtifactManifest($id: ID!) {
    artifact(id: $id) { currentManifest { file { directUrl } } }
}
"""


class WandbConnection:
    """Reaches the server that WANDB_BASE_URL names, as the user that wandb finds a key of. Safe to share by threads.

    Args:
        access: Another server, or another key.
    """

    def __init__(self, access: WandbAccess | None = None) -> None:
        self.access: Final = access or WandbAccess()
        self._lock = threading.RLock()
        self._api: wandb.Api | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.access,))  # another process logs in by itself: no key travels

    @property
    def address(self) -> str:
        """The server's address without secrets, for people."""
        return without_secrets(self._api.settings["base_url"] if self._api else self.access.base_url or _configured())

    @property
    def api(self) -> wandb.Api:
        """The client of wandb, made at the first use; the server is then known to answer, and to know the key.

        Raises:
            AccessDeniedError: There is no key, or the server does not know it.
            TrackerUnavailableError: Nothing answered in time.
        """
        with self._lock:
            if self._api is None:
                set_defaults()
                with self.errors():
                    self._api = self._made()
            return self._api

    @property
    def key(self) -> str:
        """The API key; empty where the user is known by other means."""
        known = self._api.api_key if self._api else None
        return known or ("" if self.access.api_key else os.environ.get("WANDB_API_KEY", ""))

    def _made(self) -> wandb.Api:
        secret, base_url = self.access.api_key, self.access.base_url
        key = _key_of_user() if secret is None else secret.reveal()
        return wandb.Api({"base_url": base_url} if base_url else {}, timeout=_seconds(), api_key=key)

    @cached_property
    def s3(self) -> Any:
        """A client for references to S3, of boto3, made at the first use.

        Raises:
            ImportError: boto3 is not installed.
        """
        from integrations.s3_client import s3_client  # noqa: PLC0415 - needs boto3, which not everybody has

        return s3_client(os.environ.get("AWS_S3_ENDPOINT_URL"))  # the variable that wandb itself reads

    def errors(self, *, run: str | None = None, file: str | None = None) -> AbstractContextManager[None]:
        """Turn what wandb raises inside the block into our errors."""
        return wandb_errors(self.address, run=run, file=file, key=self.key, place=self.access.places)

    def run(self, project: str, run_id: str, name: str | None = None) -> Run:
        """The run with all the server tells of it, read fresh.

        Args:
            project: ENTITY/PROJECT.
            run_id: W&B's id of it.
            name: What messages call it; its id when None.

        Raises:
            NotFoundError: There is no such run, or it has been deleted.
        """
        api = self.api
        try:
            with self.errors(run=name or run_id), self._lock:
                api.flush()  # type: ignore[no-untyped-call]  # it would give what it gave last time
                return _without_folder(api.run(f"{project}/{run_id}"))
        except NotFoundError:
            raise NotFoundError(
                f"there is no such run in {project} at {self.address}, or it has been deleted.", run=name or run_id
            ) from None

    def runs(self, project: str, filters: dict[str, Any], page: int) -> Iterator[Run]:
        """The runs of ENTITY/PROJECT that pass `filters`, oldest first, in pages that hold all of each run."""
        api = self.api
        with self.errors(), self._lock:
            api.flush()  # type: ignore[no-untyped-call]
            found = api.runs(project, filters=filters, order="+created_at", per_page=page, lazy=False)
        return map(_without_folder, found)

    def projects(self, entity: str) -> list[str]:
        """Names of the projects of `entity` that the user is shown."""
        api = self.api
        with self.errors(), self._lock:
            return [project.name for project in api.projects(entity)]

    def manifest_address(self, artifact: wandb.Artifact) -> str:
        """Where the manifest of `artifact` is to be had, for some minutes.

        Raises:
            NotFoundError: It has been deleted.
        """
        # wandb's own way to a manifest waits twenty minutes for a store that is down, and has no public half.
        service = self.api._service_api  # noqa: SLF001
        found: dict[str, Any] = service.execute_graphql(_MANIFEST, {"id": artifact.id})
        manifest = (found["artifact"] or {}).get("currentManifest")
        if manifest is None:
            raise NotFoundError("the artifact has no manifest, or has been deleted.", file=artifact.name)
        return str(manifest["file"]["directUrl"])

    def absolute(self, address: str) -> str:
        """The address; the server gives paths on itself without its own name."""
        return str(urljoin(self.api.settings["base_url"], address))

    def is_own(self, url: str) -> bool:
        """Whether `url` is of the server itself, which alone may be told the key."""
        own, asked = urlsplit(self.api.settings["base_url"]), urlsplit(url)
        return (own.scheme, own.hostname, own.port) == (asked.scheme, asked.hostname, asked.port)


def _without_folder(run: Run) -> Run:
    """The run, without the empty folder that wandb makes for each that it reads (WANDB_DIR/ENTITY/PROJECT/RUN)."""
    home = Path(run.dir)
    with suppress(OSError):  # something is in it
        for folder in (home, *home.parents[:2]):
            folder.rmdir()
    return run


def _key_of_user() -> str | None:
    """The key where the user keeps it; None leaves it to wandb.

    wandb itself takes first what this process has signed in with last, and that may be for a named tracker.
    """
    if os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return None
    return os.environ.get("WANDB_API_KEY") or wbauth.read_netrc_auth(host=_configured())


def _configured() -> str:
    """The server's address before anything was asked of it."""
    return os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url


def set_defaults() -> None:
    """Set those of `DEFAULTS` that are not set, for this process, and let wandb start a core process of our own.

    That of the process which has started this one may end before us, and would go on for us when we are killed.
    """
    os.environ.pop("WANDB_SERVICE", None)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


def _seconds() -> int:
    told = os.environ.get("WANDB_HTTP_TIMEOUT", "")
    return int(float(told)) if told.replace(".", "", 1).isdecimal() else _ANSWER_SECONDS
