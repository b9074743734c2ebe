"""The checkpoints of an MLflow run: among its artifacts, or logged as MLflow 3 models.

Artifacts carry a step only in their names. Logged models carry one in the run's outputs; it is 0 for every model
that Hugging Face's Trainer logs, and then the model's name (`checkpoint-6`) tells it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from mlflow.entities import FileInfo, LoggedModel, LoggedModelStatus, Run

from integrations.listing import checkpoint_refs, named_step
from integrations.mlflow_connection import ArtifactRoot, MlflowConnection, every_page
from integrations.tracker import CheckpointFile, CheckpointListing, CheckpointRef, StepSource
from spectral_edge.checkpoints import find_trajectory
from spectral_edge.errors import NoStepError, NotFoundError


@dataclass(frozen=True)
class _Series:
    """One trajectory that a run offers, what to call it, and what was left out of it."""

    name: str
    checkpoints: tuple[CheckpointRef, ...]
    warnings: tuple[str, ...] = ()


def list_checkpoints(connection: MlflowConnection, run: Run) -> CheckpointListing:
    """The longest trajectory that `run` offers; others are named in the warnings. Logged models win a tie.

    Raises:
        NoStepError: There are checkpoints, and the step of none of them can be told.
    """
    models = _logged_models(connection, run)
    try:
        artifacts = [_artifacts(connection, run)]
    except NoStepError as error:
        if not any(series.checkpoints for series in models):
            raise error.of_run(run.info.run_name) from None
        artifacts = [_Series("the run's artifacts", (), (str(error),))]
    offered = [series for series in (*models, *artifacts) if series.checkpoints or series.warnings]
    if not offered:
        return CheckpointListing((), _nothing_here(connection, run))
    chosen = max(offered, key=lambda series: len(series.checkpoints))
    passed_over = tuple(
        f"{other.name} also holds {len(other.checkpoints)} checkpoints; {chosen.name} was taken, which holds "
        f"{len(chosen.checkpoints)}."
        for other in offered
        if other is not chosen and other.checkpoints
    )
    return CheckpointListing(chosen.checkpoints, tuple(chain(*(series.warnings for series in offered))) + passed_over)


def _nothing_here(connection: MlflowConnection, run: Run) -> tuple[str, ...]:
    """A server without artifact proxy names folders on its own disk, which here look empty."""
    folder = connection.artifacts(run.info.artifact_uri).folder
    if connection.is_server and folder is not None and not folder.is_dir():
        return (f"the server keeps this run's artifacts in its own folder {folder}, which this machine does not have.",)
    return ()


def _artifacts(connection: MlflowConnection, run: Run) -> _Series:
    root = connection.artifacts(run.info.artifact_uri)
    files = {entry.path: entry for entry in root.files()}
    found = find_trajectory(files)
    refs = checkpoint_refs(found, lambda path: _described(root, files[path]), root.uri)
    return _Series("the run's artifacts", refs, tuple(found.warnings))


def _described(root: ArtifactRoot, entry: FileInfo) -> CheckpointFile:
    # Artifact stores tell a size and nothing else; on this machine's disk the time of change is to be had too.
    digest = None if root.folder is None else f"mtime:{(root.folder / entry.path).stat().st_mtime_ns}"
    return CheckpointFile(entry.path, entry.file_size or 0, digest)


def _logged_models(connection: MlflowConnection, run: Run) -> list[_Series]:
    """One series for each naming pattern among the run's logged models: `generator-10` is not `critic-10`."""
    logged = {output.model_id: output.step for output in run.outputs.model_outputs} if run.outputs else {}
    by_pattern: dict[str, list[LoggedModel]] = defaultdict(list)
    for model in _ready_models(connection, run):
        by_pattern[re.sub(r"\d+", "#", model.name)].append(model)
    return [_series(connection, models, logged) for _, models in sorted(by_pattern.items())]


def _ready_models(connection: MlflowConnection, run: Run) -> list[LoggedModel]:
    """The run's logged models whose upload was completed, oldest first."""
    try:
        with connection.errors(run=run.info.run_name):
            models = every_page(
                lambda token: connection.client.search_logged_models(
                    experiment_ids=[run.info.experiment_id],
                    filter_string=f"source_run_id = '{run.info.run_id}'",
                    page_token=token,
                )
            )
    except NotFoundError:  # a server older than MLflow 3
        return []
    # Filtered here: `status = 'READY'` in the search is an error on PostgreSQL (MLflow 3.17).
    ready = (model for model in models if model.status == LoggedModelStatus.READY)
    return sorted(ready, key=lambda model: (model.creation_timestamp, model.model_id))


def _series(connection: MlflowConnection, models: Sequence[LoggedModel], logged: Mapping[str, int]) -> _Series:
    by_step: dict[int, CheckpointRef] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    for model in models:
        step, source = _step_of(model, logged.get(model.model_id))
        if step is None:
            left_out["no training step is known"].append(model.name)
            continue
        ref, reason = _weights_of(connection.artifacts(model.artifact_location), model, step, source)
        if ref is None:
            left_out[reason].append(f"{model.name} (step {step})")
            continue
        if step in by_step:
            left_out["a later model has the same step"].append(by_step[step].name)
        by_step[step] = ref
    refs = tuple(by_step[step] for step in sorted(by_step))
    return _Series(f"the logged models named like {models[0].name}", refs, tuple(_sentences(left_out)))


def _sentences(left_out: Mapping[str, Sequence[str]]) -> Iterable[str]:
    for reason, names in left_out.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"logged model {', '.join(names[:3])}{more} left out: {reason}."


def _step_of(model: LoggedModel, logged: int | None) -> tuple[int | None, StepSource]:
    if logged:
        return logged, "logged_model"
    named = named_step(model.name)
    return (logged, "logged_model") if named is None else (named, "folder_name")


def _weights_of(
    root: ArtifactRoot, model: LoggedModel, step: int, source: StepSource
) -> tuple[CheckpointRef | None, str]:
    """The reference to the model's weights, or None and the reason why it has none that can be read."""
    files = {entry.path: entry for entry in root.files()}
    home = f"step-{step}/"  # gives the weights of a model, which are named without a step, the one that is known
    found = find_trajectory([home + path for path in files]).checkpoints
    if not found:
        return None, "it holds no weights file"
    paths = [path.removeprefix(home) for path in found[-1].paths]
    described = tuple(_described(root, files[path]) for path in paths)
    return CheckpointRef(f"{model.name}/{paths[0]}", step, source, described, root.uri), ""
