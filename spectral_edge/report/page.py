"""The report: one self-contained HTML file over all runs of a store, and the same page for a single run.

The page needs no network and no server. Its content policy allows only the scripts and the style that are in it, by
their hashes; text from trackers is escaped by the template and is never a key, a path or markup. The part of a run is
packed with its data and built when it is opened, so that a page over 500 runs opens as fast as one over five. Without
JavaScript the overview is there, and the page of a single run but for its charts and downloads.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import vl_convert
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from spectral_edge.report.atomic import write_atomically
from spectral_edge.report.charts import VEGA_LITE, chart_spec
from spectral_edge.report.drawn import GAP_COLUMNS
from spectral_edge.report.last_audit import Before, before_last_audit
from spectral_edge.report.metric_lines import METRIC_COLUMNS, metric_lines
from spectral_edge.report.over_time import changes_in_time, overview_spec, shares_of_regimes
from spectral_edge.report.overview import advice_to, found_in, news_of, projects_of
from spectral_edge.report.packing import packed
from spectral_edge.report.palette import PAGE, REGIMES
from spectral_edge.report.scores import scorecard_view
from spectral_edge.report.verdict import Row, as_mapping, false_alarm_rate
from spectral_edge.report.view import RunView, moment, run_view
from spectral_edge.scoring.evidence import RunFacts
from spectral_edge.scoring.from_store import scores_of_views
from spectral_edge.scoring.score import Score
from spectral_edge.scoring.stored import scores_of_rows
from spectral_edge.store import Store
from spectral_edge.tables import METRICS, RunTables

_KEY: Final = ("tracker", "project", "run_id")


def run_chart_html(tables: RunTables, *, home: str = "") -> str:
    """One run as one HTML file that works offline: verdict, charts by group, tables of changes and scores, settings.

    With `home`, the address of a page with all runs, it leads back there.
    """
    scores = scores_of_rows(RunFacts.of(tables.summary), tables.scorecard.to_pylist())
    return render_page(tables.runs, tables.gaps, tables.transitions, scores, tables.metrics, single=True, home=home)


def content_policy() -> str:
    """The content policy that every page rendered here carries, for a server's header."""
    return _policy(_asset("page.css"), (_vega(), _asset("page.js")))


def style_policy(styles: str) -> str:
    """The part of a content policy that allows this style, and no other."""
    return f"style-src {_hash(styles)}"


def write_report(store: Store, output: Path) -> None:
    """Write the report over all runs of `store` to the file `output`, whole or not at all.

    Runs that an earlier version audited have no scorecard here.

    Raises:
        UsageError: `output` is a folder.
        AccessDeniedError: The file system refuses.
        DiskFullError: No room.
        StoreError: The store cannot be read.
    """
    tables = store.datasets()
    gaps = tables["gaps"].to_table(columns=list(GAP_COLUMNS))
    scores = scores_of_views(tables, earlier=False)
    runs, transitions = tables["runs"].to_table(), tables["transitions"].to_table()
    metrics = tables["metrics"].to_table(columns=list(METRIC_COLUMNS), filter=pc.field("role") != "learning_rate")
    page = render_page(runs, gaps, transitions, scores, metrics, before=before_last_audit(store, runs))
    write_atomically(page, output)


def render_page(
    runs: pa.Table,
    gaps: pa.Table,
    transitions: pa.Table,
    scores: Sequence[Score] = (),
    metrics: pa.Table | None = None,
    *,
    single: bool = False,
    before: Before | None = None,
    home: str = "",
) -> str:
    """The report as HTML.

    Args:
        runs: Rows of table `runs`, one a run.
        gaps: Rows of table `gaps` of these runs; only `GAP_COLUMNS` are read.
        transitions: Rows of table `transitions` of these runs.
        scores: Every prediction on these runs, or on some of them.
        metrics: Rows of table `metrics` of these runs; only `METRIC_COLUMNS` are read. None: there are none.
        single: Leave out the overview; `runs` has one row.
        before: What the store held before the last audit, to say what is new; see :mod:`.last_audit`.
        home: Where the page of a single run leads back to; empty: nowhere.
    """
    views = list(_views(runs, gaps, transitions, METRICS.empty_table() if metrics is None else metrics))
    styles, scripts = _asset("page.css"), (_vega(), _asset("page.js"))
    card = scorecard_view(scores)
    run_page = _environment().get_template("run.html")
    texts = (run_page.render(view=view, single=single, home=home, scores=card.by_run) for view in views)
    sections = [Markup(text) for text in texts]  # noqa: S704  the template has escaped what is not ours
    return (
        _environment()
        .get_template("page.html")
        .render(
            single=single,
            views=views,
            projects=projects_of(views),
            found=found_in(views),
            advice=advice_to(views),
            news=None if before is None else news_of(views, *before),
            failures=[view for view in views if view.error],
            counts={outcome: sum(view.outcome == outcome for view in views) for outcome in _OUTCOMES},
            outcomes=_OUTCOMES,
            audited=_audited([view.row for view in views]),
            versions=sorted({as_mapping(view.row["versions"]).get("spectral-edge", "unknown") for view in views}),
            chance=_by_chance([view.row for view in views if view.outcome in {"change", "none"}]),
            regimes=REGIMES,
            scorecard=card,
            sections=sections,
            packed=[packed(view.groups, "" if single else page) for view, page in zip(views, sections, strict=True)],
            styles=Markup(styles),  # noqa: S704  our own file
            scripts=[Markup(script) for script in scripts],  # noqa: S704  our own file and the bundle of vl-convert
            policy=_policy(styles, scripts),
            chart=chart_spec(PAGE),
            over_time={
                "spec": overview_spec(),
                "shares": shares_of_regimes(views),
                "changes": changes_in_time(views),
            },
        )
    )


_OUTCOMES: Final = {
    "change": "with a reported change",
    "none": "without an established change",
    "short": "too short to test",
    "failed": "failed",
}


def _views(runs: pa.Table, gaps: pa.Table, transitions: pa.Table, metrics: pa.Table) -> Iterator[RunView]:
    """Views in the page's order: by project, then name."""
    windows = _by_run(gaps.select(list(GAP_COLUMNS)))
    changes = _by_run(transitions)
    logged = _by_run(metrics.select(list(METRIC_COLUMNS)))
    rows: Sequence[dict[str, Any]] = runs.to_pylist()
    for row in sorted(rows, key=lambda row: (row["project"], row["run_name"], row["run_id"], row["tracker"])):
        key = tuple(row[name] for name in _KEY)
        found, lines = changes.get(key), metric_lines(logged.get(key, metrics.slice(0, 0)))
        yield run_view(row, windows.get(key, gaps.slice(0, 0)), found.to_pylist() if found else [], lines)


def _by_run(table: pa.Table) -> dict[tuple[str, ...], pa.Table]:
    """Slices of `table` by run, sorted once rather than searched once a run."""
    table = table.sort_by([(name, "ascending") for name in _KEY]).combine_chunks()
    codes = [table.column(name).combine_chunks().dictionary_encode().indices.to_numpy() for name in _KEY]
    begins = np.flatnonzero(np.any([np.diff(code, prepend=-1) for code in codes], axis=0))
    slices = {}
    for begin, end in pairwise([*begins.tolist(), table.num_rows]):
        key = tuple(table.column(name)[begin].as_py() for name in _KEY)
        slices[key] = table.slice(begin, end - begin)
    return slices


def _audited(rows: Sequence[Row]) -> str:
    times = sorted(row["audited_at"] for row in rows if row["audited_at"] is not None)
    if not times:
        return ""
    first, last = moment(times[0]), moment(times[-1])
    return last if first == last else f"{first} to {last}"


def _by_chance(rows: Sequence[Row]) -> dict[str, float | int] | None:
    """How many of the tested runs would be reported by chance if none had a change; None when a rate is unknown."""
    rates = [false_alarm_rate(row) for row in rows]
    known = [rate for rate in rates if rate is not None]
    return {"runs": len(rows), "expected": sum(known)} if known and len(known) == len(rates) else None


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spectral_edge.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = _json
    environment.filters["zip"] = partial(zip, strict=True)
    return environment


def _json(value: object) -> Markup:
    """JSON that may stand inside a script element: no `<`, `>`, `&`, and ASCII only."""
    return htmlsafe_json_dumps(value, separators=(",", ":"), allow_nan=False)


def _asset(name: str) -> str:
    return files("spectral_edge.report").joinpath(name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _vega() -> str:
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(styles: str, scripts: Sequence[str]) -> str:
    """The content policy: nothing but what is in the file, named by hash; nothing evaluated, nothing fetched."""
    sources = " ".join(_hash(script) for script in scripts)
    return f"default-src 'none'; script-src {sources}; {style_policy(styles)}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
