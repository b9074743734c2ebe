"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pipelines.cli_completion import complete_source
from pipelines.cli_help import ANALYSIS, LIMITS, RUNS
from spectral_edge.errors import UsageError

StoreOption = Annotated[
    str | None, typer.Option(help="Folder or s3:// address of the tables. Default: ./spectral-edge-store.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")]
_SOURCE = "mlflow:EXPERIMENT, wandb:ENTITY/PROJECT, wandb-offline:PATH or dir:PATH; or NAME:... of a named tracker."
SourcesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help=f"{_SOURCE} Default: `sources` of spectral-edge.toml.",
        metavar="[SOURCE...]",
        autocompletion=complete_source,
    ),
]
SourceArgument = Annotated[
    str,
    typer.Argument(help=_SOURCE, metavar="SOURCE", autocompletion=complete_source),
]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        rich_help_panel=RUNS,
        help="Only runs that pass this filter of MLflow's search_runs, or of W&B (JSON).",
    ),
]
StateOption = Annotated[
    str | None,
    typer.Option(rich_help_panel=RUNS, help="Only runs in one of these states: running, finished, failed, killed."),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RUNS, help="Only runs that started or ended since: 24h, 7d, or a date such as 2026-01-31."
    ),
]
LearningRateMetricOption = Annotated[
    str | None,
    typer.Option(
        "--learning-rate-metric", rich_help_panel=ANALYSIS, metavar="NAME", help="Metric that holds the learning rate."
    ),
]
LearningRateParamOption = Annotated[
    str | None,
    typer.Option(
        "--learning-rate-param",
        rich_help_panel=ANALYSIS,
        metavar="NAME",
        help="Parameter that holds the rate of the whole run.",
    ),
]
WeightDecayParamOption = Annotated[
    str | None,
    typer.Option(
        "--weight-decay-param", rich_help_panel=ANALYSIS, metavar="NAME", help="Parameter that holds the weight decay."
    ),
]
WindowOption = Annotated[
    int | None, typer.Option(rich_help_panel=ANALYSIS, help="Updates in a window, at least 3. Default: 10.")
]
LagsOption = Annotated[
    int | None, typer.Option(rich_help_panel=ANALYSIS, help="Largest lag kept. Default: six windows.")
]
SeriesOption = Annotated[
    str | None,
    typer.Option(rich_help_panel=RUNS, help="Series of checkpoints, by name or glob. Default: longest."),
]
TrackingUriOption = Annotated[str | None, typer.Option(help="MLflow's address. Default: MLFLOW_TRACKING_URI.")]
MaxDiskOption = Annotated[
    str | None, typer.Option(rich_help_panel=LIMITS, help="Room for downloads in flight. Default: 20GB.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


Form = Literal["table", "json", "csv"]
"""How rows are printed."""


def form_of(*, as_json: bool, as_csv: bool) -> Form:
    """What the flags ask for.

    Raises:
        UsageError: Two things at once.
    """
    if as_json and as_csv:
        raise UsageError("use one of --json and --csv, not both.", next_step="leave one of them out.")
    return "json" if as_json else "csv" if as_csv else "table"
