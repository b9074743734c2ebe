"""The chart of one run in a notebook: an Altair chart that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, cast

import altair as alt
from PIL import Image

from spectral_edge.report.charts import (
    PNG_SCALE,
    chart,
    chart_without_windows,
    datasets,
    empty_panels,
    png_of,
    printable,
    steps_of,
    svg_of,
    titled,
)
from spectral_edge.report.palette import NOTEBOOK
from spectral_edge.tables import RunTables

MIME: Final = "application/vnd.vegalite.v5+json"
"""What JupyterLab, Notebook 7, VS Code and nteract draw themselves, with what they bring along."""

_SCHEMA: Final = "https://vega.github.io/schema/vega-lite/v5.json"
_LOOKED_AT: Final = {"first": "looked_at.step ? looked_at.step[0] : whole_first"} | {
    "last": "looked_at.step ? looked_at.step[1] : whole_last"
}
"""The steps that panels show follow what is marked in the regime strip; in the page a script sees to that."""


class RunChart(alt.VConcatChart):
    """An Altair chart that shows itself in notebooks without a network.

    Altair's own renderer loads its scripts from the internet. This one hands a front-end the specification, which it
    may draw itself, and an image for those that do not (GitHub, nbviewer, PDF). A renderer that was chosen with
    `altair.renderers.enable` is used instead.
    """

    def png(self) -> bytes:
        """The chart as an image."""
        return small(png_of(svg_of(self.to_dict(validate=False))))

    def _repr_mimebundle_(self, *args: Any, **kwds: Any) -> Any:
        if alt.renderers.active != "default":
            return super()._repr_mimebundle_(*args, **kwds)
        png = self.png()
        data = {
            # Of Vega-Lite 6 the chart uses nothing that 5 does not know (tests/report/test_notebook.py).
            MIME: self.to_dict(validate=False) | {"$schema": _SCHEMA},
            "image/png": base64.b64encode(png).decode(),
            "text/plain": "a chart of spectral-edge; .save('chart.html', inline=True) writes it to a file",
        }
        return data, {"image/png": {"width": shown_width(png)}}


def run_chart(tables: RunTables, group: str | None = None) -> RunChart:
    """The chart of one run for people with a pointer: drag in the strip on top to look at a part of the run.

    Args:
        tables: The run.
        group: The parameter group; when None, that of the change which the verdict names, else `total`.

    Raises:
        UsageError: The run has no such group.
    """
    title, drawn = titled(tables, group)
    if drawn is None:
        said = chart_without_windows(NOTEBOOK, RunChart)
        said.title = printable(title)
        return said
    made = _template(empty_panels(drawn)).copy(deep=False)
    made.title = printable(title)
    made.datasets = printable(datasets(drawn))
    steps = [
        alt.VariableParameter(name=name, **({"expr": _LOOKED_AT[name]} if name in _LOOKED_AT else {"value": value}))
        for name, value in steps_of(drawn).items()
    ]
    made.params = [*steps, *cast("Sequence[Any]", made.params)]
    return made


def small(png: bytes) -> bytes:
    """The same image in 256 colours, in an eighth of the bytes: a notebook keeps it for good.

    The colours are those that come nearest to every one of the image: a rare one, as of a legend, means as much.
    """
    made = io.BytesIO()
    few = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE)
    few.save(made, "png", optimize=True)
    return made.getvalue()


def shown_width(png: bytes) -> int:
    """How wide a PNG of a chart is shown, in pixels."""
    return round(int.from_bytes(png[16:20], "big") / PNG_SCALE)


@lru_cache(maxsize=8)
def _template(without: frozenset[str]) -> RunChart:
    return chart(NOTEBOOK, RunChart, without)
