"""Which files hold weights, and which are one checkpoint together."""

from __future__ import annotations

import pytest

from spectral_edge.checkpoints import FoundCheckpoint, find_trajectory, is_checkpoint_file


@pytest.mark.parametrize(
    "path",
    [
        "optimizer.pt",
        "checkpoint-5/optimizer.pt",
        "checkpoint-5/optimizer_0.pt",
        "scheduler.pt",
        "rng_state.pth",
        "rng_state_3.pth",
        "scaler.pt",
        "training_args.bin",
        "model_ema.pt",
        "ema_0.9999_010000.pt",
        "optim_step_10.pt",
        "zero_pp_rank_0_mp_rank_00_optim_states.pt",
        "optimizer/step_10.pt",
        "ema/step_10.pt",
        "random_states_0.pt",
        "lr_scheduler_10.pt",
        "opt.pt",
        "opt_state_10.pt",
        "data.bin",
        "vocab.bin",
        "step_10.json",
        "step_10.pt.tmp",
        "step_10",
        "step_10.zip",
        ".step_10.pt",
        "",
        "model.safetensors.index.json",
        "step_10.ptx",
        "metrics.csv",
        "predictions_100.npz",
        "step_100_grads.npz",
        "step_100/x_train.npy",
        "losses_step_100.npy",
        "eval_step_100.npz",
        "arrays_100.npz",
        "model_outputs_100.h5",
        "shard-000100.tar",
        "resnet50.h5",
        "optimizer_100.npz",
        ".step_100.npz",
        ".metadata",
        "step_100/.metadata",
        "optimizer_0/__0_0.distcp",
    ],
)
def test_no_checkpoints(path: str) -> None:
    assert not is_checkpoint_file(path)
    assert find_trajectory([path]) == find_trajectory([])


@pytest.mark.parametrize(
    "path",
    [
        "a.pt",
        "a.pth",
        "a.ckpt",
        "a/b.safetensors",
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "opt-125m.pt",
        "diffusion_pytorch_model.bin",
        "adapter_model.bin",
        "model.PT",
        "supremacy.pt",
        "optics_adapter/model.pt",
        "model.keras",
        "a.weights.h5",
        "a.PTH.TAR",
        "__0_0.distcp",
        "pytorch_model_fsdp_0/__0_0.distcp",
    ],
)
def test_checkpoints(path: str) -> None:
    assert is_checkpoint_file(path)


def _steps(paths: list[str]) -> list[int]:
    return [found.step for found in find_trajectory(paths).checkpoints]


# Shards.


def _shard(folder: str, number: int, total: int, suffix: str = "safetensors") -> str:
    return f"{folder}/model-{number:05d}-of-{total:05d}.{suffix}"


def test_shards_are_one_checkpoint_with_their_index() -> None:
    first = [_shard("checkpoint-5", number, 3) for number in (1, 2, 3)]
    second = [_shard("checkpoint-10", number, 2) for number in (1, 2)]
    index = "checkpoint-5/model.safetensors.index.json"
    found = find_trajectory([*reversed(second), index, *reversed(first), "checkpoint-5/trainer_state.json"])
    assert found.checkpoints == (
        FoundCheckpoint(5, "folder_name", (*first, index)),
        FoundCheckpoint(10, "folder_name", tuple(second)),
    )
    assert found.warnings == ()


def test_the_step_may_stand_in_the_shards_names() -> None:
    assert _steps([f"model_step_8-{number:05d}-of-00002.safetensors" for number in (1, 2)]) == [8]


def test_an_incomplete_set_of_shards_is_left_out() -> None:
    found = find_trajectory([_shard("checkpoint-5", 1, 1), _shard("checkpoint-10", 1, 2)])
    assert [checkpoint.step for checkpoint in found.checkpoints] == [5]
    assert found.warnings == ("left out, got 1 of its 2 files: `checkpoint-10/model-00001-of-00002.safetensors`",)


def test_a_set_of_no_shards_is_no_checkpoint() -> None:
    found = find_trajectory(["step_8.pt", "step_9-00000-of-00000.pt", "step_9-00001-of-00000.pt"])
    assert [checkpoint.step for checkpoint in found.checkpoints] == [8]
    assert found.warnings == ("left out, got 2 of its 0 files: `step_9-00000-of-00000.pt`, `step_9-00001-of-00000.pt`",)


# Folders of torch.distributed.checkpoint.


def _distributed(folder: str, ranks: int = 2) -> tuple[str, ...]:
    return (*(f"{folder}/__{rank}_0.distcp" for rank in range(ranks)), f"{folder}/.metadata")


@pytest.mark.parametrize(
    ("template", "beside"),
    [
        ("step_{}", ()),
        ("checkpoint/step-{}", ("train_state.pt",)),  # torchtitan
        ("lightning_logs/version_3/checkpoints/epoch=0-step={}.ckpt", ("meta.pt",)),
        ("checkpoints/{}.ckpt", ("meta.pt",)),
        ("iter_{:07d}", ("common.pt", "metadata.json")),  # Megatron
        ("checkpoint-{}/pytorch_model_fsdp_0", ("../optimizer_0/__0_0.distcp", "../optimizer_0/.metadata")),
    ],
)
def test_a_distributed_checkpoint_is_its_folder(template: str, beside: tuple[str, ...]) -> None:
    folders = {step: template.format(step) for step in (8, 16, 100)}
    paths = [*(path for folder in folders.values() for path in _distributed(folder))]
    for folder in folders.values():
        paths += [f"{folder.rpartition('/')[0]}{name[2:]}" if name[0] == "." else f"{folder}/{name}" for name in beside]
    found = find_trajectory(reversed(paths))
    assert found.checkpoints == tuple(
        FoundCheckpoint(step, "folder_name", _distributed(folder)) for step, folder in folders.items()
    )
    assert found.warnings == ()


def test_a_distributed_checkpoint_without_metadata_is_left_out() -> None:
    """It is written last: this one is not complete."""
    found = find_trajectory([*_distributed("step_1"), *_distributed("step_2")[:-1]])
    assert [checkpoint.step for checkpoint in found.checkpoints] == [1]
    assert found.warnings == ("left out, no `.metadata` beside it: `step_2/__0_0.distcp`, `step_2/__1_0.distcp`",)


def test_safetensors_before_a_distributed_checkpoint() -> None:
    paths = [path for step in (1, 2) for path in (f"step_{step}/hf/model.safetensors", *_distributed(f"step_{step}"))]
    found = find_trajectory(paths)
    assert [checkpoint.paths for checkpoint in found.checkpoints] == [
        ("step_1/hf/model.safetensors",),
        ("step_2/hf/model.safetensors",),
    ]
    assert found.warnings == (
        "left out, not named like `step_#/hf/model.safetensors`: `step_1/__0_0.distcp`, `step_2/__0_0.distcp`",
    )


def test_metadata_alone_is_no_checkpoint() -> None:
    assert find_trajectory(["step_1/.metadata", ".metadata"]) == find_trajectory([])
    assert _steps(["step_1/.metadata", "step_1/model.pt"]) == [1]
