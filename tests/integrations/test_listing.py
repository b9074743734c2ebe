"""Which series of a run is taken, and when steps recorded beside the weights count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from integrations.listing import Series, choose, found_in, series_of
from integrations.step_metadata import MAX_BYTES
from integrations.tracker import CheckpointFile, CheckpointListing, CheckpointRef, OtherSeries
from spectral_edge.errors import NotFoundError


@dataclass
class Files:
    """Files in a folder, and which of them were read."""

    folder: Path
    read: list[str] = field(default_factory=list)
    location: str = "here"

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def described(self, path: str) -> CheckpointFile:
        return CheckpointFile(path, (self.folder / path).stat().st_size)

    def brought(self, paths: Sequence[str]) -> AbstractContextManager[Sequence[Path]]:
        self.read += paths
        return nullcontext([self.folder / path for path in paths])

    def put(self, path: str, content: str = "") -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def taken(self) -> CheckpointListing:
        found = found_in(self, "run")
        return choose([series_of(found, self)], None, "run", found.left_out)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def record(step: object) -> str:
    return json.dumps({"epoch": 1, "train_loss": float("nan"), "global_step": step})


def test_a_recorded_step_counts_where_a_name_tells_an_epoch(files: Files) -> None:
    for epoch in range(3):
        files.put(f"epoch_{epoch}/checkpoint.pth")
        files.put(f"epoch_{epoch}/checkpoint_metrics.json", record(50 * epoch + 50))
    listing = files.taken()
    assert [(ref.step, ref.step_source) for ref in listing.checkpoints] == [
        (step, "metadata") for step in (50, 100, 150)
    ]
    assert listing.warnings == ()
    assert (listing.series, listing.step_source) == ("epoch_#/checkpoint.pth", "metadata")


def test_records_are_not_read_where_a_word_for_step_tells(files: Files) -> None:
    for step in (1, 2):
        files.put(f"checkpoint-{step}/model.safetensors")
        files.put(f"checkpoint-{step}/trainer_state.json", record(7 * step))
    assert [ref.step for ref in files.taken().checkpoints] == [1, 2]
    assert files.read == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[]", "no training step"),
        ("{}", "no training step"),
        (record(True), "no training step"),
        (record(-1), "no training step"),
        (record(1.5), "no training step"),
        (record(10**18), "no training step"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"global_step": ' + "9" * 5000 + "}", "no JSON"),
        (" " * MAX_BYTES + "{}", "larger than 1,048,576 bytes"),
    ],
)
def test_a_record_of_no_use_is_named_and_the_names_tell(files: Files, content: str, why: str) -> None:
    for number in (1, 2, 3):
        files.put(f"model_{number}/model.pt")
        files.put(f"model_{number}/trainer_state.json", content if number == 2 else record(10 * number))
    listing = files.taken()
    assert [(ref.step, ref.step_source) for ref in listing.checkpoints] == [
        (1, "folder_name"),
        (2, "folder_name"),
        (3, "folder_name"),
    ]
    assert [warning for warning in listing.warnings if why in warning and "`model_2/trainer_state.json`" in warning]
    assert ("model_2/trainer_state.json" in files.read) == ("larger" not in why)


def test_one_record_beside_several_checkpoints_is_about_none_of_them(files: Files) -> None:
    for epoch in (1, 2, 3):
        files.put(f"epoch_{epoch}.pt")
    files.put("trainer_state.json", record(500))
    listing = files.taken()
    assert [ref.step for ref in listing.checkpoints] == [1, 2, 3]
    assert listing.warnings == ("steps are counted in epochs: `epoch_#.pt` tells no optimizer step",)


def test_a_checkpoint_that_is_overwritten_again_and_again_has_the_step_of_its_record(files: Files) -> None:
    files.put("checkpoints/latest_checkpoint.pth")
    files.put("checkpoints/latest_checkpoint_metrics.json", record(40))
    assert [(ref.step, ref.step_source) for ref in files.taken().checkpoints] == [(40, "metadata")]


def test_many_records_are_brought_in_parts(files: Files) -> None:
    for epoch in range(200):
        files.put(f"epoch_{epoch}/checkpoint.weights.pth")
        files.put(f"epoch_{epoch}/checkpoint_metrics.json", record(10 * epoch))
    assert [ref.step for ref in files.taken().checkpoints] == list(range(0, 2000, 10))
    assert len(files.read) == 200


def series(name: str, count: int) -> Series:
    return Series(name, tuple(CheckpointRef(f"{name}-{step}", step, "file_name", ()) for step in range(count)))


MODELS = [series("model:ckpt-#", 3), series("model:best", 1)]
ARTIFACTS = [series("step_#.pt", 3), series("ema/step_#.pt", 5)]


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (None, "model:ckpt-#"),  # a tie, and the longer series of artifacts is not the preferred one
        ("model:*", "model:ckpt-#"),
        ("model:best", "model:best"),
        ("*.pt", "step_#.pt"),
        ("ema/*", "ema/step_#.pt"),
        ("*", "model:ckpt-#"),
        ("ema/step_#.pt", "ema/step_#.pt"),
    ],
)
def test_the_longer_kind_is_taken_unless_a_name_says_otherwise(wanted: str | None, taken: str) -> None:
    listing = choose([MODELS, ARTIFACTS], wanted, "run")
    assert listing.series == taken
    assert {(other.name, other.checkpoints) for other in listing.others} == {
        (each.name, len(each.checkpoints)) for each in (*MODELS, *ARTIFACTS) if each.name != taken
    }
    assert len(listing.warnings) == (3 if wanted is None else 0)


def test_the_longer_one_wins_over_logged_models() -> None:
    assert choose([MODELS, [series("step_#.pt", 4)]], None, "run").series == "step_#.pt"


def test_a_name_with_brackets_is_matched_as_it_is() -> None:
    assert choose([[series("a[1]_#.pt", 2)]], "a[1]_#.pt", "run").series == "a[1]_#.pt"


def test_a_pattern_that_matches_nothing_says_what_there_is() -> None:
    with pytest.raises(NotFoundError) as caught:
        choose([MODELS, ARTIFACTS], "step_*.safetensors", "my run")
    said = str(caught.value)
    assert "run my run: no series of its checkpoints has a name like 'step_*.safetensors'" in said
    assert "`model:ckpt-#` (3), `model:best` (1), `step_#.pt` (3), `ema/step_#.pt` (5)" in said


def test_a_run_without_checkpoints_matches_no_pattern_and_is_no_error() -> None:
    assert choose([[], []], "model:*", "run", ["something"]) == CheckpointListing((), ("something",))
    assert OtherSeries("a", 1) not in choose([[]], None, "run").others
