"""docs/settings.md: every setting with its type, its default and what it is for, from the model that checks them."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Final, Union, get_args, get_origin

import typer
from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo
from typer.core import TyperGroup

from pipelines.named_trackers import FolderTable, MlflowTable, SecretPlace, WandbTable
from pipelines.settings import AuditSettings, ScheduleTimes

INTRODUCTION: Final = """\
A flag comes first, then the environment (`SPECTRAL_EDGE_WINDOW` for `window`, and so on), then the file
`spectral-edge.toml` in the working directory, then the default. A key that is not known is an error. Values are checked
before anything is read. Settings under "numbers" change what comes out of an analysis, and so the tables
([incremental.md](incremental.md) tells what is read again); all others do not.

```toml
sources = ["mlflow:vision", "dir:/data/runs"]
store = "s3://audits/spectral-edge"
window = 10
metric = "val_accuracy"
max_minutes = 300
into = "child"
```

A list in the environment is separated by commas: `SPECTRAL_EDGE_SOURCES=mlflow:vision,dir:/data/runs`.
"""

MEANINGS: Final[Mapping[str, str]] = {
    "store": "where the tables are kept",
    "window": "updates in one window, W",
    "lags": "how many updates back inner products reach, and how long the stretches tested for transitions are",
    "false_alarm_rate": "the share of runs without a change that may be given one ([transitions.md](transitions.md))",
    "device": "where sums are formed",
    "metric": "the held-out metric to compare with; else by its name ([training-record.md](training-record.md))",
    "metric_direction": "which values of it are better; without it its name tells",
    "learning_rate_metric": "the metric that has the learning rate by step",
    "learning_rate_param": "the parameter that has the constant learning rate",
    "weight_decay_param": "the parameter that has the weight decay",
    "include": "which kinds of tensors are followed ([formats.md](formats.md))",
    "series": "which of several series of checkpoints ([sources.md](sources.md#when-a-run-offers-several-series))",
    "filter": "only runs that pass ([sources.md](sources.md#some-of-the-runs))",
    "state": "only runs in one of these states",
    "since": "only runs that started or ended since then",
    "annotate": "how much is written back to the runs ([what-is-written.md](what-is-written.md))",
    "into": "whether to the run or to one of its own beside it; without it to the run, and beside it in W&B",
    "workers": "runs audited at once",
    "dask": "the Dask cluster whose workers read ([scale.md](scale.md))",
    "shards": "parts that workers read a run in",
    "max_disk": "room for downloads, of all runs at once",
    "spool": "where downloads are kept until they are read",
    "tracking_uri": "the MLflow server of sources without a named tracker; without it MLFLOW_TRACKING_URI",
    "force": "audit again what the store holds already",
    "recheck": "look at every run, also where the listing tells nothing new ([incremental.md](incremental.md))",
    "max_bytes": "start no run after so much was read",
    "max_minutes": "start no run after so many minutes",
    "max_runs": "audit no more runs than these",
    "metrics_file": "a file for Prometheus ([observability.md](observability.md#metrics))",
    "log_format": "how stderr tells what happens",
    "max_tries": "how often a run may kill the process before it is left alone ([faults.md](faults.md))",
    "sources": "what is audited where a command names nothing ([sources.md](sources.md))",
    "trackers": "trackers by name, with credentials ([trackers.md](trackers.md))",
    "schedules": "when scheduled audits run ([scheduling.md](scheduling.md))",
}
"""Of each field of the model, in a few words; a field without is an error, and so are words without a field."""

NUMBERS: Final = frozenset(
    {"window", "lags", "false_alarm_rate", "metric", "metric_direction", "learning_rate_metric", "learning_rate_param"}
    | {"weight_decay_param", "include", "series"}
)
TRACKERS: Final[Mapping[str, type[BaseModel]]] = {
    "mlflow": MlflowTable,
    "wandb": WandbTable,
    "wandb-offline": FolderTable,
    "dir": FolderTable,
}
_KINDS: Final[Mapping[Any, str]] = {
    tuple: "list",
    dict: "table",
    ByteSize: "size",
    bool: "true or false",
    int: "whole number",
    float: "number",
    SecretStr: "text, hidden",
}
HEAD: Final = "| setting | type | default | values | meaning |\n|---|---|---|---|---|"


def settings_page(app: typer.Typer, origin: str) -> str:
    """The page; `origin` is the line that says what it is written from."""
    fields = AuditSettings.model_fields
    wrong = set(fields) ^ set(MEANINGS)
    if wrong:
        raise ValueError(f"say in {__file__} what these settings mean, or take them out: {sorted(wrong)}")
    groups = {
        "Numbers": [name for name in fields if name in NUMBERS],
        "What is audited, where results go, and what it may cost": [name for name in fields if name not in NUMBERS],
    }
    parts = ["# Settings\n", origin, INTRODUCTION]
    for title, names in groups.items():
        parts += [f"## {title}\n", HEAD, *(_row(name, fields[name], MEANINGS[name]) for name in names), ""]
    return "\n".join([*parts, *_tables(), *_commands(app), ""])


def _row(name: str, field: FieldInfo, meaning: str) -> str:
    value = field.get_default(call_default_factory=True)
    default = "" if value in (None, (), {}) else f"`{_plain(value)}`"
    return f"| `{name}` | {kind(field.annotation)} | {default} | {cell(field.description or '')} | {cell(meaning)} |"


def _plain(value: object) -> str:
    if isinstance(value, ByteSize):
        return value.human_readable(decimal=True)
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def kind(annotation: Any) -> str:
    """A type as a reader of TOML would name it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(arguments[0])
    if origin in {Union, types.UnionType}:
        return " or ".join(dict.fromkeys(kind(one) for one in arguments if one is not type(None)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    return _KINDS.get(origin or annotation, "text")


def _tables() -> list[str]:
    """What the tables of trackers and schedules can say."""
    kinds: dict[str, list[str]] = {}
    for tracker, model in TRACKERS.items():
        for name in model.model_fields:
            kinds.setdefault(name, []).append(tracker)
    rows = {name: next(m.model_fields[name] for m in TRACKERS.values() if name in m.model_fields) for name in kinds}
    parts = ["## [trackers.NAME]\n", "| key | of kind | type | values |", "|---|---|---|---|"]
    parts += [
        f"| `{name}` | {'all' if len(kinds[name]) == len(TRACKERS) else ', '.join(f'`{one}`' for one in kinds[name])} "
        f"| {kind(field.annotation)} | {cell(field.description or '')} |"
        for name, field in rows.items()
    ]
    places = ", ".join(f"`{name}`: {field.description}" for name, field in SecretPlace.model_fields.items())
    parts += ["", f"A secret is a table with one of {places}.\n"]
    parts += ["## [schedules.NAME]\n", "NAME is `nightly`, `hourly`, `weekly` or `monthly`.\n"]
    times = ScheduleTimes.model_fields.items()
    parts += ["| key | type |", "|---|---|", *(f"| `{name}` | {kind(field.annotation)} |" for name, field in times), ""]
    return parts


def _commands(app: typer.Typer) -> list[str]:
    """Which commands have a flag for which setting."""
    root = typer.main.get_command(app)
    if not isinstance(root, TyperGroup):
        raise TypeError(f"the command line should be a group of commands, not {type(root).__name__}")
    flags: dict[str, tuple[str, list[str]]] = {}
    for command_name, command in root.commands.items():
        for parameter in command.params:
            name = (parameter.name or "").rstrip("_")
            if name in AuditSettings.model_fields and parameter.opts[0].startswith("--"):
                flags.setdefault(name, (parameter.opts[0], []))[1].append(f"`{command_name}`")
    parts = ["## Flags\n", "| setting | flag | commands |", "|---|---|---|"]
    return parts + [
        f"| `{name}` | `{flags[name][0]}` | {', '.join(flags[name][1])} |"
        for name in AuditSettings.model_fields
        if name in flags
    ]


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
