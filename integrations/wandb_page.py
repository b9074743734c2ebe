"""What is written to the audited W&B run itself: keys of its summary, tags, and a section of its notes.

The SDK sends back the whole run as it remembers it, with NaN become null. Here the run is read right before, what is
ours in it is exchanged, all else of the summary goes back byte for byte, and tags and notes only where they change. Its
configuration is not sent. It is one request, so that there is no state in between; then the run is read again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import replace as fields_replaced
from typing import Any, Final

from wandb.apis.public.service_api import ServiceApi

from integrations.annotation_section import note_with_section, note_without_section
from integrations.tracker import OUR_NAME, Annotation, TrackedRun
from integrations.wandb_connection import WandbConnection
from integrations.wandb_results import FINISHED, PREFIX, STARTED, summary_of
from spectral_edge.errors import NotFoundError, RunBusyError

AUDIT_RUN: Final = f"{PREFIX}audit_run"
"""Summary key: the id of the run that holds the series, charts and files; that of the audited run with `--into run`."""
AUDIT_URL: Final = f"{PREFIX}audit_url"
LIVE: Final = frozenset({"running", "pending", "preempting"})
"""States in which a process writes a run, and sends its whole summary again and again."""
_TAGGED: Final = ("regime", "status")
_MAX_TAG: Final = 64
_TRIES: Final = 2
_SPACE: Final = re.compile(r"[ \t\r\n]*")

# The names of the operations are those of the SDK for the same.
_READ: Final = """
query Run($project: String!, $entity: String!, $name: String!) {
    project(name: $project, entityName: $entity) {
        run(name: $name) { id name state tags notes config summaryMetrics }
    }
}
"""
_WRITE: Final = """
mutation UpsertBucket(%s) {
    upsertBucket(input: { %s }) { bucket { id } }
}
"""
_TYPES: Final = {
    "id": "String",
    "summaryMetrics": "JSONString",
    "tags": "[String!]",
    "notes": "String",
    "config": "JSONString",
}


@dataclass(frozen=True)
class RunPage:
    """What can be seen of a run beside its series, as the server tells it at this moment.

    Attributes:
        storage_id: What the server calls the run in requests.
        state: In W&B's words.
        tags: All of the run's tags.
        notes: The run's notes, whole.
        summary: JSON text of each value, by key.
        config: Likewise, of the configuration.
    """

    storage_id: str
    state: str
    tags: tuple[str, ...]
    notes: str
    summary: Mapping[str, str]
    config: Mapping[str, str]

    @property
    def is_live(self) -> bool:
        """Whether a process is writing to the run now."""
        return self.state in LIVE

    @property
    def ours(self) -> dict[str, object]:
        """Our keys of the summary."""
        return {key: json.loads(text) for key, text in self.summary.items() if key.startswith(PREFIX)}

    def mark(self, key: str) -> str | None:
        """The text under one of our keys of the summary."""
        value = self.ours.get(key)
        return value if isinstance(value, str) else None

    @property
    def finished(self) -> str | None:
        """The mark of the annotation that was begun, when it was also finished."""
        begun = self.mark(STARTED)
        return begun if begun == self.mark(FINISHED) else None

    @property
    def our_tags(self) -> tuple[str, ...]:
        """Our tags among the run's."""
        return tuple(tag for tag in self.tags if _is_our_tag(tag))

    @property
    def has_section(self) -> bool:
        """Whether our section is in the notes."""
        return note_without_section(self.notes) != self.notes

    def carrying(self, content: Content, page: RunPage) -> RunPage:
        """The same with `content` in the place of all that is ours, and the rest of summary and config as on `page`."""
        theirs = {key: text for key, text in page.summary.items() if not key.startswith(PREFIX)}
        ours = {key: json.dumps(value) for key, value in content.summary.items()}
        if {key: json.loads(text) for key, text in ours.items()} == self.ours:
            ours = {key: text for key, text in self.summary.items() if key.startswith(PREFIX)}
        tags = self.tags
        if sorted(self.our_tags) != sorted(content.tags):
            tags = (*(tag for tag in tags if not _is_our_tag(tag)), *content.tags)
        section = content.section
        notes = note_without_section(self.notes) if section is None else note_with_section(self.notes, section)
        return fields_replaced(self, tags=tags, notes=notes, summary={**theirs, **ours}, config=page.config)


@dataclass(frozen=True)
class Content:
    """All that is to be ours on a run's page."""

    summary: Mapping[str, str | int]
    tags: tuple[str, ...] = ()
    section: str | None = None


NOTHING: Final = Content({})


def summary_content(annotation: Annotation) -> Content:
    """What goes on the page on level `summary`."""
    return Content({**summary_of(annotation), STARTED: annotation.mark, FINISHED: annotation.mark})


def full_content(annotation: Annotation, audit: tuple[str, str] | None) -> Content:
    """What goes on the page on level `full`.

    Args:
        annotation: The analysis.
        audit: Id and address of the run that holds the rest; None where there is no rest.
    """
    words = ((name, annotation.tags.get(f"{OUR_NAME}.{name}")) for name in _TAGGED)
    tags = tuple(f"{OUR_NAME}.{name}:{value}"[:_MAX_TAG] for name, value in words if value)
    where = {} if audit is None else {AUDIT_RUN: audit[0], AUDIT_URL: audit[1]}
    return Content({**summary_content(annotation).summary, **where}, tags, annotation.note)


def read_page(connection: WandbConnection, run: TrackedRun) -> RunPage:
    """The page of `run`, read fresh.

    Raises:
        NotFoundError: The run has been deleted.
    """
    entity, _, project = run.key.project.partition("/")
    asked = {"entity": entity, "project": project, "name": run.key.run_id}
    with connection.errors(run=run.key.run_name):
        told: dict[str, Any] = service(connection).execute_graphql(_READ, asked)
    found = (told.get("project") or {}).get("run")
    if found is None:
        raise NotFoundError(
            f"there is no such run in {run.key.project} at {connection.address}, or it has been deleted.",
            run=run.key.run_name,
        )
    return RunPage(
        storage_id=found["id"],
        state=found["state"],
        tags=tuple(found["tags"] or ()),
        notes=found["notes"] or "",
        summary=dict(_items(found["summaryMetrics"] or "{}")),
        config=dict(_items(found["config"] or "{}")),
    )


def put_on_page(connection: WandbConnection, run: TrackedRun, content: Content, theirs: RunPage | None = None) -> bool:
    """Exchange all that is ours on the run's page for `content`, and make sure that it stands there.

    Where it stands there already nothing is written, and neither where the run is live.

    Args:
        connection: To the run's server.
        run: Whose page.
        content: What is to be ours.
        theirs: The page of which all else in the summary, and the configuration, is to be as it was; None leaves both
            as they are now.

    Returns:
        Whether it stands there.

    Raises:
        NotFoundError: The run has been deleted.
        RunBusyError: Another process writes over it.
    """
    for tries_left in range(_TRIES, -1, -1):
        page = read_page(connection, run)  # the second time to see whether another's change has won over ours
        wanted = page.carrying(content, page if theirs is None else theirs)
        if wanted == page:
            return True
        if page.is_live:
            return False
        if tries_left:
            _send(connection, run, page, wanted)
    raise RunBusyError(
        "another process writes the summary, tags or notes of this run, and ours are lost each time.",
        run=run.key.run_name,
        next_step="run the same audit again when that process has ended.",
    )


def _send(connection: WandbConnection, run: TrackedRun, page: RunPage, wanted: RunPage) -> None:
    told: dict[str, object] = {"id": page.storage_id}
    if wanted.summary != page.summary:
        told["summaryMetrics"] = _text(wanted.summary)
    if wanted.config != page.config:
        told["config"] = _text(wanted.config)
    if wanted.tags != page.tags:
        told["tags"] = list(wanted.tags)
    if wanted.notes != page.notes:
        told["notes"] = wanted.notes
    declared = ", ".join(f"${name}: {_TYPES[name]}" for name in told)
    given = ", ".join(f"{name}: ${name}" for name in told)
    with connection.errors(run=run.key.run_name):
        service(connection).execute_graphql(_WRITE % (declared, given), told)


def service(connection: WandbConnection) -> ServiceApi:
    """The SDK's way to any request, with its log-in, tries and time-outs."""
    return connection.api._service_api  # noqa: SLF001 - run.update() would send the configuration, and null for NaN


def _items(text: str) -> Iterator[tuple[str, str]]:
    """Keys of the JSON object `text`, and the text of their values as it stands there."""
    decoder = json.JSONDecoder()
    place = _after_space(text, 0) + 1
    while text[(place := _after_space(text, place))] != "}":
        key, place = decoder.raw_decode(text, place)
        begin = _after_space(text, _after_space(text, place) + 1)
        _, end = decoder.raw_decode(text, begin)
        yield key, text[begin:end]
        place = _after_space(text, end)
        place += text[place] == ","


def _text(items: Mapping[str, str]) -> str:
    return f"{{{', '.join(f'{json.dumps(key)}: {text}' for key, text in items.items())}}}"


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _is_our_tag(tag: str) -> bool:
    return tag.startswith(tuple(f"{OUR_NAME}.{name}:" for name in _TAGGED))
