"""What an audit can be told: flags, then the environment, then `spectral-edge.toml`, then defaults.

The settings that change a number are handed on as :class:`spectral_edge.settings.Settings`; all others say where
things are kept, what is written back, and how much of the machine may be used.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from integrations.selection import STATES, Criteria, RunState, moment
from pipelines.named_trackers import NamedTracker, wrong_name
from spectral_edge.errors import UsageError
from spectral_edge.kinds import KINDS, Kind
from spectral_edge.settings import Settings

TOML_FILE: Final = Path("spectral-edge.toml")
ENVIRONMENT_PREFIX: Final = "SPECTRAL_EDGE_"


ScheduleName = Literal["nightly", "hourly", "weekly", "monthly"]


class ScheduleTimes(BaseModel):
    """When a schedule runs; what is left out stays as it is by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cron: str | None = None
    timezone: str | None = None
    active: bool = True


class AuditSettings(BaseSettings):
    """Everything an audit can be told. The description of a field says which values it takes."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        toml_file=TOML_FILE,
        extra="forbid",
        frozen=True,
    )

    store: str = Field("spectral-edge-store", min_length=1, description="a folder or an s3:// address")
    window: int = Field(10, ge=3, description="a whole number of updates, at least 3")
    lags: int = Field(0, ge=0, description="a whole number, at least `window`; 0 means six times `window`")
    false_alarm_rate: float = Field(0.05, gt=0, lt=1, description="a number between 0 and 1")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda")
    metric: str | None = Field(None, min_length=1, description="the name of a metric that the runs logged")
    metric_direction: Literal["higher", "lower"] | None = Field(None, description="higher or lower")
    learning_rate_metric: str | None = Field(
        None, min_length=1, description="the name of a metric that the runs logged"
    )
    learning_rate_param: str | None = Field(None, min_length=1, description="the name of a parameter of the runs")
    weight_decay_param: str | None = Field(None, min_length=1, description="the name of a parameter of the runs")
    include: Annotated[tuple[Kind, ...], NoDecode] = Field(
        ("parameters",), description=f"one or more of {', '.join(KINDS)}, separated by commas"
    )
    series: str | None = Field(
        None, min_length=1, description="a series of checkpoints: its name, or a glob on it such as `model:*`"
    )
    filter: str | None = Field(
        None, min_length=1, description="a filter in the tracker's words: MLflow's search_runs, or W&B's JSON"
    )
    state: Annotated[tuple[RunState, ...], NoDecode] = Field(
        (), description=f"one or more of {', '.join(STATES)}, separated by commas"
    )
    since: str | None = Field(None, description="an age such as 24h, 7d or 2w, or a date such as 2026-01-31")
    annotate: Literal["none", "summary", "full"] = Field("full", description="none, summary or full")
    into: Literal["run", "child"] | None = Field(None, description="run or child")
    workers: int = Field(1, ge=1, le=64, description="a whole number of runs at once, 1 to 64")
    dask: str | None = Field(
        None,
        pattern=r"^(local:[1-9]\d{0,3}|[a-z]+://[^@]+)$",
        description="the address of a Dask scheduler such as tcp://host:8786, or local:N for N processes",
    )
    shards: int = Field(0, ge=0, le=4096, description="a whole number of parts, 0 to 4096; 0 goes by size")
    max_disk: ByteSize = Field(ByteSize(20_000_000_000), gt=0, description="a size such as 20GB or 500MiB")
    spool: Path = Field(Path("spectral-edge-spool"), description="a folder for downloads in flight")
    tracking_uri: SecretStr | None = Field(
        None, min_length=1, description="the address of an MLflow server or database"
    )
    force: bool = Field(False, description="true or false")
    recheck: bool = Field(False, description="true or false")
    max_bytes: ByteSize | None = Field(None, gt=0, description="a size such as 500GB or 2TiB")
    max_minutes: float | None = Field(None, gt=0, description="a number of minutes")
    max_runs: int | None = Field(None, gt=0, description="a whole number of runs, at least 1")
    metrics_file: Path | None = Field(None, description="a file for Prometheus, such as spectral_edge.prom")
    log_format: Literal["text", "json"] = Field("text", description="text or json")
    max_tries: int = Field(3, ge=1, description="a whole number of deaths of the process, at least 1")
    sources: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="sources that commands take where none is given, separated by commas, or a list in JSON"
    )
    trackers: Annotated[dict[str, NamedTracker], NoDecode] = Field(
        default_factory=dict, description="tables [trackers.NAME] with `kind`, or the same in JSON"
    )

    schedules: dict[ScheduleName, ScheduleTimes] = Field(
        {}, description="a table for each schedule to be changed: `cron`, `timezone`, `active`"
    )

    @field_validator("trackers", mode="before")
    @classmethod
    def _of_json(cls, given: object) -> object:
        """Text, as the environment gives it, is JSON."""
        return json.loads(given) if isinstance(given, str) else given

    @field_validator("trackers")
    @classmethod
    def _have_names(cls, given: dict[str, NamedTracker]) -> dict[str, NamedTracker]:
        for wrong in filter(None, map(wrong_name, given)):
            raise PydanticCustomError("tracker_name", wrong)
        return given

    @field_validator("sources", mode="before")
    @classmethod
    def _listed(cls, given: object) -> object:
        """Text, as the environment gives it, is separated by commas, or JSON where a name holds one."""
        if not isinstance(given, str):
            return given
        return json.loads(given) if given.startswith("[") else tuple(word.strip() for word in given.split(","))

    @field_validator("include", "state", mode="before")
    @classmethod
    def _separated(cls, given: object) -> object:
        """Text, as flags and the environment give it, is a list separated by commas."""
        return tuple(word.strip() for word in given.split(",")) if isinstance(given, str) else given

    @field_validator("since", mode="before")
    @classmethod
    def _names_a_moment(cls, given: object) -> object:
        """TOML has dates of its own. An age is kept as it is written: it counts from the start of each audit."""
        text = given.isoformat() if isinstance(given, date) else given
        if isinstance(text, str):
            moment(text, datetime.now(UTC))
        return text

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """First wins: flags, environment, `spectral-edge.toml` of the working directory."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def analysis(self) -> Settings:
        """The settings that change a number.

        Raises:
            UsageError: `lags` is smaller than `window`, or the learning rate was named twice.
        """
        return Settings(
            window=self.window,
            lags=self.lags,
            false_alarm_rate=self.false_alarm_rate,
            metric=self.metric,
            include=self.include,
            metric_direction=self.metric_direction,
            learning_rate_metric=self.learning_rate_metric,
            learning_rate_param=self.learning_rate_param,
            weight_decay_param=self.weight_decay_param,
        )

    def of_source(self, source: str) -> AuditSettings:
        """These settings as they hold for `source`: what its tracker's table says comes first."""
        tracker = self.trackers.get(source.partition(":")[0])
        return self if tracker is None else self.model_copy(update=tracker.overrides())

    def tracker_name(self, source: str) -> str | None:
        """The name of the source's tracker; None where it has none."""
        name = source.partition(":")[0]
        return name if name in self.trackers else None

    def concurrency_limit(self, source: str) -> str | None:
        """Name of the limit that audits of the source's tracker share: the one that its table says, or its own name."""
        tracker = self.trackers.get(source.partition(":")[0])
        return None if tracker is None else tracker.concurrency_limit or self.tracker_name(source)

    def criteria(self) -> Criteria:
        """What runs must be like to be selected; ages count from now."""
        since = None if self.since is None else moment(self.since, datetime.now(UTC))
        return Criteria(self.filter, self.state, since)

    @property
    def tracking_address(self) -> str | None:
        """`tracking_uri` as the tracker needs it; it may hold a password, and Prefect records settings."""
        return None if self.tracking_uri is None else self.tracking_uri.get_secret_value()

    @property
    def max_disk_per_run(self) -> int:
        """Bytes that the downloads of one run may take, so that all runs at once stay within `max_disk`."""
        return self.max_disk // self.workers

    def torch_device(self) -> str:
        """`cpu` or `cuda`: what `device` comes to on this machine; see :func:`torch_device`."""
        return torch_device(self.device)


def torch_device(wanted: str) -> str:
    """`cpu` or `cuda`: what `wanted`, a value of `device`, comes to on this machine.

    Raises:
        UsageError: `cuda` was asked for, and torch has none.
    """
    import torch  # noqa: PLC0415 - takes seconds, and only an audit needs it

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"`device` is cuda, but torch {torch.__version__} finds no CUDA device.",
            next_step="use --device auto, or install a torch build that knows this machine's GPU.",
        )
    return wanted


def load_settings(**flags: object) -> AuditSettings:
    """The settings of this call; flags that are None were not given.

    Raises:
        UsageError: A value out of range, an unknown key in `spectral-edge.toml`, or a file that is not TOML.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    try:
        settings = AuditSettings(**given)  # type: ignore[arg-type]  # checked by pydantic, value by value
    except ValidationError as error:
        raise _usage_error(error.errors(include_url=False)[0], given) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"is not valid TOML: {error}.", file=str(TOML_FILE)) from None
    settings.analysis()
    told = frozenset(given) | {key for key in AuditSettings.model_fields if os.environ.get(_variable(key))}
    trackers = {name: tracker.without(told) for name, tracker in settings.trackers.items()}
    return settings.model_copy(update={"trackers": trackers})


def sources_of(sources: Sequence[str] | None, settings: AuditSettings) -> tuple[str, ...]:
    """The sources of a call: those that were given, or else those of the settings.

    Raises:
        UsageError: There are none.
    """
    found = tuple(sources or settings.sources)
    if not found:
        raise UsageError(
            "no source was given.",
            next_step=f'name one (mlflow:EXPERIMENT, dir:PATH), or write sources = ["..."] in {TOML_FILE}.',
        )
    return found


def _usage_error(error: ErrorDetails, flags: dict[str, object]) -> UsageError:
    key = str(error["loc"][0])
    if key == "trackers":
        return _tracker_error(error)
    field = AuditSettings.model_fields.get(key)
    if field is None:
        return _unknown_key(key)
    return UsageError(f"`{key}` must be {field.description}, got {_shown(error['input'])} ({_origin(key, flags)}).")


def _tracker_error(error: ErrorDetails) -> UsageError:
    """Without what was written: it may be a secret."""
    kinds = {"mlflow", "wandb", "wandb-offline", "dir", "SecretPlace", "str"}  # pydantic's names of alternatives
    where = [str(part) for at, part in enumerate(error["loc"]) if at < 2 or str(part) not in kinds]
    said = error["msg"].removeprefix("Value error, ")
    return UsageError(
        f"`{'.'.join(where)}`: {said[:1].lower()}{said[1:]} ({_origin('trackers', {})}).",
        next_step="docs/trackers.md shows the table of each kind.",
    )


def _unknown_key(key: str) -> UsageError:
    known = sorted(AuditSettings.model_fields)
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"known keys are {', '.join(known)}."
    return UsageError(f"no setting is called `{key}`.", file=str(TOML_FILE), next_step=hint)


def _origin(key: str, flags: dict[str, object]) -> str:
    variable = _variable(key)
    if key in flags:
        return f"flag --{key.replace('_', '-')}"
    return f"environment variable {variable}" if os.environ.get(variable) else f"file {TOML_FILE}"


def _variable(key: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{key.upper()}"


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | bool) else f"a {type(value).__name__}"
