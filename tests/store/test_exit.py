"""A process that has read a store ends with exit code 0, whatever file system and threads were at work."""

from __future__ import annotations

import os
import subprocess
import sys

from audits import audit, key_of

from spectral_edge.store import Store

READER = """
import sys
from spectral_edge.query import query
from spectral_edge.store import Store
store = Store.open(sys.argv[1], create=False)
store.audits()
query(store, "SELECT run_id, regime, step FROM gaps LIMIT 1")
print(query(store, "SELECT run_id, max(step) AS step FROM gaps GROUP BY ALL ORDER BY ALL").to_pylist())
"""


def test_processes_that_read_exit_cleanly(root: str) -> None:
    store = Store.open(root)
    for run in ("a", "b", "c"):
        store.write_run(audit(key_of(run)))
    for _ in range(5):
        ended = subprocess.run(
            [sys.executable, "-c", READER, root], capture_output=True, text=True, check=False, env=dict(os.environ)
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.strip() == str([{"run_id": run, "step": 30} for run in ("a", "b", "c")])
