"""What `--json` prints, as JSON Schema: for `spectral-edge schema`, docs/json/, and the tests of real output.

Keys stay and keep their meaning as long as `schema_version` is the same; new ones may come, so who reads these
documents must pass over keys it does not know. Numbers that JSON cannot write (NaN, infinity) are null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal

import pyarrow as pa
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from integrations.annotation import Leftover
from integrations.finding import Finding
from pipelines.calibrate_command import Control
from pipelines.forecast import RunForecast
from pipelines.results import RunResult
from pipelines.retract import Outcome
from pipelines.terminal import JSON_VERSION
from spectral_edge.calibration import Calibration
from spectral_edge.probe import ProbedWindow
from spectral_edge.scorecard import ORG, SCORES
from spectral_edge.store_upkeep import TableUpkeep
from spectral_edge.tables import SCHEMAS

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_RUNS_COLUMNS: Final = (
    "project",
    "run_name",
    "status",
    "state",
    "checkpoints",
    "step_last",
    "regime",
    "transitions",
    "audited_at",
    "error",
)
_ADVICE: Final = pa.field("advice", pa.string(), metadata={"meaning": "warnings that say what to log; null without"})


class _Document(BaseModel):
    schema_version: Literal[1]


class _Unreached(BaseModel):
    """A source that could not be reached, or is none."""

    source: str
    error: str


class _Audited(BaseModel):
    """The runs of one source. `left` of them were not looked at, as the budget was spent or the audit was `stopped`."""

    source: str
    runs: list[RunResult]
    left: int
    oldest_debt: str | None
    stopped: bool


class _Audit(_Document):
    """What an audit did, by source."""

    sources: list[_Audited | _Unreached]


class _Foreseen(BaseModel):
    """What would be done to the runs of one source."""

    source: str
    runs: list[RunForecast]


class _Forecast(_Document):
    """What an audit would read and write, by source."""

    sources: list[_Foreseen | _Unreached]


class _RetractedRun(BaseModel):
    """What was taken back of one run, or would be, and what stays."""

    project: str
    run_name: str
    run_id: str
    outcome: Outcome
    tags: list[str]
    files: list[str]
    note: bool
    kept_metrics: dict[str, int]
    advice: str
    leftovers: list[Leftover]
    foreign_files: list[str]
    child_runs: list[str]
    rows: bool
    error: str | None


class _Retracted(BaseModel):
    """One source."""

    source: str
    dry_run: bool
    runs: list[_RetractedRun]


class _Retract(_Document):
    """What was taken back, by source."""

    sources: list[_Retracted | _Unreached]


class _ProbedRun(BaseModel):
    """One run; with an `error`, `windows` has those before it."""

    run_name: str
    run_id: str
    windows: list[ProbedWindow]
    error: str | None


class _Probe(_Document):
    """A loss along the directions of a few windows of each run."""

    source: str
    probe: str
    group: str
    runs: list[_ProbedRun]


class _Changed(BaseModel):
    """How many runs are given a change, of how many, and the 95 % interval of that share."""

    runs: int
    of: int
    share: float
    low: float
    high: float


class _Calibrate(_Document):
    """How often control runs are given a change."""

    runs: list[Control]
    false_alarm_rate: float
    changed: _Changed
    calibrated: Calibration


class _Counts(BaseModel):
    ok: int
    unknown: int
    warning: int
    problem: int


class _Doctor(_Document):
    """What was looked at, and what to do."""

    findings: list[Finding]
    counts: _Counts


class _Compact(_Document):
    """What was done to each table, or would be."""

    dry_run: bool
    tables: list[TableUpkeep]


class _Export(_Document):
    """Where the rows are, and how many by table."""

    output: str
    rows: dict[str, int]


class _Import(_Document):
    """What became of each run, as "project / run_name"; of those refused, why."""

    dry_run: bool
    added: list[str]
    replaced: list[str]
    present: list[str]
    kept: list[str]
    refused: dict[str, str]


class _Registered(BaseModel):
    """One object of the server; `says` is its schedule or size."""

    kind: str
    name: str
    did: Literal["created", "updated", "there already"]
    says: str


class _Deploy(_Document):
    """What was registered with the Prefect server, or would be."""

    dry_run: bool
    sources: list[str]
    registered: list[_Registered]


class _Report(_Document):
    """Where the page is, and how large."""

    output: str
    bytes: int


class _AllRequired(GenerateJsonSchema):
    """Every key is always there."""

    def field_is_required(self, field: Any, total: bool) -> bool:  # noqa: ARG002 - pydantic's signature
        return True

    def default_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])


def _of_model(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(mode="serialization", schema_generator=_AllRequired)


def _of_rows(fields: Iterable[pa.Field]) -> dict[str, Any]:
    """An array of rows."""
    properties = {field.name: _of_column(field) for field in fields}
    return {"type": "array", "items": {"type": "object", "properties": properties, "required": list(properties)}}


def _of_column(field: pa.Field) -> dict[str, Any]:
    facts = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    unit = f" [{facts['unit']}]" if "unit" in facts else ""
    return {"anyOf": [_of_type(field.type), {"type": "null"}], "description": f"{facts['meaning']}{unit}"}


def _of_type(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_map(kind):
        pair = [_of_type(kind.key_type), {"anyOf": [_of_type(kind.item_type), {"type": "null"}]}]
        return {"type": "array", "items": {"type": "array", "prefixItems": pair, "minItems": 2, "maxItems": 2}}
    if pa.types.is_list(kind):
        return {"type": "array", "items": {"anyOf": [_of_type(kind.value_type), {"type": "null"}]}}
    if pa.types.is_timestamp(kind):
        return {"type": "string", "format": "date-time"}
    checks = (
        (pa.types.is_string, "string"),
        (pa.types.is_boolean, "boolean"),
        (pa.types.is_integer, "integer"),
        (pa.types.is_floating, "number"),
    )
    return {"type": next(name for holds, name in checks if holds(kind))}


def _query() -> dict[str, Any]:
    return {"type": "array", "items": {"type": "object"}, "description": "The rows; their keys are those of the SQL."}


def _runs() -> dict[str, Any]:
    return _of_rows([*(SCHEMAS["runs"].field(name) for name in _RUNS_COLUMNS), _ADVICE])


def _scorecard() -> dict[str, Any]:
    version = {"const": JSON_VERSION, "type": "integer"}
    properties = {"schema_version": version, "predictions": _of_rows(ORG), "runs": _of_rows(SCORES)}
    return {"type": "object", "properties": properties, "required": list(properties)}


_DOCUMENTS: Final[Mapping[str, tuple[str, Callable[[], dict[str, Any]]]]] = MappingProxyType(
    {
        "audit": ("audit --json", partial(_of_model, _Audit)),
        "audit-dry-run": ("audit --dry-run --json", partial(_of_model, _Forecast)),
        "query": ("query --json", _query),
        "runs": ("runs --json", _runs),
        "report": ("report --json", partial(_of_model, _Report)),
        "retract": ("retract --json", partial(_of_model, _Retract)),
        "probe": ("probe --json", partial(_of_model, _Probe)),
        "scorecard": ("scorecard --json", _scorecard),
        "calibrate": ("calibrate --json", partial(_of_model, _Calibrate)),
        "doctor": ("doctor --json", partial(_of_model, _Doctor)),
        "compact": ("compact --json", partial(_of_model, _Compact)),
        "export": ("export --json", partial(_of_model, _Export)),
        "import": ("import --json", partial(_of_model, _Import)),
        "deploy": ("deploy --json", partial(_of_model, _Deploy)),
    }
)

NAMES: Final = tuple(_DOCUMENTS)
"""Of the documents that have a schema."""


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of the document `name`, one of `NAMES`.

    Raises:
        KeyError: There is no such document.
    """
    command, build = _DOCUMENTS[name]
    return {"$schema": DIALECT, **build(), "title": f"spectral-edge {command}"}
