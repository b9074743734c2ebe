"""What a Prefect server must know of the schedules: work pool, limits, deployments, and what to do about dead runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from pipelines.deployments import TAG, Plan, job_variables, pull_steps
from pipelines.scheduled import limit_name
from pipelines.settings import AuditSettings

SILENCE_SECONDS: Final = 120
"""After how long without a heartbeat a flow run counts as dead: three may be lost."""
AUTOMATION: Final = "spectral-edge: flow runs that died"

Did = Literal["created", "updated", "there already"]


@dataclass(frozen=True)
class Place:
    """Where workers run the flows.

    Attributes:
        pool: Their work pool; created with type process when it is missing.
        folder: The working directory of flow runs, on the worker's machine.
        limits: The global concurrency limits that their audits share.
    """

    pool: str
    folder: str
    limits: tuple[str, ...]


@dataclass(frozen=True)
class Registration:
    """What was done to one object of the server."""

    kind: str
    name: str
    did: Did
    says: str = ""

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def register(client: SyncPrefectClient, plans: Sequence[Plan], place: Place, *, act: bool = True) -> list[Registration]:
    """Create or update work pool, limits, deployments and the automation. Twice is the same as once.

    Args:
        client: Of the server.
        plans: From :func:`planned`.
        place: Where workers run the flows.
        act: Whether to do it, or only to look and tell what would be done.
    """
    done = [_pool(client, place.pool, act=act), *register_limits(client, place.limits, act=act)]
    done += [_deployment(client, plan, place, act=act) for plan in plans]
    return [*done, _automation(client, act=act)]


def limits(sources: Sequence[str], settings: AuditSettings) -> tuple[str, ...]:
    """The concurrency limits of `sources`: one for each tracker."""
    return tuple(sorted({limit_name(source, settings) for source in sources}))


def register_limits(client: SyncPrefectClient, names: Sequence[str], *, act: bool = True) -> list[Registration]:
    """Create the limits that are missing; one that exists keeps the number that people gave it."""
    return [_limit(client, name, act=act) for name in names]


def _pool(client: SyncPrefectClient, name: str, *, act: bool) -> Registration:
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        if act:
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        return Registration("work pool", name, "created", "type process")
    return Registration("work pool", name, "there already", f"type {found.type}")


def _limit(client: SyncPrefectClient, name: str, *, act: bool) -> Registration:
    try:
        found = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        if act:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
        return Registration("concurrency limit", name, "created", "1 audit at once")
    return Registration("concurrency limit", name, "there already", f"{found.limit} at once")


def _deployment(client: SyncPrefectClient, plan: Plan, place: Place, *, act: bool) -> Registration:
    try:
        client.read_deployment_by_name(plan.full_name)
        did: Did = "updated"
    except ObjectNotFound:
        did = "created"
    if act:
        client.create_deployment(
            flow_id=client.create_flow(plan.flow),
            name=plan.name,
            description=plan.description,
            entrypoint=plan.entrypoint,
            parameters=dict(plan.parameters),
            parameter_openapi_schema=parameter_schema(plan.flow).model_dump(exclude_unset=True),
            enforce_parameter_schema=True,
            schedules=[DeploymentScheduleCreate(schedule=plan.schedule(), active=plan.active)],
            tags=plan.tags,
            work_pool_name=place.pool,
            pull_steps=pull_steps(place.folder),
            job_variables=job_variables(),
            concurrency_limit=1,
            concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        )
    return Registration("deployment", plan.full_name, did, plan.when)


def _automation(client: SyncPrefectClient, *, act: bool) -> Registration:
    """A flow run whose process and worker were killed would stay Running for ever, and block its deployment."""
    says = f"after {SILENCE_SECONDS} s without a heartbeat a flow run is Crashed"
    if client.read_automations_by_name(AUTOMATION):
        return Registration("automation", AUTOMATION, "there already", says)
    if act:
        client.create_automation(_silence(says))
    return Registration("automation", AUTOMATION, "created", says)


def _silence(says: str) -> AutomationCore:
    return AutomationCore(
        name=AUTOMATION,
        description=says,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={
                "prefect.flow-run.heartbeat",
                "prefect.flow-run.Completed",
                "prefect.flow-run.Failed",
                "prefect.flow-run.Cancelled",
                "prefect.flow-run.Crashed",
            },
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.id": [f"prefect.tag.{TAG}"], "prefect.resource.role": "tag"}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, message=f"No heartbeat for {SILENCE_SECONDS} s: its process is gone."
            )
        ],
    )
