"""One picture: the AUC of each statistic between phases, with intervals over runs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import altair as alt
import pyarrow as pa

from benchmarks.replication.table import Table

SHOWN: Final = (
    "A sigma2 plain",
    "A sigma2 capped",
    "A sigma2 plain op",
    "A sigma2 capped op",
    "A lambda capped",
    "||dG||/trG",
    "||dG||/trG, own history",
    "update norm",
)
CONTRASTS: Final = ("rise / plateau", "at / plateau", "post / at", "forgetting / quiet", "rise+at / memorising")


def draw(table: Table, part: str, file: Path) -> None:
    """Dots and intervals by statistic, a column a contrast."""
    rows = [
        dict(row)
        for row in table.rows
        if row["runs"] == part and row["statistic"] in SHOWN and row["contrast"] in CONTRASTS
    ]
    if not rows:
        return
    base = alt.Chart().encode(y=alt.Y("statistic:N", sort=list(SHOWN), title=None))
    scale = alt.Scale(domain=[0, 1])
    layers = alt.layer(
        alt.Chart().mark_rule(color="#999", strokeDash=[3, 3]).encode(x=alt.datum(0.5)),
        base.mark_rule(strokeWidth=2, color="#4c78a8").encode(x=alt.X("low:Q", scale=scale, title="AUC"), x2="high:Q"),
        base.mark_point(filled=True, size=45, color="#4c78a8", opacity=1).encode(x=alt.X("AUC:Q", scale=scale)),
        data=pa.Table.from_pylist(rows),  # of the layers together: with data of its own a layer is not divided by facet
    ).properties(width=150, height=150)
    layers.facet(column=alt.Column("contrast:N", sort=list(CONTRASTS), title=None)).save(str(file), ppi=90)
