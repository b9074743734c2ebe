"""What a W&B run holds of an audit: the series by training step, charts, a table of the points, files, and the marks.

The same for an audit run on a server, for the audited run itself, and for a run written to a folder offline.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import wandb

from integrations.tracker import OUR_NAME, Annotation
from integrations.wandb_connection import set_defaults
from spectral_edge.errors import UsageError

PREFIX: Final = f"{OUR_NAME}/"
"""How all our keys in a history, a summary and a config begin."""
STEP: Final = f"{PREFIX}step"
"""The x-axis of our series: the training step that a row belongs to."""
STARTED: Final = f"{PREFIX}started"
FINISHED: Final = f"{PREFIX}finished"
"""Summary keys: the mark of the annotation begun, and, written last, of the one finished."""
ARTIFACT_TYPE: Final = "spectral-audit"
"""Type of the artifact that holds the files; also the job type of an audit run."""
_CHART: Final = f"{PREFIX}spectrum"
_REPORT: Final = f"{PREFIX}report"
_TABLE: Final = f"{PREFIX}points"
_NUMBERS: Final = frozenset({"transitions", "checkpoints", "windows", "schema_version"})
_MAX_ROWS: Final = 100_000
"""Rows of a table beyond which W&B shows none of it."""
_WAYS: Final = ("graphql", "file_stream", "file_transfer")
UPLOAD_SECONDS: Final = 600
"""For one audit's data to arrive at the server."""
RETRIES: Final = {"retry_max": 6, "retry_wait_min_seconds": 1.0, "retry_wait_max_seconds": 15.0}
"""How often a request that the server answered with 429 or 5xx is sent again: for about a minute."""
_MAX_NAME: Final = 128


def silence() -> None:
    """Let the SDK print nothing in this process, whatever run or call it would speak of, and report nothing.

    What it says in its log-in, and what its service process tells it of a run, heeds no run's own settings.
    """
    set_defaults()  # before it reads the environment, for those who have made no connection
    quiet = wandb.Settings(silent=True, quiet=True, show_errors=False, show_info=False, show_warnings=False)
    wandb.setup(quiet)
    wandb.termsetup(quiet, None)


def refuse_others_context() -> None:
    """Make sure that a run is opened under the id that it is given.

    Raises:
        UsageError: This process runs inside a sweep or a launched job, where the SDK takes that id from elsewhere.
    """
    settings = wandb.setup().settings
    if settings.sweep_id or settings.launch:
        raise UsageError(
            "this process runs inside a W&B sweep or launch job, to which the SDK would add our run.",
            next_step="run spectral-edge outside of it (unset WANDB_SWEEP_ID and WANDB_LAUNCH).",
        )


def quiet_settings(folder: Path, **more: Any) -> wandb.Settings:
    """Settings of a run that prints nothing, tells nothing of this machine, writes to `folder` alone, and gives up.

    Args:
        folder: For the run's own files; the caller removes it.
        more: Further settings, by name: `mode`, `entity`, `project`, `run_id`, `resume`, `run_name` and so on.
    """
    return wandb.Settings(
        **{
            "root_dir": str(folder),
            # No print, and no hands on the process's stdout and stderr.
            "console": "off",
            "silent": True,
            "quiet": True,
            "show_errors": False,
            "show_info": False,
            "show_warnings": False,
            # Nothing of this machine: no metadata, no packages, no code, no commit, no host, no load.
            "x_disable_meta": True,
            "x_disable_stats": True,
            "x_disable_machine_info": True,
            "x_save_requirements": False,
            "disable_git": True,
            "disable_code": True,
            "disable_job_creation": True,
            "save_code": False,
            "label_disable": True,
            "program": "spectral-edge",
            "symlink": False,
            # What a training script's environment may say of its own run.
            "reinit": "create_new",
            "run_notes": "",
            "sagemaker_disable": True,
            # A server that is down ends in an error within minutes, not hours.
            "init_timeout": 90.0,
            "finish_timeout": float(UPLOAD_SECONDS),
            "finish_timeout_raises": True,
            **{f"x_{way}_{name}": value for way in _WAYS for name, value in RETRIES.items()},
            **more,
        }
    )


def summary_of(annotation: Annotation) -> dict[str, str | int]:
    """The annotation's tags as keys of a summary; counts are numbers, so that runs can be sorted by them."""
    found: dict[str, str | int] = {}
    for tag, text in annotation.tags.items():
        name = tag.removeprefix(f"{OUR_NAME}.")
        found[f"{PREFIX}{name}"] = int(text) if name in _NUMBERS and text.isdecimal() else text
    return found


def rows_of(annotation: Annotation) -> dict[int, dict[str, float]]:
    """The annotation's points by training step, increasing: a row of the history each."""
    rows: dict[int, dict[str, float]] = {}
    for point in sorted(annotation.metrics, key=lambda point: point.step):
        rows.setdefault(point.step, {})[point.key] = point.value
    return rows


def artifact_name(run_id: str) -> str:
    """Name of the artifact with the files of an audit of run `run_id`, in the letters that W&B takes."""
    name = f"spectral-edge-{run_id}"
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    if safe == name and len(name) <= _MAX_NAME:
        return name
    return f"{safe[: _MAX_NAME - 9]}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


def log_results(
    run: wandb.Run,
    annotation: Annotation,
    audited: str,
    folder: Path,
    *,
    rows: Mapping[int, Mapping[str, float]] | None = None,
    finished: bool = True,
) -> None:
    """Log `annotation` to `run`, which is open: the mark that it is begun first, the mark that it is finished last.

    Args:
        run: Opened with :func:`quiet_settings`; the caller finishes it.
        annotation: What to log.
        audited: Id of the run that was audited.
        folder: For files until they are uploaded, that is until `run` has been finished; the caller removes it.
        rows: Metric points by training step, where not all of `annotation` are to be logged.
        finished: Whether to set the mark that it is finished.

    Raises:
        wandb.Error: The server refused the artifact with the files, or it did not arrive there in time.
    """
    run.summary[STARTED] = annotation.mark
    # Not synced: a row without a step must not be given the last one's.
    run.define_metric(STEP, hidden=True)
    run.define_metric(f"{PREFIX}*", step_metric=STEP, step_sync=False)
    _log_rows(run, rows_of(annotation) if rows is None else rows)
    folder.mkdir(parents=True, exist_ok=True)
    _log_files(run, annotation, audited, folder)
    media = {**media_of(annotation, folder), **table_of(run, annotation)}
    if media:
        run.log(media)
    run.summary.update(summary_of(annotation))
    if finished:
        run.summary[FINISHED] = annotation.mark


def _log_rows(run: wandb.Run, rows: Mapping[int, Mapping[str, float]]) -> None:
    for step, row in rows.items():
        run.log({STEP: step, **row})


def _log_files(run: wandb.Run, annotation: Annotation, audited: str, folder: Path) -> None:
    """Log the files as they are, as one artifact, and wait until it is on the server."""
    if not annotation.files:
        return
    artifact = wandb.Artifact(artifact_name(audited), ARTIFACT_TYPE)
    of = {"audit_of": audited, "audit_run": run.id, "mark": annotation.mark}
    # With the run's id in it no two audits share a version, so that one can be deleted without the other.
    for name, content in {**annotation.files, "audit.json": json.dumps(of, indent=1).encode()}.items():
        path = folder / name
        path.write_bytes(content)
        # Not copied anywhere else: `folder` outlives the upload, and nobody will ask for these files again here.
        artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)
    run.log_artifact(artifact)
    try:
        artifact.wait(UPLOAD_SECONDS)
    except ValueError as error:  # so the SDK tells what the server answered
        raise wandb.errors.CommError(f"the artifact {artifact_name(audited)} was not taken: {error}") from error


def media_of(annotation: Annotation, folder: Path) -> dict[str, Any]:
    """The chart and the page of the annotation, as a row of a history shows them; their files are in `folder`."""
    media: dict[str, Any] = {}
    if "spectrum.png" in annotation.files:
        media[_CHART] = wandb.Image(str(folder / "spectrum.png"))
    if "spectrum.html" in annotation.files:
        media[_REPORT] = wandb.Html(annotation.files["spectrum.html"].decode(), inject=False)
    return media


def table_of(run: wandb.Run, annotation: Annotation) -> dict[str, Any]:
    """The points as a table, a row for each group and step, as a row of a history shows it.

    Nothing where there are none, or more than W&B shows. The table is a file among the run's media: of a `wandb.Table`
    the SDK would make an artifact too, and leave a copy of it in the user's data directory for ever.
    """
    rows: dict[tuple[str, int], dict[str, float]] = {}
    quantities: dict[str, None] = {}
    for point in annotation.metrics:
        group, _, quantity = point.key.removeprefix(PREFIX).rpartition("/")
        rows.setdefault((group, point.step), {})[quantity] = point.value
        quantities[quantity] = None
    if not 0 < len(rows) <= _MAX_ROWS:
        return {}
    columns = ["group", "step", *quantities]
    data = [[group, step, *map(row.get, quantities)] for (group, step), row in rows.items()]
    content = json.dumps({"columns": columns, "data": data}).encode()
    digest = hashlib.sha256(content).hexdigest()
    path = Path(run.dir, "media", "table", OUR_NAME, f"points_{digest[:20]}.table.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    run.save(str(path), base_path=run.dir, policy="end")
    told = {"sha256": digest, "size": len(content), "ncols": len(columns), "nrows": len(data)}
    return {_TABLE: {"_type": "table-file", "path": path.relative_to(run.dir).as_posix(), **told}}
