"""The checkpoints of a run that were logged as MLflow 3 models.

Each carries a step in the run's outputs; it is 0 for every model that was logged without saying one, as Hugging Face's
Trainer does, and then a record among its files, its name (`checkpoint-6`) or the time it was logged at tells it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mlflow.entities import LoggedModel, LoggedModelStatus, Run

from integrations.listing import Series, read_records
from integrations.metric_times import Point, steps_at
from integrations.mlflow_connection import MlflowConnection, every_page
from integrations.mlflow_files import ArtifactFiles
from integrations.step_metadata import record_beside
from integrations.tracker import OUR_NAME, CheckpointFile, CheckpointRef, StepSource
from spectral_edge.checkpoints import find_series, shown
from spectral_edge.errors import NotFoundError

NAME_PREFIX: Final = "model:"
"""What the names of series of logged models begin with; artifacts have paths."""

_NO_STEP_METRICS: Final = (f"{OUR_NAME}/", "system/")
"""What we write, and what MLflow measures of the machine by the number of the measurement."""


@dataclass(frozen=True)
class _Model:
    """A logged model with its files and those of its weights, and its step as far as that is known."""

    model: LoggedModel
    files: ArtifactFiles
    weights: tuple[CheckpointFile, ...]
    step: int | None = None
    source: StepSource = "logged_model"
    in_epochs: bool = False

    @property
    def name(self) -> str:
        return f"{self.model.name}/{self.weights[0].path}"


def model_series(connection: MlflowConnection, run: Run) -> tuple[list[Series], tuple[str, ...]]:
    """The series of the run's logged models, the longest first; and what belongs to none of them.

    There is one for each naming pattern: `generator-10` is not `critic-10`.
    """
    steps = {output.model_id: output.step for output in run.outputs.model_outputs} if run.outputs else {}
    by_pattern: dict[str, list[LoggedModel]] = defaultdict(list)
    for model in _ready_models(connection, run):
        by_pattern[NAME_PREFIX + re.sub(r"\d+", "#", model.name)].append(model)
    every = [_series(connection, run, name, models, steps) for name, models in sorted(by_pattern.items())]
    offered = [series for series in every if series.checkpoints]
    left_out = (warning for series in every if not series.checkpoints for warning in series.warnings)
    return sorted(offered, key=lambda series: -len(series.checkpoints)), tuple(left_out)


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


def _series(
    connection: MlflowConnection, run: Run, name: str, models: Sequence[LoggedModel], steps: Mapping[str, int]
) -> Series:
    warnings: list[str] = []
    found: list[_Model] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    for model in models:
        logged = steps.get(model.model_id)
        read = _read(ArtifactFiles(connection, connection.artifacts(model.artifact_location), run.info.run_name), model)
        if read is None:
            left_out["it holds no weights file"].append(
                model.name if logged is None else f"{model.name} (step {logged})"
            )
        else:
            found.append(_with_step(read, logged, warnings))
    by_step: dict[int, CheckpointRef] = {}
    for each in _by_time(connection, run, found, warnings):
        if each.step is None:
            left_out["no training step is known"].append(each.model.name)
            continue
        if each.step in by_step:
            left_out["a later model has the same step"].append(by_step[each.step].name)
        by_step[each.step] = CheckpointRef(each.name, each.step, each.source, each.weights, each.files.location)
    if any(each.in_epochs for each in found):
        warnings.append(f"steps are counted in epochs: {shown(name)} tells no optimizer step")
    return Series(name, tuple(by_step[step] for step in sorted(by_step)), (*warnings, *_sentences(left_out)))


def _sentences(left_out: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for reason, names in left_out.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"logged model {', '.join(names[:3])}{more} left out: {reason}."


def _read(files: ArtifactFiles, model: LoggedModel) -> _Model | None:
    """The model with its weights; None when it has none that can be read."""
    home = "step-0/"  # the weights of a model are named without a step: it is the model's
    series = find_series([home + path for path in files.paths]).series
    if not series:
        return None
    paths = [path.removeprefix(home) for path in series[0].checkpoints[-1].paths]
    return _Model(model, files, tuple(map(files.described, paths)))


def _with_step(read: _Model, logged: int | None, warnings: list[str]) -> _Model:
    """The model with its step: as it was logged (0 may mean that it was not), recorded in its files, or in its name.

    The record is read only where the name leaves doubt, as :func:`integrations.listing.found_in` does.
    """
    if logged:
        return replace(read, step=logged)
    named = find_series([f"{read.model.name}/model.safetensors"])
    if not named.series or named.doubtful:
        record = record_beside(read.weights[0].path, read.files.paths)
        recorded, said = read_records(read.files, [record] if record else [], read.files.run_name)
        warnings.extend(said)
        if record in recorded:
            return replace(read, step=recorded[record], source="metadata")
    if not named.series:
        return replace(read, step=logged)
    (series,) = named.series
    return replace(read, step=series.checkpoints[0].step, source="model_name", in_epochs=bool(series.warnings))


def _by_time(connection: MlflowConnection, run: Run, found: Sequence[_Model], warnings: list[str]) -> Sequence[_Model]:
    """Where no model of a series has a step, each with that of the last metric point before it was logged."""
    if len(found) < 2 or any(each.step or each.source != "logged_model" for each in found):
        return found
    steps = steps_at([each.model.creation_timestamp for each in found], _points(connection, run))
    if steps is None:
        return found
    warnings.append(
        f"no step was logged with the {len(found)} models named like {shown(found[0].model.name)}: each was given the "
        f"step of the last metric point before it; that counts what the metrics count, steps or epochs, and is exact "
        f"only where there is a point just before each model"
    )
    return [replace(each, step=step, source="metric_time") for each, step in zip(found, steps, strict=True)]


def _points(connection: MlflowConnection, run: Run) -> Iterator[Point]:
    for name in run.data.metrics:
        if not name.startswith(_NO_STEP_METRICS):
            with connection.errors(run=run.info.run_name):
                history = connection.client.get_metric_history(run.info.run_id, name)
            yield from ((point.timestamp, point.step) for point in history)
