"""The options of `audit`, by what they are about; those that other commands take too are in cli_options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_help import AGAIN, ANALYSIS, LIMITS, TELLING, WRITING


class Device(StrEnum):
    """Where sums are formed."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Level(StrEnum):
    """How much is written back to the runs."""

    none = "none"
    summary = "summary"
    full = "full"


class Direction(StrEnum):
    """Which values of a metric are better."""

    HIGHER = "higher"
    LOWER = "lower"


class LogFormat(StrEnum):
    """What is written on stderr."""

    text = "text"
    json = "json"


class Into(StrEnum):
    """Where results are written back."""

    run = "run"
    child = "child"


DeviceOption = Annotated[
    Device | None, typer.Option(rich_help_panel=LIMITS, help="Default: auto, cuda where torch has it.")
]
MetricOption = Annotated[str | None, typer.Option(rich_help_panel=ANALYSIS, help="Evaluation metric to compare with.")]
MetricDirectionOption = Annotated[
    Direction | None,
    typer.Option(rich_help_panel=ANALYSIS, help="Which of its values are better. Default: its name tells."),
]
IncludeOption = Annotated[
    str | None, typer.Option(rich_help_panel=ANALYSIS, help="Kinds of tensors followed. Default: parameters.")
]
AnnotateOption = Annotated[
    Level | None, typer.Option(rich_help_panel=WRITING, help="What is written to the runs. Default: full.")
]
IntoOption = Annotated[
    Into | None,
    typer.Option(rich_help_panel=WRITING, help="To the run, or to one of its own beside it. Default: run; W&B: child."),
]
WorkersOption = Annotated[int | None, typer.Option(rich_help_panel=LIMITS, help="Runs audited at once. Default: 1.")]
DaskOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=LIMITS,
        metavar="ADDRESS",
        help="Dask scheduler (tcp://host:8786) whose workers read, or local:N.",
    ),
]
ShardsOption = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=LIMITS,
        help="Parts that workers read a run in. Default: by the size of its checkpoints.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", rich_help_panel=AGAIN, help="Audit again what the store holds already.")
]
RecheckOption = Annotated[
    bool, typer.Option("--recheck", rich_help_panel=AGAIN, help="Look at every run, also where nothing seems new.")
]
MaxBytesOption = Annotated[
    str | None,
    typer.Option(rich_help_panel=LIMITS, help="Start no run after so much was read, such as 500GB."),
]
MaxMinutesOption = Annotated[
    float | None, typer.Option(rich_help_panel=LIMITS, help="Start no run after so many minutes.")
]
MaxRunsOption = Annotated[int | None, typer.Option(rich_help_panel=LIMITS, help="Audit no more runs than these.")]
MetricsFileOption = Annotated[
    Path | None, typer.Option(rich_help_panel=TELLING, help="Write how it went to this file, for Prometheus.")
]
LogFormatOption = Annotated[
    LogFormat | None, typer.Option(rich_help_panel=TELLING, help="Of what is told on stderr. Default: text.")
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Only tell what would be read and written where, and what it costs."),
]
