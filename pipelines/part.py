"""A part of the reading of one run, as it is sent to a worker of a cluster, and what comes back.

What is sent holds no secret. A tracker is sent as the words that name it; the worker makes its own of them, with the
credentials of its own environment, and keeps it for the parts that follow.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from integrations.locate import locate
from integrations.place import Place
from integrations.tracker import Tracker
from pipelines.named_trackers import places
from pipelines.reading import Costs, Reading, read
from pipelines.settings import AuditSettings, torch_device
from pipelines.spool import sweep
from spectral_edge.errors import UsageError
from spectral_edge.settings import PASS_VERSION
from spectral_edge.trajectory import Trajectory

PARTS_VERSION: Final = 1
"""Of how parameters are divided: parts that were divided otherwise do not add up to a run."""


@dataclass(frozen=True)
class Origin:
    """A tracker, as another process can make it: no secret, and nothing that was read.

    Attributes:
        source: As it was given.
        tracking_uri: MLflow's address; None leaves it to the worker's environment.
        place: What the name in `source` stands for, where it is that of a named tracker.
    """

    source: str
    tracking_uri: str | None = None
    place: Place | None = None

    @classmethod
    def of(cls, source: str, settings: AuditSettings) -> Origin:
        """The tracker of `source`.

        Raises:
            UsageError: The settings hold a password in MLflow's address.
        """
        place = places(settings.trackers).get(source.partition(":")[0])
        given = settings.tracking_address
        if given is not None and _has_password(given):
            raise UsageError(
                "`tracking_uri` holds a password, and is sent to the workers of the cluster.",
                next_step="set MLFLOW_TRACKING_URI here and in the workers' environment, or name the tracker: "
                "docs/trackers.md.",
            )
        of_environment = os.environ.get("MLFLOW_TRACKING_URI") or None
        told = given or (of_environment if of_environment and not _has_password(of_environment) else None)
        return cls(source, told, place)

    def tracker(self) -> Tracker:
        """The tracker, made here."""
        name = self.source.partition(":")[0]
        named = {} if self.place is None else {name: self.place}
        tracker, _ = locate(self.source, tracking_uri=self.tracking_uri, places=named)
        return tracker


@dataclass(frozen=True)
class Part:
    """What one worker is to read. `reading.device` may be `auto`: the worker knows what it has."""

    origin: Origin
    reading: Reading


@dataclass(frozen=True)
class PartRead:
    """What one worker has read.

    Attributes:
        trajectory: The bands of all groups, summed over the part.
        costs: Bytes and seconds.
        pass_version: What the worker's version of spectral-edge sums.
        parts_version: How it divides; 0 for versions that did not tell.
    """

    trajectory: Trajectory
    costs: Costs
    pass_version: int
    parts_version: int = 0


def read_part(part: Part) -> PartRead:
    """Fetch and read `part` in this process; what a worker runs.

    Raises:
        SpectralEdgeError: As :func:`pipelines.reading.read`, naming run and file.
    """
    reading, costs = part.reading, Costs()
    sweep(reading.spool)  # what a worker that was killed has left on this machine
    here = replace(reading, device=torch_device(reading.device))
    trajectory = read(_tracker(part.origin), here, costs)
    return PartRead(trajectory, costs, PASS_VERSION, PARTS_VERSION)


@lru_cache(maxsize=8)
def _tracker(origin: Origin) -> Tracker:
    """One for all parts that a worker reads of a source: signing in anew for each would cost more than the reading."""
    return origin.tracker()


def _has_password(address: str) -> bool:
    return urlsplit(address).password is not None
