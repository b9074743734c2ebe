"""The names that audits write to runs, for docs/what-is-written.md: from the code that writes them."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
from settings_reference import cell

from integrations.annotations import METRIC_QUANTITIES, TAG_COLUMNS
from integrations.tracker import OUR_NAME
from spectral_edge.tables import GAPS, RUNS

BEGIN: Final = "<!-- `make reference` writes from here ... -->"
END: Final = "<!-- ... to here, from integrations/annotations.py and spectral_edge/tables.py -->"


def with_names(page: str) -> str:
    """`page` with the tables between the two marks made anew.

    Raises:
        ValueError: The marks are not there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("docs/what-is-written.md lacks the marks between which names are written")
    return f"{before}{BEGIN}\n\n{names()}\n\n{END}{after}"


def names() -> str:
    """The tables of metrics and of tags."""
    metrics = [f"| metric `{OUR_NAME}/<group>/…` | unit | meaning |", "|---|---|---|"]
    for quantity in METRIC_QUANTITIES:
        column, _, place = quantity.partition("/")
        unit, meaning = _facts(GAPS.field(column))
        which = f"; number {place} of the list" if place else ""
        metrics.append(f"| `{quantity.replace('/', '_')}` | {unit} | {cell(meaning)}{which} |")
    tags = [f"| tag `{OUR_NAME}.…` | meaning |", "|---|---|"]
    tags += [f"| `{column}` | {cell(_facts(RUNS.field(column))[1])} |" for column in TAG_COLUMNS]
    return "\n".join([*metrics, "", *tags])


def _facts(field: pa.Field) -> tuple[str, str]:
    facts = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return facts.get("unit", ""), facts["meaning"]
