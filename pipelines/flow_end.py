"""Telling Prefect and people that a flow run ends, when the process is ended by force in the middle of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runtime import flow_run
from prefect.states import Cancelled

from pipelines import stopping
from pipelines.results import RunResult
from pipelines.terminal import print_line, stderr_console
from pipelines.wording import count_text
from spectral_edge.tables import RunKey


def record_end(source: str, results: Mapping[RunKey, RunResult]) -> Callable[[], None]:
    """What is to be called then, made inside of the flow run; `results` are those of the runs that are done."""
    this = flow_run.get_id() or ""

    def record() -> None:
        line = (
            f"{source}: stopped, {count_text(len(results), 'run')} done. What was under way did not end within "
            f"{stopping.GRACE_SECONDS:g} seconds, and was ended by force; the next audit does it again."
        )
        print_line(stderr_console(), "stopped:", "bold", line)
        # Prefect's server may be gone, too.
        with suppress(httpx.HTTPError, PrefectHTTPStatusError), get_client(sync_client=True) as client:
            client.set_flow_run_state(this, Cancelled(message=line), force=True)

    return record
