"""What is kept of an audit for monitoring, when its source is done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping

from pipelines import progress
from pipelines.findings import Ledger
from pipelines.metrics_file import Audited, record
from pipelines.results import AuditSummary
from pipelines.settings import AuditSettings
from pipelines.sources import located
from spectral_edge.audit_log import AuditLog
from spectral_edge.errors import SpectralEdgeError
from spectral_edge.store_location import StoreLocation
from spectral_edge.tables import RunKey


def record_audit(
    source: str, settings: AuditSettings, outcome: AuditSummary | SpectralEdgeError, seconds: float
) -> None:
    """Bring the file of metrics up to date, where one is asked for. What goes wrong is told and stops nothing."""
    path = settings.metrics_file
    if path is None:
        return
    try:
        tracker = located(source, settings)[0].kind
        projects = {run.project for run in outcome.runs} if isinstance(outcome, AuditSummary) else set()
        alerts = _open_alerts(settings.store, tracker, projects)
        record(path, Audited(source, tracker, outcome, alerts, seconds, time.time()))
    except SpectralEdgeError as error:
        progress.current().warn(str(error))


def _open_alerts(store: str, tracker: str, projects: Collection[str]) -> Mapping[str, int]:
    log = AuditLog(StoreLocation.of(store))
    keys = [RunKey(tracker, project, "", "").project_key for project in projects]
    return Counter(alert.finding.key.project for alert in Ledger.of(log.alerts(tracker, keys)).open)
