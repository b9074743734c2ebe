"""Recorders for the training loops of Lightning and Hugging Face.

    from integrations.recorder_callbacks import LightningRecorder      # pytorch_lightning.Trainer(callbacks=[...])
    from integrations.recorder_callbacks import HuggingFaceRecorder    # transformers.Trainer(callbacks=[...])

Each library is imported only when its recorder is asked for; neither is needed by anything else here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from integrations.recorder_hugging_face import HuggingFaceRecorder
    from integrations.recorder_lightning import LightningRecorder

__all__ = ["HuggingFaceRecorder", "LightningRecorder"]

_HOMES = {"HuggingFaceRecorder": "recorder_hugging_face", "LightningRecorder": "recorder_lightning"}


def __getattr__(name: str) -> Any:
    """The recorder of that name, with the library it is for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'integrations.recorder_callbacks' has no attribute '{name}'")
    return getattr(import_module(f"integrations.{_HOMES[name]}"), name)
