"""What tells the training step of a version of a W&B artifact.

That depends on who logged it. Each way of telling is asked for all versions of a series, and the first that tells them
apart is taken:

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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from integrations.listing import RunFiles, read_records
from integrations.step_metadata import record_beside
from integrations.tracker import CheckpointFile, StepSource
from spectral_edge.checkpoints import find_series, is_checkpoint_file, shown
from spectral_edge.checkpoints.step_names import Wording, numbers_told

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


@dataclass(frozen=True)
class Checkpoint:
    """An artifact that is one checkpoint, and the files of its weights."""

    artifact: LoggedArtifact
    paths: tuple[str, ...]
    run_id: str

    @property
    def files(self) -> tuple[CheckpointFile, ...]:
        """Those of the weights."""
        return tuple(map(self.artifact.files.described, self.paths))

    @property
    def path(self) -> str:
        """The weights' path; of shards, one that their folder alone tells of."""
        first = PurePosixPath(self.paths[0])
        return str(first) if len(self.paths) == 1 else str(first.parent / "model.safetensors")

    @property
    def own_name(self) -> str:
        """The artifact's name without what `run.log_model` puts before a file's name."""
        return self.artifact.collection.replace(self.run_id, "").removeprefix("run--")


@dataclass(frozen=True)
class Told:
    """What one way tells of the checkpoints of a series: steps by their place, and where each comes from."""

    steps: Mapping[int, tuple[int, StepSource]]
    in_epochs: bool = False
    warnings: tuple[str, ...] = ()

    def tells_apart(self, count: int) -> bool:
        """Whether it tells most of `count` checkpoints, and does not say the same of all."""
        steps = {step for step, _ in self.steps.values()}
        return 2 * len(self.steps) > count and len(steps) > (1 if count > 1 else 0)


def told_steps(members: Sequence[Checkpoint], run: str) -> Told:
    """The steps of `members`, by the first way that tells them apart."""
    in_epochs: Told | None = None
    refused: tuple[str, ...] = ()
    for way in _WAYS:
        told = way(members, run)
        refused += told.warnings
        if told.tells_apart(len(members)):
            if not told.in_epochs:
                return Told(told.steps, warnings=refused)
            in_epochs = in_epochs or told
    return Told(in_epochs.steps, in_epochs=True, warnings=refused) if in_epochs else Told({}, warnings=refused)


def _by_metadata(members: Sequence[Checkpoint], _run: str) -> Told:
    """The first key that tells the members apart, so that a constant of the configuration does not hide a step."""
    for key in _METADATA_KEYS:
        told = _by_key(key, members, _run)
        if told.tells_apart(len(members)):
            return told
    return Told({})


def _by_key(key: str, members: Sequence[Checkpoint], _run: str) -> Told:
    steps = ((place, _step(member.artifact.metadata.get(key))) for place, member in enumerate(members))
    return Told({place: (step, "metadata") for place, step in steps if step is not None})


def _step(value: object) -> int | None:
    """`value` if it is a number that can be a step; JSON has no integers of its own."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LARGEST_STEP:
        return None
    return int(value) if value == int(value) else None


def _by_alias(members: Sequence[Checkpoint], _run: str) -> Told:
    steps: dict[int, tuple[int, StepSource]] = {}
    for place, member in enumerate(members):
        told = [numbers_told(alias) for alias in member.artifact.aliases]
        numbers = [each[wording] for wording in (Wording.STEP, Wording.CHECKPOINT) for each in told if wording in each]
        if numbers:
            steps[place] = (numbers[0], "alias")
    return Told(steps)


def _by_epoch_in_alias(members: Sequence[Checkpoint], _run: str) -> Told:
    steps: dict[int, tuple[int, StepSource]] = {}
    for place, member in enumerate(members):
        told = [numbers_told(alias) for alias in member.artifact.aliases]
        epochs = [each[Wording.EPOCH] for each in told if Wording.EPOCH in each]
        if epochs:
            steps[place] = (epochs[0], "alias")
    return Told(steps, in_epochs=True)


def _by_file_name(members: Sequence[Checkpoint], _run: str) -> Told:
    names = [member.artifact.metadata.get(_FILE_NAME) for member in members]
    if all(isinstance(name, str) for name in names):
        return _named([str(name) for name in names], "file_name")
    return _named([member.path for member in members])


def _by_artifact_name(members: Sequence[Checkpoint], _run: str) -> Told:
    names = [member.own_name for member in members]  # of `run.log_model` it is the file's name, with its suffix
    return _named([n if is_checkpoint_file(n) else f"{n}/model.safetensors" for n in names], "model_name")


def _named(paths: Sequence[str], source: StepSource | None = None) -> Told:
    """What the names tell; `source` None keeps what :func:`find_series` says of it: the file, or its folder."""
    series = find_series(paths).series
    found = {path: each for one in series for each in one.checkpoints for path in each.paths}
    steps = {place: found[path] for place, path in enumerate(paths) if path in found}
    return Told(
        {place: (each.step, source or each.step_source) for place, each in steps.items()},
        in_epochs=any(one.warnings for one in series),
    )


def _by_record(members: Sequence[Checkpoint], run: str) -> Told:
    steps: dict[int, tuple[int, StepSource]] = {}
    warnings: list[str] = []
    for place, member in enumerate(members):
        record = record_beside(member.paths[0], member.artifact.files.paths)
        recorded, said = read_records(member.artifact.files, [record] if record else [], run)
        warnings.extend(said)
        if record in recorded:
            steps[place] = (recorded[record], "metadata")
    return Told(steps, warnings=tuple(dict.fromkeys(warnings)))


def _by_history(members: Sequence[Checkpoint], _run: str) -> Told:
    steps: dict[int, tuple[int, StepSource]] = {}
    for place, member in enumerate(members):
        if member.artifact.history_step is not None:
            steps[place] = (member.artifact.history_step, "history")
    in_order = [step for step, _ in steps.values()]
    if in_order != sorted(set(in_order)):
        return Told({})  # versions that were logged in this order cannot have been trained in that
    said = (
        f"the steps of {len(steps)} versions of {shown(members[0].artifact.collection)} are those of the run's history"
    )
    return Told(
        steps, warnings=(f"{said} when they were logged: off by one logging interval at most",) if steps else ()
    )


_WAYS: Final[Sequence[Callable[[Sequence[Checkpoint], str], Told]]] = (
    _by_metadata,
    _by_alias,
    _by_file_name,
    _by_artifact_name,
    _by_record,
    partial(_by_key, _LOGGED_LAST),
    _by_history,
    _by_epoch_in_alias,
)
