"""Which audits are scheduled, and their registration with a Prefect server.

The one source of truth: `spectral-edge deploy` and `spectral-edge serve` register what is here, and `make reference`
writes `deploy/prefect.yaml` from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

from prefect.automations import AutomationCore, EventTrigger, Posture
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    ConcurrencyOptions,
    StateType,
)
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from pipelines.scheduled import audit_sources, compact_store, limit_name
from pipelines.settings import ScheduleName, ScheduleTimes
from spectral_edge.errors import UsageError

POOL: Final = "spectral-edge"
TAG: Final = "spectral-edge"
FOLDER_VARIABLE: Final = "SPECTRAL_EDGE_FOLDER"
HEARTBEAT_SECONDS: Final = 30
"""How often a flow run says that it lives; the shortest that Prefect takes."""
SILENCE_SECONDS: Final = 120
"""After how long without a heartbeat a flow run counts as dead: three may be lost."""
AUTOMATION: Final = "spectral-edge: flow runs that died"

Did = Literal["created", "updated", "there already"]


@dataclass(frozen=True)
class Plan:
    """One deployment: a flow, what it is told, and when it runs. Two of its runs never overlap."""

    name: ScheduleName
    flow: Flow[..., Any]
    description: str
    cron: str
    timezone: str = "UTC"
    active: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """What `prefect deployment run` takes."""
        return f"{self.flow.name}/{self.name}"

    @property
    def when(self) -> str:
        """The schedule, for people."""
        return f"{self.cron} {self.timezone}" if self.active else "only when asked"

    @property
    def entrypoint(self) -> str:
        """Where a worker finds the flow: in the installed package, so that no code is pulled."""
        return f"{self.flow.fn.__module__}.{self.flow.fn.__name__}"

    def served(self) -> RunnerDeployment:
        """The deployment for a runner in this process, which needs no work pool."""
        return RunnerDeployment.from_flow(
            self.flow,
            name=self.name,
            description=self.description,
            schedules=[Schedule(cron=self.cron, timezone=self.timezone, active=self.active)],
            parameters=dict(self.parameters),
            tags=self.tags,
            concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )

    @property
    def tags(self) -> list[str]:
        """What the deployment and its runs can be filtered by."""
        return [TAG, self.name]


PLANS: Final = (
    Plan(
        "nightly",
        audit_sources,
        "Look at all runs; read what the store does not hold yet.",
        "0 2 * * *",
        parameters={"runs": "all"},
    ),
    Plan(
        "hourly",
        audit_sources,
        "Look at the runs that are running, started or ended in the last three hours.",
        "30 * * * *",
        parameters={"runs": "running and new", "new_within": "3h"},
    ),
    Plan("weekly", compact_store, "Merge the small files of the store.", "0 5 * * 0"),
    Plan(
        "monthly",
        audit_sources,
        "Read all checkpoints of all runs again, whatever the store holds.",
        "0 6 1 * *",
        parameters={"runs": "all", "changes": {"force": True}},
    ),
)


@dataclass(frozen=True)
class Place:
    """Where workers run the flows.

    Attributes:
        pool: Their work pool; created with type process when it is missing.
        folder: The working directory of flow runs, on the worker's machine.
    """

    pool: str
    folder: str


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


def planned(schedules: Mapping[ScheduleName, ScheduleTimes], sources: Sequence[str]) -> tuple[Plan, ...]:
    """The deployments under what `spectral-edge.toml` says of their schedules, for `sources`.

    Raises:
        UsageError: A cron expression or a timezone that cannot be.
    """
    return tuple(_planned(plan, schedules.get(plan.name, ScheduleTimes()), sources) for plan in PLANS)


def _planned(plan: Plan, times: ScheduleTimes, sources: Sequence[str]) -> Plan:
    parameters = dict(plan.parameters)
    if plan.flow is audit_sources and sources:
        parameters["sources"] = list(sources)
    changed = Plan(
        plan.name,
        plan.flow,
        plan.description,
        times.cron or plan.cron,
        times.timezone or plan.timezone,
        times.active,
        parameters,
    )
    try:
        _schedule(changed)
    except ValidationError as error:
        says = error.errors(include_url=False)[0]["msg"]
        raise UsageError(
            f"the schedule {plan.name} cannot be `cron` {changed.cron!r} in `timezone` {changed.timezone!r}: {says}.",
            file="spectral-edge.toml",
            next_step='five fields as in `cron = "0 2 * * *"`, and a name such as `timezone = "Europe/Berlin"`.',
        ) from None
    return changed


def _schedule(plan: Plan) -> CronSchedule:
    return CronSchedule(cron=plan.cron, timezone=plan.timezone)


def register(
    client: SyncPrefectClient, plans: Sequence[Plan], sources: Sequence[str], place: Place, *, act: bool = True
) -> list[Registration]:
    """Create or update work pool, limits, deployments and the automation. Twice is the same as once.

    Args:
        client: Of the server.
        plans: From :func:`planned`.
        sources: For the concurrency limits.
        place: Where workers run the flows.
        act: Whether to do it, or only to look and tell what would be done.
    """
    done = [_pool(client, place.pool, act=act), *limits(client, sources, act=act)]
    done += [_deployment(client, plan, place, act=act) for plan in plans]
    return [*done, _automation(client, act=act)]


def limits(client: SyncPrefectClient, sources: Sequence[str], *, act: bool = True) -> list[Registration]:
    """A concurrency limit for the tracker of each source; one that exists keeps the number that people gave it."""
    return [_limit(client, name, act=act) for name in sorted({limit_name(source) for source in sources})]


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
            schedules=[DeploymentScheduleCreate(schedule=_schedule(plan), active=plan.active)],
            tags=plan.tags,
            work_pool_name=place.pool,
            pull_steps=_pull_steps(place.folder),
            job_variables=_job_variables(),
            concurrency_limit=1,
            concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        )
    return Registration("deployment", plan.full_name, did, plan.when)


def _pull_steps(folder: str) -> list[dict[str, Any]]:
    """What a worker does before it runs a flow: it goes to the folder that holds `spectral-edge.toml`."""
    return [{"prefect.deployments.steps.set_working_directory": {"directory": folder}}]


def _job_variables() -> dict[str, Any]:
    """The environment of flow runs beyond the worker's own."""
    return {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}}


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


def prefect_yaml() -> dict[str, Any]:
    """What `deploy/prefect.yaml` says: the same deployments, for `prefect deploy --all`."""
    return {
        "name": "spectral-edge",
        "pull": _pull_steps(f"{{{{ ${FOLDER_VARIABLE} }}}}"),
        "deployments": [_yaml(plan) for plan in PLANS],
    }


def _yaml(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "entrypoint": plan.entrypoint,
        "description": plan.description,
        "tags": plan.tags,
        "parameters": dict(plan.parameters),
        "enforce_parameter_schema": True,
        "schedules": [{"cron": plan.cron, "timezone": plan.timezone, "active": plan.active}],
        "concurrency_limit": {"limit": 1, "collision_strategy": ConcurrencyLimitStrategy.CANCEL_NEW.value},
        "work_pool": {"name": POOL, "job_variables": _job_variables()},
    }
