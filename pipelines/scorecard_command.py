"""`spectral-edge scorecard`: the thesis's predictions over the audited runs of a store. Writes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer

from pipelines.terminal import print_json, print_line, print_table, stderr_console, stdout_console
from spectral_edge.errors import NotFoundError, UsageError
from spectral_edge.json_rows import to_json_rows
from spectral_edge.scorecard import (
    Contrast,
    OrgScore,
    Score,
    org_table,
    scorecard_of_org,
    scores_of_store,
    scores_table,
)
from spectral_edge.store import Store
from spectral_edge.suggestions import meant

_OF_RUN = ("prediction", "outcome", "value", "threshold", "n", "group", "why")
_NOTE = "not testable says that something lacks or is left open, not that the claim is wrong; see docs/scorecard.md."


def scorecard(store: str, *, project: str | None = None, run: str | None = None, as_json: bool = False) -> None:
    """Print how many runs each prediction holds in, and with `run` what decided there.

    Args:
        store: Folder or s3:// address.
        project: Only runs of this project; None: all.
        run: Id or name of a run whose own scores are printed too.
        as_json: One JSON document: {"predictions": [...], "runs": [...]}, the second empty without `run`.

    Raises:
        NotFoundError: There is no store, or no run of that project, id or name in it.
        UsageError: Several runs have the name `run`.
    """
    opened = Store.open(store, create=False)
    scores = scores_of_store(opened, project)
    if not scores:
        what = "no audited run" if project is None else f"no audited run of project {project!r}"
        raise NotFoundError(f"the store has {what}.", file=store, next_step=_runs_or(project, _projects(opened)))
    chosen = [] if run is None else _of_run(scores, run, store)
    over_all = scorecard_of_org(scores)
    if as_json:
        tables = {"predictions": org_table(over_all), "runs": scores_table(chosen)}
        print_json({name: json.loads(to_json_rows(table)) for name, table in tables.items()})
        return
    print_table(["prediction", "holds", "fails", "not testable", "share", "lacks"], [_row(one) for one in over_all])
    typer.echo()
    for one in over_all:
        if one.contrast is not None:
            print_line(stdout_console(), f"{one.prediction}:", "bold", _told(one.contrast))
    if chosen:
        typer.echo(f"\n{chosen[0].run.key.run_name}")
        print_table(list(_OF_RUN), scores_table(chosen).to_pylist())
    print_line(stderr_console(), "note:", "yellow", _NOTE)


def _of_run(scores: Sequence[Score], wanted: str, store: str) -> list[Score]:
    """The scores of the run with the id `wanted`, or else of the one with that name."""
    ids = {score.run.key for score in scores if score.run.key.run_id == wanted}
    keys = ids or {score.run.key for score in scores if score.run.key.run_name == wanted}
    if not keys:
        names = {name for score in scores for name in (score.run.key.run_id, score.run.key.run_name)}
        raise NotFoundError(
            "no audited run has this id or name.", run=wanted, file=store, next_step=_runs_or(wanted, names)
        )
    if len(keys) > 1:
        told = ", ".join(sorted(f"{key.project} {key.run_id}" for key in keys))
        raise UsageError(f"{len(keys)} runs are called so: {told}.", run=wanted, next_step="give --project or the id.")
    return [score for score in scores if score.run.key in keys]


def _projects(store: Store) -> set[str]:
    return {project for _, project, _ in store.audits()}


def _runs_or(wanted: str | None, known: set[str]) -> str:
    """The next step after a name that is none of `known`."""
    return f"{meant(wanted, known) if wanted else ''} `spectral-edge runs` lists them.".strip()


def _row(score: OrgScore) -> dict[str, Any]:
    return {
        "prediction": score.prediction,
        "holds": score.holds,
        "fails": score.fails,
        "not testable": score.not_testable,
        "share": str(score.share),
        "lacks": "; ".join(f"{name} ({runs})" for name, runs in score.lacks) or None,
    }


def _told(contrast: Contrast) -> str:
    claimed = contrast.claimed
    counts = f"{claimed.event}: {contrast.more} with {claimed.more}, {contrast.less} with {claimed.less}"
    p_value = "no test" if contrast.p_value is None else f"Fisher's p = {contrast.p_value:.2g}"
    return f"{contrast.outcome}. {counts}; {p_value}. Confounds: {contrast.confounds}."
