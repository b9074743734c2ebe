"""Recording sketches in a run of Hugging Face's Trainer; import it from integrations.recorder_callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectral_edge.recorder import DEFAULT_EVERY, Recorder


class HuggingFaceRecorder(TrainerCallback):
    """Records sketches of the model that a Trainer trains, every so many optimizer steps.

    The learning rate is that of the optimizer's first group; metrics are those of the last evaluation, kept from the
    first record after it on.

    Args:
        path: The file that is written; see spectral_edge.recorder.Recorder.
        every: Optimizer steps between two records.
        options: What else a Recorder takes: `size`, `sizes`, `by_layer`, `seed`.
    """

    def __init__(self, path: str | Path, every: int = DEFAULT_EVERY, **options: Any) -> None:
        self._path, self._every, self._options = path, every, options
        self._recorder: Recorder | None = None
        self._metrics: dict[str, Any] = {}

    def on_train_begin(self, *_told: Any, **kwargs: Any) -> None:
        """Open the file."""
        model: nn.Module = kwargs["model"]
        self._recorder = Recorder(self._path, model, every=self._every, **self._options)

    def on_evaluate(self, *_told: Any, **kwargs: Any) -> None:
        """Keep what was measured."""
        measured = kwargs.get("metrics") or {}
        self._metrics = {name: value for name, value in measured.items() if isinstance(value, (int, float))}

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the Trainer's signature
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - as above
        **kwargs: Any,
    ) -> None:
        """Record, where it is the turn."""
        if self._recorder is not None:
            optimizer = kwargs.get("optimizer")
            rate = optimizer.param_groups[0]["lr"] if optimizer is not None else None
            self._recorder.step(state.global_step, **self._metrics | {"learning_rate": rate})

    def on_train_end(self, *_told: Any, **_kwargs: Any) -> None:
        """Close the file."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
