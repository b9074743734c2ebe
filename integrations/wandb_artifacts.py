"""From the artifacts that a W&B run logged to series of checkpoints, whether they come from a server or from a log.

An artifact is a checkpoint, its versions are a series; :mod:`integrations.wandb_steps` says what tells their steps.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from integrations.listing import RunFiles, Series, found_in, series_of
from integrations.tracker import CheckpointRef
from integrations.wandb_steps import Checkpoint, LoggedArtifact, told_steps
from spectral_edge.checkpoints import find_series, shown
from spectral_edge.checkpoints.step_names import without_numbers

NAME_PREFIX: Final = "artifact:"
"""What the names of series of artifacts begin with; saved files have paths."""

_MODEL_TYPES: Final = re.compile(r".*(model|checkpoint|ckpt|weight|snapshot).*", re.IGNORECASE)


def is_model(type_: str) -> bool:
    """Whether artifacts of this type are looked into for checkpoints: its name says model, checkpoint or weights."""
    return _MODEL_TYPES.fullmatch(type_) is not None


def artifact_series(artifacts: Sequence[LoggedArtifact], run: str, run_id: str) -> tuple[list[Series], tuple[str, ...]]:
    """The series among `artifacts`, the longest first; and what belongs to none of them.

    Versions of one artifact form a series, as do artifacts whose names differ only in their numbers. An artifact that
    holds several checkpoints by itself is a series of its own.

    Args:
        artifacts: What the run logged, oldest first.
        run: The run's name.
        run_id: Its id, which names of artifacts may hold and which tells no step.
    """
    several, by_pattern = [], defaultdict[str, list[Checkpoint]](list)
    left_out: dict[str, list[str]] = defaultdict(list)
    for artifact in artifacts:
        weights = _weights(artifact.files)
        if len(weights) > 1:
            several.append(artifact)
        elif weights:
            name = without_numbers(artifact.collection.replace(run_id, "\0")).replace("\0", run_id)
            by_pattern[name].append(Checkpoint(artifact, weights[0], run_id))
        else:
            left_out["it holds no weights file"].append(artifact.name)
    found = [_series(members, run) for members in by_pattern.values()]
    found += [series for artifact in _newest(several) for series in _series_inside(artifact, run)]
    offered = [series for series in found if series.checkpoints]
    warnings = [warning for series in found if not series.checkpoints for warning in series.warnings]
    return sorted(offered, key=lambda series: -len(series.checkpoints)), (*warnings, *_sentences(left_out))


def _weights(files: RunFiles) -> list[tuple[str, ...]]:
    """The checkpoints among `files`: none, one, or several that their names tell apart."""
    series = find_series(files.paths).series
    if series and len(series[0].checkpoints) > 1:
        return [found.paths for found in series[0].checkpoints]
    home = "step-0/"  # the weights of a model are named without a step: it is the artifact's
    series = find_series([home + path for path in files.paths]).series
    return [tuple(path.removeprefix(home) for path in series[0].checkpoints[-1].paths)] if series else []


def _newest(artifacts: Iterable[LoggedArtifact]) -> list[LoggedArtifact]:
    """The last version of each collection."""
    return list({artifact.collection: artifact for artifact in artifacts}.values())


def _series_inside(artifact: LoggedArtifact, run: str) -> Iterator[Series]:
    found = found_in(artifact.files, run)
    for series in series_of(found, artifact.files):
        yield Series(f"{NAME_PREFIX}{artifact.name}/{series.name}", series.checkpoints, series.warnings)


def _series(members: Sequence[Checkpoint], run: str) -> Series:
    collections = {member.artifact.collection for member in members}
    pattern = members[0].artifact.collection
    if len(collections) > 1:
        run_id = members[0].run_id
        pattern = without_numbers(pattern.replace(run_id, "\0")).replace("\0", run_id)
    told = told_steps(members, run)
    left_out: dict[str, list[str]] = defaultdict(list)
    by_step: dict[int, CheckpointRef] = {}
    for place, member in enumerate(members):
        if place not in told.steps:
            left_out["no training step is known"].append(member.artifact.name)
            continue
        step, source = told.steps[place]
        if step in by_step:
            left_out["a later version has the same step"].append(by_step[step].name)
        by_step[step] = CheckpointRef(
            f"{member.artifact.name}/{member.paths[0]}", step, source, member.files, member.artifact.files.location
        )
    warnings = list(told.warnings)
    if told.in_epochs:
        warnings.append(f"steps are counted in epochs: {shown(pattern)} tells no optimizer step")
    checkpoints = tuple(by_step[step] for step in sorted(by_step))
    return Series(NAME_PREFIX + pattern, checkpoints, (*warnings, *_sentences(left_out)))


def _sentences(left_out: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for reason, names in left_out.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"artifact {', '.join(map(shown, names[:3]))}{more} left out: {reason}."
