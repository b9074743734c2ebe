"""Flow runs whose process is gone though the server calls them running: after kill -9 of `spectral-edge serve`."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
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


def start_again(client: SyncPrefectClient) -> list[str]:
    """Call them Crashed, which frees their concurrency slots, and start each again; the names of those started.

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
    return [_again(client, run, run.deployment_id) for run in lost if run.deployment_id]


def _read(client: SyncPrefectClient, chosen: FlowRunFilter) -> list[FlowRun]:
    return client.read_flow_runs(flow_run_filter=chosen)


def _again(client: SyncPrefectClient, run: FlowRun, deployment: UUID) -> str:
    new = client.create_flow_run_from_deployment(deployment, parameters=run.parameters, tags=run.tags)
    return f"{run.name} (now {new.name})"
