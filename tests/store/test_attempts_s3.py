"""Attempts on S3, where no kernel tells whether a process lives: its id does on its own machine, else its lease."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelines import attempts
from pipelines.attempts import attempt, deaths
from spectral_edge.store import Store
from spectral_edge.tables import RunKey

KEY = RunKey("dir", "project", "id", "name")


def test_on_s3_a_lease_or_the_process_tells(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Store.open(s3_root)
    files = bucket.location.filesystem()

    def told() -> dict[str, Any]:
        [name] = bucket.location.entries("attempts")
        with files.open_input_stream(f"attempts/{name}") as stream:
            return {"name": name, **json.loads(stream.read())}

    def tell(**changes: Any) -> None:
        content = told() | changes
        with files.open_output_stream(f"attempts/{content.pop('name')}") as stream:
            stream.write(json.dumps(content).encode())

    long_ago = (datetime.now(UTC) - 2 * attempts.LEASE).isoformat()
    just_now = (datetime.now(UTC) - timedelta(seconds=30)).isoformat()
    with attempt(bucket, KEY, "dir:runs", "fingerprint", "settings"):
        assert deaths(bucket) == {}
        tell(pid_since=1.0)
        assert len(deaths(bucket)) == 1
        tell(machine="elsewhere", alive_at=just_now)
        assert deaths(bucket) == {}
        tell(alive_at=long_ago)
        assert len(deaths(bucket)[KEY.tracker, KEY.project, KEY.run_id]) == 1
    assert bucket.location.entries("attempts") == frozenset()
    monkeypatch.setattr(attempts, "_RENEW_SECONDS", 0.05)
    attempts._HOLDERS.clear()
    with attempt(bucket, KEY, "dir:runs", "fingerprint", "settings"):
        tell(alive_at=long_ago)
        for _ in range(100):
            if told()["alive_at"] != long_ago:
                break
            time.sleep(0.05)
        assert told()["alive_at"] != long_ago
