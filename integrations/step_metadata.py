"""The training step that a framework wrote down beside a checkpoint.

`mlflow.pytorch.autolog` and MLflow's checkpoint callbacks write `checkpoint_metrics.json` beside `checkpoint.pth`,
Hugging Face's Trainer `trainer_state.json` into the checkpoint's folder; both hold `global_step`. Lightning's
`metadata.yaml` holds no step. The files are untrusted: small JSON is read, nothing else.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Container
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 1 << 20
"""Larger files are not read. Trainer's grows by what it logs; its folders tell the step by their names."""

_KEY: Final = "global_step"
_TRAINER_FILE: Final = "trainer_state.json"
_LARGEST_STEP: Final = 10**18
_MLFLOW_CHECKPOINT: Final = re.compile(r"(?P<name>(?:latest_)?checkpoint)(?:\.weights)?\.[^.]+")


class UnreadableRecordError(Exception):
    """A file that should tell a training step does not. It never leaves a listing: the step is told in another way."""


def record_beside(path: str, files: Container[str]) -> str | None:
    """The one of `files` that may tell the step of the checkpoint whose first file is `path`; None without."""
    folder, name = posixpath.split(path)
    mlflow = _MLFLOW_CHECKPOINT.fullmatch(name)
    names = ([f"{mlflow['name']}_metrics.json"] if mlflow else []) + [_TRAINER_FILE]
    return next((found for name in names if (found := posixpath.join(folder, name)) in files), None)


def recorded_step(file: Path) -> int:
    """The step that `file` tells.

    Raises:
        UnreadableRecordError: It is no such record; the message says why.
    """
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UnreadableRecordError(f"it is larger than {MAX_BYTES:,} bytes")
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        raise UnreadableRecordError("it is no JSON") from None
    step = record.get(_KEY) if isinstance(record, dict) else None
    if type(step) is not int or not 0 <= step < _LARGEST_STEP:
        raise UnreadableRecordError(f"its `{_KEY}` is no training step")
    return step
