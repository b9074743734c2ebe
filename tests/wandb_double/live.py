"""The real SDK in this process, led to a double."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .double import Double
from .environment import wandb_environment

QUIET = {  # nothing of the machine is looked at, and runs start fast
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "init_timeout": 5,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
BOUNDS = {"x_graphql_retry_max": 1, "x_graphql_retry_wait_min_seconds": 0.1, "x_graphql_retry_wait_max_seconds": 0.1}


@contextmanager
def sdk_led_to_a_double(home: Path) -> Iterator[Double]:
    """A double, while the environment leads wandb to it and all that wandb writes to `home`."""
    import wandb  # noqa: PLC0415  (slow, and not installed everywhere)

    with Double() as double, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name, value in wandb_environment(home, double).items():
            patch.setenv(name, value)
        wandb.teardown()  # it may have been set up for another server
        yield double
        wandb.teardown()


@contextmanager
def no_problems(double: Double) -> Iterator[None]:
    """Whatever happens within leaves no orders for others, and is all understood by the double."""
    double.problems.clear()
    yield
    double.heal()
    assert double.problems == []


def start_run(folder: Path, name: str, *, settings: dict[str, object] | None = None, **how: Any) -> Any:
    """A run `ent/p/NAME`, by wandb.init."""
    import wandb  # noqa: PLC0415

    chosen: Any = {**QUIET, **(settings or {})}
    where: dict[str, Any] = {"entity": "ent", "project": "p", "dir": str(folder), "reinit": "create_new"}
    return wandb.init(id=name, settings=wandb.Settings(**chosen), **where, **how)
