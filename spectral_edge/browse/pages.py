"""What a browser is shown of a store: pages without a script. The page of a run is that of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup

from spectral_edge import audit_log
from spectral_edge.browse.answers import ROWS_SHOWN, FirstRows
from spectral_edge.browse.runs import ORDERS, RESULTS, Listed, Summary, Wanted
from spectral_edge.errors import SpectralEdgeError
from spectral_edge.query import HELP
from spectral_edge.questions import QUESTIONS
from spectral_edge.report.page import style_policy
from spectral_edge.report.palette import REGIMES
from spectral_edge.report.verdict import lead_phrase, number, probability
from spectral_edge.tables import SCHEMAS

EXAMPLE: Final = "SELECT project, run_name, step, k_star, gap_ratio, regime\nFROM gaps\nWHERE \"group\" = 'total'"


@dataclass(frozen=True)
class Asked:
    """What was asked on the page for SQL, and the answer or what was wrong; neither before anything was asked."""

    sql: str = ""
    rows: int = ROWS_SHOWN
    answer: FirstRows | None = None
    error: SpectralEdgeError | None = None
    seconds: float = 0.0


def overview_page(place: str, wanted: Wanted, found: Listed, about: Summary) -> str:
    """All runs, or those that were looked for.

    Args:
        place: Where the store is.
        wanted: What was looked for.
        found: A page of it.
        about: Of all runs.
    """
    return _render(
        "overview.html",
        place=place,
        wanted=wanted,
        found=found,
        about=about,
        results=RESULTS,
        orders={name: words for name, (words, _) in ORDERS.items()},
        regimes=REGIMES,
        page_address=lambda page: _address("/", _given(replace(wanted, page=page))),
        project_address=lambda project: _address("/", {"project": project}),
        result_address=lambda result: _address("/", {"result": result}),
    )


def query_page(place: str, asked: Asked) -> str:
    """The page for SQL: a field for it, questions with a name, and the answer."""
    told = {"sql": asked.sql}
    return _render(
        "query.html",
        place=place,
        asked=asked,
        example=EXAMPLE,
        tables=[*SCHEMAS, audit_log.TABLE],
        next_step=asked.error.next_step if asked.error and asked.error.next_step != HELP else "",
        questions={name: (one.meaning, _address("/query", {"sql": one.sql})) for name, one in QUESTIONS.items()},
        downloads={
            words: _address(f"/query.{suffix}", told) for suffix, words in (("csv", "CSV"), ("parquet", "Parquet"))
        },
        api=_address("/api/query", told),
    )


def error_page(place: str, error: SpectralEdgeError) -> str:
    """What went wrong, and what to do about it."""
    return _render("error.html", place=place, error=error)


def policy() -> str:
    """The content policy of these pages: a style, a form that asks this server, and nothing else."""
    return f"default-src 'none'; {style_policy(_style())}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(style=Markup(_style()), **values)  # noqa: S704  our own files


def _given(wanted: Wanted) -> dict[str, str]:
    """What a page's address says of `wanted`; nothing where it is as by default."""
    usual = Wanted()
    names = ("search", "project", "result", "order", "page")
    return {name: str(getattr(wanted, name)) for name in names if getattr(wanted, name) != getattr(usual, name)}


def _address(path: str, told: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(told)}" if told else path


@lru_cache(maxsize=1)
def _style() -> str:
    package = files("spectral_edge")
    return "".join(
        package.joinpath(path).read_text(encoding="utf-8") for path in ("report/page.css", "browse/browse.css")
    )


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spectral_edge.browse", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "probability": probability, "lead": _lead}
    return environment


def _lead(row: Mapping[str, Any]) -> str:
    return lead_phrase({**row, "metric_name": row["lead_metric"]}) or "\N{EN DASH}"
