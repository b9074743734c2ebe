"""What the server of `spectral-edge serve` has on record that is not so, or lacks.

After kill -9 it calls flow runs running whose process is gone. Where its scheduler fails, it says so in its log only.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed

from pipelines.deployments import TAG

_UNDER_WAY = FlowRunFilterState(
    type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
)


def start_again(client: SyncPrefectClient, limits: Sequence[str]) -> list[str]:
    """Call them Crashed, free their places in `limits`, and start each again; the names of those started.

    Only for a server whose flow runs no other process may be running.
    """
    lost = _read(client, FlowRunFilter(state=_UNDER_WAY, tags=FlowRunFilterTags(all_=[TAG])))
    ids = [run.id for run in lost]
    if ids:
        inner = FlowRunFilterParentFlowRunId(any_=ids)
        lost += _read(client, FlowRunFilter(state=_UNDER_WAY, parent_flow_run_id=inner))
    for run in lost:
        client.set_flow_run_state(
            run.id, Crashed(message="Its process was killed together with `spectral-edge serve`.")
        )
    for name in limits:
        _free(client, name)
    return [_again(client, run, run.deployment_id) for run in lost if run.deployment_id]


def _free(client: SyncPrefectClient, limit: str) -> None:
    # A server counts places in its database and keeps in memory who has them: killed, it would never free them.
    if client.read_global_concurrency_limit_by_name(limit).active_slots:
        client.update_global_concurrency_limit(limit, GlobalConcurrencyLimitUpdate(active_slots=0))


def nothing_is_planned(client: SyncPrefectClient) -> bool:
    """Whether no run waits for its time, though a server that works plans those of the days ahead."""
    waiting = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    found = _read(client, FlowRunFilter(state=waiting, tags=FlowRunFilterTags(all_=[TAG])))
    return not any(run.auto_scheduled for run in found)


def _read(client: SyncPrefectClient, chosen: FlowRunFilter) -> list[FlowRun]:
    return client.read_flow_runs(flow_run_filter=chosen)


def _again(client: SyncPrefectClient, run: FlowRun, deployment: UUID) -> str:
    new = client.create_flow_run_from_deployment(deployment, parameters=run.parameters, tags=run.tags)
    return f"{run.name} (now {new.name})"
