"""What the core streams while a run is logged: history, summary, the machine's metrics, the console."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .objects import Run, now

SUMMARY = "wandb-summary.json"


class StreamError(ValueError):
    """A stream that the double does not understand."""


def take_in(run: Run, body: Mapping[str, Any]) -> None:
    """Write a part of the stream into the run, at its offsets.

    Raises:
        StreamError: it has a file or a key that the double does not know.
    """
    unknown = set(body) - {"files", "uploaded", "complete", "exitcode", "dropped", "preempting"}
    if unknown:
        raise StreamError(f"file_stream with unknown keys: {sorted(unknown)}")
    run.heartbeat_at, run.state = now(), "running"
    for name, part in (body.get("files") or {}).items():
        _take_file(run, name, int(part.get("offset") or 0), part["content"])
    if body.get("complete"):
        run.exit_code = int(body.get("exitcode") or 0)
        run.state = "failed" if run.exit_code else "finished"


def _take_file(run: Run, name: str, offset: int, content: list[str]) -> None:
    if name == SUMMARY:
        run.summary = json.loads(content[-1])
    elif name == "output.log":
        run.logs[offset : offset + len(content)] = content
    elif name in ("wandb-history.jsonl", "wandb-events.jsonl"):
        rows = [json.loads(line) for line in content]
        target = run.history if name == "wandb-history.jsonl" else run.events
        target[offset : offset + len(rows)] = rows
    else:
        raise StreamError(f"file_stream with an unknown file: {name}")
