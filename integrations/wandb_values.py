"""What W&B keeps of a run's configuration and metrics, in the words of this program."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from integrations.tracker import OUR_NAME

_OWN: Final = "_wandb"
_SYSTEM: Final = ("_", "system/", "system.")
_DEEPEST: Final = 20
# Field numbers of wandb's MetricRecord, as which the configuration lists what define_metric was told.
_NAME: Final = "1"
_GLOB: Final = "2"
_STEP_INDEX: Final = "5"


def params_of(config: Mapping[str, object]) -> dict[str, str]:
    """The configuration as text by name; the levels of a nested one are joined by dots, W&B's own entry is left out.

    Lists, and what lies deeper than twenty levels, are written as JSON.
    """
    return dict(_flat({key: value for key, value in config.items() if key != _OWN}, "", _DEEPEST))


def _flat(values: Mapping[str, object], prefix: str, deepest: int) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and deepest:
            yield from _flat(value, f"{name}.", deepest - 1)
        else:
            yield name, json.dumps(value) if isinstance(value, Mapping | list) else str(value)


def is_training_metric(name: str) -> bool:
    """Whether the run logged this itself: neither we, nor W&B about the machine, nor W&B for its own use."""
    return not name.startswith((f"{OUR_NAME}/", *_SYSTEM))


@dataclass(frozen=True)
class StepMetrics:
    """Which metric counts the steps of which, as the run's `define_metric` calls said.

    Attributes:
        exact: Name of the step metric by name of the metric.
        patterns: Pairs of what a metric's name begins with, and its step metric, in the order they were told in.
    """

    exact: Mapping[str, str]
    patterns: Sequence[tuple[str, str]] = ()

    @classmethod
    def of_config(cls, config: Mapping[str, object]) -> StepMetrics:
        """From a run's configuration with its entry `_wandb`; what is not there, or not as expected, says nothing."""
        own = config.get(_OWN)
        told = own.get("m") if isinstance(own, Mapping) else None
        entries = [entry if isinstance(entry, Mapping) else {} for entry in told] if isinstance(told, list) else []
        exact: dict[str, str] = {}
        patterns: list[tuple[str, str]] = []
        for entry in entries:
            index = entry.get(_STEP_INDEX)
            if type(index) is not int or not 1 <= index <= len(entries):
                continue
            step = entries[index - 1].get(_NAME)
            name, glob = entry.get(_NAME), entry.get(_GLOB)
            if isinstance(step, str) and isinstance(name, str):
                exact[name] = step
            elif isinstance(step, str) and isinstance(glob, str):
                patterns.append((glob.removesuffix("*"), step))
        return cls(exact, tuple(patterns))

    def of(self, name: str) -> str | None:
        """The step metric of metric `name`; None where W&B's own count of rows is its axis, as for one itself."""
        step = self.exact.get(name) or next((step for start, step in self.patterns if name.startswith(start)), None)
        return None if step == name else step
