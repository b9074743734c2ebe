"""From file names to a trajectory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectral_edge.checkpoints import FoundCheckpoint, find_trajectory
from spectral_edge.errors import NoStepError


def _step(path: str) -> tuple[int, str]:
    (found,) = find_trajectory([path]).checkpoints
    assert found.paths == (path,)
    return found.step, found.step_source


@pytest.mark.parametrize(
    ("path", "step", "source"),
    [
        ("step_000010.pt", 10, "file_name"),
        ("step0.pt", 0, "file_name"),
        ("step-8.safetensors", 8, "file_name"),
        ("STEP_12.PT", 12, "file_name"),
        ("model_step_100.pt", 100, "file_name"),
        ("model.step100.pt", 100, "file_name"),
        ("model-step=8.ckpt", 8, "file_name"),
        ("epoch=1-step=8.ckpt", 8, "file_name"),
        ("epoch=1-step=8-v1.ckpt", 8, "file_name"),
        ("epoch_3_step_100.pt", 100, "file_name"),
        ("epoch=2-val_loss=0.35-step=100.ckpt", 100, "file_name"),
        ("checkpoint_3_step_100.pt", 100, "file_name"),
        ("1000_steps.pt", 1000, "file_name"),
        ("model_step_10k.pt", 10_000, "file_name"),
        ("ckpt_100.pth", 100, "file_name"),
        ("ckpt100.pth", 100, "file_name"),
        ("iter-0500.pt", 500, "file_name"),
        ("grok_wd1_s42_step_700.pt", 700, "file_name"),
        ("gpt2_step_5.safetensors", 5, "file_name"),
        ("100.pt", 100, "file_name"),
        ("model_00100.pt", 100, "file_name"),
        ("weights-20.pt", 20, "file_name"),
        ("pytorch_model_20.bin", 20, "file_name"),
        ("checkpoint_epoch_3.pt", 3, "file_name"),
        ("epoch=3.ckpt", 3, "file_name"),
        ("net_ep7.pth", 7, "file_name"),
        ("checkpoints/step_10.pt", 10, "file_name"),
        ("s42/step_10.pt", 10, "file_name"),
        ("version_3/checkpoints/epoch=0-step=5.ckpt", 5, "file_name"),
        ("epoch=1-step=8/epoch=1-step=8.ckpt", 8, "file_name"),
        ("checkpoint-500/model.safetensors", 500, "folder_name"),
        ("checkpoint-500/pytorch_model.bin", 500, "folder_name"),
        ("checkpoint-500/adapter_model.safetensors", 500, "folder_name"),
        ("checkpoint-500/pytorch/model.pt", 500, "folder_name"),
        ("global_step5/mp_rank_00_model_states.pt", 5, "folder_name"),
        ("checkpoints/global_step_5/checkpoint.pth", 5, "folder_name"),
        ("checkpoints/epoch_2/checkpoint.pth", 2, "folder_name"),
        ("checkpoints/sd_50/state_dict.pth", 50, "folder_name"),
        ("iter_0001000/mp_rank_00/model.pt", 1000, "folder_name"),
        ("step_10/model_0.pt", 10, "folder_name"),
        ("100/model.pt", 100, "folder_name"),
        ("step_5/epoch_2.pt", 5, "folder_name"),
        ("checkpoint_10.pth.tar", 10, "file_name"),
        ("model_10.pt.tar", 10, "file_name"),
        ("checkpoint-10.tar", 10, "file_name"),
        ("params_100.npz", 100, "file_name"),
        ("step_100.npy", 100, "file_name"),
        ("100.npz", 100, "file_name"),
        ("checkpoint-100/weights.npz", 100, "folder_name"),
        ("checkpoint-100/model.h5", 100, "folder_name"),
        ("epoch_02.h5", 2, "file_name"),
        ("02.weights.h5", 2, "file_name"),
        ("model.10.weights.h5", 10, "file_name"),
        ("ckpt_10.weights.h5", 10, "file_name"),
        ("weights.02-0.35.weights.h5", 2, "file_name"),
        ("02-0.35.keras", 2, "file_name"),
        ("model-epoch=2-val_loss=0.35.h5", 2, "file_name"),
        ("model_step_10.keras", 10, "file_name"),
    ],
)
def test_the_step_of_one_file(path: str, step: int, source: str) -> None:
    assert _step(path) == (step, source)


@pytest.mark.parametrize(
    "path",
    [
        "gpt2.pt",
        "gpt-2.pt",
        "resnet50.pt",
        "resnet-50.pt",
        "llama-7b.safetensors",
        "llama-3-8b.safetensors",
        "v2.pt",
        "model_v2.pt",
        "model-v2.ckpt",
        "s42.pt",
        "model_s42.pt",
        "seed_42/model.pt",
        "seed-1.pt",
        "model_7b.pt",
        "best.pt",
        "last.ckpt",
        "model.safetensors",
        "checkpoints/latest_checkpoint.pth",
        "run_3/final.pt",
        "wd_0.1.pt",
        "steps.pt",
        "model_125m.pt",
        "timestep.pt",
        "version_0/checkpoints/last.ckpt",
        "model-00001-of-00001.safetensors",
        "step_x.pt",
        "model_0.95.pt",
        "model_best.pth.tar",
        "model.keras",
        "model.weights.h5",
        "params.npz",
        f"step_{'9' * 19}.pt",
        f"{'9' * 5000}.pt",
    ],
)
def test_no_step(path: str) -> None:
    with pytest.raises(NoStepError, match="none of the run's 1 checkpoints") as caught:
        find_trajectory([path])
    assert "step_000100.pt" in str(caught.value)


def _steps(paths: list[str]) -> list[int]:
    return [found.step for found in find_trajectory(paths).checkpoints]


def test_numeric_order_and_no_warnings() -> None:
    found = find_trajectory(["step_100.pt", "step_20.pt", "step_3.pt"])
    assert found.checkpoints == tuple(FoundCheckpoint(step, "file_name", (f"step_{step}.pt",)) for step in (3, 20, 100))
    assert found.warnings == ()


def test_a_file_without_step_beside_others_is_left_out_and_named() -> None:
    found = find_trajectory(["step_1.pt", "best.pt", "step_2.pt", "final\n.pt"])
    assert [checkpoint.step for checkpoint in found.checkpoints] == [1, 2]
    assert found.warnings == (r"left out, the name tells no step: `best.pt`, `final\n.pt`",)


def test_the_layout_with_most_steps_is_the_trajectory() -> None:
    found = find_trajectory(
        [f"model_step_{n}.pt" for n in range(5)] + [f"adapter/step_{n}.safetensors" for n in range(4)]
    )
    assert {checkpoint.paths[0][:6] for checkpoint in found.checkpoints} == {"model_"}
    (warning,) = found.warnings
    assert warning.startswith("left out, not named like `model_step_#.pt`: `adapter/step_0.safetensors`")


def test_safetensors_before_torch_then_by_name() -> None:
    paths = [f"checkpoint-{n}/{name}" for n in (5, 10) for name in ("pytorch_model.bin", "model.safetensors")]
    assert [found.paths[0] for found in find_trajectory(paths).checkpoints] == [
        "checkpoint-5/model.safetensors",
        "checkpoint-10/model.safetensors",
    ]
    assert find_trajectory(["b/step_1.pt", "a/step_1.pt"]).checkpoints[0].paths == ("a/step_1.pt",)


def test_files_that_serve_for_anything_count_only_where_no_model_does() -> None:
    arrays = [f"step_{step}.npz" for step in range(10)]
    (kept,) = find_trajectory(["step_5.pt", *arrays]).checkpoints
    assert kept.paths == ("step_5.pt",)
    assert _steps([*arrays, *(f"params_{step}.npy" for step in range(3))]) == list(range(10))
    assert _steps([*arrays, *(f"epoch_{step}.keras" for step in range(3))]) == [0, 1, 2]


def test_two_models_in_one_run_are_two_layouts() -> None:
    found = find_trajectory([f"model_{model}/step_{step}.pt" for model in (1, 2) for step in (10, 20, 30)])
    assert [checkpoint.paths[0] for checkpoint in found.checkpoints] == [
        f"model_1/step_{step}.pt" for step in (10, 20, 30)
    ]
    assert len(found.warnings) == 1


def test_a_step_told_twice_is_kept_once_the_last_by_name() -> None:
    found = find_trajectory(["loss=0.9-step=5.pt", "loss=0.10-step=5.pt", "loss=0.5-step=10.pt"])
    assert [checkpoint.paths[0] for checkpoint in found.checkpoints] == ["loss=0.10-step=5.pt", "loss=0.5-step=10.pt"]
    assert found.warnings == ("step 5 occurs 2 times: kept `loss=0.10-step=5.pt`, left out `loss=0.9-step=5.pt`",)


@given(st.permutations(["step_1.pt", "step_02.pt", "step_2.pt", "step_002.pt", "step_3.pt"]))
def test_names_that_differ_in_zeros_only_are_taken_in_the_same_order_however_they_are_listed(paths: list[str]) -> None:
    found = find_trajectory(paths)
    assert [checkpoint.paths[0] for checkpoint in found.checkpoints] == ["step_1.pt", "step_2.pt", "step_3.pt"]
    assert found.warnings == ("step 2 occurs 3 times: kept `step_2.pt`, left out `step_002.pt`, `step_02.pt`",)


def test_metrics_in_names_do_not_split_a_trajectory() -> None:
    paths = ["epoch=1-val=0.5-step=8.ckpt", "epoch=2-val=-0.25-step=16.ckpt", "epoch=3-val=1e-05-step=24.ckpt"]
    assert _steps(paths) == [8, 16, 24]


def test_epochs_count_and_say_so() -> None:
    found = find_trajectory(["checkpoint_epoch_1.pt", "checkpoint_epoch_2.pt"])
    assert [checkpoint.step for checkpoint in found.checkpoints] == [1, 2]
    assert found.warnings == ("steps are counted in epochs: `checkpoint_epoch_#.pt` tells no optimizer step",)


def test_epochs_do_not_count_where_steps_repeat() -> None:
    assert _steps(["epoch=1-step=8.pt", "epoch=2-step=8.pt", "epoch=3-step=16.pt"]) == [8, 16]


def test_a_number_that_is_the_same_in_all_files_is_not_the_step() -> None:
    assert _steps([f"train_10000steps/model_{n}.pt" for n in (1, 2, 3)]) == [1, 2, 3]
    assert _steps([f"0/epoch_{n}.pt" for n in (1, 2, 3)]) == [1, 2, 3]
    assert _steps([f"step_{n}/model_0.pt" for n in (1, 2, 3)]) == [1, 2, 3]


def test_any_word_counts_in_a_series_of_three() -> None:
    assert _steps(["grok_100.pt", "grok_200.pt", "grok_1000.pt"]) == [100, 200, 1000]
    with pytest.raises(NoStepError):
        find_trajectory(["resnet-18.pt", "resnet-50.pt"])
    with pytest.raises(NoStepError):
        find_trajectory(["seed_1.pt", "seed_2.pt", "seed_3.pt"])


def test_units() -> None:
    assert _steps(["ckpt_500.pt", "ckpt_1k.pt", "ckpt_1m.pt"]) == [500, 1000, 1_000_000]


# Round trips: what a user's template makes is found again.

_templates = st.sampled_from(
    [
        "step_{}.pt",
        "step_{:08d}.pt",
        "model-step={}.ckpt",
        "checkpoint-{}/model.safetensors",
        "checkpoints/step_{}.pt",
        "ckpt_{}.pth",
        "iter_{:07d}/model.pt",
        "{}.pt",
        "model_{:05d}.pt",
        "global_step{}/state.pt",
        "runs/gpt2/step{}.pt",
        "epoch=3-step={}/epoch=3-step={}.ckpt",
        "grok_wd1_s42/step_{}.safetensors",
        "sd_{}/state_dict.pth",
        "e1/{}/model.pt",
        "model_{}_steps.pt",
        "checkpoint.{}.pt",
        "mlp-{}.pt",
        "llama-7b_iter{}.pth",
        "vit-b16_ckpt-{}.pt",
        "checkpoint_{}.pth.tar",
        "params_{}.npz",
        "ckpt-{:06d}.weights.h5",
        "model_{}.keras",
    ]
)
_numbers = st.sets(st.integers(0, 10**12), min_size=3, max_size=12)


@given(
    template=_templates,
    steps=_numbers,
    rest=st.lists(st.sampled_from(["best.pt", "optimizer.pt", "log.txt"])),
    data=st.data(),
)
def test_what_a_template_makes_is_found(template: str, steps: set[int], rest: list[str], data: st.DataObject) -> None:
    paths = {step: template.format(*(step,) * template.count("{")) for step in steps}
    listed = data.draw(st.permutations([*paths.values(), *rest]))
    found = find_trajectory(listed)
    assert [(checkpoint.step, *checkpoint.paths) for checkpoint in found.checkpoints] == sorted(paths.items())
    assert len(found.warnings) == ("best.pt" in rest)


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=20).map(lambda name: f"{name}.pt")))
def test_any_names_give_increasing_steps_each_path_once_or_no_step(paths: list[str]) -> None:
    try:
        found = find_trajectory(paths)
    except NoStepError:
        return
    steps = [checkpoint.step for checkpoint in found.checkpoints]
    taken = [path for checkpoint in found.checkpoints for path in checkpoint.paths]
    assert steps == sorted(set(steps))
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(paths)
    assert all(warning.isascii() and warning.isprintable() for warning in found.warnings)
