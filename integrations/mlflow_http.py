"""How long our process waits for an MLflow server, and what MLflow says on its own, unless the user has set it."""

from __future__ import annotations

import os
from typing import Final

DEFAULTS: Final = {
    # Six tries within about half a minute, then Prefect tries the run again; MLflow's own eight take four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # A server that proxies artifacts may read a whole one before it sends the first byte.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    # MLflow prints the address of a run when that ends; stdout is for results.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables of MLflow and what they are where the user has set none. `Retry-After` is obeyed, as by MLflow."""


def set_defaults() -> None:
    """Set those of `DEFAULTS` that are not set, for this process."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
