"""The command line: which commands there are and what they take. What they do is in the modules they import.

Those modules are imported inside the commands: torch, MLflow and Prefect take seconds, and `--help` needs none of them.

Examples, panels and the order of commands in help are in :mod:`pipelines.cli_help`, exit codes in
:mod:`pipelines.cli_run`.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from pipelines import store_cli
from pipelines.cli_audit_options import (
    AnnotateOption,
    DaskOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    IncludeOption,
    IntoOption,
    LogFormatOption,
    MaxBytesOption,
    MaxMinutesOption,
    MaxRunsOption,
    MetricDirectionOption,
    MetricOption,
    MetricsFileOption,
    RecheckOption,
    ShardsOption,
    WorkersOption,
)
from pipelines.cli_completion import complete_project, complete_run
from pipelines.cli_help import BEGIN, Commands
from pipelines.cli_options import (
    CsvOption,
    FilterOption,
    JsonOption,
    LagsOption,
    LearningRateMetricOption,
    LearningRateParamOption,
    MaxDiskOption,
    SeriesOption,
    SinceOption,
    SourceArgument,
    SourcesArgument,
    StateOption,
    StoreOption,
    TrackingUriOption,
    WeightDecayParamOption,
    WindowOption,
    YesOption,
    form_of,
)
from pipelines.cli_report import add_report
from pipelines.cli_run import run as run_command
from pipelines.cli_schedules import add_commands
from pipelines.cli_schema import add_schema
from pipelines.named_trackers import places
from pipelines.settings import load_settings, sources_of
from pipelines.terminal import use_log_format

app = typer.Typer(
    name="spectral-edge",
    help="Audits the checkpoints of training runs: spectral gaps of parameter updates, and when they change.",
    epilog=BEGIN,
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spectral-edge {version('spectral-edge')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def audit(  # noqa: PLR0913, PLR0917 - one parameter a flag; typer fills them by name
    sources: SourcesArgument = None,
    filter_: FilterOption = None,
    state: StateOption = None,
    since: SinceOption = None,
    store: StoreOption = None,
    window: WindowOption = None,
    lags: LagsOption = None,
    device: DeviceOption = None,
    metric: MetricOption = None,
    metric_direction: MetricDirectionOption = None,
    learning_rate_metric: LearningRateMetricOption = None,
    learning_rate_param: LearningRateParamOption = None,
    weight_decay_param: WeightDecayParamOption = None,
    include: IncludeOption = None,
    series: SeriesOption = None,
    annotate: AnnotateOption = None,
    into: IntoOption = None,
    tracking_uri: TrackingUriOption = None,
    max_disk: MaxDiskOption = None,
    workers: WorkersOption = None,
    dask: DaskOption = None,
    shards: ShardsOption = None,
    force: ForceOption = False,
    recheck: RecheckOption = False,
    max_bytes: MaxBytesOption = None,
    max_minutes: MaxMinutesOption = None,
    max_runs: MaxRunsOption = None,
    metrics_file: MetricsFileOption = None,
    log_format: LogFormatOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Audit the runs of each SOURCE: read checkpoints, store tables, write results back to the runs.

    What the store holds already is not read again: a second audit of the same runs fetches and writes nothing.
    """
    use_log_format(log_format and log_format.value)
    settings = load_settings(
        filter=filter_,
        state=state,
        since=since,
        store=store,
        window=window,
        lags=lags,
        device=device and device.value,
        metric=metric,
        metric_direction=metric_direction and metric_direction.value,
        learning_rate_metric=learning_rate_metric,
        learning_rate_param=learning_rate_param,
        weight_decay_param=weight_decay_param,
        include=include,
        series=series,
        annotate=annotate and annotate.value,
        into=into and into.value,
        tracking_uri=tracking_uri,
        max_disk=max_disk,
        workers=workers,
        dask=dask,
        shards=shards,
        force=force or None,
        recheck=recheck or None,
        max_bytes=max_bytes,
        max_minutes=max_minutes,
        max_runs=max_runs,
        metrics_file=metrics_file,
        log_format=log_format and log_format.value,
    )
    use_log_format(settings.log_format)
    from pipelines.audit_command import audit_sources, forecast_sources  # noqa: PLC0415 - see above

    work = forecast_sources if dry_run else audit_sources
    raise typer.Exit(work(sources_of(sources, settings), settings, as_json=as_json))


store_cli.add_query(app)


@app.command()
def runs(store: StoreOption = None, as_json: JsonOption = False, as_csv: CsvOption = False) -> None:
    """List the audited runs: status, regime, transitions, and what went wrong."""
    form = form_of(as_json=as_json, as_csv=as_csv)
    from pipelines.store_commands import print_runs  # noqa: PLC0415 - see above

    print_runs(load_settings(store=store).store, form)


add_report(app)


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where the demo keeps everything. Default: spectral-edge-demo.")
    ] = None,
    wandb: Annotated[bool, typer.Option("--wandb", help="Log to offline runs of W&B, not to MLflow.")] = False,
) -> None:
    """Train small models that grok, log them to an embedded MLflow, audit them; about three minutes."""
    from pipelines.demo import run_demo  # noqa: PLC0415 - see above

    default = Path("spectral-edge-demo-wandb" if wandb else "spectral-edge-demo")
    typer.echo(str(run_demo(folder or default, in_wandb=wandb)))


@app.command()
def retract(  # noqa: PLR0913, PLR0917 - as above
    source: SourceArgument,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this run. Can be given repeatedly.", autocompletion=complete_run),
    ] = None,
    filter_: FilterOption = None,
    state: StateOption = None,
    since: SinceOption = None,
    store: StoreOption = None,
    keep_store: Annotated[bool, typer.Option("--keep-store", help="Leave the rows in the store.")] = False,
    tracking_uri: TrackingUriOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be taken back.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take back what audits wrote to the runs of SOURCE, and the rows of these runs in the store.

    Tags, files, our section in the note and child runs made for results go; what people wrote stays. MLflow keeps
    metric points: they are listed.
    Can be repeated, and cut off anywhere.
    """
    settings = load_settings(filter=filter_, state=state, since=since, store=store, tracking_uri=tracking_uri)
    from pipelines.retract import Request  # noqa: PLC0415 - see above
    from pipelines.retract_command import retract_source  # noqa: PLC0415 - see above

    told = settings.of_source(source)
    named = places(settings.trackers)
    request = Request(
        source,
        tuple(run or ()),
        settings.store,
        store is not None,
        keep_store,
        told.tracking_address,
        told.criteria(),
        named,
    )
    raise typer.Exit(retract_source(request, dry_run=dry_run, ask=not yes, as_json=as_json))


@app.command()
def probe(  # noqa: PLR0913, PLR0917 - as above
    source: SourceArgument,
    probe: Annotated[str, typer.Option(metavar="MODULE:FUNCTION", help="Your loss. Its code runs in a child process.")],
    filter_: FilterOption = None,
    state: StateOption = None,
    since: SinceOption = None,
    windows: Annotated[int, typer.Option(help="Windows of each run.")] = 5,
    window: WindowOption = None,
    group: Annotated[str, typer.Option(help="Parameter group that is followed.")] = "total",
    series: SeriesOption = None,
    learning_rate_metric: LearningRateMetricOption = None,
    learning_rate_param: LearningRateParamOption = None,
    weight_decay_param: WeightDecayParamOption = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for one window. Default: 600.")] = None,
    memory: Annotated[str | None, typer.Option(help="Address space for one window. Default: 16GB.")] = None,
    tracking_uri: TrackingUriOption = None,
    max_disk: MaxDiskOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate your loss along the directions of a few windows of each run of SOURCE. Writes nothing."""
    settings = load_settings(
        filter=filter_,
        state=state,
        since=since,
        window=window,
        series=series,
        learning_rate_metric=learning_rate_metric,
        learning_rate_param=learning_rate_param,
        weight_decay_param=weight_decay_param,
        tracking_uri=tracking_uri,
        max_disk=max_disk,
    )
    from pipelines.probe_command import ProbeRequest, limits_of, probe_source  # noqa: PLC0415 - see above

    request = ProbeRequest(probe, windows, group, limits_of(timeout, memory))
    raise typer.Exit(probe_source(source, settings, request, as_json=as_json))


@app.command()
def scorecard(
    store: StoreOption = None,
    project: Annotated[
        str | None, typer.Option(help="Only runs of this project.", autocompletion=complete_project)
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="ID-OR-NAME", help="Also what decided in this run.", autocompletion=complete_run),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold the thesis's predictions against the audited runs: holds, fails, or not testable. Writes nothing."""
    from pipelines import scorecard_command  # noqa: PLC0415 - see above

    scorecard_command.scorecard(load_settings(store=store).store, project=project, run=run, as_json=as_json)


@app.command()
def calibrate(  # noqa: PLR0913, PLR0917 - as above
    sources: SourcesArgument = None,
    filter_: FilterOption = None,
    state: StateOption = None,
    since: SinceOption = None,
    store: StoreOption = None,
    window: WindowOption = None,
    lags: LagsOption = None,
    target: Annotated[float, typer.Option(help="Share of control runs that may be given a change.")] = 0.05,
    tracking_uri: TrackingUriOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how often your own control runs, in which nothing happens, are given a change. Reads no checkpoint."""
    settings = load_settings(
        filter=filter_, state=state, since=since, store=store, window=window, lags=lags, tracking_uri=tracking_uri
    )
    from pipelines.calibrate_command import calibrate_sources  # noqa: PLC0415 - see above

    raise typer.Exit(calibrate_sources(sources_of(sources, settings), settings, target=target, as_json=as_json))


@app.command()
def doctor(
    sources: Annotated[list[str] | None, typer.Argument(help="Sources to ask.", metavar="[SOURCE...]")] = None,
    store: StoreOption = None,
    tracking_uri: TrackingUriOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check trackers (rights to read and to write), store, disk, clock, versions, GPU. Writes nothing.

    Without a SOURCE: all sources and all named trackers of spectral-edge.toml.
    """
    from pipelines.doctor import examine  # noqa: PLC0415 - see above

    settings = load_settings(store=store, tracking_uri=tracking_uri)
    raise typer.Exit(examine(sources or [], settings, as_json=as_json))


store_cli.add_upkeep(app)


add_commands(app)


add_schema(app)


def main() -> None:
    """Entry point of the `spectral-edge` command: errors of ours are one line on stderr and an exit code."""
    sys.exit(run_command(app))
