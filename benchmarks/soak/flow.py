"""The process that is killed: both sources audited by the Prefect flow.

The forkserver it comes from imports all that takes long, after the address of Prefect's server was set.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.soak.places import SOURCES
from pipelines.settings import load_settings


def work(home: str, store: str, annotate: str) -> None:
    """Audit both sources, as `spectral-edge audit` does; exit code 1 when a run failed."""
    from pipelines.audit import run_audit  # noqa: PLC0415 - Prefect takes its settings when it is imported

    os.chdir(Path(home, "work"))
    settings = load_settings(store=store, annotate=annotate)
    failures = [run.line for source in SOURCES for run in run_audit(source, settings).runs if run.is_failure]
    if failures:
        sys.exit("\n".join(failures))
