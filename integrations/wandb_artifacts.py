"""From the artifacts that a W&B run logged to series of checkpoints, whether they come from a server or from a log.

An artifact is a checkpoint, its versions are a series, and what tells the training step of a version depends on who
logged it. Each way of telling is asked for all versions of a series, and the first that tells them apart is taken:

1. a step in the version's metadata;
2. an alias (`checkpoint-400` and `checkpoint_global_step_400` of Hugging Face's Trainer, `step_400`);
3. a file's name, or the name that Lightning's logger keeps in the metadata (`epoch=3-step=400.ckpt`);
4. the name of the artifact (`run-1a2b3c4d-step_400.pt` of `run.log_model`);
5. a record among its files (`trainer_state.json`);
6. `train/global_step` in the metadata, which Trainer takes from what was logged last: at most a logging interval early;
7. the row of the run's history at which the version was logged, no better than that;
8. an epoch, in an alias (`epoch_3` of Keras' callback) or in a name, where nothing counts steps.

What is the same for all versions counts nothing: Keras' callback writes the run's configuration into the metadata.
The number of a version (`v3`) is never a step.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from integrations.listing import RunFiles, Series, found_in, read_records, series_of
from integrations.step_metadata import record_beside
from integrations.tracker import CheckpointFile, CheckpointRef, StepSource
from spectral_edge.checkpoints import find_series, is_checkpoint_file, shown
from spectral_edge.checkpoints.step_names import Wording, numbers_told, without_numbers

NAME_PREFIX: Final = "artifact:"
"""What the names of series of artifacts begin with; saved files have paths."""

_MODEL_TYPES: Final = re.compile(r".*(model|checkpoint|ckpt|weight|snapshot).*", re.IGNORECASE)
_METADATA_KEYS: Final = ("step", "global_step", "trainer/global_step", "iteration", "iter")
_LOGGED_LAST: Final = "train/global_step"
_FILE_NAME: Final = "original_filename"
_LARGEST_STEP: Final = 10**18


@dataclass(frozen=True)
class LoggedArtifact:
    """One version of an artifact that a run logged. All of its text is the tracker's: untrusted.

    Attributes:
        collection: The artifact's name without a version.
        version: `v3`; empty where no server has given one.
        aliases: Those of the version, without the number.
        metadata: What was logged with it.
        history_step: The training step of the row of the run's history at which it was logged; None where unknown.
        files: What it holds.
    """

    collection: str
    version: str
    aliases: tuple[str, ...]
    metadata: Mapping[str, object]
    history_step: int | None
    files: RunFiles

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.collection}:{self.version}" if self.version else self.collection


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
    several, by_pattern = [], defaultdict[str, list[_Checkpoint]](list)
    left_out: dict[str, list[str]] = defaultdict(list)
    for artifact in artifacts:
        weights = _weights(artifact.files)
        if len(weights) > 1:
            several.append(artifact)
        elif weights:
            name = without_numbers(artifact.collection.replace(run_id, "\0")).replace("\0", run_id)
            by_pattern[name].append(_Checkpoint(artifact, weights[0], run_id))
        else:
            left_out["it holds no weights file"].append(artifact.name)
    found = [_series(members, run) for members in by_pattern.values()]
    found += [series for artifact in _newest(several) for series in _series_inside(artifact, run)]
    offered = [series for series in found if series.checkpoints]
    warnings = [warning for series in found if not series.checkpoints for warning in series.warnings]
    return sorted(offered, key=lambda series: -len(series.checkpoints)), (*warnings, *_sentences(left_out))


@dataclass(frozen=True)
class _Checkpoint:
    """An artifact that is one checkpoint, and the files of its weights."""

    artifact: LoggedArtifact
    paths: tuple[str, ...]
    run_id: str

    @property
    def files(self) -> tuple[CheckpointFile, ...]:
        return tuple(map(self.artifact.files.described, self.paths))

    @property
    def own_name(self) -> str:
        return self.artifact.collection.replace(self.run_id, "").removeprefix("run--")


@dataclass(frozen=True)
class _Told:
    """What one way tells of the checkpoints of a series: steps by their place, and where each comes from."""

    steps: Mapping[int, tuple[int, StepSource]]
    in_epochs: bool = False
    warnings: tuple[str, ...] = ()

    def tells_apart(self, count: int) -> bool:
        """Whether it tells most of `count` checkpoints, and does not say the same of all."""
        steps = {step for step, _ in self.steps.values()}
        return 2 * len(self.steps) > count and len(steps) > (1 if count > 1 else 0)


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


def _series(members: Sequence[_Checkpoint], run: str) -> Series:
    collections = {member.artifact.collection for member in members}
    pattern = members[0].artifact.collection
    if len(collections) > 1:
        run_id = members[0].run_id
        pattern = without_numbers(pattern.replace(run_id, "\0")).replace("\0", run_id)
    told = _told(members, run)
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


def _told(members: Sequence[_Checkpoint], run: str) -> _Told:
    """The steps of `members`, by the first way that tells them apart."""
    in_epochs: _Told | None = None
    refused: tuple[str, ...] = ()
    for way in _WAYS:
        told = way(members, run)
        refused += told.warnings
        if told.tells_apart(len(members)):
            if not told.in_epochs:
                return _Told(told.steps, warnings=refused)
            in_epochs = in_epochs or told
    return _Told(in_epochs.steps, in_epochs=True, warnings=refused) if in_epochs else _Told({}, warnings=refused)


def _by_metadata(members: Sequence[_Checkpoint], _run: str) -> _Told:
    """The first key that tells the members apart, so that a constant of the configuration does not hide a step."""
    for key in _METADATA_KEYS:
        told = _by_key(key, members, _run)
        if told.tells_apart(len(members)):
            return told
    return _Told({})


def _by_key(key: str, members: Sequence[_Checkpoint], _run: str) -> _Told:
    steps = ((place, _step(member.artifact.metadata.get(key))) for place, member in enumerate(members))
    return _Told({place: (step, "metadata") for place, step in steps if step is not None})


def _step(value: object) -> int | None:
    """`value` if it is a number that can be a step; JSON has no integers of its own."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LARGEST_STEP:
        return None
    return int(value) if value == int(value) else None


def _by_alias(members: Sequence[_Checkpoint], _run: str) -> _Told:
    steps: dict[int, tuple[int, StepSource]] = {}
    for place, member in enumerate(members):
        told = [numbers_told(alias) for alias in member.artifact.aliases]
        numbers = [each[wording] for wording in (Wording.STEP, Wording.CHECKPOINT) for each in told if wording in each]
        if numbers:
            steps[place] = (numbers[0], "alias")
    return _Told(steps)


def _by_epoch_in_alias(members: Sequence[_Checkpoint], _run: str) -> _Told:
    steps: dict[int, tuple[int, StepSource]] = {}
    for place, member in enumerate(members):
        told = [numbers_told(alias) for alias in member.artifact.aliases]
        epochs = [each[Wording.EPOCH] for each in told if Wording.EPOCH in each]
        if epochs:
            steps[place] = (epochs[0], "alias")
    return _Told(steps, in_epochs=True)


def _by_file_name(members: Sequence[_Checkpoint], _run: str) -> _Told:
    names = [member.artifact.metadata.get(_FILE_NAME) for member in members]
    if all(isinstance(name, str) for name in names):
        return _named([str(name) for name in names], "file_name")
    return _named([member.paths[0] for member in members])


def _by_artifact_name(members: Sequence[_Checkpoint], _run: str) -> _Told:
    names = [member.own_name for member in members]  # of `run.log_model` it is the file's name, with its suffix
    return _named([n if is_checkpoint_file(n) else f"{n}/model.safetensors" for n in names], "model_name")


def _named(paths: Sequence[str], source: StepSource | None = None) -> _Told:
    """What the names tell; `source` None keeps what :func:`find_series` says of it: the file, or its folder."""
    series = find_series(paths).series
    found = {path: each for one in series for each in one.checkpoints for path in each.paths}
    steps = {place: found[path] for place, path in enumerate(paths) if path in found}
    return _Told(
        {place: (each.step, source or each.step_source) for place, each in steps.items()},
        in_epochs=any(one.warnings for one in series),
    )


def _by_record(members: Sequence[_Checkpoint], run: str) -> _Told:
    steps: dict[int, tuple[int, StepSource]] = {}
    warnings: list[str] = []
    for place, member in enumerate(members):
        record = record_beside(member.paths[0], member.artifact.files.paths)
        recorded, said = read_records(member.artifact.files, [record] if record else [], run)
        warnings.extend(said)
        if record in recorded:
            steps[place] = (recorded[record], "metadata")
    return _Told(steps, warnings=tuple(dict.fromkeys(warnings)))


def _by_history(members: Sequence[_Checkpoint], _run: str) -> _Told:
    steps: dict[int, tuple[int, StepSource]] = {}
    for place, member in enumerate(members):
        if member.artifact.history_step is not None:
            steps[place] = (member.artifact.history_step, "history")
    in_order = [step for step, _ in steps.values()]
    if in_order != sorted(set(in_order)):
        return _Told({})  # versions that were logged in this order cannot have been trained in that
    said = (
        f"the steps of {len(steps)} versions of {shown(members[0].artifact.collection)} are those of the run's history"
    )
    return _Told(
        steps, warnings=(f"{said} when they were logged: off by one logging interval at most",) if steps else ()
    )


_WAYS: Final[Sequence[Callable[[Sequence[_Checkpoint], str], _Told]]] = (
    _by_metadata,
    _by_alias,
    _by_file_name,
    _by_artifact_name,
    _by_record,
    partial(_by_key, _LOGGED_LAST),
    _by_history,
    _by_epoch_in_alias,
)


def _sentences(left_out: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for reason, names in left_out.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"artifact {', '.join(map(shown, names[:3]))}{more} left out: {reason}."
