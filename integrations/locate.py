"""From a source, as people write it, to a tracker and a selection of its runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from integrations.credentials import MlflowAccess, WandbAccess
from integrations.folder_tracker import FolderTracker, require_told_by_folders
from integrations.place import SCHEMES, Place
from integrations.selection import Criteria, Selection
from integrations.tracker import Into, Tracker
from spectral_edge.errors import UsageError

_RUN_ID: Final = re.compile(r"(?P<experiment>.+)/(?P<run_id>[0-9a-f]{32})")  # experiment names may hold slashes
_WANDB_PATH: Final = re.compile(r"(?P<project>[^/]+/[^/]+)(?:/(?:runs/)?(?P<run_id>[^/]+))?")
_ANY: Final = Criteria()
_NOWHERE: Final[Mapping[str, Place]] = {}


def locate(
    source: str,
    *,
    tracking_uri: str | None = None,
    criteria: Criteria = _ANY,
    into: Into | None = None,
    places: Mapping[str, Place] = _NOWHERE,
) -> tuple[Tracker, Selection]:
    """The tracker that `source` names, and which of its runs. Nothing is asked of the tracker yet.

    Args:
        source: `mlflow:EXPERIMENT` (by name, id or pattern), `mlflow:EXPERIMENT/RUN_ID`, `wandb:ENTITY/PROJECT` (or a
            pattern on the project's name), `wandb:ENTITY/PROJECT/RUN_ID`, `wandb-offline:PATH` or `dir:PATH`. For
            MLflow, what ends in a slash and 32 hexadecimal digits names a run; other slashes belong to the
            experiment's name.
        tracking_uri: For MLflow; None takes MLFLOW_TRACKING_URI, or MLflow's own default.
        criteria: What the runs must be like.
        into: Where annotations go: to the `run` itself, or to a `child` run that belongs to it. None is what the
            tracker does by itself: MLflow and folders `run`, W&B `child`.
        places: Trackers by name: `NAME:EXPERIMENT` and so on are sources too.

    Raises:
        UsageError: `source` is not written like that, and the message says what was probably meant; the tracker cannot
            tell what `criteria` asks for, or cannot write where `into` says; or its library is not installed.
    """
    scheme, colon, rest = source.partition(":")
    place = places.get(scheme) or (Place(scheme) if scheme in SCHEMES else None)
    if not colon or place is None or not rest.strip():
        raise _not_a_source(source, places)
    wanted = _Wanted(tracking_uri, criteria, into, place.access, places)
    return _LOCATORS[place.kind](source, place.whole(rest), wanted)


@dataclass(frozen=True)
class _Wanted:
    """What the caller of :func:`locate` asks for beside the source."""

    tracking_uri: str | None
    criteria: Criteria
    into: Into | None
    access: MlflowAccess | WandbAccess | None = None
    places: Mapping[str, Place] = field(default_factory=dict)


_Located = tuple[Tracker, Selection]


def _folder(source: str, rest: str, wanted: _Wanted) -> _Located:
    if wanted.into == "child":
        raise UsageError(
            f"`into` is child, and {source} is a folder: its runs have no child runs.",
            next_step="leave --into out (results lie in a folder spectral_edge/ of their own), or use --annotate none.",
        )
    require_told_by_folders(wanted.criteria)
    return FolderTracker(), Selection(str(Path(rest).expanduser()), criteria=wanted.criteria)


def _mlflow(_source: str, rest: str, wanted: _Wanted) -> _Located:
    from integrations.mlflow_tracker import MlflowTracker  # noqa: PLC0415 - takes seconds, and not every source needs it

    access = wanted.access if isinstance(wanted.access, MlflowAccess) else None
    tracker = MlflowTracker(wanted.tracking_uri, wanted.into or "run", access)
    named = _RUN_ID.fullmatch(rest)
    if named:
        return tracker, Selection(named["experiment"], (named["run_id"],), wanted.criteria)
    return tracker, Selection(rest, criteria=wanted.criteria)


def _wandb(source: str, rest: str, wanted: _Wanted) -> _Located:
    _require_wandb(source)
    from integrations.wandb_tracker import WandbTracker  # noqa: PLC0415 - not everybody has wandb, and it takes a second

    named = _WANDB_PATH.fullmatch(rest)
    if named is None:
        raise _not_a_source(source, wanted.places)
    access = wanted.access if isinstance(wanted.access, WandbAccess) else None
    tracker = WandbTracker(wanted.into or "child", access)
    run_ids = (named["run_id"],) if named["run_id"] else ()
    return tracker, Selection(named["project"], run_ids, wanted.criteria)


def _wandb_offline(source: str, rest: str, wanted: _Wanted) -> _Located:
    _require_wandb(source)
    from integrations.wandb_offline import WandbOfflineTracker  # noqa: PLC0415 - as above

    if wanted.into == "run":
        raise UsageError(
            f"`into` is run, and {source} holds runs that were not sent to a server: their logs are not written to.",
            next_step="leave --into out: results go to a folder beside the run's, which `wandb sync` uploads.",
        )
    return WandbOfflineTracker(), Selection(str(Path(rest).expanduser()), criteria=wanted.criteria)


def _require_wandb(source: str) -> None:
    missing = [name for name in ("wandb", "xxhash") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{source} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            next_step='pip install "spectral-edge[wandb]"',
        )


_LOCATORS: Final[Mapping[str, Callable[[str, str, _Wanted], _Located]]] = {
    "mlflow": _mlflow,
    "wandb": _wandb,
    "wandb-offline": _wandb_offline,
    "dir": _folder,
}


def _not_a_source(source: str, places: Mapping[str, Place] = _NOWHERE) -> UsageError:
    scheme, colon, rest = source.partition(":")
    known = {**SCHEMES, **{name: SCHEMES[it.kind].replace(f"{it.kind}:", f"{name}:") for name, it in places.items()}}
    close = get_close_matches(scheme.lower(), known, n=1)
    if colon and scheme in known:
        meant = known[scheme]
    elif colon and close:
        meant = f"{close[0]}:{rest}"
    elif source and Path(source).expanduser().exists():
        meant = f"dir:{source}"
    else:
        meant = " or ".join(SCHEMES.values())
    return UsageError(
        f"`source` must be written as one of {', '.join(known.values())}; got {source!r}.",
        next_step=f"write {meant}.",
    )
