"""Which folders are runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from integrations.folder_runs import run_files, run_params, run_places
from integrations.folder_tracker import FolderTracker
from integrations.tracker import Selection
from spectral_edge.errors import NotFoundError


def put(root: Path, *paths: str) -> Path:
    """Empty files at `paths` below `root`."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def names(root: Path) -> list[str]:
    return [str(folder.relative_to(root.resolve())) for folder in run_places(root)]


@pytest.mark.parametrize(
    "paths",
    [
        ("step_1.pt", "step_2.pt"),
        ("checkpoint-100/model.safetensors", "checkpoint-200/model.safetensors", "checkpoint-200/optimizer.pt"),
        ("checkpoints/step_1.safetensors", "checkpoints/step_2.safetensors"),
        ("ckpts/100/model.safetensors", "ckpts/200/model.safetensors"),
        ("ckpt/epoch=1-step=8.ckpt", "ckpt/epoch=2-step=16.ckpt"),
        ("step_1.pt", "step_2.pt", "other/step_1.pt"),
        ("step_1/.metadata", "step_1/__0_0.distcp", "step_2/.metadata", "step_2/__0_0.distcp"),
        ("checkpoint/step-1/.metadata", "checkpoint/step-1/__0_0.distcp"),
        ("checkpoints/epoch=0-step=8.ckpt/.metadata", "checkpoints/epoch=0-step=8.ckpt/__0_0.distcp"),
        ("checkpoint-1/pytorch_model_fsdp_0/.metadata", "checkpoint-1/pytorch_model_fsdp_0/__0_0.distcp"),
        ("params_1.npz", "params_2.npz"),
        ("checkpoints/epoch_1.weights.h5",),
        ("checkpoint_1.pth.tar", "model_best.pth.tar"),
    ],
)
def test_a_folder_that_holds_checkpoints_is_one_run(tmp_path: Path, paths: tuple[str, ...]) -> None:
    assert names(put(tmp_path, *paths)) == ["."]


def test_otherwise_each_folder_below_that_holds_some_is_one(tmp_path: Path) -> None:
    put(tmp_path, "a/step_1.pt", "b/checkpoints/step_1.pt", "c/deep/checkpoint-5/model.safetensors", "notes/readme.md")
    assert names(tmp_path) == ["a", "b", "c/deep"]


def test_the_run_is_the_folder_around_a_container(tmp_path: Path) -> None:
    put(tmp_path, "lightning_logs/version_0/checkpoints/epoch=1-step=8.ckpt")
    put(tmp_path, "lightning_logs/version_1/checkpoints/epoch=1-step=8.ckpt")
    assert names(tmp_path) == ["lightning_logs/version_0", "lightning_logs/version_1"]


def test_runs_that_are_numbered_are_not_taken_for_steps(tmp_path: Path) -> None:
    for run in ("1", "2", "model_3"):
        put(tmp_path, f"{run}/step_10.pt", f"{run}/step_20.pt")
    assert names(tmp_path) == ["1", "2", "model_3"]


def test_selecting_a_run_or_the_folder_above_gives_the_same_key(tmp_path: Path) -> None:
    put(tmp_path, "a/step_1.pt", "b/step_1.pt")
    tracker = FolderTracker()
    both = {run.key for run in tracker.runs(Selection(str(tmp_path)))}
    assert {run.key for run in tracker.runs(Selection(str(tmp_path / "a")))} < both
    assert {key.project for key in both} == {tmp_path.name}


def test_equal_names_in_different_places_have_different_ids(tmp_path: Path) -> None:
    put(tmp_path, "x/run/step_1.pt", "y/run/step_1.pt")
    first, second = FolderTracker().runs(Selection(str(tmp_path)))
    assert first.key.run_name == second.key.run_name == "run"
    assert first.key.run_id != second.key.run_id


def test_hidden_folders_our_own_and_stores_are_not_entered(tmp_path: Path) -> None:
    put(tmp_path, "a/step_1.pt", ".git/step_1.pt", "a/spectral_edge/step_2.pt", "spectral_edge/step_3.pt")
    put(tmp_path, "store/gaps/_delta_log/0.json", "store/x/step_1.pt", "table/_delta_log/0.json", "table/step_1.pt")
    assert names(tmp_path) == ["a"]
    assert run_files(tmp_path / "a") == ("step_1.pt",)


def test_of_hidden_files_only_a_checkpoint_s_metadata_is_listed(tmp_path: Path) -> None:
    put(
        tmp_path,
        "step_1/.metadata",
        "step_1/__0_0.distcp",
        "step_1/.metadata.tmp",
        "step_1/.DS_Store",
        ".metadata/a.pt",
    )
    assert run_files(tmp_path) == ("step_1/.metadata", "step_1/__0_0.distcp")


def test_each_recording_is_a_run_beside_the_folders(tmp_path: Path) -> None:
    put(tmp_path, "a.sketch", "b/step_1.pt", "b/c.sketch", "b/checkpoints/d.sketch", "e/best.pt", "e/f/g.sketch")
    put(tmp_path, "a.sketch.spectral_edge/gaps.parquet", "h.sketch/step_1.pt")
    expected = ["a.sketch", "b", "b/c.sketch", "b/checkpoints/d.sketch", "e", "e/f/g.sketch", "h.sketch"]
    assert sorted(names(tmp_path)) == expected
    assert len(run_places(tmp_path)) == len(expected)
    assert run_places(tmp_path / "a.sketch") == [(tmp_path / "a.sketch").resolve()]


def test_links_that_lead_back_are_followed_once(tmp_path: Path) -> None:
    put(tmp_path, "a/step_1.pt")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "a")
    assert names(tmp_path) == ["a"]


def test_checkpoints_without_steps_are_a_run_only_where_nothing_better_is_below(tmp_path: Path) -> None:
    put(tmp_path, "best.pt", "a/step_1.pt")
    assert names(tmp_path) == ["a"]
    (tmp_path / "a" / "step_1.pt").rename(tmp_path / "a" / "final.pt")
    assert names(tmp_path) == ["a"]
    (tmp_path / "a" / "final.pt").unlink()
    assert names(tmp_path) == ["."]


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    put(tmp_path, "a/readme.md")
    with pytest.raises(NotFoundError, match=r"\.safetensors"):
        run_places(tmp_path)


def test_a_name_that_is_not_text_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, "a/step_1.pt")
    Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/step_2\xff.pt")).touch()
    assert run_files(tmp_path / "a") == ("step_1.pt",)


@pytest.mark.parametrize(
    ("content", "params"),
    [
        (
            '{"optimizer": {"name": "AdamW", "lr": 0.001}, "steps": 5, "tied": true, "layers": [1]}',
            {"optimizer/name": "AdamW", "optimizer/lr": "0.001", "steps": "5", "tied": "True"},
        ),
        ("[1, 2]", {}),
        ("not json", {}),
        ("[" * 100_000, {}),
        ("\xff", {}),
    ],
)
def test_params(tmp_path: Path, content: str, params: dict[str, str]) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    assert run_params(tmp_path) == params
