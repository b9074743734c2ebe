"""Options that several commands take, and the words that some of them are limited to."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


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


StoreOption = Annotated[
    str | None, typer.Option(help="Folder or s3:// address of the tables. Default: ./spectral-edge-store.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
_SOURCE = "mlflow:EXPERIMENT, wandb:ENTITY/PROJECT, wandb-offline:PATH or dir:PATH; or NAME:... of a named tracker."
SourcesArgument = Annotated[
    list[str] | None,
    typer.Argument(help=f"{_SOURCE} Default: `sources` of spectral-edge.toml.", metavar="[SOURCE...]"),
]
SourceArgument = Annotated[
    str,
    typer.Argument(help=_SOURCE, metavar="SOURCE"),
]
FilterOption = Annotated[
    str | None,
    typer.Option("--filter", help="Only runs that pass this filter of MLflow's search_runs, or of W&B (JSON)."),
]
StateOption = Annotated[
    str | None, typer.Option(help="Only runs in one of these states: running, finished, failed, killed.")
]
SinceOption = Annotated[
    str | None, typer.Option(help="Only runs that started or ended since: 24h, 7d, or a date such as 2026-01-31.")
]
LearningRateMetricOption = Annotated[
    str | None, typer.Option("--learning-rate-metric", metavar="NAME", help="Metric that holds the learning rate.")
]
LearningRateParamOption = Annotated[
    str | None,
    typer.Option("--learning-rate-param", metavar="NAME", help="Parameter that holds the rate of the whole run."),
]
WeightDecayParamOption = Annotated[
    str | None, typer.Option("--weight-decay-param", metavar="NAME", help="Parameter that holds the weight decay.")
]
WindowOption = Annotated[int | None, typer.Option(help="Updates in a window, at least 3. Default: 10.")]
LagsOption = Annotated[int | None, typer.Option(help="Largest lag kept. Default: six windows.")]
SeriesOption = Annotated[str | None, typer.Option(help="Series of checkpoints, by name or glob. Default: longest.")]
TrackingUriOption = Annotated[str | None, typer.Option(help="MLflow's address. Default: MLFLOW_TRACKING_URI.")]
MaxDiskOption = Annotated[str | None, typer.Option(help="Room for downloads in flight. Default: 20GB.")]
