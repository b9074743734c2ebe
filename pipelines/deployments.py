"""Which audits are scheduled: the one source of truth.

`spectral-edge deploy` and `spectral-edge serve` register what is here (pipelines/registration.py), and `make reference`
writes `deploy/prefect.yaml` from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from pipelines.scheduled import audit_sources, compact_store
from pipelines.settings import ScheduleName, ScheduleTimes
from spectral_edge.errors import UsageError

POOL: Final = "spectral-edge"
TAG: Final = "spectral-edge"
FOLDER_VARIABLE: Final = "SPECTRAL_EDGE_FOLDER"
HEARTBEAT_SECONDS: Final = 30
"""How often a flow run says that it lives; the shortest that Prefect takes."""


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

    def schedule(self) -> CronSchedule:
        """For Prefect.

        Raises:
            ValidationError: Its times cannot be.
        """
        return CronSchedule(cron=self.cron, timezone=self.timezone)

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
        parameters={"runs": "all", "changes": {"max_minutes": 300}},
    ),
    Plan(
        "hourly",
        audit_sources,
        "Look at the runs that are running, started or ended in the last two hours.",
        "30 * * * *",
        parameters={"runs": "running and new", "new_within": "2h", "changes": {"max_minutes": 50}},
    ),
    Plan("weekly", compact_store, "Merge the small files of the store.", "0 12 * * 0"),
    Plan(
        "monthly",
        audit_sources,
        "Look at all runs, also those of which the listing tells nothing new.",
        "0 8 1 * *",
        parameters={"runs": "all", "changes": {"recheck": True, "max_minutes": 600}},
    ),
)


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
    if times.max_minutes is not None:
        if plan.flow is not audit_sources:
            raise UsageError(
                f"the schedule {plan.name} audits nothing that `max_minutes` could end.",
                file="spectral-edge.toml",
                next_step=f"leave it out of [schedules.{plan.name}].",
            )
        parameters["changes"] = {**parameters.get("changes", {}), "max_minutes": times.max_minutes}
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
        changed.schedule()
    except ValidationError as error:
        says = error.errors(include_url=False)[0]["msg"]
        raise UsageError(
            f"the schedule {plan.name} cannot be `cron` {changed.cron!r} in `timezone` {changed.timezone!r}: {says}.",
            file="spectral-edge.toml",
            next_step='five fields as in `cron = "0 2 * * *"`, and a name such as `timezone = "Europe/Berlin"`.',
        ) from None
    return changed


def pull_steps(folder: str) -> list[dict[str, Any]]:
    """What a worker does before it runs a flow: it goes to the folder that holds `spectral-edge.toml`."""
    return [{"prefect.deployments.steps.set_working_directory": {"directory": folder}}]


def job_variables() -> dict[str, Any]:
    """The environment of flow runs beyond the worker's own."""
    return {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}}


def prefect_yaml() -> dict[str, Any]:
    """What `deploy/prefect.yaml` says: the same deployments, for `prefect deploy --all`."""
    return {
        "name": "spectral-edge",
        "pull": pull_steps(f"{{{{ ${FOLDER_VARIABLE} }}}}"),
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
        "work_pool": {"name": POOL, "job_variables": job_variables()},
    }
