"""Alerts on a real Prefect server, through the automation that the documentation shows, to a real webhook."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import torch
from command_line import CommandLine, random_walk, write_safetensors

from spectral_edge.audit_log import AuditLog
from spectral_edge.query import query
from spectral_edge.store import Store

DOCS = Path(__file__).resolve().parents[2] / "docs/observability.md"
SECONDS = 60

DIES_AFTER_SENDING = """
import os, signal, sys
from pipelines.alert_events import send
from pipelines.alerts import alerts_of
from spectral_edge.store import Store

def send_and_die(events):
    send(events)
    os.kill(os.getpid(), signal.SIGKILL)

alerts_of(Store.open(sys.argv[1]), send_and_die).catch_up("dir", [sys.argv[2]])
"""


def shaken(n: int = 60) -> list[dict[str, torch.Tensor]]:
    """A run whose updates change their direction and size half way."""
    weights = random_walk(n)
    for index in range(n // 2, n):
        for name in weights[index]:
            weights[index][name] += 2.0 * (index - n // 2 + 1)
    return weights


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address, and the JSON that was posted there."""
    calls: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", calls
    finally:
        server.shutdown()
        server.server_close()


def sent(api: str, project: str) -> Counter[str]:
    """How many of our events of the project the server has, by name."""
    asked = {"filter": {"event": {"prefix": ["spectral_edge."]}}, "limit": 50}
    found = httpx.post(f"{api}/events/filter", json=asked).json()
    assert found["total"] <= 50
    return Counter(event["event"] for event in found["events"] if event["payload"]["project"] == project)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def snippet() -> str:
    """The Python of the documentation."""
    [code] = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    return str(code)


def test_one_alert_a_finding_whatever_happens(
    tmp_path: Path, prefect_api: str, with_server: Callable[[Path], CommandLine]
) -> None:
    project = f"watched-{os.getpid()}"
    write_safetensors(tmp_path / project / "shaken", shaken())
    command = with_server(tmp_path)
    environment = {**os.environ, **command.environment}
    opened, closed = "spectral_edge.transition", "spectral_edge.transition.closed"
    arguments = ("audit", f"dir:{project}", "--window", "5", "--annotate", "summary")

    with webhook() as (address, calls):
        python = [sys.executable, "-c"]
        subprocess.run([*python, snippet()], env=environment | {"ALERT_URL": address}, cwd=tmp_path, check=True)
        audit = command.run(*arguments)
        assert audit.code == 0, audit.err
        store = Store.open(tmp_path / "spectral-edge-store", create=False)
        rows = query(store, "select * from transitions").to_pylist()
        of_total = [row for row in rows if row["group"] == "total"]
        assert len(rows) > len(of_total) > 0
        until(lambda: sent(prefect_api, project)[opened] == len(rows))
        until(lambda: len(calls) == len(of_total))
        assert {call["text"].split(" (q = ")[0] for call in calls} == {
            f"{row['kind']} in group total of shaken at step {row['onset_step']}" for row in of_total
        }
        assert query(store, "alerts").num_rows == len(rows)

        retracted = command.run("retract", f"dir:{project}", "--yes")
        assert retracted.code == 0, retracted.err
        until(lambda: sent(prefect_api, project)[closed] == len(rows))
        assert query(store, "alerts").num_rows == 0

        # The findings are back in the store, and the one who tells of it dies between telling and writing it down.
        silent = f"from one_folder import audit; from pathlib import Path; audit(Path('{project}/shaken'), window=5)"
        path = os.pathsep.join([str(Path(__file__).parents[1] / "pipelines"), environment.get("PYTHONPATH", "")])
        subprocess.run([*python, silent], env=environment | {"PYTHONPATH": path}, cwd=tmp_path, check=True)
        key = query(store, "select project_key from runs").to_pylist()[0]["project_key"]
        dead = subprocess.run(
            [*python, DIES_AFTER_SENDING, store.location.root, key], env=environment, cwd=tmp_path, check=False
        )
        assert dead.returncode == -signal.SIGKILL
        until(lambda: sent(prefect_api, project)[opened] == 2 * len(rows))
        assert query(store, "alerts").num_rows == 0

        again = command.run(*arguments)
        assert again.code == 0, again.err
        assert query(store, "alerts").num_rows == len(rows)
        lines = AuditLog(store.location).dataset().count_rows()
        last = command.run(*arguments)
        assert "nothing new" in last.out
        assert AuditLog(store.location).dataset().count_rows() == lines
        time.sleep(2)  # for a call too many
        assert sent(prefect_api, project) == {opened: 2 * len(rows), closed: len(rows)}
        assert len(calls) == 2 * len(of_total)

    events = query(store, "select event from audit_log order by written_at, event").column("event").to_pylist()
    assert Counter(events) == {
        "will_write": 2,
        "written": 2,
        "retracted": 1,
        "alert_opened": 2 * len(rows),
        "alert_closed": len(rows),
    }
    assert events[: 2 + len(rows)] == [*["alert_opened"] * len(rows), "will_write", "written"]
