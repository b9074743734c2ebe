"""Recording sketches in a run of Lightning; import it from integrations.recorder_callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from spectral_edge.recorder import DEFAULT_EVERY, Recorder


class LightningRecorder(Callback):
    """Records sketches of the module that a Trainer fits, every so many optimizer steps.

    The learning rate is that of the first group of the first optimizer; metrics are those that the Trainer has last
    seen logged (`callback_metrics`).

    Args:
        path: The file that is written; see spectral_edge.recorder.Recorder.
        every: Optimizer steps between two records.
        options: What else a Recorder takes: `size`, `sizes`, `by_layer`, `seed`.
    """

    def __init__(self, path: str | Path, every: int = DEFAULT_EVERY, **options: Any) -> None:
        super().__init__()
        self._path, self._every, self._options = path, every, options
        self._recorder: Recorder | None = None
        self._last = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file, once the strategy has wrapped or sharded the module."""
        self._recorder = Recorder(self._path, pl_module, every=self._every, **self._options)
        self._last = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002 - Lightning's signature
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Record where the optimizer has taken a step; batches that only add to the gradient are passed over."""
        step = trainer.global_step
        if self._recorder is None or step == self._last:
            return
        self._last = step
        if step % self._every == 0:
            groups = trainer.optimizers[0].param_groups if trainer.optimizers else []
            rate = groups[0]["lr"] if groups else None
            metrics: dict[str, Any] = {**trainer.callback_metrics, "learning_rate": rate}
            self._recorder.step(step, **metrics)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002 - see above
        """Close the file, also after an error."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
