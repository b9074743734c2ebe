"""Trackers: where runs live, and how they take annotations. Science is in spectral_edge, flows are in pipelines."""

import os

# MLflow reads these at import, so they are set before any module here imports it. What the user has set stays.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # an audit tells nobody that it ran
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout belongs to `--json`
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # the audit shows one progress display of its own
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # 12 s; MLflow's own 7 take four minutes, and pipelines retry on top
}.items():
    os.environ.setdefault(_name, _value)
