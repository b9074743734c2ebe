"""A W&B run as a user left it on the double, and the ways in which the tests of the writing half look at it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

from integrations.tracker import Annotation, MetricPoint, RunState, TrackedRun
from integrations.wandb_connection import WandbConnection
from spectral_edge.tables import RunKey
from tests.wandb_double import Double

KEYS = ("spectral_edge/total/gap", "spectral_edge/layer.0/singular_values_1")
NOTES = "My note.\r\n\n<!-- with a comment --> and *stars* "
SUMMARY = {
    "loss": 0.25,
    "nan": float("nan"),
    "inf": float("-inf"),
    "best": {"acc": {"max": 0.5, "nan": float("nan")}},
    "big": 2**70,
    " spaced ": "x",
    "x.y/z": None,
    "text": 'quoted "}", {\\ ελληνικά',
    "table": {"_type": "table-file", "path": "media/table.json"},
    "_runtime": 3.5,
    "_wandb": {"runtime": 3},
}
CONFIG = {"lr": 0.1, "model": {"depth": 2, "name": "m"}}
_numbers = itertools.count(1)


def made(*steps: int, fingerprint: str = "f" * 16, settings: str = "s" * 16, scale: float = 1.0) -> Annotation:
    """An annotation with two metrics at each of `steps`."""
    return Annotation(
        fingerprint=fingerprint,
        settings_hash=settings,
        tags={
            "spectral_edge.status": "ok",
            "spectral_edge.regime": "plateau",
            "spectral_edge.windows": str(len(steps)),
            "spectral_edge.settings_hash": settings,
        },
        note=f"### Spectral edge audit\n\n{len(steps)} windows.",
        metrics=tuple(MetricPoint(key, step, scale * (step + 0.5)) for key in KEYS for step in steps),
        files={"gaps.parquet": b"PAR1" + bytes(200), "spectrum.html": b"<!doctype html><p>chart"},
    )


@dataclass(frozen=True)
class Bench:
    """One run of a user's in a project of its own."""

    double: Double
    project: str
    run: TrackedRun

    @classmethod
    def of(cls, double: Double, **fields: Any) -> Bench:
        """A run with all that a user may have put on it, and what `fields` of the double's say of it."""
        project = f"proj{next(_numbers)}"
        given = {"config": CONFIG, "summary": SUMMARY, "tags": ["mine", "b"], "notes": NOTES, **fields}
        history = given.pop("history", [{"loss": 1.0 / (row + 1)} for row in range(5)])
        double.put_run("ent", project, "r1", display_name="run", history=history, **given)
        for version in range(2):
            double.put_artifact("ent", project, "r1", "weights", {"model.pt": bytes([version])})
        key = RunKey("wandb", f"ent/{project}", "r1", "run")
        state: RunState = "finished"
        return cls(double, project, TrackedRun(key, state, None, None, {}, {}, f"{double.url}/ent/{project}/runs/r1"))

    @property
    def original(self) -> dict[str, Any]:
        """What the server holds of the audited run."""
        return self.double.run("ent", self.project, "r1")

    @property
    def audits(self) -> dict[str, dict[str, Any]]:
        """What it holds of all other runs of the project, by id."""
        home = self.double.state.project("ent", self.project)
        assert home is not None
        return {name: self.double.run("ent", self.project, name) for name in home.runs if name != "r1"}

    @property
    def only_audit(self) -> dict[str, Any]:
        """What it holds of the one audit run."""
        (audit,) = self.audits.values()
        return audit

    @property
    def theirs(self) -> str:
        """All of the audited run that is not ours, comparable."""
        page = {key: value for key, value in self.original.items() if key not in ("tags", "notes")}
        summary = self.original["summary"]
        page["summary"] = {key: value for key, value in summary.items() if not key.startswith("spectral_edge/")}
        page["tags"] = [tag for tag in self.original["tags"] if not tag.startswith("spectral_edge.")]
        return repr(page)  # NaN is not equal to itself

    @property
    def ours(self) -> dict[str, Any]:
        """Our keys of the audited run's summary."""
        found = self.original["summary"].items()
        return {key: value for key, value in found if key.startswith("spectral_edge/")}

    def writes(self, since: int = 0) -> list[str]:
        """Names of the requests that may have written, from number `since` on."""
        calls = self.double.calls[since:]
        return [str(c.operation or c.path) for c in calls if c.method in ("PUT", "DELETE") or _mutates(c)]


def _mutates(call: Any) -> bool:
    return call.operation == "file_stream" or "mutation" in (call.query or "")


def points_of(page: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """The points in a run's history, doubles included."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in page["history"]:
        for key in row.keys() - {"spectral_edge/step"}:
            if key.startswith("spectral_edge/") and isinstance(row[key], float):
                found.setdefault(key, []).append((row["spectral_edge/step"], row[key]))
    return {key: sorted(points) for key, points in found.items()}


def expected(*steps: int, scale: float = 1.0) -> dict[str, list[tuple[int, float]]]:
    """The points of `made(*steps, scale=scale)`."""
    return {key: [(step, scale * (step + 0.5)) for step in steps] for key in KEYS}


def at_level_summary(annotation: Annotation) -> Annotation:
    """The same as it is on level `summary`."""
    return replace(annotation, metrics=(), files={}, level="summary")


def connected() -> WandbConnection:
    """A connection with nothing remembered."""
    return WandbConnection()
