"""The checkpoints of an MLflow run: among its artifacts, or logged as MLflow 3 models (see mlflow_models.py).

Versions of a registered model are not looked for: what they point to lies among the artifacts or the logged models of
the run that they come from.
"""

from __future__ import annotations

from mlflow.entities import Run

from integrations.listing import choose, found_in, series_of
from integrations.mlflow_connection import MlflowConnection
from integrations.mlflow_files import ArtifactFiles
from integrations.mlflow_models import model_series
from integrations.tracker import CheckpointListing


def list_checkpoints(connection: MlflowConnection, run: Run, series: str | None) -> CheckpointListing:
    """One of the series that `run` offers, by the rule of :func:`choose`; logged models win a tie.

    Raises:
        NoStepError: There are checkpoints, and the step of none of them can be told.
        NotFoundError: There are checkpoints, and no series has a name like `series`.
    """
    name = run.info.run_name
    models, models_left_out = model_series(connection, run)
    files = ArtifactFiles(connection, connection.artifacts(run.info.artifact_uri), name)
    found = found_in(files, name)
    if found.stepless and not found.series and not models:
        raise found.no_step().of_run(name)
    left_out = (*models_left_out, *found.left_out)
    listing = choose([models, series_of(found, files)], series, name, left_out)
    if listing.checkpoints or listing.warnings:
        return listing
    return CheckpointListing((), _nothing_here(connection, run))


def _nothing_here(connection: MlflowConnection, run: Run) -> tuple[str, ...]:
    """A server without artifact proxy names folders on its own disk, which here look empty."""
    folder = connection.artifacts(run.info.artifact_uri).folder
    if connection.is_server and folder is not None and not folder.is_dir():
        return (f"the server keeps this run's artifacts in its own folder {folder}, which this machine does not have.",)
    return ()
