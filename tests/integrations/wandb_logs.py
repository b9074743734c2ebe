"""Transaction logs of W&B, written without the SDK: any records, cut into chunks as LevelDB does."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

from integrations.tracker import Selection, TrackedRun
from integrations.wandb_offline import WandbOfflineTracker

BLOCK = 32768
HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)

pb: Any = wandb_internal_pb2


def framed(payloads: Iterable[bytes]) -> tuple[bytes, list[int]]:
    """A log that holds `payloads`, and where each of them ends."""
    log, ends = bytearray(HEADER), []
    for payload in payloads:
        rest, is_first = payload, True
        while True:
            if (left := BLOCK - len(log) % BLOCK) < 7:
                log += bytes(left)
                left = BLOCK
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = (1 if is_first else 4) if not rest else (2 if is_first else 3)
            body = bytes([kind]) + part
            log += struct.pack("<IH", zlib.crc32(body), len(part)) + body
            is_first = False
            if not rest:
                break
        ends.append(len(log))
    return bytes(log), ends


def output(text: str) -> Any:
    """A record of what was printed."""
    record = pb.Record()
    record.output_raw.line = text
    return record


def run(run_id: str = "abc", **fields: Any) -> Any:
    """The record that a log begins with. `config` and `summary` are plain; `start` is in seconds."""
    record = pb.Record()
    record.run.run_id = run_id
    for key, value in fields.pop("config", {}).items():
        record.run.config.update.add(key=key, value_json=json.dumps(value))
    record.run.start_time.seconds = fields.pop("start", 1_700_000_000)
    record.run.tags.extend(fields.pop("tags", ()))
    for name, value in fields.items():
        setattr(record.run, name, value)
    return record


def row(step: int, values: Mapping[str | tuple[str, ...], object]) -> Any:
    """A row of the history."""
    record = pb.Record()
    record.history.step.num = step
    for key, value in {"_step": step, **values}.items():
        path = (key,) if isinstance(key, str) else key
        record.history.item.add(nested_key=path, value_json=json.dumps(value))
    return record


def define(name: str, step_metric: str) -> Any:
    """What `define_metric` leaves."""
    record = pb.Record()
    if name.endswith("*"):
        record.metric.glob_name = name
    else:
        record.metric.name = name
    record.metric.step_metric = step_metric
    return record


def names_steps() -> Any:
    """What `run.log(..., step=...)` leaves beside the row."""
    record = pb.Record()
    record.telemetry.feature.set_step_log = True
    return record


def artifact(name: str, entries: Sequence[Mapping[str, object]] = (), kind: str = "model", **fields: Any) -> Any:
    """A logged artifact."""
    record = pb.Record()
    record.artifact.name, record.artifact.type = name, kind
    record.artifact.aliases.extend(fields.pop("aliases", ()))
    record.artifact.metadata = json.dumps(fields.pop("metadata", {}))
    record.artifact.manifest.manifest_file_path = fields.pop("manifest", "")
    for entry in entries:
        record.artifact.manifest.contents.add(**entry)
    assert not fields
    return record


def exit_with(code: int, runtime: int = 60) -> tuple[Any, Any]:
    """How a run ends."""
    seconds, record = pb.Record(), pb.Record()
    seconds.summary.update.add(nested_key=["_wandb", "runtime"], value_json=str(runtime))
    record.exit.exit_code = code
    if code == 0:
        record.exit.SetInParent()
    return seconds, record


def log_of(*records: Any) -> bytes:
    """A log that holds `records`."""
    return framed(record.SerializeToString() for record in records)[0]


def found(place: Path, project: str) -> TrackedRun:
    """The one run in `place` of that project, or of that id."""
    runs = [
        run for run in WandbOfflineTracker().runs(Selection(str(place))) if project in (run.key.project, run.key.run_id)
    ]
    assert len(runs) == 1
    return runs[0]
