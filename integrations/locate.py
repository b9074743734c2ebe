"""From a source, as people write it, to a tracker and a selection of its runs."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from integrations.folder_tracker import FolderTracker, require_told_by_folders
from integrations.mlflow_tracker import MlflowTracker
from integrations.selection import Criteria, Selection
from integrations.tracker import Into, Tracker
from spectral_edge.errors import UsageError

SCHEMES: Final = {
    "mlflow": "mlflow:EXPERIMENT or mlflow:EXPERIMENT/RUN_ID",
    "dir": "dir:PATH",
}
"""The known kinds of source and how each is written."""

_RUN_ID: Final = re.compile(r"(?P<experiment>.+)/(?P<run_id>[0-9a-f]{32})")  # experiment names may hold slashes
_ANY: Final = Criteria()


def locate(
    source: str, *, tracking_uri: str | None = None, criteria: Criteria = _ANY, into: Into = "run"
) -> tuple[Tracker, Selection]:
    """The tracker that `source` names, and which of its runs. Nothing is asked of the tracker yet.

    Args:
        source: `mlflow:EXPERIMENT` (by name, id or pattern), `mlflow:EXPERIMENT/RUN_ID`, or `dir:PATH`. What ends in a
            slash and 32 hexadecimal digits names a run; other slashes belong to the experiment's name.
        tracking_uri: For MLflow; None takes MLFLOW_TRACKING_URI, or MLflow's own default.
        criteria: What the runs must be like.
        into: Where annotations go: to the `run` itself, or to a `child` run of it, which folders do not have.

    Raises:
        UsageError: `source` is not written like that, and the message says what was probably meant; or the tracker
            cannot tell what `criteria` asks for, or has no child runs.
    """
    scheme, colon, rest = source.partition(":")
    if not colon or scheme not in SCHEMES or not rest.strip():
        raise _not_a_source(source)
    if scheme == "dir" and into == "child":
        raise UsageError(
            f"`into` is child, and {source} is a folder: its runs have no child runs.",
            next_step="leave --into out (results lie in a folder spectral_edge/ of their own), or use --annotate none.",
        )
    if scheme == "dir":
        require_told_by_folders(criteria)
        return FolderTracker(), Selection(str(Path(rest).expanduser()), criteria=criteria)
    named = _RUN_ID.fullmatch(rest)
    if named:
        return MlflowTracker(tracking_uri, into), Selection(named["experiment"], (named["run_id"],), criteria)
    return MlflowTracker(tracking_uri, into), Selection(rest, criteria=criteria)


def _not_a_source(source: str) -> UsageError:
    scheme, colon, rest = source.partition(":")
    close = get_close_matches(scheme.lower(), SCHEMES, n=1)
    if colon and scheme in SCHEMES:
        meant = SCHEMES[scheme]
    elif colon and close:
        meant = f"{close[0]}:{rest}"
    elif source and Path(source).expanduser().exists():
        meant = f"dir:{source}"
    else:
        meant = " or ".join(SCHEMES.values())
    return UsageError(
        f"`source` must be written as one of {', '.join(SCHEMES.values())}; got {source!r}.",
        next_step=f"write {meant}.",
    )
